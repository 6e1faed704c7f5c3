"""Keeps the owners of schemas and catalogs in the rows of deployments up to date.

Who owns a container may do everything with the deployments in it, by decisions that this service and its gateways make from their own
copy. A new owner in the catalog is here within seconds; until the catalog answers again, the last known one stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.models import Deployment
from modelyard_inference.ports import Upstream
from modelyard_inference.store import InferenceStore
from modelyard_kit.access import Chain
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault

PERIOD_SECONDS = 1.0
_PARALLEL = 8

_log = structlog.get_logger()


class Owners:
    """Looks again who owns what deployments are in.

    Args:
        db: the database.
        store: its tables.
        upstream: the services that know who owns what.
        wake: tells the reconciler that there is something to do.
        seen: returns the deployments as the reconciler saw them last.
    """

    def __init__(
        self,
        db: Database,
        store: InferenceStore,
        upstream: Upstream,
        wake: Callable[[], None],
        seen: Callable[[], Sequence[Deployment]],
    ) -> None:
        self._db = db
        self._store = store
        self._upstream = upstream
        self._wake = wake
        self._seen = seen
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                if await self.refresh(self._seen()):
                    self._wake()
            except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
                _log.warning("owners_not_refreshed", error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def refresh(self, deployments: Sequence[Deployment]) -> bool:
        """Look up every schema once; return whether anything changed."""
        schemas = sorted({deployment.schema_id for deployment in deployments})
        chains = [chain for chain in await asyncio.gather(*map(self._chain, schemas)) if chain]
        return any([await self._note(chain) for chain in chains])

    async def _chain(self, schema_id: str) -> Chain:
        async with self._slots:
            try:
                return await self._upstream.schema_of_id(schema_id)
            except DomainError:  # nobody can tell now, or it is deleted, which its deployments do not allow
                return ()

    async def _note(self, chain: Chain) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            changed = await self._store.set_containers(connection, chain[0], chain[1])
            for deployment_id in changed:
                await self._store.route_changed(connection, deployment_id)  # gateways decide by owners too
            return bool(changed)

        return await self._db.in_tx(work)
