"""Where content lies: one small contract, several engines.

A blob is named by its SHA-256 and never changes. Bytes arrive in a *partial*, which belongs to one upload, survives
a restart, and becomes a blob only after its size and hash were found right. So whatever a reader finds under a hash is
complete, and storing the same content twice is harmless.

Owners and hashes are made or checked by the service (UUIDs, 64 hex digits); text from clients never reaches an engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from modelyard_artifact.models import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from modelyard_artifact.blobs.marks import Mark
    from modelyard_artifact.models import Blob, BlobUrls, SignedUrl

__all__ = ["BlobStore", "DirectTransfer", "Partial"]


class Partial(ABC):
    """Content being received. Used by one task at a time; always closed in the end."""

    @property
    @abstractmethod
    def offset(self) -> int:
        """Bytes received so far: where the next ones go."""

    @abstractmethod
    async def append(self, data: bytes | memoryview) -> None:
        """Adds bytes at `offset`.

        Raises:
            DigestMismatch: more bytes than announced; the partial was thrown away.
            StorageFull: no room; what was received before is kept.
            OffsetMismatch: a newer transfer of the same content has taken over.
        """

    @abstractmethod
    async def finish(self) -> None:
        """Proves size and hash and makes the content durable under its hash; harmless when it is there already.

        Raises:
            DigestMismatch: not the announced bytes; the partial was thrown away.
            StorageFull: no room; the partial is kept.
        """

    @abstractmethod
    async def close(self) -> None:
        """Makes what was received durable and lets go of it. May be repeated."""


class DirectTransfer(Protocol):
    """Addresses of an object store, and the proof of what came there."""

    async def sign_upload(self, owner: str, blob: Blob) -> BlobUrls:
        """Addresses for the parts of a blob that were not sent yet."""

    async def finish(self, owner: str, blob: Blob) -> None:
        """Proves size and hash of what was sent to the addresses and gives it its name.

        Raises:
            UploadIncomplete: parts are missing.
            DigestMismatch: not the announced bytes; they were thrown away.
        """

    async def sign_download(self, blob: Blob) -> tuple[SignedUrl, datetime]:
        """Address to read a blob at, and when it stops working."""


class BlobStore(ABC):
    """Stores blobs by content. Engines: local disk, S3, memory (tests)."""

    @property
    def direct(self) -> DirectTransfer | None:
        """What lets clients send and read without passing the service; None where nothing does."""
        return None

    @abstractmethod
    async def mark(self) -> Mark | None:
        """Whose the store is; None while it is nobody's."""

    @abstractmethod
    async def write_mark(self, mark: Mark, *, first: bool) -> None:
        """Says whose the store is; with `first` only if it was nobody's, so that of two who try at once one is told by `mark`."""

    @abstractmethod
    async def tidy(self, older_than: datetime) -> None:
        """Throws away what a crash before `older_than` left and no owner has; most engines leave nothing."""

    @abstractmethod
    async def size(self, sha256: str) -> int | None:
        """Size in bytes of a stored blob; None when it is not there."""

    @abstractmethod
    async def received(self, owner: str) -> Mapping[str, int]:
        """The partials of an owner: hash -> bytes that are durable and need not be sent again."""

    @abstractmethod
    async def resume(self, owner: str, blob: Blob) -> Partial:
        """Opens the owner's partial of a blob, new or where it ended; an older transfer of it is cut off.

        Raises:
            StorageFull: the rest would not fit.
        """

    @abstractmethod
    async def discard(self, owner: str) -> None:
        """Throws away every partial of an owner, however it came; harmless when there is none."""

    @abstractmethod
    async def owners(self) -> Collection[str]:
        """Everybody who has partials, or something else that `discard` throws away."""

    @abstractmethod
    def stored(self, older_than: datetime) -> AsyncIterator[Blob]:
        """Yields every blob that became one before `older_than`, in the order of the hashes."""

    @abstractmethod
    def read(self, blob: Blob, offset: int, length: int) -> AsyncIterator[bytes]:
        """Yields `length` bytes from `offset` in pieces of at most 1 MiB. The range must lie inside the blob.

        Raises:
            BlobLost: the blob is not there or too short.
        """

    async def read_whole(self, blobs: Sequence[Blob]) -> list[bytes]:
        """The content of small blobs, which the caller has room for.

        Raises:
            BlobLost: one is not there or too short.
        """
        return [b"".join([piece async for piece in self.read(blob, 0, blob.size)]) for blob in blobs]

    async def read_each(self, blobs: Sequence[Blob]) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Yields the content of blobs, one after the other, as (place in `blobs`, piece): at most 1 MiB at once.

        Every blob has a piece, also an empty one.

        Raises:
            BlobLost: one is not there or too short.
        """
        for batch in _batches(blobs):
            if len(batch) == 1:
                place, blob = batch[0]
                async for piece in self.read(blob, 0, blob.size):
                    yield [(place, piece)]
                if not blob.size:
                    yield [(place, b"")]
            else:
                contents = await self.read_whole([blob for _, blob in batch])
                yield [(place, data) for (place, _), data in zip(batch, contents, strict=True)]

    @abstractmethod
    async def put_whole(self, owner: str, contents: Mapping[Blob, bytes | memoryview]) -> None:
        """Makes small blobs durable under their hashes, all together; the caller found the hashes right.

        Raises:
            StorageFull: no room.
        """

    @abstractmethod
    async def delete(self, sha256: str) -> None:
        """Removes a blob; harmless when it is not there."""

    @abstractmethod
    async def open(self) -> None:
        """Gets ready, and finds out now whether the store can be used at all."""

    @abstractmethod
    async def close(self) -> None:
        """Lets go of connections and threads."""


def _batches(blobs: Sequence[Blob]) -> Iterator[list[tuple[int, Blob]]]:
    """Consecutive blobs, each with its place, that fit into one message together; a larger one stands alone."""
    batch: list[tuple[int, Blob]] = []
    size = 0
    for index, blob in enumerate(blobs):
        if batch and size + blob.size > CHUNK_BYTES:
            yield batch
            batch, size = [], 0
        batch.append((index, blob))
        size += blob.size
    if batch:
        yield batch
