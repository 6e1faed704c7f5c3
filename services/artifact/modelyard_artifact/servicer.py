"""One method per RPC: parse, call, render."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceServicer
from modelyard_artifact import direct_messages, life_messages, messages, signature_messages
from modelyard_artifact.inspection_messages import inspection_to_proto
from modelyard_kit.auth import current_call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from modelyard_artifact.archives import Archives
    from modelyard_artifact.collection import Collector
    from modelyard_artifact.direct import Direct
    from modelyard_artifact.inspections import Inspections
    from modelyard_artifact.listing import Listings
    from modelyard_artifact.reading import Reading
    from modelyard_artifact.references import References
    from modelyard_artifact.signatures import Signatures
    from modelyard_artifact.transfers import BlobHeader, Transfers, WholeBlobs
    from modelyard_artifact.uploads import Uploads
    from modelyard_artifact.verification import Verification


class ArtifactServicer(ArtifactServiceServicer):
    """The contract `modelyard.api.artifact.v1.ArtifactService`."""

    def __init__(
        self,
        uploads: Uploads,
        transfers: Transfers,
        *,
        reading: Reading,
        archives: Archives,
        direct: Direct,
        references: References,
        listings: Listings,
        collector: Collector,
        verification: Verification,
        signatures: Signatures,
        inspections: Inspections,
    ) -> None:
        self._uploads = uploads
        self._transfers = transfers
        self._reading = reading
        self._archives = archives
        self._direct = direct
        self._references = references
        self._listings = listings
        self._collector = collector
        self._verification = verification
        self._signatures = signatures
        self._inspections = inspections

    async def BeginUpload(self, request: pb.BeginUploadRequest, context: Any) -> pb.BeginUploadResponse:
        # In a thread: checking 100,000 paths takes most of a second, and other calls go on meanwhile.
        command = await asyncio.to_thread(messages.parse_begin_upload, request)
        status = await self._uploads.begin(current_call(), command)
        return pb.BeginUploadResponse(upload=messages.upload_to_proto(status))

    async def UploadBlobs(
        self, request_iterator: AsyncIterator[pb.UploadBlobsRequest | WholeBlobs | memoryview], context: Any
    ) -> pb.UploadBlobsResponse:
        completed = await self._transfers.receive(current_call(), _pieces(request_iterator))
        return pb.UploadBlobsResponse(completed=completed)

    async def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.GetUploadResponse:
        upload_id = messages.parse_upload_id(request.upload_id)
        status = await self._uploads.get(current_call(), upload_id)
        return pb.GetUploadResponse(upload=messages.upload_to_proto(status))

    async def CommitUpload(self, request: pb.CommitUploadRequest, context: Any) -> pb.CommitUploadResponse:
        upload_id = messages.parse_upload_id(request.upload_id)
        bundles = signature_messages.parse_bundles(request)
        artifact = await self._uploads.commit(current_call(), upload_id, bundles)
        return pb.CommitUploadResponse(artifact=messages.artifact_to_proto(artifact))

    async def CancelUpload(self, request: pb.CancelUploadRequest, context: Any) -> pb.CancelUploadResponse:
        await self._uploads.cancel(current_call(), messages.parse_upload_id(request.upload_id))
        return pb.CancelUploadResponse()

    async def SignUploadUrls(
        self, request: pb.SignUploadUrlsRequest, context: Any
    ) -> pb.SignUploadUrlsResponse:
        urls = await self._direct.sign_upload(current_call(), *direct_messages.parse_sign_upload(request))
        return direct_messages.upload_urls_to_proto(urls)

    async def FinishBlob(self, request: pb.FinishBlobRequest, context: Any) -> pb.FinishBlobResponse:
        await self._direct.finish(current_call(), *direct_messages.parse_finish_blob(request))
        return pb.FinishBlobResponse()

    async def SignDownloadUrls(
        self, request: pb.SignDownloadUrlsRequest, context: Any
    ) -> pb.SignDownloadUrlsResponse:
        found = await self._direct.sign_download(*direct_messages.parse_sign_download(request))
        return direct_messages.download_urls_to_proto(*found)

    async def GetArtifact(self, request: pb.GetArtifactRequest, context: Any) -> pb.GetArtifactResponse:
        digest, model = messages.parse_get_artifact(request)
        artifact = await self._reading.artifact(current_call(), digest, model)
        return pb.GetArtifactResponse(artifact=messages.artifact_to_proto(artifact))

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        page = await self._reading.list_files(messages.parse_list_files(request))
        return messages.page_to_proto(page)

    # The messages of UploadBlobs, ReadFile and ReadArchive are made of bytes by the module `framing`.
    async def ReadFile(  # type: ignore[override]
        self, request: pb.ReadFileRequest, context: Any
    ) -> AsyncIterator[bytes]:
        async for chunk in self._reading.read_file(messages.parse_read_file(request)):
            yield chunk

    async def ReadArchive(  # type: ignore[override]
        self, request: pb.ReadArchiveRequest, context: Any
    ) -> AsyncIterator[bytes]:
        async for chunk in self._archives.read(messages.parse_version(request.model_version)):
            yield chunk

    async def ReadFiles(
        self, request: pb.ReadFilesRequest, context: Any
    ) -> AsyncIterator[pb.ReadFilesResponse]:
        async for pieces in self._reading.read_files(messages.parse_read_files(request)):
            yield pb.ReadFilesResponse(
                pieces=[pb.FilePiece(index=index, data=data) for index, data in pieces]
            )

    async def GetInspection(self, request: pb.GetInspectionRequest, context: Any) -> pb.GetInspectionResponse:
        digest, model = messages.parse_get_artifact(request)
        inspection = await self._inspections.get(digest, model)
        return pb.GetInspectionResponse(inspection=inspection_to_proto(inspection))

    async def InspectArtifact(
        self, request: pb.InspectArtifactRequest, context: Any
    ) -> pb.InspectArtifactResponse:
        digest, model = messages.parse_get_artifact(request)
        inspection = await self._inspections.again(current_call(), digest, model)
        return pb.InspectArtifactResponse(inspection=inspection_to_proto(inspection))

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Any) -> pb.ListArtifactsResponse:
        rows, token = await self._listings.page(life_messages.parse_list_artifacts(request))
        return pb.ListArtifactsResponse(
            artifacts=map(messages.artifact_to_proto, rows), next_page_token=token
        )

    async def AddSignature(self, request: pb.AddSignatureRequest, context: Any) -> pb.AddSignatureResponse:
        command = signature_messages.parse_add_signature(request)
        signature = await self._signatures.add(current_call(), command)
        return pb.AddSignatureResponse(signature=signature_messages.signature_to_proto(signature))

    async def RemoveSignature(
        self, request: pb.RemoveSignatureRequest, context: Any
    ) -> pb.RemoveSignatureResponse:
        command = signature_messages.parse_remove_signature(request)
        return pb.RemoveSignatureResponse(removed=await self._signatures.remove(current_call(), command))

    async def CheckSignatures(
        self, request: pb.CheckSignaturesRequest, context: Any
    ) -> pb.CheckSignaturesResponse:
        digest, model = messages.parse_digest(request.digest), messages.parse_model(request.model)
        found = await self._signatures.of_artifact(current_call(), digest, model)
        return pb.CheckSignaturesResponse(signatures=map(signature_messages.signature_to_proto, found))

    async def GetSbom(self, request: pb.GetSbomRequest, context: Any) -> pb.GetSbomResponse:
        document = await self._reading.sbom(messages.parse_version(request.model_version))
        return pb.GetSbomResponse(cyclonedx_json=document)

    async def AcquireReference(
        self, request: pb.AcquireReferenceRequest, context: Any
    ) -> pb.AcquireReferenceResponse:
        artifact = await self._references.acquire(life_messages.parse_acquire(request))
        return pb.AcquireReferenceResponse(artifact=messages.artifact_to_proto(artifact))

    async def GetStorageStatistics(
        self, request: pb.GetStorageStatisticsRequest, context: Any
    ) -> pb.GetStorageStatisticsResponse:
        statistics = await self._verification.statistics()
        return pb.GetStorageStatisticsResponse(statistics=life_messages.statistics_to_proto(statistics))

    async def VerifyBlobs(
        self, request: pb.VerifyBlobsRequest, context: Any
    ) -> AsyncIterator[pb.VerifyBlobsResponse]:
        digest = life_messages.parse_verify(request)
        progresses = self._verification.verify(current_call(), digest, discard=request.discard_damaged)
        async for progress in progresses:
            yield life_messages.progress_to_proto(progress)

    async def CollectGarbage(
        self, request: pb.CollectGarbageRequest, context: Any
    ) -> pb.CollectGarbageResponse:
        collected = await self._collector.collect(current_call(), dry_run=request.dry_run)
        return life_messages.collected_to_proto(collected)


async def _pieces(
    requests: AsyncIterator[pb.UploadBlobsRequest | WholeBlobs | memoryview],
) -> AsyncIterator[BlobHeader | WholeBlobs | bytes | memoryview]:
    async for request in requests:
        yield messages.parse_piece(request)
