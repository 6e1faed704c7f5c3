"""Waiting for what happens by itself: for a condition, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator

PATIENCE_SECONDS = 60.0
# To ask again too soon takes the processor from what is being waited for.
_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 0.01, 1.5, 0.2


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
    pauses = _pauses()
    async with asyncio.timeout(seconds):
        while True:
            answer = holds()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(next(pauses))


def wait_until(holds: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Do the same where nothing is awaited."""
    deadline, pauses = time.monotonic() + seconds, _pauses()
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not hold within {seconds:g} s")
        time.sleep(next(pauses))


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * _GROWTH, _LONGEST_PAUSE)
