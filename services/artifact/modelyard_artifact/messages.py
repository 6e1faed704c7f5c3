"""Between messages and commands. Every check of shape is here, and each refusal names the field."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, TypeVar

from modelyard.api.artifact.v1 import artifact_pb2, artifact_service_pb2
from modelyard.references import InvalidReference, parse_name, parse_version_reference
from modelyard_artifact import manifest
from modelyard_artifact.models import CHUNK_BYTES, MAX_WHOLE_BLOBS, FileEntry, UploadState
from modelyard_artifact.reading import ListFiles, ReadFile, ReadFiles
from modelyard_artifact.transfers import BlobHeader, WholeBlobs
from modelyard_artifact.uploads import BeginUpload
from modelyard_kit.errors import InvalidField, NotFound, Violation
from modelyard_kit.filters import Asked
from modelyard_kit.limits import check
from modelyard_kit.paging import page_size
from modelyard_kit.protos import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from modelyard_artifact.models import Artifact, FilePage, Upload, UploadStatus

B = TypeVar("B", bytes, memoryview)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MAX_PATHS = 1_000
"""Files that one call reads or signs addresses for."""
_SHOWN_VIOLATIONS = 20
_STATES = {
    UploadState.OPEN: artifact_pb2.Upload.STATE_OPEN,
    UploadState.COMMITTED: artifact_pb2.Upload.STATE_COMMITTED,
}


def parse_begin_upload(request: artifact_service_pb2.BeginUploadRequest) -> BeginUpload:
    """Checks the announced files.

    Raises:
        InvalidField: the model, the request id, or any file; up to 20 problems are listed.
        LimitExceeded: too many files, or one too large.
    """
    model = parse_model(request.model)
    request_id = _request_id(request.request_id)
    if not request.files:
        raise InvalidField("files", "is empty: announce at least one file")
    check("files_per_artifact", len(request.files))
    files = [FileEntry(file.path, file.size, file.sha256) for file in request.files]
    _raise_if_any(_file_violations(files))
    for file in files:
        check("blob_bytes", file.size)
    _raise_if_any(_set_violations(files))
    return BeginUpload(model=model, manifest=manifest.build(files), request_id=request_id)


def parse_piece(
    request: artifact_service_pb2.UploadBlobsRequest | WholeBlobs | memoryview,
) -> BlobHeader | WholeBlobs | bytes | memoryview:
    """Reads one piece of an upload stream.

    Raises:
        InvalidField: neither header nor chunk nor blobs, more than 1 MiB, or a malformed header.
        NotFound: the upload id is not one that was ever given out.
    """
    if isinstance(request, memoryview):
        return _chunk(request)
    if isinstance(request, WholeBlobs):
        return _whole_blobs(request.upload_id, request.contents)
    kind = request.WhichOneof("piece")
    if kind == "chunk":
        return _chunk(request.chunk)
    if kind is None:
        raise InvalidField("piece", "is missing: send a header, a chunk or blobs")
    if kind == "blobs":
        return _whole_blobs(request.blobs.upload_id, request.blobs.contents)
    header = request.header
    check_sha256(header.sha256, "header.sha256")
    if header.offset < 0:
        raise InvalidField("header.offset", f"{header.offset} is below zero")
    upload_id = parse_upload_id(header.upload_id, "header.upload_id")
    return BlobHeader(upload_id, header.sha256, header.offset)


def parse_upload_id(text: str, field: str = "upload_id") -> str:
    """Checks the id of an upload.

    Raises:
        InvalidField: it is empty.
        NotFound: it does not look like an id, so nothing has it.
    """
    if not text:
        raise InvalidField(field, "is required: send the id that BeginUpload returned")
    if not _UUID.fullmatch(text):
        raise NotFound("upload", text)
    return text


def parse_signature_id(text: str) -> str:
    """Checks the id of a signature.

    Raises:
        InvalidField: it is empty or no id.
    """
    if not _UUID.fullmatch(text):
        problem = f"{text!r} is no id" if text else "is required"
        raise InvalidField("signature_id", f"{problem}: send the id that CheckSignatures tells")
    return text


def parse_get_artifact(
    request: artifact_service_pb2.GetArtifactRequest
    | artifact_service_pb2.GetInspectionRequest
    | artifact_service_pb2.InspectArtifactRequest,
) -> tuple[str, str]:
    """Returns digest and model.

    Raises:
        InvalidField: either is malformed.
    """
    return parse_digest(request.digest), parse_model(request.model)


def parse_digest(text: str) -> str:
    """Checks the digest of an artifact.

    Raises:
        InvalidField: it is not one.
    """
    if not _DIGEST.fullmatch(text):
        raise InvalidField("digest", "must be 'sha256:' and 64 lower-case hex digits")
    return text


def parse_list_files(request: artifact_service_pb2.ListFilesRequest) -> ListFiles:
    """Checks reference and page.

    Raises:
        InvalidField: the reference or the page size.
    """
    asked = Asked(
        size=page_size(request.page_size, default=1_000, maximum=10_000),
        filter=request.filter,
        order_by=request.order_by,
        page_token=request.page_token,
    )
    return ListFiles(parse_version(request.model_version), asked)


def parse_read_file(request: artifact_service_pb2.ReadFileRequest) -> ReadFile:
    """Checks reference, path and range.

    Raises:
        InvalidField: any of them.
    """
    version = parse_version(request.model_version)
    problem = manifest.path_problem(request.path)
    if problem:
        raise InvalidField("path", problem)
    for field, value in (("offset", request.offset), ("length", request.length)):
        if value < 0:
            raise InvalidField(field, f"{value} is below zero")
    return ReadFile(version=version, path=request.path, offset=request.offset, length=request.length)


def parse_read_files(request: artifact_service_pb2.ReadFilesRequest) -> ReadFiles:
    """Checks reference and paths.

    Raises:
        InvalidField: any of them.
    """
    return ReadFiles(version=parse_version(request.model_version), paths=parse_paths(request.paths))


def parse_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """Checks paths of files.

    Raises:
        InvalidField: none, too many, or one that no artifact has.
    """
    if not 0 < len(paths) <= MAX_PATHS:
        raise InvalidField("paths", f"has {len(paths)} paths: name 1 to {MAX_PATHS:,}")
    problems = ((index, manifest.path_problem(path)) for index, path in enumerate(paths))
    _raise_if_any(Violation(f"paths[{index}]", problem) for index, problem in problems if problem)
    return tuple(paths)


def check_sha256(text: str, field: str) -> str:
    """Checks a hash.

    Raises:
        InvalidField: it is not one.
    """
    if not _SHA256.fullmatch(text):
        raise InvalidField(field, "must be 64 lower-case hex digits")
    return text


def parse_model(text: str, field: str = "model") -> str:
    """Checks the full name of a model.

    Raises:
        InvalidField: it is not `catalog.schema.name`.
    """
    try:
        parse_name(text, 3)
    except InvalidReference as error:
        raise InvalidField(field, str(error)) from error
    return text


def parse_version(text: str, field: str = "model_version") -> str:
    """Checks a version reference and returns it without the prefix `models:/`.

    Raises:
        InvalidField: it is not a version reference.
    """
    try:
        return str(parse_version_reference(text))
    except InvalidReference as error:
        raise InvalidField(field, str(error)) from error


def upload_to_proto(status: UploadStatus) -> artifact_pb2.Upload:
    """Returns the message of an upload and what it misses."""
    upload: Upload = status.upload
    message = artifact_pb2.Upload(
        id=upload.id,
        model=upload.model,
        state=_STATES[upload.state],
        artifact_digest=upload.digest,
        create_time=timestamp(upload.create_time),
        expire_time=timestamp(status.expire_time) if status.expire_time else None,
        direct=status.direct,
    )
    for each in status.missing:  # made in place: a list of messages would be copied into this one
        message.missing.add(sha256=each.blob.sha256, size=each.blob.size, offset=each.offset)
    return message


def file_to_proto(file: FileEntry) -> artifact_pb2.FileEntry:
    """Returns the message of a file."""
    return artifact_pb2.FileEntry(path=file.path, size=file.size, sha256=file.sha256)


def artifact_to_proto(artifact: Artifact) -> artifact_pb2.Artifact:
    """Returns the message of an artifact."""
    return artifact_pb2.Artifact(
        digest=artifact.digest,
        file_count=artifact.file_count,
        size=artifact.size,
        create_time=timestamp(artifact.create_time),
    )


def page_to_proto(page: FilePage) -> artifact_service_pb2.ListFilesResponse:
    """Returns the message of a page of files."""
    return artifact_service_pb2.ListFilesResponse(
        artifact_digest=page.digest,
        files=[file_to_proto(file) for file in page.files],
        next_page_token=page.next_page_token,
    )


def _chunk(data: B) -> B:
    if len(data) > CHUNK_BYTES:
        raise InvalidField("chunk", f"has {len(data)} bytes; send at most {CHUNK_BYTES} at once")
    return data


def _whole_blobs(upload_id: str, contents: Sequence[bytes | memoryview]) -> WholeBlobs:
    parse_upload_id(upload_id, "blobs.upload_id")
    if not 0 < len(contents) <= MAX_WHOLE_BLOBS:
        raise InvalidField("blobs.contents", f"has {len(contents)} blobs; send 1 to {MAX_WHOLE_BLOBS:,}")
    size = sum(map(len, contents))
    if size > CHUNK_BYTES:
        raise InvalidField("blobs.contents", f"has {size} bytes; send at most {CHUNK_BYTES} at once")
    return WholeBlobs(upload_id, contents)


def _file_violations(files: Sequence[FileEntry]) -> Iterator[Violation]:
    for index, file in enumerate(files):
        problem = manifest.path_problem(file.path)
        if problem:
            yield Violation(f"files[{index}].path", problem)
        if file.size < 0:
            yield Violation(f"files[{index}].size", f"{file.size} is below zero")
        if not _SHA256.fullmatch(file.sha256):
            yield Violation(f"files[{index}].sha256", "must be 64 lower-case hex digits")


def _set_violations(files: Sequence[FileEntry]) -> Iterator[Violation]:
    for index, problem in manifest.collisions([file.path for file in files]):
        yield Violation(f"files[{index}].path", problem)
    sizes: dict[str, int] = {}
    for index, file in enumerate(files):
        known = sizes.setdefault(file.sha256, file.size)
        if known != file.size:
            yield Violation(
                f"files[{index}].size", f"{file.size}, but the same sha256 has size {known} above"
            )


def _raise_if_any(violations: Iterable[Violation]) -> None:
    found = [violation for violation, _ in zip(violations, range(_SHOWN_VIOLATIONS), strict=False)]
    if found:
        raise InvalidField.many(found)


def _request_id(text: str) -> str:
    check("request_id_length", len(text))
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise InvalidField("request_id", "has a control character: use a UUID or other printable text")
    return text
