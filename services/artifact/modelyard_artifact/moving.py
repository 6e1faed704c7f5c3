"""The rules of moving: every blob that the database knows, from one store to another, each proved where it arrives.

Nothing is taken away from the source. A move that was cut begins again and copies only what the destination lacks; what is
there already is read and hashed like the rest, so that "done" always means that every blob was seen right in this very run.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard_artifact import belonging, store
from modelyard_artifact.errors import BlobLost, DigestMismatch
from modelyard_kit.faults import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.models import Blob
    from modelyard_kit.db import Database

OWNER = "moving"
_PAGE = 500
_SMALL_BYTES = 256 << 10
_GROUP_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did.

    Attributes:
        blobs: those that are right at the destination.
        size: their bytes.
        copied: how many of them were not there before.
        late: blobs that were recorded while it ran, which it may not have seen.
        problems: what is wrong, by hash.
    """

    blobs: int
    size: int
    copied: int
    late: int
    problems: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether every blob that the database knows is right at the destination."""
        return not self.problems and not self.late


class Mover:
    """Moves blobs.

    Args:
        database: the database of the service.
        source: where they are; only read.
        target: where they shall be.
        at_once: blobs, or groups of small ones, moved at the same time.
        advance: called with the bytes of each blob that is right at the destination.
    """

    def __init__(
        self,
        database: Database,
        source: BlobStore,
        target: BlobStore,
        *,
        at_once: int,
        advance: Callable[[int], None],
    ) -> None:
        self._database = database
        self._source = source
        self._target = target
        self._room = asyncio.Semaphore(at_once)
        self._advance = advance
        self._blobs = self._size = self._copied = 0
        self._problems: dict[str, str] = {}

    async def total(self) -> tuple[int, int]:
        """Number of blobs that the database knows, and their bytes."""
        return await self._database.read(store.count_blobs)

    async def move(self) -> Moved:
        """Moves everything; goes on after blobs that are lost or damaged.

        Raises:
            StorageFull: the destination has no room.
            PeerUnavailable: an object store does not answer.
            WrongBlobStoreError: the destination is another installation's.
        """
        await belonging.begin_move(self._database, self._target)
        after = ""
        while page := await self._page(after):
            after = page[-1].sha256
            try:
                async with asyncio.TaskGroup() as tasks:
                    for group in _groups(page):
                        await self._room.acquire()
                        tasks.create_task(self._move_group(group))
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from failures
        await self._target.discard(OWNER)
        late = (await self.total())[0] - self._blobs - len(self._problems)
        moved = Moved(self._blobs, self._size, self._copied, max(late, 0), self._problems)
        if moved.complete:
            await belonging.end_move(self._database, self._target)
        return moved

    async def _move_group(self, group: Sequence[Blob]) -> None:
        try:
            missing = [blob for blob in group if await self._target.size(blob.sha256) != blob.size]
            if len(group) > 1:
                copied = await self._copy_small(missing)
            else:
                copied = [blob for blob in missing if await self._copy(blob)]
            failed = {blob for blob in missing if blob not in copied}
            await failpoint("artifact.move.before_verify")
            for blob in group:
                if blob not in failed and await self._is_right(blob):
                    self._blobs, self._size = self._blobs + 1, self._size + blob.size
                    self._copied += blob in copied
                    self._advance(blob.size)
        finally:
            self._room.release()

    async def _copy_small(self, blobs: Sequence[Blob]) -> list[Blob]:
        contents = {}
        for blob in blobs:
            try:
                data = b"".join([piece async for piece in self._source.read(blob, 0, blob.size)])
            except BlobLost as error:
                self._problems[blob.sha256] = f"in the source: {error}"
                continue
            if hashlib.sha256(data).hexdigest() == blob.sha256:
                contents[blob] = data
            else:
                self._problems[blob.sha256] = "in the source: wrong content"
        if contents:
            await self._target.put_whole(OWNER, contents)
        return list(contents)

    async def _copy(self, blob: Blob) -> bool:
        partial = await self._target.resume(OWNER, blob)
        try:
            begin = partial.offset
            async for piece in self._source.read(blob, begin, blob.size - begin):
                await partial.append(piece)
            await partial.finish()
        except (BlobLost, DigestMismatch) as error:
            self._problems[blob.sha256] = f"in the source: {error}"
            return False
        finally:
            await partial.close()
        return True

    async def _is_right(self, blob: Blob) -> bool:
        digest = hashlib.sha256()
        try:
            async for piece in self._target.read(blob, 0, blob.size):
                await asyncio.to_thread(digest.update, piece)
        except BlobLost as error:
            self._problems[blob.sha256] = f"at the destination: {error}"
            return False
        if digest.hexdigest() != blob.sha256:
            # A later run copies it again: what is wrong must not stay under its name.
            await self._target.delete(blob.sha256)
            self._problems[blob.sha256] = "at the destination: wrong content, removed there: run again"
            return False
        return True

    async def _page(self, after: str) -> list[Blob]:
        async def work(connection: AsyncConnection) -> list[Blob]:
            return await store.list_blobs(connection, after, _PAGE)

        return await self._database.read(work)


def _groups(blobs: Sequence[Blob]) -> list[list[Blob]]:
    """Small blobs in groups that fit into memory, every larger one alone."""
    groups: list[list[Blob]] = []
    small: list[Blob] = []
    for blob in blobs:
        if blob.size > _SMALL_BYTES:
            groups.append([blob])
            continue
        if sum(each.size for each in small) + blob.size > _GROUP_BYTES:
            groups.append(small)
            small = []
        small.append(blob)
    return [*groups, small] if small else groups
