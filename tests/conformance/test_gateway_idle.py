"""Deployments that nothing answers for, at a real Envoy: why, told to those who may predict, and to nobody else that they exist."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from modelyard import _status, errors
from tests.conformance.gateway_stack import ADA, BOB, GatewayStack, gateway_stack, route
from tests.conformance.test_gateway_rest import BODY, ask

NAMES = {"prod.ml.asleep": "INACTIVE", "prod.ml.broken": "FAILED", "prod.ml.young": "CREATING"}
TOLD = {
    "INACTIVE": "activate prod.ml.asleep",
    "FAILED": "could not be started",
    "CREATING": "is being started",
}
NOWHERE = "prod.ml.nowhere"


@pytest.fixture
async def stack() -> AsyncIterator[GatewayStack]:
    async with gateway_stack() as made:
        yield made


async def refusal(stack: GatewayStack, name: str, header: str, version: str = "") -> errors.ModelyardError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.infer(name, header=header, version=version)
    return _status.error_from_call(caught.value, "")


async def test_who_may_predict_is_told_why_nothing_answers(stack: GatewayStack) -> None:
    routes = [route(name, idle=state) for name, state in NAMES.items()]
    for allowed in ([ADA.id], [BOB.id, ADA.id]):
        await stack.apply(routes, dict.fromkeys(NAMES, allowed))
        for name, state in NAMES.items():
            for header in ("", name):
                refused = await refusal(stack, name, header)
                assert isinstance(refused, errors.ReplicaNotReady)
                assert f"'{name}'" in str(refused)
                assert TOLD[state] in str(refused)
            assert TOLD[state] in str(await refusal(stack, name, "", version="3"))
            status, answer = await ask(stack, "POST", f"/v2/models/{name}/infer", body=BODY)
            assert status == 503
            assert TOLD[state] in answer["error"]


@pytest.mark.parametrize("header", ["", "prod.ml.asleep"])
async def test_a_token_for_other_things_is_told_nothing(stack: GatewayStack, header: str) -> None:
    await stack.apply([route("prod.ml.asleep", idle="INACTIVE")])
    limited = stack.issuer.token(ADA, privileges=["READ_METADATA"], no_execute=True)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.infer("prod.ml.asleep", None, header=header, extra={"authorization": f"Bearer {limited}"})
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_nobody_else_is_told_that_it_exists(stack: GatewayStack) -> None:
    routes = [
        route("prod.ml.asleep", idle="INACTIVE"),
        route("prod.ml.inside", idle="INACTIVE", private=True),
    ]
    for allowed in ([], [BOB.id]):
        await stack.apply(routes, {"prod.ml.asleep": allowed, "prod.ml.inside": [ADA.id]})
        for name in ("prod.ml.asleep", "prod.ml.inside"):
            for header in (False, True):
                refused = await refusal(stack, name, name if header else "")
                missing = await refusal(stack, NOWHERE, NOWHERE if header else "")
                assert isinstance(refused, errors.NotFound)
                assert str(refused) == str(missing).replace(NOWHERE, name)
