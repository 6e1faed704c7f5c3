"""Keeps Envoy configured: follows routes, grants and keys, applies what follows from them, tells what Envoy serves.

When a watch breaks, the agent goes on with what it knows and asks again; Envoy serves from its files in the meantime. So
nothing here ever makes a route disappear but a table that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from modelyard.api.governance.v1.governance_service_pb2 import GetJwksRequest
from modelyard.api.inference.v1.inference_service_pb2 import ConfirmRoutesRequest, WatchRoutesRequest
from modelyard_gateway import desk
from modelyard_gateway.admin import Admin, EnvoyBusyError, EnvoyUnreachableError, rest_after
from modelyard_gateway.apply import Applier, ApplyFailedError
from modelyard_gateway.figures import Figures, Ledger
from modelyard_gateway.messages import figures_to_proto, keys_from_proto, table_from_proto
from modelyard_gateway.parts import Parts
from modelyard_gateway.permissions import allowed_principals
from modelyard_gateway.render import render
from modelyard_gateway.settings import GatewaySettings
from modelyard_gateway.table import Desired, Predictions, RouteTable, SigningKeys
from modelyard_kit import permissions
from modelyard_kit.errors import DomainError
from modelyard_kit.grants import Grants
from modelyard_kit.peers import Peers

log = structlog.get_logger()

_LOOK_SECONDS = 1.0
# Inference waits no longer than some of these for a gateway.
_HEARTBEAT_SECONDS = 3.0
_CONFIRM_SECONDS = 1.0
_RETRY_SECONDS = 0.5
# Long enough that a change is confirmed first and the next one of several does not meet it.
_TIDY_SECONDS = 3.0
# A connection that died without a word is found after this long.
_WATCH_SECONDS = 300.0


class Agent:
    """The agent of one Envoy."""

    def __init__(
        self, settings: GatewaySettings, peers: Peers, grants: Grants, admin: Admin, applier: Applier
    ) -> None:
        self._settings = settings
        self._peers = peers
        self._grants = grants
        self._admin = admin
        self._applier = applier
        self._table: RouteTable | None = None
        self._keys: SigningKeys | None = None
        self._changed = asyncio.Event()
        self._look_now = asyncio.Event()
        self._report = asyncio.Event()
        self._parts = Parts()
        self._applied: RouteTable | None = None
        self._confirmed = 0
        self._healthy: frozenset[str] = frozenset()
        self._figures: Mapping[str, Figures] = {}
        self._seen = ""
        self._problem = ""
        self._applying = False
        self._ledger = Ledger()

    async def run(self) -> None:
        """Work for ever."""
        self._applier.prepare()
        async with desk.serving(self._settings.desk_socket, self._is_ready), asyncio.TaskGroup() as group:
            group.create_task(permissions.watch(self._peers, self._grants))
            group.create_task(_for_ever("routes", self._watch_routes))
            group.create_task(_for_ever("keys", self._watch_keys))
            group.create_task(self._watch_grants())
            group.create_task(self._apply_changes())
            group.create_task(self._look_for_ever())
            group.create_task(self._report_for_ever())

    @property
    def applied(self) -> RouteTable | None:
        """The table that Envoy serves; None until it has one."""
        return self._applied

    def _is_ready(self) -> bool:
        return self._confirmed > 0

    async def _watch_routes(self) -> None:
        request = WatchRoutesRequest(gateway_id=self._settings.gateway_id)
        async for message in self._peers.stream(
            self._peers.inference.WatchRoutes, request, timeout=_WATCH_SECONDS
        ):
            table = await asyncio.to_thread(table_from_proto, message.table)
            if table != self._table:
                log.info("routes_received", version=table.version, routes=len(table.routes))
                self._table = table
                self._changed.set()

    async def _watch_keys(self) -> None:
        while True:
            response = await self._peers.call(self._peers.governance.GetJwks, GetJwksRequest())
            keys = keys_from_proto(response)
            if keys != self._keys:
                log.info("keys_received", keys=[key.kid for key in keys.keys])
                self._keys = keys
                self._changed.set()
            await asyncio.sleep(self._settings.keys_interval_seconds)

    async def _watch_grants(self) -> None:
        seen = 0
        while True:
            seen = await self._grants.wait_change(seen)
            if self._grants.complete:
                self._changed.set()

    async def _desired(self) -> Desired | None:
        """Return what to configure; None while too little is known to be better than what Envoy has."""
        if self._keys is None:
            return None
        if self._table is None or not self._grants.complete:
            return Desired(self._keys, None) if self._applier.is_empty else None
        keys, table = self._keys, self._table
        allowed = await asyncio.to_thread(allowed_principals, table, list(self._grants.holders()))
        return Desired(keys, Predictions(table, allowed))

    async def _apply_changes(self) -> None:
        again: asyncio.TimerHandle | None = None
        later = asyncio.get_running_loop().call_later
        while True:
            await self._changed.wait()
            self._changed.clear()
            if again:
                again.cancel()
            desired = await self._desired()
            if desired is None:
                continue
            self._applying = True
            try:
                wanted = await asyncio.to_thread(render, self._settings, desired, self._parts)
                if await self._applier.apply(wanted):
                    again = later(_TIDY_SECONDS, self._changed.set)
            except (ApplyFailedError, ValueError, OSError) as error:
                self._problem = str(error)
                log.warning("configuration_not_applied", problem=self._problem)
                again = later(_RETRY_SECONDS, self._changed.set)
            else:
                self._problem = ""
                self._applied = desired.predictions.table if desired.predictions else None
            finally:
                self._applying = False
            self._look_now.set()

    async def _look_for_ever(self) -> None:
        """Ask Envoy what it serves, now and then and after each change."""
        while True:
            began = time.monotonic()
            await self._look()
            self._report.set()
            await _within(rest_after(time.monotonic() - began, _LOOK_SECONDS), self._look_now)

    async def _look(self) -> None:
        """While Envoy takes a new configuration, the one before is what it serves; so it is while it has no time to say."""
        applied = self._applied
        try:
            late = await self._applier.lag()
            if not late and applied is not None:
                self._confirmed = applied.version
            if late and not self._applying:
                late = await self._applier.explain(late)
            healthy = await self._admin.healthy_groups()
            self._healthy = self._healthy if healthy is None else healthy
            self._figures = await self._count()
            self._seen = "" if self._applying else late
        except EnvoyBusyError as error:
            self._seen = str(error)
        except EnvoyUnreachableError as error:
            self._confirmed, self._healthy, self._figures = 0, frozenset(), {}
            self._seen = str(error)

    async def _report_for_ever(self) -> None:
        """Report after each look; when one takes long, what was known before, because inference takes silence for an end."""
        while True:
            await _within(_HEARTBEAT_SECONDS, self._report)
            try:
                await self._peers.call(
                    self._peers.inference.ConfirmRoutes, self._confirmation(), timeout=_CONFIRM_SECONDS
                )
            except (DomainError, OSError) as error:
                log.debug("confirmation_not_delivered", error=str(error))

    def _confirmation(self) -> ConfirmRoutesRequest:
        routes = self._applied.routes if self._applied else ()
        groups = {target.group for route in routes for target in route.targets}
        return ConfirmRoutesRequest(
            gateway_id=self._settings.gateway_id,
            version=self._confirmed,
            healthy_groups=sorted(self._healthy & groups),
            problem=self._problem or self._seen,
            figures=figures_to_proto(self._figures),
        )

    async def _count(self) -> Mapping[str, Figures]:
        """Return what was counted about the groups that inference wants to know of; Envoy is asked only if there are any."""
        routes = self._applied.routes if self._applied else ()
        measured = {target.group for route in routes if route.measured for target in route.targets}
        return self._ledger.note(measured, await self._admin.counted() if measured else {})


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for an event, but no longer than this, and take it back."""
    with contextlib.suppress(TimeoutError):
        # Not `wait_for`, which until Python 3.12 forgets a cancellation that comes with what it waits for.
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()


async def _for_ever(name: str, watch: Callable[[], Awaitable[None]]) -> None:
    """Begin a watch again whenever it ends."""
    while True:
        try:
            await watch()
        except (DomainError, OSError) as error:
            log.warning("watch_lost", watch=name, error=str(error) or type(error).__name__)
        await asyncio.sleep(_RETRY_SECONDS)
