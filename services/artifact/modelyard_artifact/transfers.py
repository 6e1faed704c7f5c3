"""The rules of receiving: pieces of a stream become verified blobs.

A stream may end anywhere, with or without a word. What was received stays, made durable, and the next stream continues
there; a blob exists for others only after its hash was found right and its row is written.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard_artifact import store
from modelyard_artifact.artifacts import own_upload
from modelyard_artifact.errors import DigestMismatch, OffsetMismatch
from modelyard_artifact.models import UploadState
from modelyard_kit.errors import InvalidField, InvalidState, NotFound
from modelyard_kit.faults import failpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore, Partial
    from modelyard_artifact.models import Blob, Upload
    from modelyard_kit.auth import Call
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database


@dataclass(frozen=True, slots=True)
class BlobHeader:
    """Which blob the following chunks belong to, and where they begin."""

    upload_id: str
    sha256: str
    offset: int


@dataclass(frozen=True, slots=True)
class WholeBlobs:
    """Small blobs, each at once."""

    upload_id: str
    contents: tuple[bytes, ...]


class Transfers:
    """Use cases of receiving content."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Clock) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock

    async def receive(self, call: Call, pieces: AsyncIterator[BlobHeader | WholeBlobs | bytes]) -> int:
        """Takes the pieces of one stream; returns how many blobs it brought to their end.

        Raises:
            NotFound: no such upload of this principal.
            InvalidState: the upload is committed.
            InvalidField: a chunk without header, or a blob that the upload does not announce.
            OffsetMismatch: a header that does not continue where the blob ended.
            DigestMismatch: not the announced bytes.
            StorageFull: no room.
        """
        stream = _Stream(self._database, self._blobs, self._clock, call)
        try:
            async for piece in pieces:
                if isinstance(piece, BlobHeader):
                    await stream.begin(piece)
                elif isinstance(piece, WholeBlobs):
                    await stream.take(piece)
                else:
                    await stream.append(piece)
        finally:
            # Shielded: also when the caller is gone, what came is made durable before the next stream asks for it.
            await asyncio.shield(stream.close())
        return stream.completed


class _Stream:
    """Where one stream is: the upload it last named and the blob it is in."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Clock, call: Call) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._call = call
        self._upload: Upload | None = None
        self._receiver: _Receiver | _Drain | None = None
        self.completed = 0

    async def begin(self, header: BlobHeader) -> None:
        await self.close()
        upload = await self._open_upload(header.upload_id)

        async def work(connection: AsyncConnection) -> tuple[Blob, bool] | None:
            return await store.announced_blob(connection, upload.digest, header.sha256)

        announced = await self._database.read(work)
        if announced is None:
            raise InvalidField(
                "header.sha256", f"{header.sha256} is not the content of a file of this upload"
            )
        blob, stored = announced
        if stored:
            # Another upload was faster. The sender cannot know, so its bytes are let go by.
            self._receiver = _Drain(blob, header.offset)
        else:
            self._receiver = await self._resume(upload.id, blob, header.offset)
        await self._complete_if_full()

    async def append(self, chunk: bytes) -> None:
        if self._receiver is None:
            raise InvalidField("header", "is missing: send the header of a blob before its chunks")
        await self._receiver.append(chunk)
        await self._complete_if_full()

    async def take(self, piece: WholeBlobs) -> None:
        await self.close()
        upload = await self._open_upload(piece.upload_id)
        contents = await asyncio.to_thread(_by_hash, piece.contents)

        async def work(connection: AsyncConnection) -> list[tuple[Blob, bool]]:
            return await store.announced_blobs(connection, upload.digest, list(contents))

        announced = await self._database.read(work)
        known = {blob.sha256 for blob, _ in announced if len(contents[blob.sha256]) == blob.size}
        for actual in contents:
            if actual not in known:
                raise DigestMismatch(expected="the content of a file of this upload", actual=actual)
        new = {blob: contents[blob.sha256] for blob, stored in announced if not stored}
        if new:
            await asyncio.shield(self._store_whole(upload.id, new))
        self.completed += len(announced)

    async def _store_whole(self, upload_id: str, new: dict[Blob, bytes]) -> None:
        await self._blobs.put_whole(upload_id, new)
        await self._record(upload_id, list(new))

    async def _record(self, upload_id: str, blobs: Sequence[Blob]) -> None:
        """Write the rows of content that the store has.

        The upload must still be there: its manifest has kept collection away from the content since before it came. Without
        it the content may be deleted at this very moment.
        """

        async def work(connection: AsyncConnection) -> None:
            if not await store.keep_upload(connection, upload_id):
                raise NotFound("upload", upload_id)
            await store.add_blobs(connection, blobs, self._clock())

        await failpoint("artifact.blob.before_record")
        await self._database.in_tx(work, isolation="READ COMMITTED")
        await failpoint("artifact.blob.after_record")

    async def close(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver:
            await receiver.close()

    async def _open_upload(self, upload_id: str) -> Upload:
        if self._upload and self._upload.id == upload_id:
            return self._upload

        async def work(connection: AsyncConnection) -> Upload:
            upload = await own_upload(connection, self._call, upload_id)
            if upload.state is not UploadState.OPEN:
                raise InvalidState("upload", upload_id, state=upload.state, wanted=UploadState.OPEN)
            await store.touch_upload(connection, upload_id, self._clock())
            return upload

        self._upload = await self._database.in_tx(work)
        return self._upload

    async def _resume(self, upload_id: str, blob: Blob, offset: int) -> _Receiver:
        partial = await self._blobs.resume(upload_id, blob)
        if partial.offset != offset:
            await partial.close()
            raise OffsetMismatch(
                f"blob {blob.sha256} must continue at {partial.offset}, not at {offset}: GetUpload tells where",
                expected=partial.offset,
                actual=offset,
            )
        return _Receiver(partial, blob, upload_id)

    async def _complete_if_full(self) -> None:
        receiver = self._receiver
        if receiver is None or receiver.done or receiver.offset != receiver.blob.size:
            return
        if isinstance(receiver, _Receiver):
            # Shielded: a blob that came whole is kept even if the sender hangs up now.
            await asyncio.shield(self._store(receiver))
        receiver.done = True
        self.completed += 1

    async def _store(self, receiver: _Receiver) -> None:
        await receiver.partial.finish()
        await self._record(receiver.upload_id, [receiver.blob])


def _by_hash(contents: Sequence[bytes]) -> dict[str, bytes]:
    return {hashlib.sha256(data).hexdigest(): data for data in contents}


class _Receiver:
    """Takes the chunks of a blob into its partial."""

    def __init__(self, partial: Partial, blob: Blob, upload_id: str) -> None:
        self.partial = partial
        self.blob = blob
        self.upload_id = upload_id
        self.done = False

    @property
    def offset(self) -> int:
        return self.partial.offset

    async def append(self, chunk: bytes) -> None:
        if self.done and chunk:
            raise _too_long(self.blob)
        if chunk:
            await self.partial.append(chunk)

    async def close(self) -> None:
        await self.partial.close()


class _Drain:
    """Lets the chunks of a blob go by that is stored already; their number must still be right."""

    def __init__(self, blob: Blob, offset: int) -> None:
        if offset > blob.size:
            raise OffsetMismatch(
                f"blob {blob.sha256} is complete with {blob.size} bytes", expected=blob.size, actual=offset
            )
        self.blob = blob
        self.offset = offset
        self.done = False

    async def append(self, chunk: bytes) -> None:
        if self.offset + len(chunk) > self.blob.size:
            raise _too_long(self.blob)
        self.offset += len(chunk)

    async def close(self) -> None:
        return


def _too_long(blob: Blob) -> DigestMismatch:
    return DigestMismatch(expected=f"{blob.size} bytes", actual="more bytes")
