"""The rules of artifacts: announce, commit, look up, read. One transaction each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from modelyard_artifact import store
from modelyard_artifact.errors import OffsetMismatch, UploadIncomplete
from modelyard_artifact.models import FilePage, MissingBlob, ModelRef, Upload, UploadState, UploadStatus
from modelyard_kit import idempotency, outbox
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.errors import InvalidState, NotFound
from modelyard_kit.faults import failpoint
from modelyard_kit.ids import new_id
from modelyard_kit.limits import check

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime, timedelta

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.models import Artifact, Blob, FileEntry, Manifest, VersionRef
    from modelyard_kit.auth import Call
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database
    from modelyard_kit.filters import Asked

_BEGIN = "BeginUpload"
_EXPIRE_AT_ONCE = 100


class Catalog(Protocol):
    """What this service needs to know of the catalog."""

    async def model(self, name: str) -> ModelRef:
        """Finds a model by its full name. Raises NotFound, InvalidField, PeerUnavailable."""

    async def version(self, reference: str) -> VersionRef:
        """Finds a version by its reference. Raises NotFound, InvalidField, PeerUnavailable."""


@dataclass(frozen=True, slots=True)
class BeginUpload:
    """Announce the files of an artifact for a model."""

    model: str
    manifest: Manifest
    request_id: str


@dataclass(frozen=True, slots=True)
class ListFiles:
    """A page of the manifest of a version."""

    version: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A range of a file of a version; length 0 means to the end."""

    version: str
    path: str
    offset: int
    length: int


class Artifacts:
    """Use cases of artifacts."""

    def __init__(self, database: Database, blobs: BlobStore, catalog: Catalog, clock: Clock) -> None:
        self._database = database
        self._blobs = blobs
        self._catalog = catalog
        self._clock = clock

    async def begin(self, call: Call, command: BeginUpload) -> UploadStatus:
        """Opens an upload, or returns the one that the same request opened before.

        Raises:
            NotFound: no such model.
            RequestIdReused: the request id was used with other content.
            LimitExceeded: too many open uploads of this principal.
        """
        model = await self._model(call, command.model)
        manifest = command.manifest
        principal_id = call.principal.id
        fingerprint = idempotency.fingerprint(f"{command.model}\n{manifest.digest}".encode())
        upload = Upload(
            id=new_id(),
            model_id=model.id,
            model=model.name,
            principal_id=principal_id,
            digest=manifest.digest,
            state=UploadState.OPEN,
            create_time=self._clock(),
        )

        async def work(connection: AsyncConnection) -> Upload:
            made = await idempotency.replay(
                connection,
                principal_id=principal_id,
                method=_BEGIN,
                request_id=command.request_id,
                fingerprint=fingerprint,
            )
            if made:
                return await own_upload(connection, call, made)
            count = await store.count_open_uploads(connection, principal_id)
            check("open_uploads_per_principal", count + 1)
            await store.add_manifest(connection, manifest)
            await store.add_upload(connection, upload)
            await idempotency.remember(
                connection,
                principal_id=principal_id,
                method=_BEGIN,
                request_id=command.request_id,
                fingerprint=fingerprint,
                resource_id=upload.id,
            )
            return upload

        return await self._status(await self._database.in_tx(work))

    async def get(self, call: Call, upload_id: str) -> UploadStatus:
        """Tells what an upload of the caller still misses.

        Raises:
            NotFound: no such upload of this principal.
        """

        async def work(connection: AsyncConnection) -> Upload:
            return await own_upload(connection, call, upload_id)

        return await self._status(await self._database.read(work))

    async def commit(self, call: Call, upload_id: str) -> Artifact:
        """Makes the artifact of an upload; the same one when repeated.

        Raises:
            NotFound: no such upload of this principal.
            UploadIncomplete: blobs are missing.
        """
        now = self._clock()

        async def work(connection: AsyncConnection) -> Artifact:
            upload = await own_upload(connection, call, upload_id, lock=True)
            if upload.state is UploadState.OPEN:
                missing = await store.missing_blobs(connection, upload.digest)
                if missing:
                    raise UploadIncomplete(upload_id, missing=len(missing))
                await _make(connection, call, upload, now)
            return await _committed(connection, upload.digest)

        await failpoint("artifact.commit.before_transaction")
        artifact = await self._database.in_tx(work)
        await failpoint("artifact.commit.after_transaction")
        await self._blobs.discard(upload_id)
        return artifact

    async def artifact(self, call: Call, digest: str, model_name: str) -> Artifact:
        """Finds an artifact that was committed for a model.

        Raises:
            NotFound: no such model, or nothing with that digest was committed for it.
        """
        model = await self._model(call, model_name)

        async def work(connection: AsyncConnection) -> Artifact | None:
            return await store.get_artifact(connection, digest, model_id=model.id)

        artifact = await self._database.read(work)
        if artifact is None:
            raise NotFound("artifact", digest)
        return artifact

    async def list_files(self, command: ListFiles) -> FilePage:
        """Reads a page of the manifest of a version.

        Raises:
            NotFound: no such version, or its artifact is gone.
            InvalidState: the version has no artifact yet.
            InvalidField: filter or order_by has a mistake, or the page token belongs to other ones, or to another version.
            LimitExceeded: filter or order_by is too large.
        """
        digest = await self._digest(command.version)

        async def work(connection: AsyncConnection) -> FilePage:
            await _committed(connection, digest)
            return FilePage(digest, *await store.page_of_files(connection, digest, command.asked))

        return await self._database.read(work)

    async def read_file(self, command: ReadFile) -> AsyncIterator[bytes]:
        """Yields a range of a file of a version in pieces of at most 1 MiB.

        Raises:
            NotFound: no such version or file.
            InvalidState: the version has no artifact yet.
            OffsetMismatch: the range begins beyond the end of the file.
        """
        digest = await self._digest(command.version)

        async def work(connection: AsyncConnection) -> FileEntry | None:
            await _committed(connection, digest)
            return await store.get_file(connection, digest, command.path)

        file = await self._database.read(work)
        if file is None:
            raise NotFound("file", command.path)
        if command.offset > file.size:
            raise OffsetMismatch(
                f"{command.path!r} has {file.size} bytes: offset {command.offset} is beyond its end",
                expected=file.size,
                actual=command.offset,
            )
        length = file.size - command.offset
        if command.length:
            length = min(length, command.length)
        async for piece in self._blobs.read(file.blob, command.offset, length):
            yield piece

    async def expire(self, age: timedelta) -> int:
        """Deletes uploads that nobody worked on for `age`; returns how many."""
        before = self._clock() - age

        async def find(connection: AsyncConnection) -> list[str]:
            return await store.abandoned_uploads(connection, before, _EXPIRE_AT_ONCE)

        expired = 0
        while upload_ids := await self._database.read(find):
            for upload_id in upload_ids:
                expired += await self._expire_one(upload_id, before)
        return expired

    async def _expire_one(self, upload_id: str, before: datetime) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            return await store.delete_upload(connection, upload_id, before)

        # Bytes first: a crash between the two leaves a row that is found again, never bytes that nobody knows of.
        await self._blobs.discard(upload_id)
        return await self._database.in_tx(work)

    async def _status(self, upload: Upload) -> UploadStatus:
        if upload.state is UploadState.COMMITTED:
            return UploadStatus(upload, ())

        async def work(connection: AsyncConnection) -> list[Blob]:
            return await store.missing_blobs(connection, upload.digest)

        # The partials first: one that becomes a blob in between is then not missing any more.
        received = await self._blobs.received(upload.id)
        blobs = await self._database.read(work)
        return UploadStatus(upload, [MissingBlob(blob, received.get(blob.sha256, 0)) for blob in blobs])

    async def _model(self, call: Call, name: str) -> ModelRef:
        """Return the model that the permission layer found and decided on; who calls the rules directly has it looked up."""
        if call.permit is None:
            return await self._catalog.model(name)
        link = call.permit.chain[0]
        return ModelRef(id=link.id, name=link.name)

    async def _digest(self, reference: str) -> str:
        version = await self._catalog.version(reference)
        if version.state != "READY" or not version.digest:
            raise InvalidState("model_version", version.name, state=version.state, wanted="READY")
        return version.digest


async def own_upload(
    connection: AsyncConnection, call: Call, upload_id: str, *, lock: bool = False
) -> Upload:
    """Reads an upload of the caller.

    Raises:
        NotFound: it does not exist or is somebody else's, which look the same.
    """
    upload = await store.get_upload(connection, upload_id, call.principal.id, lock=lock)
    if upload is None:
        raise NotFound("upload", upload_id)
    return upload


async def _make(connection: AsyncConnection, call: Call, upload: Upload, now: datetime) -> None:
    await store.add_artifact(connection, upload.digest, now)
    await store.add_artifact_model(connection, upload.digest, upload.model_id, now)
    await store.finish_upload(connection, upload.id, now)
    artifact = await _committed(connection, upload.digest)
    event = outbox.Event(
        type="artifact.artifact.committed",
        resource=Link(ResourceType.ARTIFACT, upload.digest, upload.digest),
        actor=call.principal,
        request_id=call.request_id,
        data={
            "upload_id": upload.id,
            "model_id": upload.model_id,
            "model": upload.model,
            "file_count": artifact.file_count,
            "size": artifact.size,
        },
        time=now,
    )
    await outbox.append(connection, event)


async def _committed(connection: AsyncConnection, digest: str) -> Artifact:
    artifact = await store.get_artifact(connection, digest)
    if artifact is None:
        raise NotFound("artifact", digest)
    return artifact
