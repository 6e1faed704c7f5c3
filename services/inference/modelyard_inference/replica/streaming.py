"""Predictions over one stream: answers in the order of the requests, several of which are worked on at once.

What is in progress is bounded, so a caller that sends faster than the model answers is held back by flow control. When the
replica drains, what was begun is answered and the stream ends with REPLICA_NOT_READY: the caller sends the rest elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from google.protobuf.message import DecodeError

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard_inference.replica.contract import Contract
from modelyard_inference.replica.errors import ReplicaNotReady
from modelyard_inference.replica.front import Call, Unary, refusal
from modelyard_inference.replica.lifecycle import Lifecycle
from modelyard_inference.replica.serving import request_id_of

_IN_PROGRESS: Final = 16
_STRICT: Final = ("triton_grpc_error", "true")
"""Metadata of a caller that wants a failure to end the stream with its status, as Triton's clients send it."""
_METHOD: Final = "ModelStreamInfer"

Begun = tuple[bytes, asyncio.Future[bytes]]
"""A request and its answer to come."""


class Streaming:
    """Answers streams of encoded ModelInferRequests with encoded ModelStreamInferResponses."""

    def __init__(self, contract: Contract, lifecycle: Lifecycle, predict: Unary) -> None:
        self._contract = contract
        self._lifecycle = lifecycle
        self._predict = predict

    async def answer(self, bodies: AsyncIterator[bytes], call: Call) -> AsyncGenerator[bytes, None]:
        """Answer one stream.

        Raises:
            ReplicaNotReady: the replica is starting or draining.
            DomainError: a request failed, and the caller wants the stream to end then.
        """
        if not self._lifecycle.ready:
            raise ReplicaNotReady(self._lifecycle.state.value)
        strict = _STRICT in call.metadata
        async with aclosing(self._begin_each(bodies, call)) as begun:
            async for body, answer in begun:
                try:
                    yield _answered(await answer)
                except Exception as error:
                    if strict or isinstance(error, ReplicaNotReady):
                        raise
                    yield self._refused(body, call, error)
        if not self._lifecycle.ready:
            raise ReplicaNotReady(self._lifecycle.state.value)

    async def _begin_each(self, bodies: AsyncIterator[bytes], call: Call) -> AsyncGenerator[Begun, None]:
        """Begin what is read, until the caller has no more or this replica drains; a place is free again when the next is asked for."""
        places = asyncio.Semaphore(_IN_PROGRESS)
        begun: asyncio.Queue[Begun | None] = asyncio.Queue()

        async def read() -> None:
            try:
                await places.acquire()
                async for body in bodies:
                    begun.put_nowait((body, asyncio.ensure_future(self._predict(body, call))))
                    await places.acquire()
            finally:
                begun.put_nowait(None)

        reading = asyncio.ensure_future(read())
        draining = asyncio.ensure_future(self._until_draining())
        draining.add_done_callback(lambda _: reading.cancel())
        try:
            while (one := await begun.get()) is not None:
                yield one
                places.release()
            # Not `await reading`: its own cancellation, by draining, could not be told from one of this stream.
            await asyncio.wait((reading,))
            if not reading.cancelled():
                reading.result()
        finally:
            draining.cancel()
            reading.cancel()
            reading.add_done_callback(lambda _: _abandon(reading, begun))

    async def _until_draining(self) -> None:
        change = self._lifecycle.change
        while self._lifecycle.ready:
            await change.wait()
            change = self._lifecycle.change

    def _refused(self, body: bytes, call: Call, error: Exception) -> bytes:
        told = refusal(error, _METHOD, request_id_of(call.metadata))
        answer = pb.ModelInferResponse(
            model_name=self._contract.name, model_version=self._contract.version, id=_id_of(body)
        )
        return pb.ModelStreamInferResponse(
            error_message=told.message, infer_response=answer
        ).SerializeToString()


def _abandon(reading: asyncio.Future[None], begun: asyncio.Queue[Begun | None]) -> None:
    """Let go of what was begun and nobody waits for, also of what has failed."""
    _forget(reading)
    while not begun.empty():
        if (left := begun.get_nowait()) is not None:
            left[1].cancel()
            left[1].add_done_callback(_forget)


def _forget(done: asyncio.Future[Any]) -> None:
    """Take note of a failure, which asyncio would report otherwise."""
    if not done.cancelled():
        done.exception()


def _id_of(body: bytes) -> str:
    try:
        return pb.ModelInferRequest.FromString(body).id
    except DecodeError:
        return ""


def _answered(answer: bytes) -> bytes:
    """Return the encoded response around an encoded answer, which may be large: field 2, its length, its bytes.

    See https://protobuf.dev/programming-guides/encoding/.
    """
    length, left = bytearray(), len(answer)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    length.append(left)
    return b"\x12" + bytes(length) + answer
