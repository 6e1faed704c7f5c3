"""Streams of predictions through a real Envoy: nothing is held back, and the same rules hold as for single ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from modelyard import _status, errors
from modelyard._refusals import FirstStatus
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard_kit.auth import Principal
from tests.conformance.gateway_stack import ADA, BOB, GatewayStack, gateway_stack, route

IRIS = "prod.ml.iris"
TIMEOUT = 0.5
MAX_BYTES = 50_000
PATHS = [
    f"/{service}/ModelStreamInfer"
    for service in ("inference.GRPCInferenceService", "modelyard.api.oip.v2.GRPCInferenceService")
]


@pytest.fixture
async def serving() -> AsyncIterator[GatewayStack]:
    async with gateway_stack() as stack:
        replica = await stack.replica("one")
        served = route(IRIS, ("g1", 1, [replica.address]), timeout=TIMEOUT, max_bytes=MAX_BYTES)
        await stack.apply([served])
        await stack.healthy("g1")
        yield stack


def opened(
    stack: GatewayStack, channel: Any, who: Principal = ADA, *, header: str = "", path: str = PATHS[0]
) -> Any:
    call = channel.stream_stream(
        path,
        request_serializer=oip.ModelInferRequest.SerializeToString,
        response_deserializer=oip.ModelStreamInferResponse.FromString,
    )
    named = [("modelyard-deployment", header)] if header else []
    return call(metadata=[stack.authorization(who), *named], timeout=60)


def request(number: int, *, name: str = IRIS, size: int = 16) -> oip.ModelInferRequest:
    return oip.ModelInferRequest(model_name=name, id=str(number), raw_input_contents=[bytes(size)])


@pytest.mark.parametrize("header", ["", IRIS])
@pytest.mark.parametrize("path", PATHS)
async def test_each_answer_comes_while_the_stream_is_open(
    serving: GatewayStack, header: str, path: str
) -> None:
    async with serving.channel() as channel:
        stream = opened(serving, channel, header=header, path=path)
        for number in range(5):
            await stream.write(request(number))
            answer = await stream.read()
            assert (answer.infer_response.id, answer.infer_response.model_version) == (str(number), "one")
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF


@pytest.mark.parametrize("header", ["", IRIS])
async def test_a_stream_may_last_longer_and_carry_more_than_one_prediction(
    serving: GatewayStack, header: str
) -> None:
    async with serving.channel() as channel:
        stream = opened(serving, channel, header=header)
        end = asyncio.get_running_loop().time() + 2 * TIMEOUT
        sent = 0
        while sent < 10 or asyncio.get_running_loop().time() < end:
            await stream.write(request(sent, size=MAX_BYTES // 2))
            assert (await stream.read()).infer_response.id == str(sent)
            sent += 1
        stream.cancel()


@pytest.mark.parametrize("header", ["", IRIS])
async def test_another_user_is_refused(serving: GatewayStack, header: str) -> None:
    async with serving.channel() as channel:
        stream = opened(serving, channel, BOB, header=header)
        assert isinstance(await refused(stream, request(1)), errors.PermissionDenied)
    assert serving._replicas[0].asked == []


async def test_an_unknown_deployment_is_not_found(serving: GatewayStack) -> None:
    async with serving.channel() as channel:
        stream = opened(serving, channel)
        assert isinstance(await refused(stream, request(1, name="prod.ml.unknown")), errors.NotFound)


async def refused(stream: Any, first: oip.ModelInferRequest) -> errors.ModelyardError:
    async def asked() -> None:
        await stream.write(first)
        await stream.read()

    status = FirstStatus(
        stream
    )  # gRPC forgets it if a write fails at that moment, as the client package knows
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asked()
    return _status.error_from_call(status.of(caught.value), "")
