"""The gateway's configuration does in a real Envoy what it promises: tokens, rights, routes, limits, switches."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest

from modelyard import _status, errors
from tests.conformance.gateway_stack import ADA, BOB, OWN_INFER, GatewayStack, gateway_stack, route

IRIS, OTHER = "prod.ml.iris", "prod.ml.other"


@pytest.fixture
async def stack() -> AsyncIterator[GatewayStack]:
    async with gateway_stack() as made:
        yield made


@pytest.fixture
async def serving(stack: GatewayStack) -> GatewayStack:
    """Ada may use `iris`, Bob may use `other`."""
    iris, other = await stack.replica("iris"), await stack.replica("other")
    routes = [route(IRIS, ("g-iris", 1, [iris.address])), route(OTHER, ("g-other", 1, [other.address]))]
    await stack.apply(routes, {IRIS: [ADA.id], OTHER: [BOB.id]})
    await stack.healthy("g-iris", "g-other")
    return stack


async def refused(call: object) -> errors.ModelyardError:
    """The error of a call, as the client rebuilds it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return _status.error_from_call(caught.value, "")


@pytest.mark.parametrize("header", ["", IRIS])
@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/ModelInfer", OWN_INFER])
async def test_the_right_user_is_answered(serving: GatewayStack, header: str, path: str) -> None:
    answer = await serving.infer(IRIS, header=header, path=path)
    assert (answer.model_name, answer.model_version, answer.id) == (IRIS, "iris", "7")


@pytest.mark.parametrize("header", ["", IRIS])
async def test_another_user_is_refused(serving: GatewayStack, header: str) -> None:
    error = await refused(serving.infer(IRIS, BOB, header=header))
    assert isinstance(error, errors.PermissionDenied)
    assert error.metadata == {"privilege": "EXECUTE", "resource_type": "deployment", "name": IRIS}
    assert IRIS in str(error)


@pytest.mark.parametrize("header", ["", IRIS])
async def test_a_token_for_other_things_does_not_predict(serving: GatewayStack, header: str) -> None:
    limited = serving.issuer.token(ADA, privileges=["READ_METADATA"], no_execute=True)
    bearer = {"authorization": f"Bearer {limited}"}
    error = await refused(serving.infer(IRIS, None, header=header, extra=bearer))
    assert isinstance(error, errors.PermissionDenied)
    for_it = serving.issuer.token(ADA, privileges=["EXECUTE"])
    await serving.infer(IRIS, None, header=header, extra={"authorization": f"Bearer {for_it}"})


async def test_without_a_token_nothing_works(serving: GatewayStack) -> None:
    error = await refused(serving.infer(IRIS, None))
    assert isinstance(error, errors.TokenMissing)


async def test_expired_and_foreign_tokens_are_refused(serving: GatewayStack) -> None:
    old = serving.issuer.token(ADA, life=timedelta(minutes=-1))
    error = await refused(serving.infer(IRIS, None, extra={"authorization": f"Bearer {old}"}))
    assert isinstance(error, errors.TokenExpired)
    for foreign in (serving.issuer.token(ADA, iss="other"), serving.issuer.token(ADA, aud="other")):
        error = await refused(serving.infer(IRIS, None, extra={"authorization": f"Bearer {foreign}"}))
        assert isinstance(error, errors.TokenInvalid)
    error = await refused(serving.infer(IRIS, None, extra={"authorization": "Bearer rubbish"}))
    assert isinstance(error, errors.TokenInvalid)


@pytest.mark.parametrize("header", ["", "prod.ml.unknown"])
async def test_an_unknown_deployment_is_not_found(serving: GatewayStack, header: str) -> None:
    error = await refused(serving.infer("prod.ml.unknown", header=header))
    assert isinstance(error, errors.NotFound)
    assert error.metadata == {"resource_type": "deployment", "name": "prod.ml.unknown"}


async def test_a_name_that_is_none_is_an_invalid_field(serving: GatewayStack) -> None:
    for name in ("", "a\nb: c", "é"):
        error = await refused(serving.infer(name))
        assert isinstance(error, errors.InvalidArgument)


async def test_header_and_body_together_reach_only_what_is_allowed(serving: GatewayStack) -> None:
    """Ada may use `iris` only; whatever she combines, the replica of `other` is never asked."""
    iris, other = serving._replicas
    await serving.infer(
        OTHER, header=IRIS
    )  # a replica serves one deployment and refuses other names by itself
    assert (iris.asked, other.asked) == ([OTHER], [])
    for header in (OTHER, "", "prod.ml.unknown"):
        error = await refused(serving.infer(OTHER, header=header))
        assert isinstance(error, errors.PermissionDenied)
    error = await refused(serving.infer(IRIS, header=OTHER))
    assert isinstance(error, errors.PermissionDenied)
    # A header that names nothing is replaced by the name in the body.
    await serving.infer(IRIS, header="prod.ml.unknown")
    assert (iris.asked, other.asked) == ([OTHER, IRIS], [])
    # Of two headers one may choose the route, and with it whose rights are asked for.
    for first, second in ((IRIS, OTHER), (OTHER, IRIS)):
        with contextlib.suppress(grpc.aio.AioRpcError):
            await serving.infer(OTHER, header=first, extra={"modelyard-deployment": second})
    assert other.asked == []


async def test_replicas_never_see_tokens(serving: GatewayStack) -> None:
    await serving.infer(IRIS, extra={"x-request-id": "mine"})
    seen = serving._replicas[0].metadata
    assert "authorization" not in seen
    assert seen["x-request-id"] == "mine"
    await serving.infer(IRIS)
    assert "x-request-id" not in serving._replicas[0].metadata


@pytest.mark.parametrize("header", ["", IRIS])
async def test_a_body_over_the_limit_is_refused(serving: GatewayStack, header: str) -> None:
    await serving.infer(IRIS, header=header, size=2**20 - 1000)
    error = await refused(serving.infer(IRIS, header=header, size=2**20 + 1))
    assert error.code == "RESOURCE_EXHAUSTED"
    assert isinstance(error, errors.RequestTooLarge)
    assert error.metadata["maximum"] == str(2**20)


@pytest.mark.parametrize("header", ["", IRIS])
async def test_a_body_over_the_limit_of_the_listener_is_refused(serving: GatewayStack, header: str) -> None:
    error = await refused(serving.infer(IRIS, header=header, size=5 * 2**20))
    assert error.code == "RESOURCE_EXHAUSTED"
    assert error.metadata["maximum"] == str(2**20)


async def test_an_unknown_path_is_unimplemented(serving: GatewayStack) -> None:
    for path in ("/some.Service/Method", "/inference.GRPCInferenceService/RepositoryIndex"):
        error = await refused(serving.infer(IRIS, path=path))
        assert isinstance(error, errors.Unimplemented)
