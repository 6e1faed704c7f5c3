"""Blobs in memory: for tests, gone with the process."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modelyard_artifact.blobs import BlobStore, Partial
from modelyard_artifact.errors import BlobLost, DigestMismatch, OffsetMismatch, StorageFull
from modelyard_artifact.models import CHUNK_BYTES, Blob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from modelyard_artifact.blobs.marks import Mark


class MemoryBlobStore(BlobStore):
    """Keeps everything in dictionaries; `capacity` (bytes) plays a full disk."""

    def __init__(self, *, capacity: int = 1 << 30) -> None:
        self.blobs: dict[str, bytes] = {}
        self.times: dict[str, datetime] = {}
        self.partials: dict[tuple[str, str], bytearray] = {}
        self.holders: dict[tuple[str, str], _MemoryPartial] = {}
        self.capacity = capacity
        self.marked: Mark | None = None

    async def open(self) -> None:
        """See BlobStore."""

    async def close(self) -> None:
        """See BlobStore."""

    async def mark(self) -> Mark | None:
        """See BlobStore."""
        return self.marked

    async def write_mark(self, mark: Mark, *, first: bool) -> None:
        """See BlobStore."""
        if not (first and self.marked):
            self.marked = mark

    def room(self) -> int:
        """Bytes that still fit."""
        used = sum(map(len, self.blobs.values())) + sum(map(len, self.partials.values()))
        return self.capacity - used

    async def size(self, sha256: str) -> int | None:
        """See BlobStore."""
        return len(self.blobs[sha256]) if sha256 in self.blobs else None

    async def received(self, owner: str) -> Mapping[str, int]:
        """See BlobStore."""
        return {sha256: len(data) for (who, sha256), data in self.partials.items() if who == owner}

    async def resume(self, owner: str, blob: Blob) -> Partial:
        """See BlobStore."""
        key = (owner, blob.sha256)
        if blob.size - len(self.partials.get(key, b"")) > self.room():
            raise StorageFull
        self.partials.setdefault(key, bytearray())
        self.holders[key] = partial = _MemoryPartial(self, key, blob)
        return partial

    async def discard(self, owner: str) -> None:
        """See BlobStore."""
        for key in [key for key in self.partials if key[0] == owner]:
            self.partials.pop(key)
            self.holders.pop(key, None)

    async def tidy(self, older_than: datetime) -> None:
        """See BlobStore. Nothing outlives the process."""

    async def owners(self) -> Collection[str]:
        """See BlobStore."""
        return {owner for owner, _ in self.partials}

    async def stored(self, older_than: datetime) -> AsyncIterator[Blob]:
        """See BlobStore."""
        for sha256 in sorted(self.blobs):
            if self.times[sha256] < older_than:
                yield Blob(sha256, len(self.blobs[sha256]))

    async def put_whole(self, owner: str, contents: Mapping[Blob, bytes | memoryview]) -> None:
        """See BlobStore."""
        del owner  # there is no step in between that could be left over
        if sum(map(len, contents.values())) > self.room():
            raise StorageFull
        for blob, data in contents.items():
            self.put(blob.sha256, bytes(data))

    def put(self, sha256: str, data: bytes) -> None:
        """Keeps a blob."""
        self.blobs[sha256] = data
        self.times[sha256] = datetime.now(UTC)

    async def read(self, blob: Blob, offset: int, length: int) -> AsyncIterator[bytes]:
        """See BlobStore."""
        data = self.blobs.get(blob.sha256)
        if data is None or offset + length > len(data):
            raise BlobLost(blob.sha256, "is not in memory")
        for start in range(offset, offset + length, CHUNK_BYTES):
            yield data[start : min(start + CHUNK_BYTES, offset + length)]

    async def delete(self, sha256: str) -> None:
        """See BlobStore."""
        self.blobs.pop(sha256, None)


class _MemoryPartial(Partial):
    def __init__(self, store: MemoryBlobStore, key: tuple[str, str], blob: Blob) -> None:
        self._store = store
        self._key = key
        self._blob = blob

    @property
    def offset(self) -> int:
        return len(self._store.partials.get(self._key, b""))

    async def append(self, data: bytes | memoryview) -> None:
        self._still_mine()
        if self.offset + len(data) > self._blob.size:
            self._throw_away()
            raise DigestMismatch(expected=f"{self._blob.size} bytes", actual="more bytes")
        if len(data) > self._store.room():
            raise StorageFull
        self._store.partials[self._key] += data

    async def finish(self) -> None:
        self._still_mine()
        data = bytes(self._store.partials[self._key])
        self._throw_away()
        actual = hashlib.sha256(data).hexdigest()
        if len(data) != self._blob.size or actual != self._blob.sha256:
            raise DigestMismatch(expected=self._blob.sha256, actual=actual)
        self._store.put(self._blob.sha256, data)

    async def close(self) -> None:
        if self._store.holders.get(self._key) is self:
            self._store.holders.pop(self._key)

    def _still_mine(self) -> None:
        if self._store.holders.get(self._key) is not self:
            raise OffsetMismatch(
                "a newer transfer of this blob has taken over", expected=self.offset, actual=self.offset
            )

    def _throw_away(self) -> None:
        self._store.partials.pop(self._key, None)
        self._store.holders.pop(self._key, None)
