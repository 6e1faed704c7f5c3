"""Keeps the standings of reviewed versions true, and tells the catalog of them.

A review writes the standing of its version in its own transaction. A new policy, or a rename, move or deletion in the catalog,
only marks the standings that it may touch; the follower looks at those again, batch by batch. What the catalog has not been told
is in the same rows, so it survives every end of this process: it is sent at least once, and the sequence of each version lets
the catalog drop what is repeated or late.

Lists and the catalog see standings; gates are decided from reviews and policies alone (`approvals`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance import policy as policies
from modelyard_governance.approvals import approvers
from modelyard_governance.models import Directory, KnownStanding, MarkedStanding, StateChange, Version
from modelyard_governance.store import approvals as approval_rows
from modelyard_governance.store import standings as rows
from modelyard_kit.access import SYSTEM, Link, ResourceType
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError, NotFound
from modelyard_kit.faults import InjectedFault, failpoint
from modelyard_kit.grants import Grants

BATCH = 500
POLL_SECONDS = 1.0
_LONGEST_PAUSE = 30.0

_log = structlog.get_logger()


class Catalog(Protocol):
    """Who is told of states."""

    async def set_approval_states(self, changes: Sequence[StateChange]) -> None:
        """Tell where versions stand.

        Raises:
            PeerUnavailable: the catalog does not answer.
        """


class Standings:
    """The follower; any number of processes may run one."""

    def __init__(
        self, *, database: Database, directory: Directory, catalog: Catalog, grants: Grants, clock: Clock
    ) -> None:
        self._grants = grants
        self._clock = clock
        self._database = database
        self._directory = directory
        self._catalog = catalog
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look at once: something was committed."""
        self._wake.set()

    async def run(self) -> None:
        """Follow for ever."""
        pause = POLL_SECONDS
        while True:
            self._wake.clear()
            try:
                more = await self.refresh() + await self.deliver()
                pause = POLL_SECONDS
            except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
                _log.warning("approval_states_not_told", error=str(error), retry_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if not more:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()

    async def refresh(self) -> int:
        """Look again at one batch of marked standings, and return how many there were."""
        marked = await self._database.query(lambda connection: rows.marked(connection, limit=BATCH))
        for standing in marked:
            await self._settle(standing)
        return len(marked)

    async def deliver(self) -> int:
        """Tell the catalog one batch of states, and return how many there were."""
        changes = await self._database.query(lambda connection: rows.undelivered(connection, limit=BATCH))
        if changes:
            await failpoint("governance.approvals.telling")
            await self._catalog.set_approval_states(changes)
            await failpoint("governance.approvals.told")
            await self._database.in_tx(
                lambda connection: rows.mark_delivered(connection, changes), isolation="READ COMMITTED"
            )
        return len(changes)

    async def _settle(self, standing: MarkedStanding) -> None:
        found: Version | None = None
        gone = False
        if standing.look_up:
            try:
                found = await self._directory.version_of_id(standing.version_id)
            except NotFound:
                gone = True

        async def work(connection: AsyncConnection) -> None:
            known = await rows.known(connection, standing.version_id)
            if known is None or known.marks != standing.marks:
                return  # marked again meanwhile: what was looked up may be old, so the next round does it
            if gone:
                await rows.unlist(connection, standing.version_id)
                return
            version = found or _version(standing.version_id, known)
            on_chain = await approval_rows.policies_on(connection, [link.id for link in version.chain])
            reviews = await approval_rows.reviews_of(connection, standing.version_id)
            policy = policies.nearest(version.chain, on_chain)
            approval = policies.standing(
                version.chain[0],
                version.author_id,
                reviews,
                policy,
                now=self._clock(),
                approves=approvers(self._grants, policy),
            )
            await rows.settle(connection, version, approval)

        await self._database.in_tx(work)


def _version(version_id: str, known: KnownStanding) -> Version:
    """Return a version as it was when the catalog was last asked; names of containers do not matter here."""
    chain = (
        Link(ResourceType.MODEL_VERSION, version_id, known.name),
        Link(ResourceType.MODEL, known.model_id, known.name.partition("/")[0]),
        Link(ResourceType.SCHEMA, known.schema_id, ""),
        Link(ResourceType.CATALOG, known.catalog_id, ""),
        SYSTEM,
    )
    return Version(chain, known.author_id, "", "")
