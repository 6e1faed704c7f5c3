"""Sending files: only what the store lacks, several at once, continued where a cut transfer ended.

An upload goes in rounds. A round sends everything that is missing, large blobs straight to the object store where it gives
addresses, the rest by a few streams that take the next blob from one queue; small blobs share a message. Then the store is
asked what it still lacks if something was cut by a broken connection or a restart, and that goes into the next round.

The id of the request that begins an upload follows from model and content. So the same files sent again after the client
was killed find their open upload, also from another machine, and continue.
"""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from modelyard import errors
from modelyard._direct import DirectSender
from modelyard._manifest import LocalFile, manifest_digest
from modelyard._progress import report
from modelyard._streams import send_streams
from modelyard.types import UploadState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._connection import Connection
    from modelyard._progress import Advance, Progress
    from modelyard.types import Artifact, FileEntry, MissingBlob, Upload

T = TypeVar("T")

MAX_ATTEMPTS = 8
"""Rounds one after the other without a byte getting through, before giving up."""
DIRECT_BYTES = 8 * 1024 * 1024
"""Smaller blobs go through the service, where many share one message."""
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 8.0
_REQUESTS = 3
"""Uploads of the same content that may have been thrown away before, until an id by chance is taken."""


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
        Unavailable: the way was cut again and again without progress; the same files sent again continue.
    """
    entries = [file.entry for file in files]
    expected = manifest_digest(entries)
    by_hash = {file.entry.sha256: file for file in files}
    for attempt in range(_REQUESTS):
        upload = await _begin(artifacts, model, entries, expected)
        try:
            await _send_missing(artifacts, connection, upload, by_hash, progress)
            return await _outlast(partial(artifacts.commit_upload, upload.id))
        except (errors.NotFound, errors.UploadIncomplete) as error:
            # Cancelled by another program of ours, or stored blobs were collected just before the commit.
            vanished = isinstance(error, errors.UploadIncomplete) or error.resource_type == "upload"
            if not vanished or attempt + 1 == _REQUESTS:
                raise
    raise AssertionError("unreachable")


async def _begin(
    artifacts: AsyncArtifacts, model: str, entries: Sequence[FileEntry], expected: str
) -> Upload:
    """The open upload of this content, continued or new."""
    for number in range(_REQUESTS):
        try:
            upload = await artifacts.begin_upload(
                model, entries, request_id=request_id(model, expected, number)
            )
        except errors.RequestIdReused:
            continue  # by a model of this name that is gone
        except errors.NotFound as error:
            if error.resource_type != "upload":
                raise
            continue  # cancelled
        if upload.state is not UploadState.COMMITTED:
            break
        # Not committed again: a new upload keeps its blobs from being collected until it is.
        upload = await artifacts.begin_upload(model, entries)
        break
    else:
        upload = await artifacts.begin_upload(model, entries)
    if upload.artifact_digest != expected:
        raise errors.DigestMismatch(
            f"the store calls these files {upload.artifact_digest or 'nothing'}, by the published rule they are {expected}",
            metadata={"expected": expected, "actual": upload.artifact_digest},
        )
    return upload


def request_id(model: str, digest: str, number: int) -> str:
    """The request id of an upload of this content for this model."""
    return hashlib.sha256(f"modelyard-upload-v1\n{model}\n{digest}\n{number}\n".encode()).hexdigest()[:32]


async def _send_missing(
    artifacts: AsyncArtifacts,
    connection: Connection,
    upload: Upload,
    files: Mapping[str, LocalFile],
    progress: Progress,
) -> None:
    left = _left(upload)
    attempts = 0
    with report("upload", left[0], left[1], progress) as advance:
        rounds = _Rounds(artifacts, connection, files, advance)
        while upload.missing:
            cut = await rounds.send(upload)
            if cut is None:
                # All of it was acknowledged; what is lost nevertheless, the commit misses.
                advance(left[0] - rounds.told, left[1])
                return
            upload = await _outlast(partial(artifacts.get_upload, upload.id))
            now = _left(upload)
            # What was told on the way was not acknowledged: the truth is what the store says.
            advance(left[0] - now[0] - rounds.told, left[1] - now[1])
            attempts = 0 if now < left else attempts + 1
            left, rounds.told = now, 0
            if upload.missing:
                if attempts >= MAX_ATTEMPTS:
                    raise cut
                await _pause(attempts)


async def _outlast(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a call that may be repeated; outlasts the restart of a service."""
    attempts = 0
    while True:
        try:
            return await call()
        except (errors.Unavailable, errors.DeadlineExceeded):
            attempts += 1
            if attempts >= MAX_ATTEMPTS:
                raise
            await _pause(attempts)


async def _pause(attempts: int) -> None:
    await asyncio.sleep(min(_FIRST_PAUSE * 2**attempts, _LONGEST_PAUSE))


class _Rounds:
    """Sends what is missing, once; `told` is how many bytes were reported since it was last set."""

    def __init__(
        self,
        artifacts: AsyncArtifacts,
        connection: Connection,
        files: Mapping[str, LocalFile],
        advance: Advance,
    ) -> None:
        self._advance = advance
        self._direct: DirectSender | None = DirectSender(artifacts, files, self._tell)
        self._connection = connection
        self._files = files
        self.told = 0

    async def send(self, upload: Upload) -> errors.ModelyardError | None:
        """Send every missing blob; returns what cut the way of some, if something did."""
        direct, streamed = self._divide(upload)
        cut = None
        if direct and self._direct:
            refused = await self._direct.send(upload.id, direct)
            if refused:
                # Not reachable from here, or the store changed its mind: through the service then.
                self._direct = None
                streamed = [*streamed, *refused]
        if streamed:
            cut = await send_streams(self._connection, self._files, upload.id, streamed, self._tell)
        return cut

    def _divide(self, upload: Upload) -> tuple[list[MissingBlob], list[MissingBlob]]:
        if not (upload.direct and self._direct):
            return [], list(upload.missing)
        # What a stream began, a stream ends: its bytes lie with the service.
        direct = [blob for blob in upload.missing if blob.size >= DIRECT_BYTES and not blob.offset]
        chosen = {blob.sha256 for blob in direct}
        return direct, [blob for blob in upload.missing if blob.sha256 not in chosen]

    def _tell(self, size: int) -> None:
        self.told += size
        self._advance(size)


def _left(upload: Upload) -> tuple[int, int]:
    """Bytes and blobs that are missing."""
    return sum(blob.size - blob.offset for blob in upload.missing), len(upload.missing)
