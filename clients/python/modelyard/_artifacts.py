"""Artifacts: the bytes of versions."""

from __future__ import annotations

import builtins
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import _download, _reading, _upload
from modelyard._connection import new_request_id
from modelyard._convert import from_proto, rows
from modelyard._manifest import scan
from modelyard._namespace import Namespace, resource_name, version_reference
from modelyard._pager import AsyncPager
from modelyard._sources import opened
from modelyard._versions import AsyncVersions
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.types import Artifact, BlobUrls, FileEntry, FileUrl, Upload

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from modelyard._progress import Progress
    from modelyard._reading import AsyncFile

_LARGEST_PAGE = 10_000
_READ_SECONDS = 3600.0
"""Longest time one file may take to read; a cut read continues where it ended."""
_MANIFEST_SECONDS = 120.0
"""Longest time for calls whose work grows with the number of files."""


class AsyncArtifacts(Namespace):
    """`client.artifacts`: immutable sets of files, stored once by content."""

    async def upload(
        self, model: str, path: str | Path, *, keep_archive: bool = False, progress: Progress = None
    ) -> Artifact:
        """Store a file or folder for a model: sends only what the store lacks, several files at once.

        What was cut by the network or a restart of the service continues by itself. What was interrupted here (also
        killed) continues when the same files are uploaded again, from this machine or another one.

        Args:
            model: Full name of the model.
            path: The file or folder. A zip that holds an OCI model artifact is checked, and stored as the folder in it.
            keep_archive: Whether to store such a zip as the one file it is.
            progress: True shows bars on stderr, False nothing, by default bars if stderr is a terminal; or a function
                that is called with a TransferProgress: first of the phase `hash`, then of `upload`.

        Raises:
            DigestMismatch: a file changed while it was sent.
            ArchiveRefused: the zip of an OCI model artifact is hostile or damaged.
            Unavailable: the service stayed away; the same upload again continues.
        """
        async with opened(Path(path), keep_archive=keep_archive) as source:
            files = await scan(source, progress)
            return await _upload.store(self, self._connection, model, files, progress)

    async def download(
        self, reference: str, destination: str | Path, *, overwrite: bool = False, progress: Progress = None
    ) -> Path:
        """Fetch the files of a version into a folder, verified, complete or not at all; returns the folder.

        What this machine's cache holds is not fetched. An interrupted download (also a killed one) leaves the folder
        `.<name>.<digest>.partial` beside the destination, and the same download again continues in it.

        Args:
            reference: Version reference.
            destination: Folder to make.
            overwrite: Replace what is there.
            progress: As for `upload`; the phase is `download`.

        Raises:
            ConfigurationError: the destination exists and may not be overwritten.
            DigestMismatch: what came is not what the manifest says.
        """
        return await _download.download(
            self,
            AsyncVersions(self._connection),
            self._connection,
            version_reference(reference),
            Path(destination),
            overwrite=overwrite,
            progress=progress,
        )

    async def download_archive(
        self, reference: str, destination: str | Path, *, overwrite: bool = False, progress: Progress = None
    ) -> Path:
        """Fetch all files of a version as one zip file, every member checked; returns the file.

        Raises:
            ConfigurationError: the destination exists and may not be overwritten.
            DigestMismatch: what came is not what the manifest says.
        """
        return await _reading.download_archive(
            self,
            AsyncVersions(self._connection),
            version_reference(reference),
            Path(destination),
            overwrite=overwrite,
            progress=progress,
        )

    async def download_file(
        self,
        reference: str,
        path: str,
        destination: str | Path,
        *,
        overwrite: bool = False,
        progress: Progress = None,
    ) -> Path:
        """Fetch one file of a version, verified, complete or not at all; resumes and caches as `download`."""
        return await _download.download_file(
            self,
            AsyncVersions(self._connection),
            self._connection,
            version_reference(reference),
            path,
            Path(destination),
            overwrite=overwrite,
            progress=progress,
        )

    async def find(self, reference: str, path: str) -> FileEntry:
        """Size and SHA-256 of one file of a version.

        Raises:
            NotFound: it has no such file.
            InvalidArgument: no file of an artifact can have this path.
        """
        return await _reading.find(self, version_reference(reference), path)

    async def read(self, reference: str, path: str, *, offset: int = 0, length: int = 0) -> bytes:
        """The bytes of one file, checked against the manifest if it is read whole.

        Args:
            reference: Version reference.
            path: Path of the file in the artifact.
            offset: First byte wanted.
            length: Bytes wanted; 0 means to the end.

        Raises:
            DigestMismatch: the whole file came with other content than the manifest says.
        """
        return await _reading.read(self, version_reference(reference), path, offset=offset, length=length)

    async def open(self, reference: str, path: str) -> AsyncFile:
        """One file of a version to read from and to seek in, without fetching all of it."""
        return await _reading.open_file(
            self, AsyncVersions(self._connection), version_reference(reference), path
        )

    async def begin_upload(self, model: str, files: Sequence[FileEntry], *, request_id: str = "") -> Upload:
        """Announce the files of an artifact and learn which blobs to send; `upload` does all of it."""
        request = pb.BeginUploadRequest(
            model=resource_name(model, 3, "model"), request_id=request_id or new_request_id()
        )
        for file in files:  # made in place: a list of messages would be copied into the request
            request.files.add(path=file.path, size=file.size, sha256=file.sha256)
        method = self._connection.artifact.BeginUpload
        answer = await self._connection.call(method, request, timeout=_MANIFEST_SECONDS)
        return from_proto(Upload, answer.upload)

    async def get_upload(self, upload_id: str) -> Upload:
        """What an upload still lacks."""
        request = pb.GetUploadRequest(upload_id=upload_id)
        method = self._connection.artifact.GetUpload
        answer = await self._connection.call(method, request, timeout=_MANIFEST_SECONDS)
        return from_proto(Upload, answer.upload)

    async def sign_upload_urls(self, upload_id: str, sha256s: Sequence[str]) -> Sequence[BlobUrls]:
        """Addresses to send missing blobs to without passing the service; see `Upload.direct`."""
        request = pb.SignUploadUrlsRequest(upload_id=upload_id, sha256s=sha256s)
        answer = await self._connection.call(self._connection.artifact.SignUploadUrls, request, timeout=60.0)
        return rows(BlobUrls, answer.blobs)

    async def finish_blob(self, upload_id: str, sha256: str, *, timeout: float = 3600.0) -> None:
        """Have a blob proved whose parts were sent to the object store."""
        request = pb.FinishBlobRequest(upload_id=upload_id, sha256=sha256)
        await self._connection.call(self._connection.artifact.FinishBlob, request, timeout=timeout)

    async def commit_upload(self, upload_id: str) -> Artifact:
        """Make the artifact of a complete upload."""
        request = pb.CommitUploadRequest(upload_id=upload_id)
        method = self._connection.artifact.CommitUpload
        answer = await self._connection.call(method, request, timeout=_MANIFEST_SECONDS)
        return from_proto(Artifact, answer.artifact)

    async def cancel_upload(self, upload_id: str) -> None:
        """Throw an open upload away."""
        request = pb.CancelUploadRequest(upload_id=upload_id)
        await self._connection.call(
            self._connection.artifact.CancelUpload, request, timeout=_MANIFEST_SECONDS
        )

    async def get(self, digest: str, *, model: str) -> Artifact:
        """Read an artifact that was committed for a model."""
        request = pb.GetArtifactRequest(digest=digest, model=model)
        answer = await self._connection.call(self._connection.artifact.GetArtifact, request)
        return from_proto(Artifact, answer.artifact)

    def list(
        self,
        model: str,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Artifact]:
        """Walk through the artifacts that were committed for a model, newest first if not asked otherwise.

        Args:
            model: Full name of the model.
            filter: Which ones, in the filter language.
            order_by: Fields, each with ` desc` if wanted, separated by commas.
            page_size: Rows per call; 0 leaves it to the service.
        """
        request = pb.ListArtifactsRequest(
            model=resource_name(model, 3, "model"), page_size=page_size, filter=filter, order_by=order_by
        )

        async def fetch(token: str) -> tuple[Sequence[Artifact], str]:
            request.page_token = token
            answer = await self._connection.call(self._connection.artifact.ListArtifacts, request)
            return rows(Artifact, answer.artifacts), answer.next_page_token

        return AsyncPager(fetch)

    async def sign_download_urls(self, reference: str, paths: Sequence[str]) -> Sequence[FileUrl]:
        """Addresses to read files from the object store; whoever reads them checks size and hash."""
        request = pb.SignDownloadUrlsRequest(model_version=version_reference(reference), paths=paths)
        answer = await self._connection.call(self._connection.artifact.SignDownloadUrls, request)
        return rows(FileUrl, answer.files)

    def list_files(
        self,
        reference: str,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[FileEntry]:
        """Walk through the files of a version.

        Args:
            reference: Version reference.
            filter: Which ones, `"path LIKE 'data/%'"`; see docs/filters.md.
            order_by: Order, `"size desc"`; by default byte order of their paths.
            page_size: Rows asked for at once.
        """
        name = version_reference(reference)

        async def fetch(token: str) -> tuple[Sequence[FileEntry], str]:
            answer = await self._list(name, page_size, token, filter, order_by)
            return rows(FileEntry, answer.files), answer.next_page_token

        return AsyncPager(fetch)

    async def list_all(self, reference: str) -> tuple[str, Sequence[FileEntry]]:
        """Digest of a version's artifact and all of its files."""
        digest, token = "", ""
        files: builtins.list[FileEntry] = []
        while True:
            answer = await self._list(version_reference(reference), _LARGEST_PAGE, token)
            digest, token = answer.artifact_digest, answer.next_page_token
            files += [FileEntry(file.path, file.size, file.sha256) for file in answer.files]
            if not token:
                return digest, files

    async def digest_of(self, reference: str) -> str:
        """The digest of a version's artifact."""
        return (await self._list(version_reference(reference), 1, "")).artifact_digest

    async def read_file(
        self, reference: str, path: str, *, offset: int = 0, length: int = 0
    ) -> AsyncGenerator[bytes]:
        """The bytes of one file in chunks: from `offset`, `length` of them or all that follow."""
        request = pb.ReadFileRequest(
            model_version=version_reference(reference), path=path, offset=offset, length=length
        )
        method = self._connection.artifact.ReadFile
        async with aclosing(self._connection.receive(method, request, timeout=_READ_SECONDS)) as answers:
            async for answer in answers:
                yield answer.chunk

    async def sbom(self, reference: str) -> str:
        """The bill of materials of a version: CycloneDX 1.6 JSON with files, packages, data and a model card."""
        request = pb.GetSbomRequest(model_version=version_reference(reference))
        answer = await self._connection.call(self._connection.artifact.GetSbom, request, timeout=60.0)
        return answer.cyclonedx_json

    async def read_archive(self, reference: str) -> AsyncGenerator[bytes]:
        """All files of a version as one zip, not compressed, in chunks; `download_archive` checks them, too."""
        request = pb.ReadArchiveRequest(model_version=version_reference(reference))
        method = self._connection.artifact.ReadArchive
        async with aclosing(self._connection.receive(method, request, timeout=_READ_SECONDS)) as answers:
            async for answer in answers:
                yield answer.chunk

    async def _list(
        self,
        reference: str,
        page_size: int,
        token: str,
        filter: str = "",  # noqa: A002
        order_by: str = "",
    ) -> pb.ListFilesResponse:
        request = pb.ListFilesRequest(
            model_version=reference,
            page_size=page_size,
            page_token=token,
            filter=filter,
            order_by=order_by,
        )
        return await self._connection.call(self._connection.artifact.ListFiles, request)
