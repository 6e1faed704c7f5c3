"""Answers of watches whose caller goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from modelyard_kit.interceptors import _hand_over


class Context:
    """Stands in for a call of gRPC, of which only a write that fails late is needed."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def write(self, _response: object) -> None:
        self.begun.set()
        await self.failure


async def test_a_write_that_fails_after_its_caller_went_is_no_error_of_the_service() -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))
    context = Context()
    sending = asyncio.create_task(_hand_over(context, "answer"))
    await context.begun.wait()
    sending.cancel()
    await asyncio.sleep(0)
    context.failure.set_exception(RuntimeError("the connection is gone"))
    with pytest.raises(asyncio.CancelledError):
        await sending
    del sending, context
    await asyncio.sleep(0)
    assert not logged
