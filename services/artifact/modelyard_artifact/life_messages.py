"""Messages of references, collection, verification, statistics and the list of artifacts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modelyard.api.artifact.v1 import artifact_pb2
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact.listing import ListArtifacts
from modelyard_artifact.messages import parse_digest, parse_model
from modelyard_artifact.references import Acquire
from modelyard_kit.errors import InvalidField
from modelyard_kit.paging import page_size

if TYPE_CHECKING:
    from modelyard_artifact.collection import Collected
    from modelyard_artifact.storage_store import Statistics
    from modelyard_artifact.verification import Progress

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def parse_acquire(request: pb.AcquireReferenceRequest) -> Acquire:
    """Checks digest and ids.

    Raises:
        InvalidField: any of them.
    """
    return Acquire(
        digest=parse_digest(request.digest),
        model_id=_id("model_id", request.model_id),
        model_version_id=_id("model_version_id", request.model_version_id),
        source_model_id=_id("source_model_id", request.source_model_id) if request.source_model_id else "",
    )


def parse_list_artifacts(request: pb.ListArtifactsRequest) -> ListArtifacts:
    """Checks model and page.

    Raises:
        InvalidField: the model or the page size.
    """
    return ListArtifacts(
        model=parse_model(request.model),
        page_size=page_size(request.page_size),
        page_token=request.page_token,
        filter=request.filter,
        order_by=request.order_by,
    )


def parse_verify(request: pb.VerifyBlobsRequest) -> str:
    """Returns the digest of an artifact, or "" for everything.

    Raises:
        InvalidField: it is not a digest.
    """
    return parse_digest(request.digest) if request.digest else ""


def collected_to_proto(collected: Collected) -> pb.CollectGarbageResponse:
    """Returns the message of what was deleted."""
    return pb.CollectGarbageResponse(
        artifact_count=collected.artifacts, blob_count=collected.blobs, size=collected.size
    )


def statistics_to_proto(statistics: Statistics) -> artifact_pb2.StorageStatistics:
    """Returns the message of statistics."""
    return artifact_pb2.StorageStatistics(
        artifact_count=statistics.artifact_count,
        logical_size=statistics.logical_size,
        blob_count=statistics.blob_count,
        stored_size=statistics.stored_size,
        deduplication_ratio=statistics.deduplication_ratio,
        open_upload_count=statistics.open_upload_count,
        unreferenced_blob_count=statistics.unreferenced_blob_count,
        unreferenced_size=statistics.unreferenced_size,
    )


def progress_to_proto(progress: Progress) -> pb.VerifyBlobsResponse:
    """Returns the message of a verification's progress."""
    return pb.VerifyBlobsResponse(
        verified_count=progress.verified_count,
        verified_size=progress.verified_size,
        total_count=progress.total_count,
        total_size=progress.total_size,
        damaged=[
            pb.DamagedBlob(
                sha256=each.blob.sha256,
                size=each.blob.size,
                problem=each.problem,
                artifact_digests=each.digests,
            )
            for each in progress.damaged
        ],
    )


def _id(field: str, text: str) -> str:
    if not _UUID.fullmatch(text):
        raise InvalidField(field, "must be the id of a resource: a UUID in lower-case hex digits")
    return text
