"""A stream of predictions for its caller, over calls that break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from modelyard import errors
from modelyard._prediction_stream import PredictionStream, each
from modelyard.api.oip.v2.grpc_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

Pieces = Callable[[], AsyncIterator[ModelInferRequest]]


class Service:
    """Answers each call a few times, then breaks it off or ends it."""

    def __init__(self, *answered: int, then: Exception | None = None) -> None:
        self.answered = list(answered)
        self.then = then
        self.sent: list[list[str]] = []

    async def call(self, pieces: Pieces) -> AsyncGenerator[ModelStreamInferResponse]:
        left = self.answered.pop(0) if self.answered else 10**6
        sent: list[str] = []
        self.sent.append(sent)
        if left == 0 and self.then:
            raise self.then
        async for request in pieces():
            sent.append(request.id)
            yield ModelStreamInferResponse(infer_response=ModelInferResponse(id=request.id))
            left -= 1
            if left == 0:
                if self.then:
                    raise self.then
                return


async def numbers(count: int) -> AsyncIterator[ModelInferRequest]:
    for number in range(count):
        yield ModelInferRequest(id=str(number))


async def ids(service: Service, requests: Any, patience: float = 60.0) -> list[str]:
    stream = PredictionStream(service.call, patience)
    return [answer.infer_response.id async for answer in stream.answers(requests)]


LOST = errors.Unavailable("replica is draining")


@pytest.mark.parametrize("count", [0, 1, 100])
async def test_every_request_is_answered_once_and_in_order(count: int) -> None:
    assert await ids(Service(), numbers(count)) == [str(number) for number in range(count)]


@pytest.mark.parametrize("then", [LOST, None])
async def test_what_a_call_left_unanswered_is_sent_on_the_next(then: Exception | None) -> None:
    service = Service(3, 1, 5, then=then)
    assert await ids(service, numbers(20)) == [str(number) for number in range(20)]
    assert [sent[0] for sent in service.sent] == ["0", "3", "4", "9"]


async def test_a_call_that_has_ended_keeps_nothing_from_the_next() -> None:
    """`grpc.aio` waits for further requests of a call whose answers have ended."""
    left: list[asyncio.Future[None]] = []

    async def call(pieces: Pieces) -> AsyncGenerator[ModelStreamInferResponse]:
        sent: asyncio.Queue[str] = asyncio.Queue()

        async def send() -> None:
            async for request in pieces():
                sent.put_nowait(request.id)
            sent.put_nowait("")

        left.append(asyncio.ensure_future(send()))
        for _ in range(2):
            if not (asked := await sent.get()):
                return
            yield ModelStreamInferResponse(infer_response=ModelInferResponse(id=asked))
        raise LOST

    heard: list[str] = []
    more = asyncio.Event()

    async def one_after_the_other() -> AsyncIterator[ModelInferRequest]:
        for number in range(7):
            yield ModelInferRequest(id=str(number))
            await more.wait()
            more.clear()

    async with asyncio.timeout(30):
        async for answer in PredictionStream(call, 60.0).answers(one_after_the_other()):
            heard.append(answer.infer_response.id)
            more.set()
        await asyncio.gather(*left)
    assert heard == ["0", "1", "2", "3", "4", "5", "6"]


async def test_a_refusal_ends_it_after_what_was_answered() -> None:
    service = Service(2, then=errors.InvalidTensor("no"))
    stream = PredictionStream(service.call, 60.0).answers(numbers(9))
    assert [(await anext(stream)).infer_response.id for _ in range(2)] == ["0", "1"]
    with pytest.raises(errors.InvalidTensor):
        await anext(stream)


async def test_calls_that_are_lost_again_and_again_end_it() -> None:
    with pytest.raises(errors.Unavailable):
        await ids(Service(*[0] * 1000, then=LOST), numbers(3), patience=0.1)


async def test_what_fails_among_the_requests_reaches_the_caller() -> None:
    async def broken() -> AsyncIterator[ModelInferRequest]:
        yield ModelInferRequest(id="0")
        raise ZeroDivisionError

    stream = PredictionStream(Service().call, 60.0).answers(broken())
    assert (await anext(stream)).infer_response.id == "0"
    with pytest.raises(ZeroDivisionError):
        await anext(stream)


async def test_requests_may_depend_on_answers() -> None:
    heard: list[str] = []
    more = asyncio.Event()

    async def one_after_the_other() -> AsyncIterator[ModelInferRequest]:
        for number in range(5):
            yield ModelInferRequest(id=str(number))
            await more.wait()
            more.clear()

    async for answer in PredictionStream(Service().call, 60.0).answers(one_after_the_other()):
        heard.append(answer.infer_response.id)
        more.set()
    assert heard == ["0", "1", "2", "3", "4"]


async def test_items_of_any_iterable() -> None:
    async def asynchronous() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert [item async for item in each([1, 2])] == [1, 2]
    assert [item async for item in each(iter((None, 2)))] == [None, 2]
    assert [item async for item in each(asynchronous())] == [1, 2]
