"""The rule of verification: read every blob, hash it, and say which are not what their name says."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard_artifact import storage_store
from modelyard_artifact.errors import BlobLost
from modelyard_kit import outbox
from modelyard_kit.access import SYSTEM, Link, ResourceType
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import NotFound
from modelyard_kit.faults import failpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.models import Blob
    from modelyard_artifact.storage_store import Statistics
    from modelyard_kit.auth import Call
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database

_BATCH = 200
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Damaged:
    """A blob that is not what its name says; `digests` are artifacts that use it, at most 100."""

    blob: Blob
    problem: str
    digests: Sequence[str]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a verification is, and what it found since the last report."""

    verified_count: int
    verified_size: int
    total_count: int
    total_size: int
    damaged: Sequence[Damaged]


class Verification:
    """Use cases of looking at what is stored."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Clock = utc_now) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock

    async def statistics(self) -> Statistics:
        """Counts what is stored and what sharing saves."""
        return await self._database.read(storage_store.statistics)

    async def verify(self, call: Call, digest: str, *, discard: bool = False) -> AsyncIterator[Progress]:
        """Yields progress about twice a second, and at the end.

        Args:
            call: who verifies.
            digest: of the artifact whose blobs are verified; empty for everything that is stored.
            discard: throw damaged content away, so that the next upload which names it is asked for it.

        Raises:
            NotFound: there is no such artifact.
        """
        count, size = await self._totals(digest)
        verified_count, verified_size, found, after = 0, 0, list[Damaged](), ""
        reported = time.monotonic()
        while page := await self._page(digest, after):
            for blob in page:
                damage = await self._check(blob)
                verified_count, verified_size = verified_count + 1, verified_size + blob.size
                if damage:
                    found.append(damage)
                    if discard:
                        await self._discard(call, damage)
                if time.monotonic() - reported > _REPORT_SECONDS:
                    yield Progress(verified_count, verified_size, count, size, found)
                    reported, found = time.monotonic(), []
            after = page[-1].sha256
        # What came or went meanwhile is not counted twice: in the end all there was has been read.
        yield Progress(verified_count, verified_size, verified_count, verified_size, found)

    async def _check(self, blob: Blob) -> Damaged | None:
        problem = await self._problem(blob)
        if not problem:
            return None

        async def work(connection: AsyncConnection) -> list[str] | None:
            return await storage_store.users(connection, blob.sha256)

        digests = await self._database.read(work)
        # None: it was collected while it was read.
        return None if digests is None else Damaged(blob, problem, digests)

    async def _discard(self, call: Call, damage: Damaged) -> None:
        sha256 = damage.blob.sha256

        async def work(connection: AsyncConnection) -> None:
            await storage_store.note_damaged(connection, sha256)
            for link in [_artifact(digest) for digest in damage.digests] or [SYSTEM]:
                await outbox.append(connection, self._event(call, link, damage))

        # In this order: once it is noted, an upload may bring it, and that must not be thrown away. After a crash in between it is lost,
        # which the next verification finds.
        await self._blobs.delete(sha256)
        await failpoint("artifact.verify.discarded")
        await self._database.in_tx(work, isolation="READ COMMITTED")

    def _event(self, call: Call, link: Link, damage: Damaged) -> outbox.Event:
        return outbox.Event(
            type=f"artifact.{'blob' if link == SYSTEM else 'artifact'}.damaged",
            resource=link,
            actor=call.principal,
            request_id=call.request_id,
            data={"sha256": damage.blob.sha256, "size": damage.blob.size, "problem": damage.problem},
            time=self._clock(),
        )

    async def _problem(self, blob: Blob) -> str:
        size = await self._blobs.size(blob.sha256)
        if size is None:
            return "lost"
        if size != blob.size:
            return "wrong size"
        digest = hashlib.sha256()
        try:
            async for piece in self._blobs.read(blob, 0, blob.size):
                await asyncio.to_thread(digest.update, piece)
        except BlobLost:
            return "lost"
        return "" if digest.hexdigest() == blob.sha256 else "wrong content"

    async def _totals(self, digest: str) -> tuple[int, int]:
        async def work(connection: AsyncConnection) -> tuple[int, int] | None:
            return await storage_store.totals(connection, digest)

        totals = await self._database.read(work)
        if totals is None:
            raise NotFound("artifact", digest)
        return totals

    async def _page(self, digest: str, after: str) -> list[Blob]:
        async def work(connection: AsyncConnection) -> list[Blob]:
            return await storage_store.page(connection, digest, after, _BATCH)

        return await self._database.read(work)


def _artifact(digest: str) -> Link:
    return Link(ResourceType.ARTIFACT, digest, digest)
