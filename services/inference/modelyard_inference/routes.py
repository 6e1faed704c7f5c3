"""The route table as this process last read it, who watches it, and what each gateway has confirmed.

The table follows from the database alone. What gateways confirm is kept in memory: they repeat it, so a restart of this service
loses nothing but a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from modelyard_inference.planner.observed import Gateway, Gateways
from modelyard_inference.route_table import RouteTable, RouteTarget

LEASE_SECONDS = 10.0
"""A gateway that neither watches nor confirms for so long is no longer waited for."""


@dataclass
class _Known:
    gateway: Gateway
    heard: float
    watches: int = 0
    shared: float = 0.0
    """Since when it has more than one watch, if it has."""

    def told(self, now: float) -> Gateway:
        """Return what it serves: nothing that counts if two gateways say it under one id.

        For a moment a lost watch may still be there beside its successor.
        """
        if self.watches <= 1 or now - self.shared <= LEASE_SECONDS:
            return self.gateway
        problem = f"{self.watches} gateways have this id; give each its own MODELYARD_GATEWAY_ID"
        return Gateway(self.gateway.id, 0, frozenset(), problem)


class Routes:
    """Publishes route tables to gateways and remembers their confirmations.

    Args:
        table: the table at the start.
        changed: called whenever a gateway confirmed something new, or came or went.
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(
        self,
        table: RouteTable,
        changed: Callable[[], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._changed = changed
        self._monotonic = monotonic
        self._began = monotonic()
        self._known: dict[str, _Known] = {}
        self._published = asyncio.Condition()

    @property
    def table(self) -> RouteTable:
        """Return the newest table that was published."""
        return self._table

    async def publish(self, table: RouteTable) -> None:
        """Send a table to every watcher, unless a newer one is out already."""
        if table.version > self._table.version:
            async with self._published:
                self._table = table
                self._published.notify_all()

    async def watch(self, gateway_id: str) -> AsyncIterator[RouteTable]:
        """Yield the table now and after each change. Tables that are overtaken while the watcher is busy are left out."""
        known = self._hear(gateway_id)
        known.watches += 1
        if known.watches == 2:
            known.shared = self._monotonic()
        self._changed()
        try:
            sent = -1
            while True:
                async with self._published:
                    await self._published.wait_for(lambda: self._table.version > sent)  # noqa: B023 - evaluated here only
                table = self._table
                sent = table.version
                yield table
        finally:
            known.watches -= 1
            known.heard = self._monotonic()

    async def replicas_of(self, group: str) -> tuple[str, ...]:
        """Wait until a group has replicas, and return their addresses; none if there is no such group any more."""
        async with self._published:
            await self._published.wait_for(lambda: not self._is_held(group))
        return next((t.addresses for t in self._targets() if t.group == group), ())

    def _is_held(self, group: str) -> bool:
        return any(target.held for target in self._targets() if target.group == group)

    def _targets(self) -> Iterator[RouteTarget]:
        return (target for route in self._table.routes for target in route.targets)

    def confirm(self, gateway: Gateway) -> None:
        """Note what a gateway serves."""
        known = self._hear(gateway.id)
        if known.gateway != gateway:
            known.gateway = gateway
            self._changed()

    def gateways(self) -> Gateways:
        """Return the gateways that are waited for."""
        now = self._monotonic()
        for gateway_id, known in list(self._known.items()):
            if not known.watches and now - known.heard > LEASE_SECONDS:
                del self._known[gateway_id]
        live = tuple(self._known[gateway_id].told(now) for gateway_id in sorted(self._known))
        return Gateways(live, settled=now - self._began > LEASE_SECONDS)

    def _hear(self, gateway_id: str) -> _Known:
        known = self._known.get(gateway_id)
        if known is None:
            known = self._known[gateway_id] = _Known(Gateway(gateway_id, 0, frozenset()), 0.0)
        known.heard = self._monotonic()
        return known
