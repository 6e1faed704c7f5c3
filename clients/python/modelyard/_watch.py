"""What watches have in common: streams that are opened again when their connection is lost."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from modelyard.errors import Cancelled, DeadlineExceeded, ModelyardError, TooManyWatches, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

A = TypeVar("A")

# The service is heard of every few seconds; a connection that stays silent for so long is dead.
SILENCE_SECONDS = 90.0
# The service ends a watch before that, so that its token is checked again.
CALL_SECONDS = 3600.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0


async def follow(open_stream: Callable[[], AsyncGenerator[A]]) -> AsyncGenerator[A]:
    """The answers of a watch without an end: it is opened again when it ended or was lost.

    Args:
        open_stream: Opens it, where the answers taken so far ended.

    Raises:
        ModelyardError: it was refused, or there was nobody from the beginning.
    """
    answered = False
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            async with aclosing(_heard(open_stream())) as answers:
                async for answer in answers:
                    answered, pause = True, _FIRST_PAUSE_SECONDS
                    yield answer
        except (ModelyardError, TimeoutError) as error:
            # A wrong address is worth telling; a service that was there comes back.
            if not answered or not is_loss(error):
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads clients, guards nothing)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def _heard(answers: AsyncGenerator[A]) -> AsyncGenerator[A]:
    try:
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                answer = await anext(answers, None)
            if answer is None:
                return
            yield answer
    finally:
        await answers.aclose()


def is_loss(error: ModelyardError | TimeoutError) -> bool:
    """Whether a watch broke rather than was refused.

    A proxy resets the streams of a service that dies, which reads as INTERNAL or UNKNOWN; the service itself gives a reason.
    After a loss there may be too many watches for a while, as the service still counts those that it has not seen break.
    """
    if isinstance(error, (Cancelled, DeadlineExceeded, TimeoutError, TooManyWatches, Unavailable)):
        return True
    return not error.reason and error.code in {"INTERNAL", "UNKNOWN"}
