"""One method per RPC: parse, call, render."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceServicer
from modelyard_artifact import messages
from modelyard_kit.auth import current_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from modelyard_artifact.artifacts import Artifacts
    from modelyard_artifact.transfers import BlobHeader, Transfers


class ArtifactServicer(ArtifactServiceServicer):
    """The contract `modelyard.api.artifact.v1.ArtifactService`."""

    def __init__(self, artifacts: Artifacts, transfers: Transfers) -> None:
        self._artifacts = artifacts
        self._transfers = transfers

    async def BeginUpload(self, request: pb.BeginUploadRequest, context: Any) -> pb.BeginUploadResponse:
        # In a thread: checking 100,000 paths takes most of a second, and other calls go on meanwhile.
        command = await asyncio.to_thread(messages.parse_begin_upload, request)
        status = await self._artifacts.begin(current_call(), command)
        return pb.BeginUploadResponse(upload=messages.upload_to_proto(status))

    async def UploadBlobs(
        self, request_iterator: AsyncIterator[pb.UploadBlobsRequest], context: Any
    ) -> pb.UploadBlobsResponse:
        completed = await self._transfers.receive(current_call(), _pieces(request_iterator))
        return pb.UploadBlobsResponse(completed=completed)

    async def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.GetUploadResponse:
        upload_id = messages.parse_upload_id(request.upload_id)
        status = await self._artifacts.get(current_call(), upload_id)
        return pb.GetUploadResponse(upload=messages.upload_to_proto(status))

    async def CommitUpload(self, request: pb.CommitUploadRequest, context: Any) -> pb.CommitUploadResponse:
        upload_id = messages.parse_upload_id(request.upload_id)
        artifact = await self._artifacts.commit(current_call(), upload_id)
        return pb.CommitUploadResponse(artifact=messages.artifact_to_proto(artifact))

    async def GetArtifact(self, request: pb.GetArtifactRequest, context: Any) -> pb.GetArtifactResponse:
        digest, model = messages.parse_get_artifact(request)
        artifact = await self._artifacts.artifact(current_call(), digest, model)
        return pb.GetArtifactResponse(artifact=messages.artifact_to_proto(artifact))

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        page = await self._artifacts.list_files(messages.parse_list_files(request))
        return messages.page_to_proto(page)

    async def ReadFile(self, request: pb.ReadFileRequest, context: Any) -> AsyncIterator[pb.ReadFileResponse]:
        async for chunk in self._artifacts.read_file(messages.parse_read_file(request)):
            yield pb.ReadFileResponse(chunk=chunk)


async def _pieces(requests: AsyncIterator[pb.UploadBlobsRequest]) -> AsyncIterator[BlobHeader | bytes]:
    async for request in requests:
        yield messages.parse_piece(request)
