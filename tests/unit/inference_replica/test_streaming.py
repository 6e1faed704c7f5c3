"""What a stream leaves behind when it ends early."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard_inference.replica.errors import InvalidTensor, ModelFailed, ReplicaNotReady
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.lifecycle import Lifecycle, State
from modelyard_inference.replica.streaming import Streaming

STRICT = Call(None, (("triton_grpc_error", "true"),))
LENIENT = Call(None, ())
NAMES: Any = SimpleNamespace(name="prod.ml.iris", version="1")


class Place:
    """A stream of a ready replica that answers `ok` and never `waits`; what is `stubborn` fails when nobody waits any more."""

    def __init__(self) -> None:
        self.lifecycle = Lifecycle()
        self.lifecycle.move(State.READY)
        self.begun: list[bytes] = []
        self.ended: list[bytes] = []
        self.streaming = Streaming(NAMES, self.lifecycle, self.predict)

    async def predict(self, body: bytes, _call: Call) -> bytes:
        self.begun.append(body)
        try:
            if body == b"wrong":
                raise InvalidTensor("x", "is odd")
            if body == b"waits":
                await asyncio.Event().wait()
            if body == b"stubborn":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError as error:
                    raise ModelFailed("id") from error
            await asyncio.sleep(0)
            return body
        finally:
            self.ended.append(body)

    async def answers(self, call: Call, *bodies: bytes, ends: bool = True) -> list[bytes]:
        async def sent() -> AsyncIterator[bytes]:
            for body in bodies:
                yield body
            if not ends:
                await asyncio.Event().wait()

        async with aclosing(self.streaming.answer(sent(), call)) as stream:
            return [answer async for answer in stream]


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
async def complaints() -> Any:
    """What asyncio reports while a test runs."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_strict_stream_forgets_what_failed_behind_the_first_failure(
    place: Place, complaints: list[Any]
) -> None:
    with pytest.raises(InvalidTensor):
        await place.answers(STRICT, b"ok", b"wrong", b"stubborn", b"wrong", b"waits", ends=False)
    await settle()
    gc.collect()
    assert sorted(place.ended) == sorted(place.begun) == [b"ok", b"stubborn", b"waits", b"wrong", b"wrong"]
    assert complaints == []


async def test_a_reader_that_fails_fails_the_stream(place: Place, complaints: list[Any]) -> None:
    async def sent() -> AsyncIterator[bytes]:
        yield b"ok"
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        [answer async for answer in place.streaming.answer(sent(), LENIENT)]
    await settle()
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize("draining", [False, True])
async def test_a_stream_that_is_cancelled_at_any_step_is_cancelled(
    draining: bool, complaints: list[Any]
) -> None:
    finished = 0
    for step in range(40):
        place = Place()
        task = asyncio.ensure_future(place.answers(LENIENT, b"ok", b"wrong", b"ok", ends=not draining))
        for _ in range(step):
            await asyncio.sleep(0)
        if draining and step % 2:
            place.lifecycle.move(State.DRAINING)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        elif draining:
            assert isinstance(task.exception(), ReplicaNotReady)
        else:
            finished += len(task.result()) == 3
        await settle()
        assert sorted(place.ended) == sorted(place.begun)
    assert draining or finished
    gc.collect()
    assert complaints == []
