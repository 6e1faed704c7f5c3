"""Streams of blobs to the service: a few at once, which take their work from one queue."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from modelyard import errors
from modelyard._chunks import upload_blobs, upload_chunk
from modelyard._manifest import BATCH_BYTES, SMALL_BYTES, read_at
from modelyard._tasks import together
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence

    from modelyard._connection import Connection
    from modelyard._manifest import LocalFile
    from modelyard.types import MissingBlob

CHUNK_BYTES = 1024 * 1024
STREAMS = 4
_SMALL_FILES = 500
_SLOWEST_BYTES_PER_SECOND = 256 * 1024
CUT = (
    errors.Unavailable,
    errors.DeadlineExceeded,
    errors.OffsetMismatch,
    errors.InvalidState,
    errors.Cancelled,
    errors.Unauthenticated,
)
"""What ends a stream and leaves the upload as it is; InvalidState because another program of ours may just have sent it."""

Work = list["MissingBlob"]
Frames = list[tuple[bytes, int]]
"""Serialized requests, each with the bytes of content in it."""


async def send_streams(
    connection: Connection,
    files: Mapping[str, LocalFile],
    upload_id: str,
    blobs: Sequence[MissingBlob],
    tell: Callable[[int], None],
) -> errors.ModelyardError | None:
    """Send blobs by UploadBlobs; returns what cut the way, if something did.

    Args:
        connection: Way to the service.
        files: The files by SHA-256.
        upload_id: Id of the upload.
        blobs: What to send, and from where on.
        tell: Learns of every piece that was handed to gRPC.

    Raises:
        DigestMismatch: a file is not any more what was announced.
    """
    work = deque(_divide(blobs))
    left = sum(blob.size - blob.offset for blob in blobs)
    count = min(STREAMS, len(work))
    # No more than can run: threads that wait for each other make small files slower.
    pool = ThreadPoolExecutor(min(count, os.cpu_count() or 1), thread_name_prefix="modelyard-read")
    try:
        cuts = await together(
            _Stream(connection, files, upload_id, work, pool, tell).send(left) for _ in range(count)
        )
    finally:
        work.clear()
        pool.shutdown(wait=False)
    return next(filter(None, cuts), None)


class _Stream:
    """One stream."""

    def __init__(
        self,
        connection: Connection,
        files: Mapping[str, LocalFile],
        upload_id: str,
        work: deque[Work],
        pool: ThreadPoolExecutor,
        tell: Callable[[int], None],
    ) -> None:
        self._connection = connection
        self._files = files
        self._upload_id = upload_id
        self._work = work
        self._pool = pool
        self._tell = tell
        self._failure: BaseException | None = None

    async def send(self, left: int) -> errors.ModelyardError | None:
        """Send until nothing is left to do."""
        try:
            await self._connection.send(
                self._connection.raw_artifact.UploadBlobs,
                pb.UploadBlobsRequest,
                self._pieces,
                timeout=60 + left / _SLOWEST_BYTES_PER_SECOND,
            )
        except errors.DigestMismatch as error:
            raise await asyncio.to_thread(self._changed, error) from error
        except CUT as error:
            return error
        finally:
            if self._failure:
                raise self._failure
        return None

    async def _pieces(self) -> AsyncIterator[bytes]:
        """The requests; gRPC forgets why its iterator failed, so that is kept."""
        loop = asyncio.get_running_loop()
        batches = self._batches()
        reading = loop.run_in_executor(self._pool, next, batches, None)
        try:
            while (frames := await reading) is not None:
                reading = loop.run_in_executor(self._pool, next, batches, None)
                for frame, size in frames:
                    yield frame
                    self._tell(size)
        except (errors.ModelyardError, OSError) as error:
            self._failure = error
        finally:
            # Reading goes on in its thread when the call is cancelled; its file is closed after that.
            reading.add_done_callback(lambda _: batches.close())

    def _batches(self) -> Generator[Frames]:
        """Requests in batches that are worth a visit to a thread; runs in threads."""
        frames: Frames = []
        size = 0
        for frame, length in self._frames():
            frames.append((frame, length))
            size += length
            if size >= BATCH_BYTES:
                yield frames
                frames, size = [], 0
        if frames:
            yield frames

    def _frames(self) -> Iterator[tuple[bytes, int]]:
        while True:
            try:
                blobs = self._work.popleft()
            except IndexError:
                return
            if len(blobs) == 1 and (blobs[0].size > SMALL_BYTES or blobs[0].offset):
                yield from self._one(blobs[0])
            else:
                contents = [self._whole(blob) for blob in blobs]
                yield upload_blobs(self._upload_id, contents), sum(map(len, contents))

    def _one(self, blob: MissingBlob) -> Iterator[tuple[bytes, int]]:
        """The rest of a blob in chunks; never more than was announced, so that a growing file ends as a mismatch."""
        header = pb.BlobHeader(upload_id=self._upload_id, sha256=blob.sha256, offset=blob.offset)
        yield pb.UploadBlobsRequest(header=header).SerializeToString(), 0
        left = blob.size - blob.offset
        local = self._files[blob.sha256]
        with open(local.source, "rb", buffering=0) as file:
            file.seek(local.offset + blob.offset)
            while left > 0:
                data = file.read(min(CHUNK_BYTES, left))
                if not data:
                    raise _not_as_announced(local)
                left -= len(data)
                yield upload_chunk(data), len(data)

    def _whole(self, blob: MissingBlob) -> bytes:
        """The content of a small blob; the service hashes it, and knows none that is not announced."""
        file = self._files[blob.sha256]
        data = _read_whole(file)
        if len(data) != blob.size:
            raise _not_as_announced(file)
        return data

    def _changed(self, error: errors.DigestMismatch) -> errors.DigestMismatch:
        """The same refusal with the name of the file: the service says which content it expected, but not of small blobs."""
        file = self._files.get(error.metadata.get("expected", "")) or next(self._changed_files(), None)
        return _not_as_announced(file) if file else error

    def _changed_files(self) -> Iterator[LocalFile]:
        for sha256, file in self._files.items():
            if file.entry.size <= SMALL_BYTES and hashlib.sha256(_read_whole(file)).hexdigest() != sha256:
                yield file


def _read_whole(file: LocalFile) -> bytes:
    """The content of a small file; one byte more of it if it grew, but not where something else follows."""
    return read_at(file.source, file.offset, file.entry.size + (0 if file.offset else 1))


def _not_as_announced(file: LocalFile) -> errors.DigestMismatch:
    return errors.DigestMismatch(
        f"{file.source} changed while it was sent: it is not any more what was announced as {file.entry.path}",
        metadata={"expected": file.entry.sha256},
    )


def _divide(blobs: Sequence[MissingBlob]) -> Iterator[Work]:
    """Large blobs alone and first, so that no stream ends long after the others; small ones together."""
    small = [blob for blob in blobs if blob.size <= SMALL_BYTES and not blob.offset]
    large = [blob for blob in blobs if blob.size > SMALL_BYTES or blob.offset]
    for blob in sorted(large, key=lambda blob: blob.offset - blob.size):
        yield [blob]
    batch: Work = []
    size = 0
    for blob in small:
        if batch and (size + blob.size > CHUNK_BYTES or len(batch) == _SMALL_FILES):
            yield batch
            batch, size = [], 0
        batch.append(blob)
        size += blob.size
    if batch:
        yield batch
