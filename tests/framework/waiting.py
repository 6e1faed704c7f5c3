"""Waiting for what happens by itself: for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 60.0


async def eventually(
    holds: Callable[[], object] | Callable[[], Awaitable[object]], *, seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait until a condition holds.

    Args:
        holds: tells, by itself or when awaited, with anything that is true or not.
        seconds: after which it is taken never to hold.

    Raises:
        TimeoutError: it did not hold.
    """
    async with asyncio.timeout(seconds):
        while True:
            answer = holds()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.02)


def wait_until(holds: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Do the same where nothing is awaited."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not hold within {seconds:g} s")
        time.sleep(0.02)
