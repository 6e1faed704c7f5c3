"""What the kit puts around every call, over real gRPC: identity, permission, errors, deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from unittest import mock

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from modelyard_catalog.access import access_table
from modelyard_kit import chassis
from modelyard_kit.access import SYSTEM, Chain, Effect, Privilege, ResourceGrant
from modelyard_kit.auth import Principal, current_call
from modelyard_kit.authorization import AUTHENTICATED, PUBLIC, SERVICES, Requires, Rule
from modelyard_kit.chassis import Service, check_access
from modelyard_kit.config import Settings
from modelyard_kit.driver import PoolExhausted
from modelyard_kit.errors import DomainError, InvalidField, PolicyUnmet, Violation
from modelyard_kit.grants import Grants
from modelyard_kit.interceptors import CallChain
from modelyard_kit.peers import domain_error
from tests.framework.tokens import Issuer

FULL_NAME = "modelyard.api.catalog.v1.CatalogService"
ADA = Principal("1", "ada", "user")
SERVICE = Principal("2", "artifact", "service")


async def system(_request: Any) -> Chain:
    return (SYSTEM,)


ACCESS: dict[str, Rule] = {
    "GetCatalog": AUTHENTICATED,
    "ListCatalogs": PUBLIC,
    "CreateCatalog": Requires(Privilege.CREATE_CATALOG, system),
    "ResolveResource": SERVICES,
}


@dataclass
class Fixture:
    """A server whose GetCatalog does what the test says."""

    stub: Any
    issuer: Issuer
    grants: Grants
    behaviour: Callable[[], Awaitable[None]] | None = None
    calls: list[Any] = field(default_factory=list)

    async def get(self, **options: Any) -> Any:
        options.setdefault("metadata", [("authorization", f"Bearer {self.issuer.token(ADA)}")])
        return await self.stub.GetCatalog(pb.GetCatalogRequest(name="x"), **options)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Fixture]:
    issuer, grants = Issuer(), Grants()
    await grants.mark_fresh(1)

    class Servicer(pb_grpc.CatalogServiceServicer):
        async def GetCatalog(self, request: Any, context: Any) -> Any:
            fixture.calls.append(current_call())
            if fixture.behaviour:
                await fixture.behaviour()
            return pb.GetCatalogResponse()

        async def ListCatalogs(self, request: Any, context: Any) -> Any:
            return pb.ListCatalogsResponse()

        async def CreateCatalog(self, request: Any, context: Any) -> Any:
            return pb.CreateCatalogResponse()

        async def ResolveResource(self, request: Any, context: Any) -> Any:
            return pb.ResolveResourceResponse()

    grpc_server = grpc.aio.server(interceptors=[CallChain(FULL_NAME, ACCESS, issuer.verifier(), grants)])
    pb_grpc.add_CatalogServiceServicer_to_server(Servicer(), grpc_server)
    address = f"unix:{tmp_path}/s"
    grpc_server.add_insecure_port(address)
    await grpc_server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        fixture = Fixture(pb_grpc.CatalogServiceStub(channel), issuer, grants)
        yield fixture
    await grpc_server.stop(0)


def details(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str], list[str]]:
    """Return reason, metadata, and the fields or conditions that a status lists."""
    status = rpc_status.from_call(error)
    info, fields = error_details_pb2.ErrorInfo(), []
    for detail in status.details:
        bad, failure = error_details_pb2.BadRequest(), error_details_pb2.PreconditionFailure()
        if detail.Unpack(bad):
            fields += [violation.field for violation in bad.field_violations]
        elif detail.Unpack(failure):
            fields += [violation.description for violation in failure.violations]
        else:
            detail.Unpack(info)
    assert info.domain == "modelyard"
    return info.reason, dict(info.metadata), fields


async def refused(call: Awaitable[Any], code: grpc.StatusCode, reason: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert (caught.value.code(), details(caught.value)[0]) == (code, reason), caught.value.details()
    return caught.value


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "TOKEN_MISSING"),
        ("", "TOKEN_MISSING"),
        ("Basic YTpi", "TOKEN_MISSING"),
        ("Bearer ", "TOKEN_MISSING"),
        ("Bearer nonsense", "TOKEN_INVALID"),
        ("Bearer eyJhbGciOiJub25lIn0.e30.", "TOKEN_INVALID"),
    ],
)
async def test_calls_without_a_good_token_are_refused(
    server: Fixture, authorization: str | None, reason: str
) -> None:
    metadata = [] if authorization is None else [("authorization", authorization)]
    await refused(server.get(metadata=metadata), grpc.StatusCode.UNAUTHENTICATED, reason)
    assert server.calls == []


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"life": timedelta(seconds=-1)}, "TOKEN_EXPIRED"),
        ({"iss": "somebody-else"}, "TOKEN_INVALID"),
        ({"aud": "another-product"}, "TOKEN_INVALID"),
        ({"kind": "emperor"}, "TOKEN_INVALID"),
    ],
)
async def test_foreign_and_expired_tokens_are_refused(
    server: Fixture, claims: dict[str, Any], reason: str
) -> None:
    token = server.issuer.token(ADA, **claims)
    call = server.get(metadata=[("authorization", f"Bearer {token}")])
    await refused(call, grpc.StatusCode.UNAUTHENTICATED, reason)


async def test_a_token_signed_by_another_key_of_the_same_name_is_refused(server: Fixture) -> None:
    metadata = [("authorization", f"Bearer {Issuer().token(ADA)}")]
    await refused(server.get(metadata=metadata), grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_the_handler_knows_caller_request_and_deadline(server: Fixture) -> None:
    token = server.issuer.token(ADA)
    await server.get(metadata=[("authorization", f"Bearer {token}"), ("x-request-id", "r-1")], timeout=5)
    assert (server.calls[0].principal, server.calls[0].request_id) == (ADA, "r-1")
    assert server.calls[0].deadline is not None


@pytest.mark.parametrize("given", ["", "x" * 129, "a b"])
async def test_an_unusable_request_id_is_replaced(server: Fixture, given: str) -> None:
    token = server.issuer.token(ADA)
    await server.get(metadata=[("authorization", f"Bearer {token}"), ("x-request-id", given)])
    assert len(server.calls[0].request_id) == 36


async def test_public_rpcs_need_no_token(server: Fixture) -> None:
    await server.stub.ListCatalogs(pb.ListCatalogsRequest())


async def test_service_rpcs_refuse_people(server: Fixture) -> None:
    def call(principal: Principal) -> Any:
        metadata = [("authorization", f"Bearer {server.issuer.token(principal)}")]
        return server.stub.ResolveResource(pb.ResolveResourceRequest(), metadata=metadata)

    await refused(call(ADA), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    await call(SERVICE)


async def test_a_grant_opens_what_was_denied(server: Fixture) -> None:
    def call() -> Any:
        metadata = [("authorization", f"Bearer {server.issuer.token(ADA)}")]
        return server.stub.CreateCatalog(pb.CreateCatalogRequest(), metadata=metadata)

    error = await refused(call(), grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert details(error)[1]["privilege"] == "CREATE_CATALOG"
    server.grants.replace("1", "ada", [ResourceGrant("system", Privilege.CREATE_CATALOG, Effect.ALLOW)])
    await call()


async def test_every_violated_field_is_listed(server: Fixture) -> None:
    async def fail() -> None:
        raise InvalidField.many([Violation("a", "is missing"), Violation("b.c", "is too long")])

    server.behaviour = fail
    error = await refused(server.get(), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert details(error)[2] == ["a", "b.c"]
    assert error.details() == "a: is missing; b.c: is too long"


async def test_a_domain_error_survives_the_wire(server: Fixture) -> None:
    async def fail() -> None:
        raise PolicyUnmet("DEPLOY", "a.b.c/1", "a", ["one", "two"])

    server.behaviour = fail
    error = await refused(server.get(), grpc.StatusCode.FAILED_PRECONDITION, "POLICY_UNMET")
    rebuilt: DomainError = domain_error(error, "catalog")
    assert isinstance(rebuilt, PolicyUnmet)
    assert [violation.description for violation in rebuilt.violations] == ["one", "two"]
    assert rebuilt.metadata == {"action": "DEPLOY", "name": "a.b.c/1", "policy": "a"}


async def test_a_call_for_which_no_connection_to_the_database_is_free_is_told_to_come_back(
    server: Fixture,
) -> None:
    async def busy() -> None:
        raise PoolExhausted(10, 0.1)

    server.behaviour = busy
    error = await refused(server.get(), grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert details(error)[1] == {"maximum": "10"}
    assert "repeat later" in str(error.details())


async def test_an_unknown_exception_tells_nothing_but_an_id(server: Fixture) -> None:
    async def fail() -> None:
        raise RuntimeError("the password is 1234")

    server.behaviour = fail
    error = await refused(server.get(), grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "1234" not in str(error)
    assert details(error)[1]["error_id"] in str(error.details())


async def test_work_that_outlives_the_deadline_is_cancelled(server: Fixture) -> None:
    cancelled = asyncio.Event()

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    server.behaviour = linger
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.get(timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(cancelled.wait(), 60)


async def test_a_service_is_healthy_once_it_knows_the_grants(tmp_path: Path) -> None:
    grants, states = Grants(), health_pb2.HealthCheckResponse
    service = Service("catalog", FULL_NAME, lambda _server: None, access_table(cast("Any", None)))
    settings = Settings.model_construct(listen=f"unix:{tmp_path}/s", drain_seconds=1)
    serving = chassis._serving(service, settings, Issuer().verifier(), grants, cast("Any", mock.Mock()))
    async with serving, grpc.aio.insecure_channel(settings.listen) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", FULL_NAME):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == states.NOT_SERVING
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=FULL_NAME))
        assert (await watch.read()).status == states.NOT_SERVING
        await grants.mark_fresh(1)
        assert (await asyncio.wait_for(watch.read(), 30)).status == states.SERVING
        watch.cancel()


def test_a_service_with_an_rpc_that_nobody_ruled_does_not_start() -> None:
    service = Service("catalog", FULL_NAME, lambda _server: None, {**ACCESS, "Conquer": AUTHENTICATED})
    with pytest.raises(
        RuntimeError, match=r"RPCs without a rule \[.*'CreateModel'.*rules without an RPC \['Conquer'\]"
    ):
        check_access(service)
