"""The rules of uploads: announce, commit, cancel, expire. One transaction each, and one event; what only brings bytes has none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from modelyard_artifact import inspection_store, life_store, store
from modelyard_artifact.errors import UploadIncomplete
from modelyard_artifact.lookup import committed, permitted_model
from modelyard_artifact.models import MissingBlob, Upload, UploadState, UploadStatus
from modelyard_artifact.signatures import add_signature
from modelyard_kit import idempotency, outbox
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.errors import InvalidState, NotFound
from modelyard_kit.faults import failpoint
from modelyard_kit.ids import new_id
from modelyard_kit.limits import check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.lookup import Catalog
    from modelyard_artifact.models import Artifact, Blob, Manifest
    from modelyard_artifact.signatures import Signatures
    from modelyard_kit.auth import Call
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database

_BEGIN = "BeginUpload"
_EXPIRE_AT_ONCE = 100
_OWNERS_AT_ONCE = 1_000
_LONGEST_PUBLISH = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BeginUpload:
    """Announce the files of an artifact for a model."""

    model: str
    manifest: Manifest
    request_id: str


class Uploads:
    """Use cases of uploads."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        catalog: Catalog,
        signatures: Signatures,
        clock: Clock,
        *,
        expiry: timedelta = timedelta(days=7),
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._catalog = catalog
        self._signatures = signatures
        self._clock = clock
        self._expiry = expiry

    async def begin(self, call: Call, command: BeginUpload) -> UploadStatus:
        """Opens an upload, or returns the one that the same request opened before.

        Raises:
            NotFound: no such model.
            RequestIdReused: the request id was used with other content.
            LimitExceeded: too many open uploads of this principal.
        """
        model = await permitted_model(self._catalog, call, command.model)
        manifest = command.manifest
        principal_id = call.principal.id
        now = self._clock()

        # By id: an upload for a model that is gone must not be continued for a new one of its name.
        fingerprint = idempotency.fingerprint(f"{model.id}\n{manifest.digest}".encode())
        upload = Upload(
            id=new_id(),
            model_id=model.id,
            model=model.name,
            principal_id=principal_id,
            digest=manifest.digest,
            state=UploadState.OPEN,
            create_time=now,
            update_time=now,
        )

        async def work(connection: AsyncConnection) -> Upload:
            await store.lock_manifests(connection, removing=False)
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
            # From here on the manifest keeps its blobs, also from a deletion that was decided before.
            await life_store.pardon(connection, manifest.digest)
            await store.add_upload(connection, upload)
            announced = {"file_count": len(manifest.files), "size": manifest.size}
            await outbox.append(connection, _event("begun", call, upload, now, announced))
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

    async def commit(self, call: Call, upload_id: str, bundles: Sequence[str] = ()) -> Artifact:
        """Makes the artifact of an upload; the same one when repeated.

        Args:
            call: who commits.
            upload_id: the upload.
            bundles: signatures of its files, beside the one that may be among them.

        Raises:
            NotFound: no such upload of this principal.
            UploadIncomplete: blobs are missing.
            SignatureInvalid: a signature is none of these files.
            LimitExceeded: too many signatures.
            PeerUnavailable: a signature came, and governance cannot say which keys are trusted.
        """
        now = self._clock()

        async def find(connection: AsyncConnection) -> Upload:
            return await own_upload(connection, call, upload_id)

        # Before the transaction: what it runs may run twice, and must not wait for another service.
        signatures = await self._signatures.of_upload(await self._database.read(find), bundles)

        async def work(connection: AsyncConnection) -> Artifact:
            upload = await own_upload(connection, call, upload_id, lock=True)
            if upload.state is UploadState.OPEN:
                missing = await store.missing_blobs(connection, upload.digest)
                if missing:
                    raise UploadIncomplete(upload_id, missing=len(missing))
                await _make(connection, call, upload, now)
            for signature in signatures:
                await add_signature(connection, call, signature, upload.model_id)
            return await committed(connection, upload.digest)

        await failpoint("artifact.commit.before_transaction")
        artifact = await self._database.in_tx(work)
        await failpoint("artifact.commit.after_transaction")
        await self._blobs.discard(upload_id)
        return artifact

    async def cancel(self, call: Call, upload_id: str) -> None:
        """Throws an open upload of the caller away.

        Raises:
            NotFound: no such upload of this principal; it may have been cancelled before.
            InvalidState: it is committed.
        """
        now = self._clock()

        async def work(connection: AsyncConnection) -> None:
            await store.lock_manifests(connection, removing=True)
            upload = await own_upload(connection, call, upload_id, lock=True)
            check_open(upload)
            await store.delete_upload(connection, upload_id)
            await outbox.append(connection, _event("cancelled", call, upload, now))

        await self._database.in_tx(work, isolation="READ COMMITTED")
        await failpoint("artifact.cancel.after_transaction")
        # What a crash leaves here has no open upload any more and is found by `expire`.
        await self._blobs.discard(upload_id)

    async def expire(self, call: Call, age: timedelta) -> int:
        """Deletes uploads that nobody worked on for `age`, and what was left of others; returns how many uploads."""
        before = self._clock() - age

        async def find(connection: AsyncConnection) -> list[str]:
            return await store.abandoned_uploads(connection, before, _EXPIRE_AT_ONCE)

        expired = 0
        while upload_ids := await self._database.read(find):
            for upload_id in upload_ids:
                expired += await self._expire_one(call, upload_id, before)
        await self._discard_leftovers()
        await self._blobs.tidy(self._clock() - max(age, _LONGEST_PUBLISH))
        return expired

    async def _discard_leftovers(self) -> None:
        """Throws away what uploads left that were committed, cancelled or deleted in a process that died then."""
        owners = sorted(await self._blobs.owners())
        for start in range(0, len(owners), _OWNERS_AT_ONCE):
            some = owners[start : start + _OWNERS_AT_ONCE]

            async def work(connection: AsyncConnection, some: Sequence[str] = some) -> set[str]:
                return await store.open_uploads(connection, some)

            taking = await self._database.read(work)
            for owner in some:
                if owner not in taking:
                    await self._blobs.discard(owner)

    async def _expire_one(self, call: Call, upload_id: str, before: datetime) -> bool:
        now = self._clock()

        async def work(connection: AsyncConnection) -> bool:
            await store.lock_manifests(connection, removing=True)
            upload = await store.delete_upload(connection, upload_id, before)
            if upload is None:
                return False
            left = {"principal_id": upload.principal_id, "last_used": upload.update_time.isoformat()}
            await outbox.append(connection, _event("expired", call, upload, now, left))
            return True

        # Bytes first: a crash between the two leaves a row that is found again, never bytes that nobody knows of.
        await self._blobs.discard(upload_id)
        return await self._database.in_tx(work)

    async def _status(self, upload: Upload) -> UploadStatus:
        if upload.state is UploadState.COMMITTED:
            return UploadStatus(upload, (), None, direct=False)

        async def work(connection: AsyncConnection) -> list[Blob]:
            return await store.missing_blobs(connection, upload.digest)

        # The partials first: one that becomes a blob in between is then not missing any more.
        received = await self._blobs.received(upload.id)
        blobs = await self._database.read(work)
        missing = [MissingBlob(blob, received.get(blob.sha256, 0)) for blob in blobs]
        expire_time = upload.update_time + self._expiry
        return UploadStatus(upload, missing, expire_time, direct=self._blobs.direct is not None)


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


def check_open(upload: Upload) -> None:
    """Raises InvalidState if the upload is committed."""
    if upload.state is not UploadState.OPEN:
        raise InvalidState("upload", upload.id, state=upload.state, wanted=UploadState.OPEN)


def _event(
    verb: str, call: Call, upload: Upload, now: datetime, more: Mapping[str, object] | None = None
) -> outbox.Event:
    about = {"model_id": upload.model_id, "model": upload.model, "artifact_digest": upload.digest}
    return outbox.Event(
        type=f"artifact.upload.{verb}",
        resource=Link(ResourceType.UPLOAD, upload.id, upload.id),
        actor=call.principal,
        request_id=call.request_id,
        data={**about, **(more or {})},
        time=now,
    )


async def _make(connection: AsyncConnection, call: Call, upload: Upload, now: datetime) -> None:
    await store.add_artifact(connection, upload.digest, now)
    await store.add_artifact_model(connection, upload.digest, upload.model_id, now)
    await store.finish_upload(connection, upload.id, now)
    await inspection_store.want(connection, upload.digest, call, now)
    artifact = await committed(connection, upload.digest)
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
