"""Removes for good what was deleted and can no longer be undeleted, a bounded number of rows at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.lifecycle_store import LifecycleStore
from modelyard_catalog.models import Catalog, Model, ModelVersion, Resource, Schema
from modelyard_catalog.recording import record
from modelyard_kit.auth import Call, Principal
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault, failpoint
from modelyard_kit.ids import new_id

PERIOD_SECONDS = 60.0
BATCH = 1_000
_INNERMOST_FIRST: tuple[type[Resource], ...] = (ModelVersion, Model, Schema, Catalog)

_log = structlog.get_logger()


class Purge:
    """The background task of the purge.

    Args:
        db: the database.
        lifecycle: its tables.
        clock: the time.
        actor: returns who is named in events: this service.
        batch: rows removed in one transaction at most.
    """

    def __init__(
        self,
        db: Database,
        lifecycle: LifecycleStore,
        clock: Clock,
        actor: Callable[[], Principal],
        *,
        batch: int = BATCH,
    ) -> None:
        self._db = db
        self._lifecycle = lifecycle
        self._clock = clock
        self._actor = actor
        self._batch = batch

    async def run(self) -> None:
        """Purge for ever."""
        while True:
            try:
                await self.sweep()
            except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
                _log.warning("purge_failed", error=str(error), retry_seconds=PERIOD_SECONDS)
            await asyncio.sleep(PERIOD_SECONDS)

    async def sweep(self) -> int:
        """Remove everything whose purge time has come, and return how many resources that were deleted by name."""
        purged = 0
        for kind in _INNERMOST_FIRST:
            while rows := await self._overdue(kind):
                done = [await self._purge(row) for row in rows]
                purged += sum(done)
                if not any(done):  # another process is at it
                    break
        return purged

    async def _overdue(self, kind: type[Resource]) -> list[Resource]:
        async def work(connection: AsyncConnection) -> list[Resource]:
            return await self._lifecycle.overdue(connection, kind, self._clock(), self._batch)

        return await self._db.read(work)

    async def _purge(self, resource: Resource) -> bool:
        """Remove what a resource contains in as many transactions as it takes, its own row and the event in the last one."""

        async def part(connection: AsyncConnection) -> bool:
            return await self._lifecycle.purge_part(connection, resource, self._clock(), self._batch)

        async def row(connection: AsyncConnection) -> bool:
            now = self._clock()
            if not await self._lifecycle.purge_row(connection, resource, now):
                return False
            call = Call(self._actor(), new_id())
            deleted = resource.delete_time.isoformat() if resource.delete_time else ""
            data = {"delete_time": deleted}
            event = f"catalog.{resource.kind}.purged"
            await record(connection, call, event, resource.link, time=now, data=data, chain=resource.chain)
            return True

        # Nobody can change these rows any more, so nothing is lost by the weaker isolation.
        while await self._db.in_tx(part, isolation="READ COMMITTED"):
            await failpoint("catalog.purge.part")
        return await self._db.in_tx(row, isolation="READ COMMITTED")
