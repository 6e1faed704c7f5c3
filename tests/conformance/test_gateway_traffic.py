"""How a real Envoy shares the traffic of one deployment: by weight, by a header, and by the version that a call asks for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import grpc.aio
import pytest

from modelyard import _status, errors
from modelyard_gateway.table import Route
from modelyard_inference.activator import Activator
from modelyard_inference.route_table import Route as Known
from modelyard_inference.route_table import RouteTable
from modelyard_inference.route_table import RouteTarget as Group
from modelyard_inference.routes import Routes
from tests.conformance.gateway_stack import BOB, GatewayStack, gateway_stack, route
from tests.conformance.test_gateway_rest import BODY, ask
from tests.framework.waiting import eventually

IRIS = "prod.ml.iris"
STICKY = "x-customer"


@pytest.fixture
async def stack() -> AsyncIterator[GatewayStack]:
    async with gateway_stack() as made:
        for name in ("one", "two"):
            await made.replica(name)
        yield made


def shared(stack: GatewayStack, first: int, second: int, sticky_header: str = "") -> Route:
    """Version 1 is answered by replica `one`, version 2 by `two`."""
    one, two = (replica.address for replica in stack._replicas)
    return route(IRIS, ("g1", first, [one]), ("g2", second, [two]), sticky_header=sticky_header)


async def serve(stack: GatewayStack, made: Route) -> None:
    await stack.apply([made])
    await stack.healthy("g1", "g2")


async def answers(stack: GatewayStack, count: int, **extra: str) -> Counter[str]:
    """Count which replica answered so many calls."""
    async with stack.channel() as channel:
        found = [await stack.infer_on(channel, IRIS, header=IRIS, extra=extra) for _ in range(count)]
    return Counter(answer.model_version for answer in found)


async def refused(call: object) -> errors.ModelyardError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return _status.error_from_call(caught.value, "")


async def test_weights_share_the_traffic(stack: GatewayStack) -> None:
    await serve(stack, shared(stack, 9, 1))
    found = await answers(stack, 300)
    assert found.total() == 300
    assert 5 <= found["two"] <= 60  # 30 expected, with a standard deviation of 5


async def test_equal_headers_meet_the_same_target(stack: GatewayStack) -> None:
    await serve(stack, shared(stack, 1, 1, STICKY))
    homes = {}
    for customer in map(str, range(24)):
        found = await answers(stack, 4, **{STICKY: customer})
        assert len(found) == 1, f"customer {customer} met {found}"
        homes[customer] = next(iter(found))
    assert set(homes.values()) == {"one", "two"}
    await serve(stack, shared(stack, 1, 1, STICKY))  # the same again, as after a restart of the agent
    for customer, home in homes.items():
        assert await answers(stack, 1, **{STICKY: customer}) == {home: 1}
    assert set(await answers(stack, 60)) == {"one", "two"}  # without the header by weight, as ever


async def test_a_call_may_ask_for_a_version(stack: GatewayStack) -> None:
    await serve(stack, shared(stack, 1_000_000, 1, STICKY))
    for version, replica in (("1", "one"), ("2", "two")):
        for known in (IRIS, ""):  # the metadata of our client, then that of others, whose body is looked into
            pinned = await stack.infer(IRIS, header=known, extra={"modelyard-version": version})
            assert pinned.model_version == replica
        in_the_body = await stack.infer(IRIS, version=version)
        assert in_the_body.model_version == replica
        status, told = await ask(stack, "POST", f"/v2/models/{IRIS}/versions/{version}/infer", body=BODY)
        assert (status, told["asked_version"]) == (200, version)
    assert [len(replica.asked) for replica in stack._replicas] == [4, 4]
    # The body decides, as it does about the name.
    both = await stack.infer(IRIS, version="2", extra={"modelyard-version": "1"})
    assert both.model_version == "two"


@pytest.mark.parametrize("second", [1, 0])
async def test_a_version_that_does_not_answer_is_not_found(stack: GatewayStack, second: int) -> None:
    """Neither one that is nowhere, nor one that is only being warmed or drained."""
    await serve(stack, shared(stack, 1, second))
    missing = "2" if second == 0 else "3"
    for call in (
        stack.infer(IRIS, header=IRIS, extra={"modelyard-version": missing}),
        stack.infer(IRIS, extra={"modelyard-version": missing}),
        stack.infer(IRIS, version=missing),
    ):
        error = await refused(call)
        assert isinstance(error, errors.NotFound)
        assert f"version {missing}" in str(error)
    odd = await refused(stack.infer(IRIS, header=IRIS, extra={"modelyard-version": '1" or 1'}))
    assert isinstance(odd, errors.NotFound)
    assert "not the number" in str(odd)
    assert [replica.asked for replica in stack._replicas] == [[], []]


async def test_a_pinned_call_needs_the_same_right(stack: GatewayStack) -> None:
    await serve(stack, shared(stack, 1, 1))
    for version in ("1", "2"):
        error = await refused(stack.infer(IRIS, BOB, header=IRIS, extra={"modelyard-version": version}))
        assert isinstance(error, errors.PermissionDenied)
    assert [replica.asked for replica in stack._replicas] == [[], []]


async def test_what_sleeps_is_held_and_answered_by_its_first_replica(stack: GatewayStack) -> None:
    """Though Envoy has taken the address of what holds it off the list meanwhile."""
    one, _ = stack._replicas
    address = f"unix:{one.address.removeprefix('unix:')}.activator"
    sleeping = RouteTable(1, (Known((), (Group("g1", f"{IRIS}/1", 1, (address,), held=True),), 0, 0),))  # type: ignore[arg-type]
    routes = Routes(sleeping, lambda: None)
    activator = Activator(address, routes, patience=60.0)
    await activator.start()
    try:
        asleep = route(IRIS, ("g1", 1, [address]))
        await stack.apply([replace(asleep, targets=(replace(asleep.targets[0], held=True),))])
        await stack.healthy("g1")
        waiting = asyncio.ensure_future(stack.infer(IRIS))
        await eventually(lambda: activator._held == 1)
        await stack.apply([route(IRIS, ("g1", 1, [one.address]))])
        await stack.healthy("g1")
        assert (await stack.infer(IRIS)).model_version == "one"
        assert not waiting.done()
        awake = replace(sleeping.routes[0].targets[0], addresses=(one.address,), held=False)
        await routes.publish(RouteTable(2, (replace(sleeping.routes[0], targets=(awake,)),)))
        assert (await asyncio.wait_for(waiting, 60)).model_version == "one"
    finally:
        await activator.stop()
