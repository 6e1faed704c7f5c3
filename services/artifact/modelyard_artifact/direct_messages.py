"""Between messages and commands of direct transfer. Every refusal names the field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.api.artifact.v1 import artifact_pb2, artifact_service_pb2
from modelyard_artifact.messages import (
    check_sha256,
    file_to_proto,
    parse_paths,
    parse_upload_id,
    parse_version,
)
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard_artifact.models import BlobUrls, FileUrl, PartUrl, SignedUrl

MAX_SIGNED_BLOBS = 100
"""Blobs that one call signs addresses for."""


def parse_sign_upload(request: artifact_service_pb2.SignUploadUrlsRequest) -> tuple[str, list[str]]:
    """Returns the id of the upload and the hashes.

    Raises:
        InvalidField: none or too many hashes, or a malformed one.
        NotFound: the upload id is not one that was ever given out.
    """
    if not 0 < len(request.sha256s) <= MAX_SIGNED_BLOBS:
        raise InvalidField("sha256s", f"has {len(request.sha256s)} hashes: name 1 to {MAX_SIGNED_BLOBS}")
    for index, sha256 in enumerate(request.sha256s):
        check_sha256(sha256, f"sha256s[{index}]")
    return parse_upload_id(request.upload_id), list(request.sha256s)


def parse_finish_blob(request: artifact_service_pb2.FinishBlobRequest) -> tuple[str, str]:
    """Returns the id of the upload and the hash.

    Raises:
        InvalidField: the hash is malformed.
        NotFound: the upload id is not one that was ever given out.
    """
    return parse_upload_id(request.upload_id), check_sha256(request.sha256, "sha256")


def parse_sign_download(request: artifact_service_pb2.SignDownloadUrlsRequest) -> tuple[str, Sequence[str]]:
    """Returns reference and paths.

    Raises:
        InvalidField: either.
    """
    return parse_version(request.model_version), parse_paths(request.paths)


def upload_urls_to_proto(blobs: Sequence[BlobUrls]) -> artifact_service_pb2.SignUploadUrlsResponse:
    """Returns the message of addresses to send blobs to."""
    return artifact_service_pb2.SignUploadUrlsResponse(
        blobs=[
            artifact_pb2.BlobUrls(
                sha256=each.blob.sha256,
                size=each.blob.size,
                parts=map(_part, each.parts),
                expire_time=timestamp(each.expire_time),
            )
            for each in blobs
        ]
    )


def download_urls_to_proto(
    digest: str, files: Sequence[FileUrl]
) -> artifact_service_pb2.SignDownloadUrlsResponse:
    """Returns the message of addresses to read files from."""
    return artifact_service_pb2.SignDownloadUrlsResponse(
        artifact_digest=digest,
        files=[
            artifact_pb2.FileUrl(
                file=file_to_proto(each.file),
                request=_request(each.request),
                expire_time=timestamp(each.expire_time),
            )
            for each in files
        ],
    )


def _part(part: PartUrl) -> artifact_pb2.PartUrl:
    return artifact_pb2.PartUrl(
        number=part.number, offset=part.offset, length=part.length, request=_request(part.request)
    )


def _request(request: SignedUrl) -> artifact_pb2.SignedUrl:
    return artifact_pb2.SignedUrl(url=request.url, method=request.method, headers=request.headers)
