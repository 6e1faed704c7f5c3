"""Predictions over one stream that outlives the replicas that answer it.

Before a replica ends it answers what it has begun and ends the stream. What is not answered then is sent again on a new stream,
which another replica takes; predictions change nothing, so one may be made twice.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from modelyard._watch import is_loss
from modelyard.errors import ModelyardError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable

    from modelyard.api.oip.v2.grpc_inference_pb2 import ModelInferRequest, ModelStreamInferResponse

    Requests = AsyncIterator[ModelInferRequest]
    Answers = AsyncGenerator[ModelStreamInferResponse]

STRICT = (("triton_grpc_error", "true"),)
"""Metadata that has a failure end the stream with its status, instead of a text in the place of the answer."""
_UNANSWERED = 32
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 2.0
_END: Any = object()


class PredictionStream:
    """One stream for its caller, however many calls that takes."""

    def __init__(self, open_call: Callable[[Callable[[], Requests]], Answers], patience: float) -> None:
        """Prepare; nothing is sent yet.

        Args:
            open_call: Makes a call that sends what its argument gives.
            patience: Seconds after the last answer during which lost calls are repeated.
        """
        self._open_call = open_call
        self._patience = patience
        self._places = asyncio.Semaphore(_UNANSWERED)
        self._coming: deque[ModelInferRequest] = deque()
        self._unanswered: deque[ModelInferRequest] = deque()
        self._last = False
        """Whether no more requests are coming."""
        self._news = asyncio.Event()
        """Whether there is something for the newest call to do."""
        self._calls = 0

    async def answers(self, requests: Requests) -> Answers:
        """Send requests and give their answers in the same order.

        Raises:
            ModelyardError: a request failed, or nobody answered for too long.
        """
        feeding = asyncio.ensure_future(self._feed(requests))
        loop = asyncio.get_running_loop()
        last, pause = loop.time(), _FIRST_PAUSE_SECONDS
        try:
            while not self._last or self._coming or self._unanswered:
                try:
                    async with aclosing(self._open_call(self._pieces)) as answers:
                        async for answer in answers:
                            self._unanswered.popleft()
                            self._places.release()
                            yield answer
                            last, pause = loop.time(), _FIRST_PAUSE_SECONDS
                except ModelyardError as error:
                    if not is_loss(error) or loop.time() - last > self._patience:
                        raise
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads clients, guards nothing)
                    pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            await feeding
        finally:
            feeding.cancel()
            self._calls += 1
            self._news.set()

    async def _feed(self, requests: Requests) -> None:
        try:
            async for request in requests:
                await self._places.acquire()
                self._coming.append(request)
                self._news.set()
        finally:
            self._last = True
            self._news.set()

    async def _pieces(self) -> Requests:
        """What one call sends: first what the call before it left unanswered.

        `grpc.aio` goes on asking for the requests of a call that has ended, so what it is given must not be missing in the next one.
        """
        self._calls += 1
        call = self._calls
        for request in tuple(self._unanswered):
            yield request
        while True:
            await self._news.wait()
            if call != self._calls:
                return
            if self._coming:
                self._unanswered.append(self._coming.popleft())
                yield self._unanswered[-1]
            elif self._last:
                return
            else:
                self._news.clear()


async def each(items: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    """The items of any iterable; one that is not asynchronous may wait, so it is asked in a thread."""
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
        return
    iterator = iter(items)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield item
