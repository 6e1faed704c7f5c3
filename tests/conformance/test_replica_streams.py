"""ModelStreamInfer of a replica, over real gRPC on a Unix socket and with Triton's client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard_inference.replica.app import Replica
from tests.conformance.replicas import DEPLOYMENT, iris_model, iris_rows
from tests.conformance.test_replica_oip import (  # noqa: F401 - fixtures
    array_of,
    channel_to,
    exists,
    iris,
    make_front,
    odd,
    reason_of,
    request_of,
    sockets,
)
from tests.framework.waiting import eventually


def row(number: int) -> pb.ModelInferRequest:
    return request_of(("x", "FP32", iris_rows()[number : number + 1]), id=str(number))


async def test_each_request_is_answered_in_its_turn(iris: Replica) -> None:  # noqa: F811
    async with channel_to(iris) as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(map(row, range(100)))
        answers = [answer async for answer in stream]
    assert not any(answer.error_message for answer in answers)
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(100)]
    labels = [array_of(answer.infer_response)[0] for answer in answers]
    assert labels == iris_model().predict(iris_rows()[:100]).tolist()
    assert iris.lifecycle.in_flight == 0


async def test_an_answer_does_not_wait_for_the_end_of_the_stream(iris: Replica) -> None:  # noqa: F811
    async with channel_to(iris) as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer()
        for number in range(3):
            await stream.write(row(number))
            answer = await stream.read()
            assert answer.infer_response.id == str(number)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


@pytest.mark.parametrize("large", [1, 200, 40_000])
async def test_answers_of_any_size(odd: Replica, large: int) -> None:  # noqa: F811
    texts = np.array([[b"x" * large]], object)
    request = request_of(("t", "BYTES", texts), method="texts", id="large")
    async with channel_to(odd) as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer([request])
        [answer] = [answer async for answer in stream]
    assert array_of(answer.infer_response).tolist() == [[b"x" * large]]


async def test_a_request_that_fails_is_told_and_the_stream_goes_on(iris: Replica) -> None:  # noqa: F811
    wrong = request_of(("x", "FP32", np.ones((1, 3))), id="wrong")
    unknown = row(2)
    unknown.model_name = "prod.ml.other"
    async with channel_to(iris) as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer([row(0), wrong, unknown, row(1)])
        answers = [answer async for answer in stream]
    told = [(answer.infer_response.id, bool(answer.error_message)) for answer in answers]
    assert told == [("0", False), ("wrong", True), ("2", True), ("1", False)]
    assert "unexpected shape for input 'x'" in answers[1].error_message
    assert "unknown model" in answers[2].error_message
    assert {answer.infer_response.model_name for answer in answers} == {DEPLOYMENT}


async def test_a_strict_stream_ends_with_the_status_of_what_failed(iris: Replica) -> None:  # noqa: F811
    wrong = request_of(("x", "FP32", np.ones((1, 3))))
    async with channel_to(iris) as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(
            [row(0), wrong, row(1)], metadata=(("triton_grpc_error", "true"),)
        )
        assert (await stream.read()).infer_response.id == "0"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value).reason == "INVALID_TENSOR"


async def test_a_caller_that_is_fast_is_held_back(odd: Replica) -> None:  # noqa: F811
    sent = 0

    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        nonlocal sent
        for sent in range(1, 101):
            yield request_of(("x", "FP32", np.ones(1 if sent == 1 else 0)), method="wait")

    async with channel_to(odd) as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(requests())
        await exists(odd.config.model_directory / "started")
        await eventually(lambda: sent == 100)  # they are small: flow control lets them travel
        assert 0 < odd.lifecycle.in_flight <= 16
        (odd.config.model_directory / "release").touch()
        assert len([answer async for answer in stream]) == 100


async def test_a_caller_that_is_gone_leaves_nothing_behind(odd: Replica) -> None:  # noqa: F811
    async with channel_to(odd) as channel:
        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer()
        await stream.write(request_of(("x", "FP32", np.ones(1)), method="wait"))
        await exists(odd.config.model_directory / "started")
        await stream.write(request_of(("x", "FP32", np.ones(1)), method="wait"))
        await eventually(lambda: odd.lifecycle.in_flight == 2)
        stream.cancel()
        await eventually(lambda: odd.lifecycle.in_flight == 0)
        (odd.config.model_directory / "release").touch()
        answer = await GRPCInferenceServiceStub(channel).ModelInfer(
            request_of(("x", "FP32", np.ones(1)), method="picky")
        )
    assert array_of(answer).tolist() == [1]


async def test_drains(odd: Replica) -> None:  # noqa: F811
    """What was begun is answered; then the stream ends in a way that says: ask another."""
    async with channel_to(odd) as channel:
        stub = GRPCInferenceServiceStub(channel)
        idle, busy = stub.ModelStreamInfer(), stub.ModelStreamInfer()
        await idle.write(request_of(("x", "FP32", np.ones(1)), method="picky"))
        assert (await idle.read()).infer_response.model_name == DEPLOYMENT
        await busy.write(request_of(("x", "FP32", np.ones(2)), method="wait", id="begun"))
        await exists(odd.config.model_directory / "started")
        draining = asyncio.ensure_future(odd.drain())
        assert await ending(idle) == "REPLICA_NOT_READY"
        assert await ending(stub.ModelStreamInfer()) == "REPLICA_NOT_READY"
        (odd.config.model_directory / "release").touch()
        assert (await busy.read()).infer_response.id == "begun"
        assert await ending(busy) == "REPLICA_NOT_READY"
        await draining


async def ending(stream: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return reason_of(caught.value).reason


async def test_streams_of_tritons_client(iris: Replica) -> None:  # noqa: F811
    def together() -> list[Any]:
        answers: list[Any] = []
        with tritonclient.grpc.InferenceServerClient(iris.config.listen) as client:
            client.start_stream(lambda result, error: answers.append(error or result))
            for number, width in enumerate((4, 3, 4)):
                given = tritonclient.grpc.InferInput("x", [1, width], "FP32")
                given.set_data_from_numpy(iris_rows()[number : number + 1, :width])
                client.async_stream_infer(DEPLOYMENT, [given], request_id=str(number))
            client.stop_stream()
        return answers

    first, wrong, last = await asyncio.to_thread(together)
    assert (first.get_response().id, last.get_response().id) == ("0", "2")
    assert first.as_numpy("label").tolist() == [0]
    assert isinstance(wrong, InferenceServerException)
    assert "unexpected shape for input 'x'" in str(wrong)
