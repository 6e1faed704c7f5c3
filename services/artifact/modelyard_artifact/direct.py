"""The rules of direct transfer: clients exchange content with the object store itself, the service only signs and proves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelyard_artifact import store
from modelyard_artifact.errors import DirectTransferUnavailable, UploadIncomplete
from modelyard_artifact.lookup import version_digest
from modelyard_artifact.models import FileUrl
from modelyard_artifact.uploads import check_open, own_upload
from modelyard_kit.errors import InvalidField, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore, DirectTransfer
    from modelyard_artifact.lookup import Catalog
    from modelyard_artifact.models import Blob, BlobUrls, FileEntry, Upload
    from modelyard_artifact.transfers import Recorder
    from modelyard_kit.auth import Call
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database

_AT_ONCE = 16


class Direct:
    """Use cases of direct transfer."""

    def __init__(
        self, database: Database, blobs: BlobStore, catalog: Catalog, recorder: Recorder, clock: Clock
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._catalog = catalog
        self._recorder = recorder
        self._clock = clock

    async def sign_upload(self, call: Call, upload_id: str, hashes: Sequence[str]) -> list[BlobUrls]:
        """Addresses for the blobs asked for that are still missing.

        Raises:
            NotFound: no such upload of this principal.
            InvalidState: the upload is committed.
            InvalidField: a blob that the upload does not announce.
            DirectTransferUnavailable: the blob store gives no addresses.
        """
        transfer = self._transfer()
        announced = await self._announced(call, upload_id, hashes, touch=True)
        for index, sha256 in enumerate(hashes):
            if sha256 not in announced:
                raise InvalidField(
                    f"sha256s[{index}]", f"{sha256} is not the content of a file of this upload"
                )
        missing = {sha256: blob for sha256, (blob, stored) in announced.items() if not stored}
        room = asyncio.Semaphore(_AT_ONCE)

        async def sign(blob: Blob) -> BlobUrls:
            async with room:
                return await transfer.sign_upload(upload_id, blob)

        return await asyncio.gather(
            *(sign(missing[each]) for each in dict.fromkeys(hashes) if each in missing)
        )

    async def finish(self, call: Call, upload_id: str, sha256: str) -> None:
        """Proves a blob that was sent to the object store and records it.

        Raises:
            NotFound: no such upload of this principal.
            InvalidState: the upload is committed.
            InvalidField: a blob that the upload does not announce.
            UploadIncomplete: parts are missing.
            DigestMismatch: not the announced bytes; they were thrown away.
            DirectTransferUnavailable: the blob store gives no addresses.
        """
        transfer = self._transfer()
        announced = await self._announced(call, upload_id, [sha256], touch=True)
        if sha256 not in announced:
            raise InvalidField("sha256", f"{sha256} is not the content of a file of this upload")
        blob, stored = announced[sha256]
        if stored:
            return
        try:
            await transfer.finish(upload_id, blob)
        except UploadIncomplete:
            again = await self._announced(call, upload_id, [sha256], touch=False)
            if not again[sha256][1]:  # else another call finished it meanwhile
                raise
            return
        await self._recorder.record(upload_id, [blob])

    async def sign_download(self, version: str, paths: Sequence[str]) -> tuple[str, list[FileUrl]]:
        """The digest of a version, and addresses of files of it in the order asked for.

        Raises:
            NotFound: no such version or file.
            InvalidState: the version has no artifact yet.
            DirectTransferUnavailable: the blob store gives no addresses.
        """
        transfer = self._transfer()
        digest = await version_digest(self._catalog, version)

        async def work(connection: AsyncConnection) -> dict[str, FileEntry]:
            if await store.get_artifact(connection, digest) is None:
                raise NotFound("artifact", digest)
            return await store.get_files(connection, digest, paths)

        found = await self._database.read(work)
        urls = []
        for path in paths:
            if path not in found:
                raise NotFound("file", path)
            urls.append(FileUrl(found[path], *await transfer.sign_download(found[path].blob)))
        return digest, urls

    def _transfer(self) -> DirectTransfer:
        transfer = self._blobs.direct
        if transfer is None:
            raise DirectTransferUnavailable
        return transfer

    async def _announced(
        self, call: Call, upload_id: str, hashes: Sequence[str], *, touch: bool
    ) -> dict[str, tuple[Blob, bool]]:
        """By hash what the upload announces of some blobs, and whether it is stored."""

        async def work(connection: AsyncConnection) -> tuple[Upload, list[tuple[Blob, bool]]]:
            upload = await own_upload(connection, call, upload_id)
            check_open(upload)
            if touch:
                await store.touch_upload(connection, upload_id, self._clock())
            return upload, await store.announced_blobs(connection, upload.digest, hashes)

        _, announced = await self._database.in_tx(work, isolation="READ COMMITTED")
        return {blob.sha256: (blob, stored) for blob, stored in announced}
