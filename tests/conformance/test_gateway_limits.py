"""Limits of a deployment at a real Envoy: what is over them is refused at once, and they change while it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from modelyard import _status, errors
from modelyard_gateway.table import UNLIMITED, Limits
from tests.conformance.gateway_stack import BOB, INFER, OWN_INFER, GatewayStack, gateway_stack, route
from tests.conformance.test_gateway_rest import BODY, ask
from tests.framework.waiting import eventually

IRIS = "prod.ml.iris"


@pytest.fixture
async def stack() -> AsyncIterator[GatewayStack]:
    async with gateway_stack() as made:
        await made.replica("one")
        yield made


async def limit(stack: GatewayStack, limits: Limits) -> None:
    """Serve with these limits."""
    (replica,) = stack._replicas
    await stack.apply([route(IRIS, ("g1", 1, [replica.address]), limits=limits)])
    await stack.healthy("g1")


@dataclass(frozen=True)
class Outcome:
    """How one call ended, and after how many seconds."""

    error: errors.ModelyardError | None
    seconds: float


async def outcome(call: Awaitable[Any]) -> Outcome:
    began = time.monotonic()
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return Outcome(_status.error_from_call(error, ""), time.monotonic() - began)
    return Outcome(None, time.monotonic() - began)


async def test_the_rate_is_one_for_all_ways_to_predict(stack: GatewayStack) -> None:
    await limit(stack, Limits(requests_per_second=1))
    async with stack.channel() as channel:
        began = time.monotonic()
        calls = [
            stack.infer_on(channel, IRIS, header=header, path=path)
            for header in (IRIS, "")
            for path in (INFER, OWN_INFER)
            for _ in range(10)
        ]
        found = await asyncio.gather(*map(outcome, calls))
        answers = sum(each.error is None for each in found)
        assert 1 <= answers <= 1 + (time.monotonic() - began) + 1
        refused = [each.error for each in found if each.error]
        assert all(isinstance(error, errors.RateLimited) for error in refused)
        assert dict(refused[0].metadata) == {"maximum": "1"}
        assert stack._replicas[0].answered == answers  # what is refused reaches no replica
        asked = [ask(stack, "POST", f"/v2/models/{IRIS}/infer", body=BODY) for _ in range(10)]
        statuses = dict(await asyncio.gather(*asked))
        assert "1 predictions per second" in statuses[429]["error"]

        await limit(stack, UNLIMITED)
        free = await asyncio.gather(*(outcome(stack.infer_on(channel, IRIS)) for _ in range(20)))
        assert [each.error for each in free] == [None] * 20


async def test_those_who_may_not_predict_use_nothing_of_the_rate(stack: GatewayStack) -> None:
    await limit(stack, Limits(requests_per_second=1))
    async with stack.channel() as channel:
        calls = [outcome(stack.infer_on(channel, IRIS, BOB, header=IRIS)) for _ in range(20)]
        found = await asyncio.gather(*calls)
        assert all(isinstance(each.error, errors.PermissionDenied) for each in found)
        await stack.infer_on(channel, IRIS, header=IRIS)


async def test_what_a_replica_has_at_once_is_bounded(stack: GatewayStack) -> None:
    (replica,) = stack._replicas
    await limit(stack, Limits(concurrent_per_replica=2))
    replica.running.clear()
    async with stack.channel() as channel, asyncio.TaskGroup() as group:
        held = [group.create_task(stack.infer_on(channel, IRIS, header=IRIS)) for _ in range(2)]
        await eventually(lambda: len(replica.asked) == 2)
        for header in (IRIS, ""):
            over = await outcome(stack.infer_on(channel, IRIS, header=header))
            assert isinstance(over.error, errors.Overloaded)
            assert dict(over.error.metadata) == {"maximum": "2"}
        status, told = await ask(stack, "POST", f"/v2/models/{IRIS}/infer", body=BODY)
        assert (status, "each replica has 2 predictions" in told["error"]) == (429, True)
        assert not any(task.done() for task in held)

        await limit(stack, Limits(concurrent_per_replica=3))  # while two are under way
        third = group.create_task(stack.infer_on(channel, IRIS, header=IRIS))
        await eventually(lambda: len(replica.asked) == 3)
        replica.running.set()
    assert [task.result().model_version for task in (*held, third)] == ["one"] * 3


async def test_an_overload_costs_those_who_are_answered_nothing(stack: GatewayStack) -> None:
    """Over and over as many are answered as the replica can take; the rest hears so while those are still waiting."""
    (replica,) = stack._replicas
    await limit(stack, Limits(concurrent_per_replica=4))
    async with stack.channel() as channel:
        for turn in range(1, 4):
            replica.running.clear()
            held = [asyncio.create_task(stack.infer_on(channel, IRIS, header=IRIS)) for _ in range(4)]
            await eventually(lambda turn=turn: len(replica.asked) == 4 * turn)
            over = [outcome(stack.infer_on(channel, IRIS, header=IRIS)) for _ in range(12)]
            refused = await asyncio.gather(*over)
            assert all(isinstance(each.error, errors.Overloaded) for each in refused)
            assert not any(task.done() for task in held)
            replica.running.set()
            await asyncio.gather(*held)
    assert replica.answered == len(replica.asked) == 12  # no work was done for nothing


async def test_bandwidth_makes_wait(stack: GatewayStack) -> None:
    await limit(stack, Limits(bandwidth_mbps=8))  # a megabyte per second, and one that may come at once
    async with stack.channel() as channel:
        slow = await outcome(stack.infer_on(channel, IRIS, header=IRIS, size=900_000))
        assert slow.error is None
        assert slow.seconds > 0.4  # 1.8 megabytes in both directions
        assert await enforced(stack) > 0
        before = await enforced(stack)
        await limit(stack, UNLIMITED)
        assert (await outcome(stack.infer_on(channel, IRIS, header=IRIS, size=900_000))).error is None
        assert await enforced(stack) == before


async def enforced(stack: GatewayStack) -> int:
    """How often Envoy held bytes back."""
    stats = await stack.admin._json("/stats?format=json&filter=bandwidth.*_enforced")
    return sum(row["value"] for row in stats["stats"] if "value" in row)
