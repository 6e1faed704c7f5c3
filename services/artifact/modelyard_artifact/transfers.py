"""The rules of receiving: pieces of a stream become verified blobs.

A stream may end anywhere, with or without a word. What was received stays, made durable, and the next stream continues
there; a blob exists for others only after its hash was found right and its row is written.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard_artifact import store
from modelyard_artifact.errors import DigestMismatch, OffsetMismatch
from modelyard_artifact.uploads import check_open, own_upload
from modelyard_kit.errors import InvalidField, NotFound
from modelyard_kit.faults import failpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore, Partial
    from modelyard_artifact.models import Blob, Upload
    from modelyard_kit.auth import Call
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database

_GROUP_BYTES = 4 << 20
_GROUP_BLOBS = 1_000


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
    contents: Sequence[bytes | memoryview]


class Recorder:
    """Writes the rows of content that is stored."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(self, upload_id: str, blobs: Sequence[Blob]) -> None:
        """Notes that content of an upload is stored, if the upload is still there.

        As long as it is, its manifest names the content, so that nobody took it for garbage since it was stored.

        Raises:
            NotFound: the upload was cancelled or has expired meanwhile.
        """

        async def work(connection: AsyncConnection) -> None:
            if not await store.keep_upload(connection, upload_id):
                raise NotFound("upload", upload_id)
            await store.add_blobs(connection, blobs, self._clock())

        await failpoint("artifact.blob.before_record")
        await self._database.in_tx(work, isolation="READ COMMITTED")
        await failpoint("artifact.blob.after_record")


class Transfers:
    """Use cases of receiving content."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Clock) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock

    async def receive(
        self, call: Call, pieces: AsyncIterator[BlobHeader | WholeBlobs | bytes | memoryview]
    ) -> int:
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
    """Where one stream is: the upload it last named, the blob it is in, and small blobs to be stored together."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Clock, call: Call) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._recorder = Recorder(database, clock)
        self._call = call
        self._upload: Upload | None = None
        self._receiver: _Receiver | _Drain | None = None
        self._group: dict[str, bytes | memoryview] = {}
        self._storing: asyncio.Task[None] | None = None
        self.completed = 0

    async def begin(self, header: BlobHeader) -> None:
        await self._leave_blob()
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

    async def append(self, chunk: bytes | memoryview) -> None:
        if self._receiver is None:
            raise InvalidField("header", "is missing: send the header of a blob before its chunks")
        await self._receiver.append(chunk)
        await self._complete_if_full()

    async def take(self, piece: WholeBlobs) -> None:
        await self._leave_blob()
        await self._open_upload(piece.upload_id)
        self._group |= await asyncio.to_thread(_by_hash, piece.contents)
        if len(self._group) >= _GROUP_BLOBS or sum(map(len, self._group.values())) >= _GROUP_BYTES:
            await self._store_group()

    async def close(self) -> None:
        """Stores what came whole and lets go of the blob that came in part."""
        async with (
            AsyncExitStack() as steps
        ):  # last in, first out; each is done, also when one before it fails
            steps.push_async_callback(self._stored)
            steps.push_async_callback(self._store_group)
            steps.push_async_callback(self._leave_blob)
            steps.push_async_callback(self._stored)

    async def _leave_blob(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver:
            await receiver.close()

    async def _store_group(self) -> None:
        """Begins to store the collected small blobs; only one such group at a time, the next one is collected meanwhile."""
        await self._stored()
        group, self._group = self._group, {}
        if group and self._upload:
            self._storing = asyncio.create_task(self._store_whole(self._upload, group))

    async def _stored(self) -> None:
        if self._storing is None:
            return
        try:
            # Shielded: what came whole is kept even if the sender hangs up now.
            await asyncio.shield(self._storing)
        finally:
            if self._storing.done():
                self._storing = None

    async def _store_whole(self, upload: Upload, group: Mapping[str, bytes | memoryview]) -> None:
        async def work(connection: AsyncConnection) -> list[tuple[Blob, bool]]:
            return await store.announced_blobs(connection, upload.digest, list(group))

        announced = [
            each for each in await self._database.read(work) if len(group[each[0].sha256]) == each[0].size
        ]
        missing = {blob: group[blob.sha256] for blob, stored in announced if not stored}
        if missing:
            await self._blobs.put_whole(upload.id, missing)
            await self._recorder.record(upload.id, list(missing))
        self.completed += len(announced)
        known = {blob.sha256 for blob, _ in announced}
        for actual in group:
            # Said last: what is right of a group is stored, and need not come again.
            if actual not in known:
                raise DigestMismatch(expected="the content of a file of this upload", actual=actual)

    async def _open_upload(self, upload_id: str) -> Upload:
        if self._upload and self._upload.id == upload_id:
            return self._upload
        await self._store_group()

        async def work(connection: AsyncConnection) -> Upload:
            upload = await own_upload(connection, self._call, upload_id)
            check_open(upload)
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
        return _Receiver(partial, blob)

    async def _complete_if_full(self) -> None:
        receiver = self._receiver
        if receiver is None or receiver.done or receiver.offset < receiver.blob.size:
            return
        if isinstance(receiver, _Receiver) and self._upload:
            await self._stored()
            self._storing = asyncio.create_task(self._store(self._upload.id, receiver))
            await self._stored()
        receiver.done = True
        self.completed += 1

    async def _store(self, upload_id: str, receiver: _Receiver) -> None:
        await receiver.finish()
        await self._recorder.record(upload_id, [receiver.blob])


def _by_hash(contents: Sequence[bytes | memoryview]) -> dict[str, bytes | memoryview]:
    return {hashlib.sha256(data).hexdigest(): data for data in contents}


class _Receiver:
    """Takes the chunks of a blob into its partial."""

    def __init__(self, partial: Partial, blob: Blob) -> None:
        self._partial = partial
        self._writing: asyncio.Task[None] | None = None
        self.blob = blob
        self.offset = partial.offset
        self.done = False

    async def append(self, chunk: bytes | memoryview) -> None:
        """Writes while the next chunk is on its way; what goes wrong is raised by the next call."""
        if self.done and chunk:
            raise _too_long(self.blob)
        if chunk:
            await self._written()
            self._writing = asyncio.create_task(self._partial.append(chunk))
            self.offset += len(chunk)

    async def finish(self) -> None:
        await self._written()
        await self._partial.finish()

    async def close(self) -> None:
        try:
            await self._written()
        finally:
            await self._partial.close()

    async def _written(self) -> None:
        if self._writing is None:
            return
        try:
            await asyncio.shield(self._writing)
        finally:
            if self._writing.done():
                self._writing = None


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

    async def append(self, chunk: bytes | memoryview) -> None:
        if self.offset + len(chunk) > self.blob.size:
            raise _too_long(self.blob)
        self.offset += len(chunk)

    async def close(self) -> None:
        return


def _too_long(blob: Blob) -> DigestMismatch:
    return DigestMismatch(expected=f"{blob.size} bytes", actual="more bytes")
