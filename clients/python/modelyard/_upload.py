"""Sending files: only what the store lacks, checked by digest, continued where a cut stream ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelyard import errors
from modelyard._manifest import LocalFile, manifest_digest
from modelyard._progress import report
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._connection import Connection
    from modelyard._progress import Progress
    from modelyard.types import Artifact, MissingBlob, Upload

CHUNK_BYTES = 1024 * 1024
MAX_ATTEMPTS = 5
"""Streams cut one after the other without a byte getting through, before giving up."""
_FIRST_PAUSE = 0.2
_SLOWEST_BYTES_PER_SECOND = 256 * 1024
_CUT = (
    errors.Unavailable,
    errors.DeadlineExceeded,
    errors.OffsetMismatch,
    errors.Cancelled,
    errors.Unauthenticated,
)


async def store(
    artifacts: AsyncArtifacts,
    connection: Connection,
    model: str,
    files: Sequence[LocalFile],
    progress: Progress,
) -> Artifact:
    """Store files for a model as one artifact.

    Raises:
        DigestMismatch: a file changed while it was sent, or the store announces another digest than ours.
        Unavailable: the stream was cut again and again without progress.
    """
    begun = await artifacts.begin_upload(model, [file.entry for file in files])
    expected = manifest_digest(file.entry for file in files)
    if begun.artifact_digest != expected:
        raise errors.DigestMismatch(
            f"the store calls these files {begun.artifact_digest or 'nothing'}, by the published rule they are {expected}",
            metadata={"expected": expected, "actual": begun.artifact_digest},
        )
    await _send_missing(artifacts, connection, begun, {file.entry.sha256: file for file in files}, progress)
    return await artifacts.commit_upload(begun.id)


async def _send_missing(
    artifacts: AsyncArtifacts,
    connection: Connection,
    upload: Upload,
    files: Mapping[str, LocalFile],
    progress: Progress,
) -> None:
    left = _bytes_left(upload)
    attempts = 0
    with report("upload", left, progress) as advance:
        while upload.missing:
            try:
                await _send(connection, upload, files)
                cut = None
            except _CUT as error:
                cut = error
            upload = await artifacts.get_upload(upload.id)
            now_left = _bytes_left(upload)
            advance(left - now_left)
            attempts = 0 if now_left < left else attempts + 1
            left = now_left
            if upload.missing and attempts >= MAX_ATTEMPTS:
                raise cut or errors.InternalError(
                    "the store takes the bytes and keeps saying that they are missing"
                )
            if cut and upload.missing:
                await asyncio.sleep(_FIRST_PAUSE * 2**attempts)


async def _send(connection: Connection, upload: Upload, files: Mapping[str, LocalFile]) -> None:
    timeout = 60 + _bytes_left(upload) / _SLOWEST_BYTES_PER_SECOND
    await connection.send(
        connection.artifact.UploadBlobs,
        pb.UploadBlobsRequest,
        lambda: _pieces(upload, files),
        timeout=timeout,
    )


async def _pieces(upload: Upload, files: Mapping[str, LocalFile]) -> AsyncIterator[pb.UploadBlobsRequest]:
    for blob in upload.missing:
        header = pb.BlobHeader(upload_id=upload.id, sha256=blob.sha256, offset=blob.offset)
        yield pb.UploadBlobsRequest(header=header)
        async for chunk in _chunks(files[blob.sha256].source, blob):
            yield pb.UploadBlobsRequest(chunk=chunk)


async def _chunks(source: Path, blob: MissingBlob) -> AsyncIterator[bytes]:
    """The rest of a file in chunks; never more than was announced, so that a growing file ends as a mismatch."""
    with await asyncio.to_thread(source.open, "rb") as file:
        file.seek(blob.offset)
        left = blob.size - blob.offset
        while left > 0 and (data := await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))):
            left -= len(data)
            yield data


def _bytes_left(upload: Upload) -> int:
    return sum(blob.size - blob.offset for blob in upload.missing)
