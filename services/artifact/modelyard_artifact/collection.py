"""The rules of collection: what nobody refers to any more is deleted, and nothing else ever is.

Three steps, each of which may be cut anywhere and is taken up again by the next sweep:

1. An artifact is unreferenced when the catalog, asked by digest, knows no version with it, not even a deleted one that can
   still be undeleted. References younger than any call can last count as well: their version may be on its way.
2. After the grace period, and after asking again, the artifact goes in one transaction: its row is locked, so that a new
   reference comes before (and stops it) or after (and is refused).
3. A blob that no manifest names is moved to `condemned_blobs`; its content is deleted while that row is locked. Both happen
   under locks that whoever announces a manifest takes as well: an upload that reuses the blob comes before (and keeps it),
   in between (and stops the deletion), or after; in the last two cases it is told that the blob is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain as joined
from typing import TYPE_CHECKING, Protocol

from modelyard_artifact import life_store, store
from modelyard_kit import outbox
from modelyard_kit.access import SYSTEM, Link, ResourceType
from modelyard_kit.faults import failpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.life_store import Unused
    from modelyard_artifact.models import Blob
    from modelyard_kit.auth import Call
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database

BATCH = 500
UNSETTLED = timedelta(hours=48)
"""Age up to which a reference counts although no version has the artifact: twice the longest deadline of a call."""
LISTING_PERIOD = timedelta(days=1)
"""How often the blob store is asked for all it has; content without a row counts as left over from this age, or from that of grace."""
CHECK_PERIOD = timedelta(hours=6)
"""How often the catalog is asked about an artifact."""


class Uses(Protocol):
    """What the collector needs to know of the catalog."""

    async def used(self, digests: Sequence[str]) -> frozenset[str]:
        """Of at most 1,000 digests those that versions have. Raises PeerUnavailable."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What was deleted: numbers, and bytes of the blobs."""

    artifacts: int = 0
    blobs: int = 0
    size: int = 0


class Collector:
    """Use cases of collection.

    Args:
        database: the database.
        blobs: where content lies.
        uses: asks the catalog.
        clock: the time.
        grace: how long an artifact stays after its last reference, and content that the database does not know.
        unsettled: see UNSETTLED.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        uses: Uses,
        clock: Clock,
        *,
        grace: timedelta,
        unsettled: timedelta = UNSETTLED,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._uses = uses
        self._clock = clock
        self._grace = grace
        self._unsettled = unsettled
        self._listed = datetime.min.replace(tzinfo=UTC)

    async def sweep(self, call: Call) -> Collected:
        """Collects what is due; asks the catalog only about artifacts not checked for a while.

        Raises:
            PeerUnavailable: the catalog does not answer; what it did not say is kept.
        """
        return await self._collect(call, self._clock() - CHECK_PERIOD)

    async def collect(self, call: Call, *, dry_run: bool = False) -> Collected:
        """Collects what is due after asking the catalog about every artifact; `dry_run` only tells what that would be.

        Raises:
            PeerUnavailable: the catalog does not answer; what it did not say is kept.
        """
        if not dry_run:
            return await self._collect(call, self._clock())
        await self._check(self._clock())
        return await self._preview()

    async def _preview(self) -> Collected:
        due: list[Unused] = []
        while page := await self._collectable(due[-1].digest if due else ""):
            due += page
        used = await self._used([each.digest for each in due])
        digests = [each.digest for each in due if each.digest not in used]
        count, size, after = *await self._database.read(life_store.count_condemned), ""
        while blobs := await self._unnamed(after, without=digests):
            count, size, after = count + len(blobs), size + sum(map(_size, blobs)), blobs[-1].sha256
        return Collected(len(digests), count, size)

    async def _collect(self, call: Call, checked_before: datetime) -> Collected:
        await self._check(checked_before)
        artifacts = await self._remove_artifacts(call)
        await self._condemn(call)
        await self._condemn_unrecorded(call)
        blobs, size = await self._delete_condemned()
        return Collected(artifacts, blobs, size)

    async def _check(self, before: datetime) -> None:
        """Ask the catalog about every artifact not checked since `before`."""

        async def due(connection: AsyncConnection) -> list[str]:
            return await life_store.unchecked(connection, before, BATCH)

        while digests := await self._database.read(due):
            await self._mark(digests, await self._uses.used(digests))

    async def _mark(self, digests: Sequence[str], used: frozenset[str]) -> None:
        now = self._clock()

        async def work(connection: AsyncConnection) -> None:
            unused = sorted(set(digests) - used)
            await life_store.mark_unused(connection, unused, now, now - self._unsettled)
            await life_store.mark_used(connection, sorted(used), now)

        await self._database.in_tx(work, isolation="READ COMMITTED")

    async def _remove_artifacts(self, call: Call) -> int:
        removed, after = 0, ""
        while page := await self._collectable(after):
            digests = [each.digest for each in page]
            after = digests[-1]
            used = await self._uses.used(digests)
            for each in page:
                if each.digest not in used:
                    removed += await self._remove_artifact(call, each)
        return removed

    async def _remove_artifact(self, call: Call, unused: Unused) -> bool:
        now = self._clock()
        event = outbox.Event(
            type="artifact.artifact.collected",
            resource=Link(ResourceType.ARTIFACT, unused.digest, unused.digest),
            actor=call.principal,
            request_id=call.request_id,
            data={"size": unused.size, "unreferenced_since": unused.since.isoformat()},
            time=now,
        )

        async def work(connection: AsyncConnection) -> bool:
            await store.lock_manifests(connection, removing=True)
            gone = await life_store.remove_artifact(connection, unused.digest, now - self._grace)
            if gone:
                await outbox.append(connection, event)
            return gone

        await failpoint("artifact.collect.before_artifact")
        return await self._database.in_tx(work, isolation="READ COMMITTED")

    async def _condemn(self, call: Call) -> None:
        after = ""
        while blobs := await self._unnamed(after):
            hashes = [blob.sha256 for blob in blobs]
            after = hashes[-1]

            async def work(connection: AsyncConnection, hashes: Sequence[str] = hashes) -> None:
                await store.lock_manifests(connection, removing=True)
                await self._tell(connection, call, await life_store.condemn(connection, hashes))

            await failpoint("artifact.collect.before_condemn")
            await self._database.in_tx(work, isolation="READ COMMITTED")

    async def _condemn_unrecorded(self, call: Call) -> None:
        """Finds content without a row, which a crash between storing and recording leaves. A listing, so once a day.

        It has its grace as well: after an older state of the database was restored, what came since has no row either.
        """
        now = self._clock()
        if now - self._listed < LISTING_PERIOD:
            return
        batch: list[Blob] = []
        async for blob in self._blobs.stored(now - max(LISTING_PERIOD, self._grace)):
            batch.append(blob)
            if len(batch) == BATCH:
                await self._condemn_those(call, batch)
                batch = []
        if batch:
            await self._condemn_those(call, batch)
        self._listed = now

    async def _condemn_those(self, call: Call, stored: Sequence[Blob]) -> None:
        async def work(connection: AsyncConnection) -> None:
            await store.lock_manifests(connection, removing=True)
            await self._tell(connection, call, await life_store.condemn_unrecorded(connection, stored))

        await self._database.in_tx(work, isolation="READ COMMITTED")

    async def _tell(self, connection: AsyncConnection, call: Call, sizes: Sequence[int]) -> None:
        """Write one event of blobs that are condemned in this transaction: from here on nobody can have them."""
        if not sizes:
            return
        event = outbox.Event(
            type="artifact.blob.condemned",
            resource=SYSTEM,
            actor=call.principal,
            request_id=call.request_id,
            data={"count": len(sizes), "size": sum(sizes)},
            time=self._clock(),
        )
        await outbox.append(connection, event)

    async def _delete_condemned(self) -> tuple[int, int]:
        count, size = 0, 0

        async def some(connection: AsyncConnection) -> list[Blob]:
            return await life_store.condemned(connection, BATCH)

        while blobs := await self._database.read(some):
            done = [blob for blob in blobs if await self._delete(blob)]
            count, size = count + len(done), size + sum(map(_size, done))
            if not done:  # another process is at them
                break
        return count, size

    async def _delete(self, blob: Blob) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            if not await life_store.claim(connection, blob.sha256):
                return False
            await failpoint("artifact.collect.before_delete")
            # While the row is locked: who needs the content meanwhile waits, and then finds it missing. Twice is harmless.
            await self._blobs.delete(blob.sha256)
            await failpoint("artifact.collect.after_delete")
            await life_store.forget(connection, blob.sha256)
            return True

        return await self._database.in_tx(work, isolation="READ COMMITTED")

    async def _collectable(self, after: str) -> list[Unused]:
        before = self._clock() - self._grace

        async def work(connection: AsyncConnection) -> list[Unused]:
            return await life_store.collectable(connection, before, after, BATCH)

        return await self._database.read(work)

    async def _unnamed(self, after: str, *, without: Sequence[str] = ()) -> list[Blob]:
        async def work(connection: AsyncConnection) -> list[Blob]:
            return await life_store.unnamed_blobs(connection, after, BATCH, without=without)

        return await self._database.read(work)

    async def _used(self, digests: Sequence[str]) -> frozenset[str]:
        pages = [digests[start : start + BATCH] for start in range(0, len(digests), BATCH)]
        return frozenset(joined.from_iterable([await self._uses.used(page) for page in pages]))


def _size(blob: Blob) -> int:
    return blob.size
