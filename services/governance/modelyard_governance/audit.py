"""The audit chain: appended to, read, and recomputed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.types import AuditCheckpoint
from modelyard_governance.chain import ChainVerifier, extend
from modelyard_governance.grants import set_owner
from modelyard_governance.models import OWNABLE, POLICED, Directory, Entry, RecordedEvent, Verification
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.store import audit as rows
from modelyard_governance.store import standings
from modelyard_kit.access import ResourceType
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.filters import Asked

VERIFY_BATCH = 1_000
_MOVABLE = (*POLICED, ResourceType.MODEL_VERSION)

_log = structlog.get_logger()


class Audit:
    """Remembers every event for good.

    Args:
        database: with the chain.
        feed: is told of changed owners.
        clock: tells the time.
        wake: called when standings may have been marked.
        signed: tells why the signature of a checkpoint does not count; empty when it does.
        directory: finds versions.
    """

    def __init__(
        self,
        *,
        database: Database,
        feed: PermissionFeed,
        clock: Clock,
        wake: Callable[[], None],
        signed: Callable[[AuditCheckpoint], str],
        directory: Directory,
    ) -> None:
        self._database = database
        self._feed = feed
        self._clock = clock
        self._wake = wake
        self._signed = signed
        self._directory = directory

    async def record(self, events: Sequence[RecordedEvent]) -> None:
        """Append events, each id once, and note the owners of what they say was created or changed."""
        unique = {event.id: event for event in events}

        async def work(connection: AsyncConnection) -> bool:
            sequence, head = await rows.lock_head(connection)
            known = await rows.known(connection, unique)
            fresh = [event for event in unique.values() if event.id not in known]
            await rows.append(connection, extend(sequence, head, fresh))
            await self._note_moves(connection, fresh)
            return await self._note_owners(connection, fresh)

        # The lock on the head puts appends in one order; each statement after it sees what was committed before.
        if await self._database.in_tx(work, isolation="READ COMMITTED"):
            await self._feed.refresh()
        self._wake()

    async def _note_moves(self, connection: AsyncConnection, events: Sequence[RecordedEvent]) -> None:
        """Mark what the standings of versions say of names and places that these events changed."""
        moved = sorted({event.resource.id for event in events if _moves(event)})
        if moved:
            await standings.mark(connection, moved, look_up=True)

    async def _note_owners(self, connection: AsyncConnection, events: Sequence[RecordedEvent]) -> bool:
        changed = False
        for event in events:
            resource = event.resource
            told = event.type.endswith((".created", ".updated"))
            if told and resource.type in OWNABLE and resource.owner_id:
                changed |= await set_owner(connection, resource, clock=self._clock)
        return changed

    async def page(self, asked: Asked, resource_id: str) -> tuple[list[Entry], str]:
        """Return a page of entries, of one resource if it is named, and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        return await self._database.read(lambda connection: rows.page(connection, asked, resource_id))

    async def activity(self, reference: str, asked: Asked) -> tuple[list[Entry], str]:
        """Return a page of what happened to a version, and the token of the next.

        Raises:
            NotFound: there is no such version.
            PeerUnavailable: the catalog cannot be reached.
            InvalidField: as `page`.
            LimitExceeded: as `page`.
        """
        version = (await self._directory.version(reference)).chain[0]
        subjects = (version.id, version.name)
        return await self._database.read(lambda connection: rows.page(connection, asked, "", subjects))

    async def verify(self) -> Verification:
        """Recompute the whole chain on one consistent view, a batch at a time, hashing on a thread."""

        async def work(connection: AsyncConnection) -> Verification:
            ends = await rows.ends(connection)
            after, head = ends.anchor
            verifier = ChainVerifier(after, head, signed=self._signed)
            anchored = await rows.checkpoints(connection, first=after, last=after)
            verifier.begin(anchored[0] if anchored else None)
            while not verifier.broken:
                batch = await rows.entries(connection, after=after, limit=VERIFY_BATCH)
                if not batch:
                    break
                signed = await rows.checkpoints(connection, first=after + 1, last=batch[-1].sequence)
                await asyncio.to_thread(verifier.feed, batch, signed)
                after = batch[-1].sequence
            return verifier.finish(*ends.head, await rows.newest_checkpoint(connection))

        outcome = await self._database.read(work)
        if not outcome.valid:
            _log.error("audit_chain_broken", sequence=outcome.broken_sequence, problem=outcome.problem)
        return outcome


def _moves(event: RecordedEvent) -> bool:
    """Return whether something of the catalog is called otherwise, is elsewhere, or is there no more or again."""
    service, _, verb = event.type.partition(".")
    if service != "catalog" or event.resource.type not in _MOVABLE:
        return False
    if verb.endswith(".updated"):
        after = event.document.get("data", {}).get("after", {})
        return isinstance(after, Mapping) and "name" in after
    return verb.endswith((".deleted", ".undeleted", ".purged"))
