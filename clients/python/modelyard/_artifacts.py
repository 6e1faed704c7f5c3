"""Artifacts: the bytes of versions."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import _download, _upload
from modelyard._connection import new_request_id
from modelyard._convert import from_proto, rows, to_proto
from modelyard._manifest import scan
from modelyard._namespace import Namespace, resource_name, version_reference
from modelyard._pager import AsyncPager
from modelyard._versions import AsyncVersions
from modelyard.api.artifact.v1 import artifact_pb2
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.types import Artifact, FileEntry, Upload

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from modelyard._progress import Progress

_READ_SECONDS = 3600.0
"""Longest time one file may take to read; a cut read continues where it ended."""


class AsyncArtifacts(Namespace):
    """`client.artifacts`: immutable sets of files, stored once by content."""

    async def upload(self, model: str, path: str | Path, *, progress: Progress = None) -> Artifact:
        """Store a file or folder for a model: sends only what the store lacks, and continues after a cut.

        Args:
            model: Full name of the model.
            path: The file or folder.
            progress: True shows a bar on stderr, False nothing, by default a bar if stderr is a terminal; or a function
                that is called with a TransferProgress.
        """
        files = await scan(Path(path))
        return await _upload.store(self, self._connection, model, files, progress)

    async def download(
        self, reference: str, destination: str | Path, *, overwrite: bool = False, progress: Progress = None
    ) -> Path:
        """Fetch the files of a version into a folder, verified, complete or not at all; returns the folder."""
        return await _download.download(
            self,
            AsyncVersions(self._connection),
            version_reference(reference),
            Path(destination),
            overwrite=overwrite,
            progress=progress,
        )

    async def begin_upload(self, model: str, files: Sequence[FileEntry], *, request_id: str = "") -> Upload:
        """Announce the files of an artifact and learn which blobs to send; `upload` does all of it."""
        request = pb.BeginUploadRequest(
            model=resource_name(model, 3, "model"),
            files=[to_proto(artifact_pb2.FileEntry, file) for file in files],
            request_id=request_id or new_request_id(),
        )
        answer = await self._connection.call(self._connection.artifact.BeginUpload, request, timeout=60.0)
        return from_proto(Upload, answer.upload)

    async def get_upload(self, upload_id: str) -> Upload:
        """What an upload still lacks."""
        request = pb.GetUploadRequest(upload_id=upload_id)
        answer = await self._connection.call(self._connection.artifact.GetUpload, request)
        return from_proto(Upload, answer.upload)

    async def commit_upload(self, upload_id: str) -> Artifact:
        """Make the artifact of a complete upload."""
        request = pb.CommitUploadRequest(upload_id=upload_id)
        answer = await self._connection.call(self._connection.artifact.CommitUpload, request, timeout=60.0)
        return from_proto(Artifact, answer.artifact)

    async def get(self, digest: str, *, model: str) -> Artifact:
        """Read an artifact that was committed for a model."""
        request = pb.GetArtifactRequest(digest=digest, model=model)
        answer = await self._connection.call(self._connection.artifact.GetArtifact, request)
        return from_proto(Artifact, answer.artifact)

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
