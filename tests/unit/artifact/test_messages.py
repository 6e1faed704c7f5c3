"""Shapes of requests: each refusal names the field."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from modelyard.api.artifact.v1.artifact_pb2 import FileEntry
from modelyard.api.artifact.v1.artifact_service_pb2 import (
    BeginUploadRequest,
    BlobHeader,
    GetArtifactRequest,
    ListFilesRequest,
    ReadFileRequest,
    UploadBlobsRequest,
)
from modelyard_artifact import messages
from modelyard_artifact.models import CHUNK_BYTES, FilePage
from modelyard_artifact.models import FileEntry as File
from modelyard_kit.errors import InvalidField, LimitExceeded, NotFound
from modelyard_kit.filters import Asked
from modelyard_kit.ids import new_id
from modelyard_kit.limits import LIMITS

A = hashlib.sha256(b"a").hexdigest()
MODEL = "prod.ml.iris"


def begin(*files: FileEntry, model: str = MODEL, request_id: str = "") -> BeginUploadRequest:
    return BeginUploadRequest(model=model, files=files, request_id=request_id)


def file(path: str = "m.bin", size: int = 1, sha256: str = A) -> FileEntry:
    return FileEntry(path=path, size=size, sha256=sha256)


def fields(error: pytest.ExceptionInfo[InvalidField]) -> list[str]:
    return [violation.field for violation in error.value.violations]


def test_begin() -> None:
    command = messages.parse_begin_upload(begin(file("b"), file("a"), request_id="r"))
    assert command.model == MODEL
    assert [entry.path for entry in command.manifest.files] == ["a", "b"]
    assert command.request_id == "r"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (begin(file(), model=""), "model"),
        (begin(file(), model="a.b"), "model"),
        (begin(), "files"),
        (begin(file(path="../x")), "files[0].path"),
        (begin(file(size=-1)), "files[0].size"),
        (begin(file(sha256=A.upper())), "files[0].sha256"),
        (begin(file(sha256="abc")), "files[0].sha256"),
        (begin(file("x"), file("X")), "files[1].path"),
        (begin(file("x"), file("y", size=2)), "files[1].size"),
        (begin(file(), request_id="a\x00"), "request_id"),
    ],
)
def test_begin_refuses(request_: BeginUploadRequest, field: str) -> None:
    with pytest.raises(InvalidField) as error:
        messages.parse_begin_upload(request_)
    assert fields(error) == [field]
    assert error.value.metadata == {"field": field}


def test_begin_lists_many_problems_but_not_all() -> None:
    with pytest.raises(InvalidField) as error:
        messages.parse_begin_upload(begin(*(file(path="..") for _ in range(500))))
    assert len(error.value.violations) == 20


def test_begin_limits() -> None:
    largest = LIMITS["blob_bytes"].maximum
    messages.parse_begin_upload(begin(file(size=largest)))
    with pytest.raises(LimitExceeded):
        messages.parse_begin_upload(begin(file(size=largest + 1)))
    with pytest.raises(LimitExceeded):
        messages.parse_begin_upload(begin(file(), request_id="x" * (LIMITS["request_id_length"].maximum + 1)))


def test_number_of_files_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    maximum = LIMITS["files_per_artifact"].maximum
    entry = file()
    request = begin(*([entry] * (maximum + 1)))
    with pytest.raises(LimitExceeded) as error:
        messages.parse_begin_upload(request)
    assert error.value.metadata["limit"] == "files_per_artifact"


def test_a_chunk_has_the_published_size() -> None:
    assert LIMITS["chunk_bytes"].maximum == CHUNK_BYTES


def test_pieces() -> None:
    upload_id = new_id()
    header = BlobHeader(upload_id=upload_id, sha256=A, offset=3)
    parsed = messages.parse_piece(UploadBlobsRequest(header=header))
    assert not isinstance(parsed, bytes)
    assert (parsed.upload_id, parsed.sha256, parsed.offset) == (upload_id, A, 3)
    assert messages.parse_piece(UploadBlobsRequest(chunk=bytes(CHUNK_BYTES))) == bytes(CHUNK_BYTES)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (UploadBlobsRequest(), "piece"),
        (UploadBlobsRequest(chunk=bytes(CHUNK_BYTES + 1)), "chunk"),
        (UploadBlobsRequest(header=BlobHeader(upload_id=new_id(), sha256="x")), "header.sha256"),
        (UploadBlobsRequest(header=BlobHeader(upload_id=new_id(), sha256=A, offset=-1)), "header.offset"),
        (UploadBlobsRequest(header=BlobHeader(sha256=A)), "header.upload_id"),
    ],
)
def test_pieces_refused(request_: UploadBlobsRequest, field: str) -> None:
    with pytest.raises(InvalidField) as error:
        messages.parse_piece(request_)
    assert fields(error) == [field]


@pytest.mark.parametrize(
    "text",
    ["x", "../../etc", "a\x00", new_id() + "0", new_id().upper() + "A"],
    ids=["word", "path", "zero byte", "too long", "upper case"],
)
def test_what_is_no_id_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        messages.parse_upload_id(text)


@pytest.mark.parametrize(
    ("parse", "request_", "field"),
    [
        (messages.parse_get_artifact, GetArtifactRequest(digest=A, model=MODEL), "digest"),
        (messages.parse_get_artifact, GetArtifactRequest(digest=f"sha256:{A}"), "model"),
        (messages.parse_list_files, ListFilesRequest(model_version=""), "model_version"),
        (messages.parse_list_files, ListFilesRequest(model_version=f"{MODEL}/0"), "model_version"),
        (messages.parse_list_files, ListFilesRequest(model_version=MODEL, page_size=-1), "page_size"),
        (messages.parse_read_file, ReadFileRequest(model_version=f"{MODEL}/1", path="/a"), "path"),
        (
            messages.parse_read_file,
            ReadFileRequest(model_version=f"{MODEL}/1", path="a", offset=-1),
            "offset",
        ),
        (
            messages.parse_read_file,
            ReadFileRequest(model_version=f"{MODEL}/1", path="a", length=-1),
            "length",
        ),
    ],
)
def test_lookups_refused(parse: Any, request_: Any, field: str) -> None:
    with pytest.raises(InvalidField) as error:
        parse(request_)
    assert fields(error) == [field]


def test_page_tokens_go_around() -> None:
    page = FilePage("sha256:x", [File("a", 1, A)], "token")
    token = messages.page_to_proto(page).next_page_token
    command = messages.parse_list_files(
        ListFilesRequest(
            model_version=f"models:/{MODEL}@best", page_token=token, filter="size > 1", order_by="size"
        )
    )
    assert command.asked == Asked(size=1_000, page_token="token", filter="size > 1", order_by="size")
    assert command.version == f"{MODEL}@best"
