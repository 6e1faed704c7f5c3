"""What holds predictions until there is a replica, between real gRPC calls and real replicas without a model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard_inference import activator
from modelyard_inference.activator import GROUP_HEADER, Activator
from modelyard_inference.route_table import Route, RouteTable, RouteTarget
from modelyard_inference.routes import Routes
from modelyard_kit.access import SYSTEM, Link, ResourceType
from tests.conformance.fake_replica import FakeReplica
from tests.framework import folders
from tests.framework.waiting import eventually

REQUEST = oip.ModelInferRequest(model_name="prod.ml.iris", id="7")


def table(version: int, *addresses: str, held: bool = False) -> RouteTable:
    chain = (Link(ResourceType.DEPLOYMENT, "d", "prod.ml.iris"), SYSTEM)
    target = RouteTarget("g", "prod.ml.iris/1", 1, addresses, held=held)
    return RouteTable(version, (Route(chain, (target,), 0, 0),))


@dataclass
class Place:
    """An activator for one group that sleeps, and a caller."""

    folder: Path
    routes: Routes
    activator: Activator
    stub: GRPCInferenceServiceStub
    channel: grpc.aio.Channel

    def ask(self, group: str = "g", timeout: float = 60.0) -> grpc.aio.UnaryUnaryCall:
        metadata = ((GROUP_HEADER, group), ("x-customer", "ada"))
        return self.stub.ModelInfer(REQUEST, metadata=metadata, timeout=timeout)

    async def holding(self, count: int) -> None:
        await eventually(lambda: self.activator._held == count)

    async def wake(self, label: str = "one") -> FakeReplica:
        replica = await FakeReplica(self.folder / label, label).start()
        await self.routes.publish(table(2, replica.address))
        return replica


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="my-", dir=folders.SHORT))
    address = f"unix:{folder}/a"
    routes = Routes(table(1, address, held=True), lambda: None)
    made = Activator(address, routes, patience=60.0)
    await made.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield Place(folder, routes, made, GRPCInferenceServiceStub(channel), channel)
    await made.stop()
    shutil.rmtree(folder)


async def code_of(call: grpc.aio.UnaryUnaryCall) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code()


async def test_what_is_held_is_answered_by_the_first_replica(place: Place) -> None:
    calls = [asyncio.ensure_future(place.ask()) for _ in range(3)]
    await place.holding(3)
    replica = await place.wake()
    answers = await asyncio.gather(*calls)
    assert [(answer.model_version, answer.id) for answer in answers] == [("one", "7")] * 3
    assert replica.metadata["x-customer"] == "ada"
    assert GROUP_HEADER not in replica.metadata
    await place.holding(0)
    assert (await place.ask()).model_version == "one"  # of a gateway that has not heard yet
    await replica.stop()


async def test_a_stream_is_held_too(place: Place) -> None:
    stream = place.stub.ModelStreamInfer(metadata=((GROUP_HEADER, "g"),), timeout=60)
    await stream.write(REQUEST)
    await place.holding(1)
    replica = await place.wake()
    assert (await stream.read()).infer_response.model_version == "one"
    await stream.write(REQUEST)
    assert (await stream.read()).infer_response.id == "7"
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    await place.holding(0)
    await replica.stop()


async def test_what_the_replica_refuses_is_refused_in_its_words(place: Place) -> None:
    replica = await place.wake()
    replica.fail_with = grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError, match='said "no", 50% sure') as refused:
        await place.ask()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await replica.stop()


async def test_gateways_find_it_healthy(place: Place) -> None:
    answer = await health_pb2_grpc.HealthStub(place.channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_nobody_is_held_for_ever(place: Place) -> None:
    place.activator._patience = 0.05
    assert await code_of(place.ask()) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await code_of(place.ask(timeout=0.05)) is grpc.StatusCode.DEADLINE_EXCEEDED
    await place.holding(0)


async def test_a_caller_who_leaves_takes_no_place(place: Place) -> None:
    call = place.ask()
    waiting = asyncio.ensure_future(code_of(call))
    await place.holding(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await place.holding(0)


async def test_a_group_that_is_gone_is_unavailable(place: Place) -> None:
    assert await code_of(place.ask("other")) is grpc.StatusCode.UNAVAILABLE
    waiting = asyncio.ensure_future(code_of(place.ask()))
    await place.holding(1)
    await place.routes.publish(RouteTable(2, ()))
    assert await waiting is grpc.StatusCode.UNAVAILABLE


async def test_as_many_are_held_as_may(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activator, "MAX_HELD", 1)
    held = asyncio.ensure_future(place.ask())
    await place.holding(1)
    assert await code_of(place.ask()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    monkeypatch.setattr(activator, "MAX_HELD", 2)
    monkeypatch.setattr(activator, "MAX_HELD_BYTES", 2 * REQUEST.ByteSize() - 1)
    assert await code_of(place.ask()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    replica = await place.wake()
    assert (await held).model_version == "one"
    await replica.stop()
