"""The loop of the reconciler ends when it is told to."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from modelyard_inference.reconciler import Reconciler


@pytest.mark.parametrize("turns", range(4))
async def test_an_end_that_comes_with_news_is_heard(turns: int) -> None:
    """Whichever turn of the loop it comes in, after something woke it."""
    nothing: Any = None
    wake = asyncio.Event()
    second = timedelta(seconds=1)
    reconciler = Reconciler(nothing, nothing, nothing, nothing, sole=nothing, wake=wake, start_timeout=second)
    resting = asyncio.create_task(reconciler._rest())
    for _ in range(3):
        await asyncio.sleep(0)
    wake.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    if not resting.cancel():
        return  # it has ended already
    with pytest.raises(asyncio.CancelledError):
        await resting
