"""Stand-ins for the services that a gateway follows: governance and inference, and a catalog that answers two calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from modelyard.api.catalog.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from modelyard.api.governance.v1 import access_pb2, governance_service_pb2_grpc, identity_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as governance_pb2
from modelyard.api.inference.v1 import deployment_pb2, inference_service_pb2_grpc, route_pb2
from modelyard.api.inference.v1 import inference_service_pb2 as inference_pb2
from modelyard_gateway.table import Route, RouteTable
from modelyard_kit.access import Effect, Privilege, ResourceGrant
from modelyard_kit.auth import Principal
from modelyard_kit.protos import chain_to_proto, grant_to_proto
from tests.conformance.gateway_stack import signing_keys
from tests.framework.tokens import Issuer

GATEWAY = Principal("0198-gateway", "gateway", "service")


class Changing:
    """A value that many can wait to change."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.revision = 1
        self._condition = asyncio.Condition()

    async def set(self, value: Any) -> None:
        async with self._condition:
            self.value, self.revision = value, self.revision + 1
            self._condition.notify_all()

    async def follow(self, at_least_every: float | None = None) -> AsyncIterator[Any]:
        """Yield the value now and after each change; None after so many seconds without one."""
        seen = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(at_least_every), self._condition:
                    await self._condition.wait_for(lambda: self.revision != seen)  # noqa: B023
            changed, seen = self.revision != seen, self.revision
            yield self.value if changed else None


class Governance(governance_service_pb2_grpc.GovernanceServiceServicer):
    """Knows one issuer and a list of grants by principal."""

    def __init__(self, issuer: Issuer, grants: dict[str, list[ResourceGrant]]) -> None:
        self.issuers = [issuer]
        self.grants = Changing(grants)
        self.groups: dict[str, tuple[str, ...]] = {}  # of each member; seen with the next change of grants
        self.disabled: set[str] = set()

    async def ExchangeToken(self, request: Any, context: Any) -> Any:
        if request.api_token != "secret":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        response = governance_pb2.ExchangeTokenResponse(access_token=self.issuers[0].token(GATEWAY))
        response.expire_time.FromDatetime(datetime.now(UTC) + timedelta(minutes=5))
        return response

    async def GetCaller(self, _request: Any, _context: Any) -> Any:
        return governance_pb2.GetCallerResponse(principal={"name": "ada"})

    async def GetJwks(self, _request: Any, _context: Any) -> Any:
        known = signing_keys(*self.issuers)
        keys = [identity_pb2.JsonWebKey(kid=key.kid, alg="ES256", x=key.x, y=key.y) for key in known.keys]
        return governance_pb2.GetJwksResponse(keys=keys, issuer=known.issuer)

    async def WatchPermissions(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
        async for grants in self.grants.follow(at_least_every=1.0):
            yield governance_pb2.WatchPermissionsResponse(
                revision=self.grants.revision,
                complete=True,
                changed=[
                    access_pb2.PrincipalGrants(
                        principal_id=principal,
                        principal_name=principal,
                        grants=map(grant_to_proto, held),
                        group_ids=self.groups.get(principal, ()),
                        disabled=principal in self.disabled,
                        is_group=any(principal in groups for groups in self.groups.values()),
                    )
                    for principal, held in (grants or {}).items()
                ],
            )


class Inference(inference_service_pb2_grpc.InferenceServiceServicer):
    """Publishes a route table and collects what gateways confirm."""

    def __init__(self, table: RouteTable) -> None:
        self.table = Changing(table)
        self.confirmed = Changing(inference_pb2.ConfirmRoutesRequest())
        self.newest: dict[str, Any] = {}
        """The newest confirmation of each gateway."""

    async def publish(self, *routes: Route) -> int:
        """Publish the next version of the table."""
        version = self.table.value.version + 1
        await self.table.set(RouteTable(version, routes))
        return int(version)

    async def until_confirmed(self, version: int, groups: Sequence[str] = ()) -> Any:
        async with asyncio.timeout(60):
            async for confirmation in self.confirmed.follow():
                if confirmation.version == version and set(groups) <= set(confirmation.healthy_groups):
                    return confirmation
        raise AssertionError

    async def WatchRoutes(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
        async for table in self.table.follow():
            yield inference_pb2.WatchRoutesResponse(table=table_to_proto(table))

    async def ConfirmRoutes(self, request: Any, _context: Any) -> Any:
        self.newest[request.gateway_id] = request
        await self.confirmed.set(request)
        return inference_pb2.ConfirmRoutesResponse()


class Catalog(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Answers two calls and one watch, and keeps metadata."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {}

    async def GetCatalog(self, request: Any, context: Any) -> Any:
        self.metadata = dict(context.invocation_metadata())
        if request.name == "none":
            info = error_details_pb2.ErrorInfo(reason="RESOURCE_NOT_FOUND", domain="modelyard")
            status = status_pb2.Status(code=5, message="catalog 'none' does not exist")
            status.details.add().Pack(info)
            details = ("grpc-status-details-bin", status.SerializeToString())
            await context.abort(grpc.StatusCode.NOT_FOUND, status.message, trailing_metadata=(details,))
        response = catalog_service_pb2.GetCatalogResponse()
        response.catalog.name = request.name
        response.catalog.owner_id = "ada"
        return response

    async def ListCatalogs(self, _request: Any, _context: Any) -> Any:
        return catalog_service_pb2.ListCatalogsResponse(catalogs=[{"name": "prod"}])

    async def WatchEvents(self, request: Any, _context: Any) -> AsyncIterator[Any]:
        for kind in request.types:
            yield catalog_service_pb2.WatchEventsResponse(resume_token=kind)


def table_to_proto(table: RouteTable) -> route_pb2.RouteTable:
    """The message of a table."""
    message = route_pb2.RouteTable(version=table.version)
    for route in table.routes:
        made = message.routes.add(
            deployment=chain_to_proto(route.deployment),
            max_request_bytes=route.max_request_bytes,
            measured=route.measured,
            private=route.private,
            traffic_limits=deployment_pb2.TrafficLimits(**asdict(route.limits)),
        )
        made.timeout.FromMilliseconds(int(route.timeout * 1000))
        for target in route.targets:
            made.targets.add(
                group=target.group,
                model_version=target.model_version,
                weight=target.weight,
                addresses=target.addresses,
            )
    return message


class ControlPlane:
    """The three services on sockets in a folder, each of which can be stopped and started again."""

    def __init__(self, folder: Path, issuer: Issuer) -> None:
        self.governance = Governance(issuer, {})  # type: ignore[abstract]  # what is not asked for answers UNIMPLEMENTED
        self.inference = Inference(RouteTable(0, ()))  # type: ignore[abstract]  # what is not asked for answers UNIMPLEMENTED
        self.catalog = Catalog()  # type: ignore[abstract]  # what is not asked for answers UNIMPLEMENTED
        self._folder = folder
        self._servers: dict[str, grpc.aio.Server] = {}

    async def start(self, *names: str) -> None:
        for name in names or ("governance", "inference", "catalog"):
            server = grpc.aio.server()
            if name == "governance":
                governance_service_pb2_grpc.add_GovernanceServiceServicer_to_server(self.governance, server)
            elif name == "inference":
                inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(self.inference, server)
            else:
                catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(self.catalog, server)
            server.add_insecure_port(f"unix:{self._folder}/{name}.sock")
            await server.start()
            self._servers[name] = server

    async def stop(self, *names: str) -> None:
        for name in names or tuple(self._servers):
            await self._servers.pop(name).stop(None)


def allow(*deployments: str) -> list[ResourceGrant]:
    """EXECUTE on deployments made by `gateway_stack.route`."""
    return [ResourceGrant(f"id-{name}", Privilege.EXECUTE, Effect.ALLOW) for name in deployments]
