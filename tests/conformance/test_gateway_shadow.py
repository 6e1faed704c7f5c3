"""A real Envoy that copies predictions to a shadow: who gets what, and that nothing a shadow does reaches a caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest

from modelyard_gateway.clusters import SHADOW_THRESHOLDS
from modelyard_gateway.route_parts import SAMPLE_HEADER
from modelyard_gateway.table import Route
from tests.conformance.fake_replica import FakeReplica
from tests.conformance.gateway_stack import OWN_INFER, GatewayStack, gateway_stack, route
from tests.conformance.test_gateway_rest import BODY, ask
from tests.framework.waiting import eventually

IRIS = "prod.ml.iris"


@pytest.fixture
async def stack() -> AsyncIterator[GatewayStack]:
    async with gateway_stack() as made:
        for name in ("one", "shadow"):
            await made.replica(name)
        yield made


def replicas(stack: GatewayStack) -> tuple[FakeReplica, FakeReplica]:
    one, shadow = stack._replicas
    return one, shadow


async def serve(stack: GatewayStack, percent: int, timeout: float = 10.0) -> None:
    one, shadow = replicas(stack)
    made = route(IRIS, ("g1", 1, [one.address]), ("g2", 0, [shadow.address]), timeout=timeout)
    await stack.apply([with_shadow(made, percent)])
    await stack.healthy("g1", "g2")


def with_shadow(made: Route, percent: int) -> Route:
    answering, shadow = made.targets
    return replace(made, targets=(answering, replace(shadow, shadow_percent=percent, shadow=True)))


async def predict(stack: GatewayStack, count: int) -> None:
    async with stack.channel() as channel:
        for _ in range(count):
            answer = await stack.infer_on(channel, IRIS, header=IRIS)
            assert answer.model_version == "one"


async def test_copies_carry_the_id_of_their_prediction_and_no_token(stack: GatewayStack) -> None:
    await serve(stack, 100)
    one, shadow = replicas(stack)
    seen = set()
    calls = (
        lambda: stack.infer(IRIS, header=IRIS, extra={SAMPLE_HEADER: "mine", "cookie": "secret"}),
        lambda: stack.infer(IRIS),  # of other clients, whose body is looked into
        lambda: stack.infer(IRIS, header=IRIS, path=OWN_INFER),
        lambda: ask(stack, "POST", f"/v2/models/{IRIS}/infer", body=BODY),
    )
    for count, call in enumerate(calls, start=1):
        await call()
        await eventually(lambda count=count: len(shadow.asked) == count)
        assert one.metadata[SAMPLE_HEADER] == shadow.metadata[SAMPLE_HEADER]
        assert not {"authorization", "cookie"} & shadow.metadata.keys()
        seen.add(shadow.metadata[SAMPLE_HEADER])
    assert len(seen) == 4
    assert "mine" not in seen


async def test_only_the_share_is_copied_and_nothing_that_asks_for_a_version(stack: GatewayStack) -> None:
    await serve(stack, 20)
    one, shadow = replicas(stack)
    await predict(stack, 300)
    await eventually(lambda: 25 <= len(shadow.asked) <= 110)  # 60 expected, with a standard deviation of 7
    await serve(stack, 100)
    copied = len(shadow.asked)
    await stack.infer(IRIS, header=IRIS, extra={"modelyard-version": "1", SAMPLE_HEADER: "mine"})
    assert SAMPLE_HEADER not in one.metadata
    await predict(stack, 1)
    await eventually(lambda: len(shadow.asked) == copied + 1)


async def test_a_shadow_that_fails_or_is_gone_is_not_felt(stack: GatewayStack) -> None:
    await serve(stack, 100)
    _, shadow = replicas(stack)
    shadow.fail_with = grpc.StatusCode.UNAVAILABLE
    await predict(stack, 20)
    await eventually(lambda: len(shadow.asked) == 20)  # and no copy is sent twice
    await shadow.stop()
    await predict(stack, 20)


async def test_a_stuck_shadow_holds_few_copies(stack: GatewayStack) -> None:
    await serve(
        stack, 100, timeout=60.0
    )  # no copy is given up meanwhile: one that is ends here later than at Envoy
    _, shadow = replicas(stack)
    shadow.delay = 60
    async with stack.channel() as channel:
        for _ in range(25):
            await asyncio.gather(*(stack.infer_on(channel, IRIS, header=IRIS) for _ in range(20)))
    assert 0 < shadow.most_at_once <= int(SHADOW_THRESHOLDS["max_requests"])


async def test_a_stuck_shadow_does_not_hold_copies_for_ever(stack: GatewayStack) -> None:
    await serve(stack, 100, timeout=5.0)  # of the prediction too, which a loaded machine must be able to keep
    _, shadow = replicas(stack)
    shadow.delay = 60
    await stack.infer(IRIS, header=IRIS)
    await eventually(lambda: len(shadow.asked) == 1)
    await eventually(lambda: shadow.at_once == 0)  # given up, though the shadow never answered
