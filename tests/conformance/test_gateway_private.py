"""Public and private listeners at a real Envoy: where a private deployment answers, and where it does not."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from modelyard import _status, errors
from modelyard_gateway.route_parts import PRIVATE_NAME
from tests.conformance.gateway_stack import BOB, GatewayStack, gateway_stack, route
from tests.conformance.test_gateway_rest import ask

INSIDE, OUTSIDE = "prod.ml.inside", "prod.ml.outside"


async def refusal(stack: GatewayStack, name: str, header: str = "", **extra: str) -> errors.ModelyardError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.infer(name, header=header, extra=extra)
    return _status.error_from_call(caught.value, "")


async def test_a_private_deployment_answers_on_the_private_listener_alone() -> None:
    async with gateway_stack(private_listen="127.0.0.1:0") as stack:
        inside, outside = await stack.replica("inside"), await stack.replica("outside")
        routes = [
            route(INSIDE, ("g-inside", 1, [inside.address]), private=True),
            route(OUTSIDE, ("g-outside", 1, [outside.address])),
        ]
        await stack.apply(routes)
        await stack.healthy("g-inside", "g-outside")
        public, private = stack.port, await stack.admin.listen_port(PRIVATE_NAME)
        for header in (INSIDE, ""):
            refused = await refusal(stack, INSIDE, header, **{PRIVATE_NAME: "true", "private": "true"})
            assert isinstance(refused, errors.PermissionDenied)
            assert "private listener" in str(refused)
        status, _ = await ask(stack, "POST", f"/v2/models/{INSIDE}/infer", body={})
        assert status == 403
        assert inside.asked == []
        assert (await stack.infer(OUTSIDE)).model_version == "outside"

        stack.port = private
        for name, label in ((INSIDE, "inside"), (OUTSIDE, "outside")):
            for header in (name, ""):
                assert (await stack.infer(name, header=header)).model_version == label
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.infer(INSIDE, BOB)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED

        stack.port = public
        async with stack.channel() as channel:
            assert (await stack.infer_on(channel, OUTSIDE)).model_version == "outside"
            await stack.apply(
                [route(INSIDE, ("g-inside", 1, [inside.address])), routes[1]]
            )  # public from now on
            assert (await stack.infer_on(channel, INSIDE)).model_version == "inside"


async def test_without_a_private_listener_a_private_deployment_answers_nowhere() -> None:
    async with gateway_stack() as stack:
        replica = await stack.replica("inside")
        await stack.apply([route(INSIDE, ("g1", 1, [replica.address]), private=True)])
        assert isinstance(await refusal(stack, INSIDE, INSIDE), errors.PermissionDenied)
