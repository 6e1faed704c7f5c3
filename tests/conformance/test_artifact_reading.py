"""Reading from the artifact service, over real gRPC on real PostgreSQL and a real disk."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact.errors import OffsetMismatch
from modelyard_kit.errors import (
    InvalidField,
    InvalidState,
    NotFound,
    PermissionDenied,
)
from tests.framework.artifact import (
    BOB,
    MODEL,
    NOBODY_KNOWN,
    OTHER_MODEL,
    ArtifactService,
    artifact_service,
)

VERSION = f"{MODEL}/1"
FILES = {"model.bin": random.Random(1).randbytes(3 << 20), "conf/a.json": b"{}", "empty": b"", "copy": b"{}"}


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
async def service(fresh_database: Callable[[str], str], blobs: Path) -> AsyncIterator[ArtifactService]:
    async with artifact_service(fresh_database("modelyard_artifact"), blobs) as running:
        yield running


async def test_get_artifact_only_for_its_model(service: ArtifactService) -> None:
    client = service.client()
    digest = await client.upload({"m": b"abc"})
    found = await client.call("GetArtifact", pb.GetArtifactRequest(digest=digest, model=MODEL))
    assert found.artifact.size == 3
    with pytest.raises(NotFound):
        await client.call("GetArtifact", pb.GetArtifactRequest(digest=digest, model=OTHER_MODEL))
    with pytest.raises(NotFound):
        await client.call("GetArtifact", pb.GetArtifactRequest(digest="sha256:" + "0" * 64, model=MODEL))


@pytest.mark.parametrize(
    ("offset", "length", "begin", "end"),
    [
        (0, 0, 0, None),
        (10, 5, 10, 15),
        ((1 << 20) - 1, 2, (1 << 20) - 1, (1 << 20) + 1),
        (3 << 20, 0, 3 << 20, None),
        (3 << 20, 9, 3 << 20, None),
        ((3 << 20) - 1, 1 << 40, -1, None),
    ],
)
async def test_range_reads(
    service: ArtifactService, offset: int, length: int, begin: int, end: int | None
) -> None:
    client = service.client()
    data = FILES["model.bin"]
    service.catalog.ready(VERSION, await client.upload({"m": data}))
    assert await client.read(VERSION, "m", offset, length) == data[begin:end]


async def test_reads_refused(service: ArtifactService) -> None:
    client = service.client()
    service.catalog.ready(VERSION, await client.upload({"m": b"abc"}))
    service.catalog.pending(f"{MODEL}/2")
    with pytest.raises(OffsetMismatch) as beyond:
        await client.read(VERSION, "m", 4)
    assert beyond.value.metadata == {"expected": "3", "actual": "4"}
    with pytest.raises(NotFound):
        await client.read(VERSION, "n")
    with pytest.raises(InvalidField):
        await client.read(VERSION, "../m")
    with pytest.raises(NotFound):
        await client.read(f"{MODEL}/9", "m")
    with pytest.raises(InvalidState) as pending:
        await client.read(f"{MODEL}/2", "m")
    assert pending.value.metadata["state"] == "PENDING"


async def test_pages(service: ArtifactService) -> None:
    client = service.client()
    files = {f"f{number:03}": bytes([number]) for number in range(25)}
    service.catalog.ready(VERSION, await client.upload(files))
    seen: list[str] = []
    token, pages = "", 0
    while True:
        request = pb.ListFilesRequest(model_version=VERSION, page_size=10, page_token=token)
        page = await client.call("ListFiles", request)
        seen += [file.path for file in page.files]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert (seen, pages) == (sorted(files), 3)


async def test_a_page_token_dies_when_the_alias_moves(service: ArtifactService) -> None:
    client = service.client()
    alias = f"{MODEL}@best"
    service.catalog.ready(alias, await client.upload({"a": b"1", "b": b"2"}))
    first = await client.call("ListFiles", pb.ListFilesRequest(model_version=alias, page_size=1))
    service.catalog.ready(alias, await client.upload({"c": b"1", "d": b"2"}))
    request = pb.ListFilesRequest(model_version=alias, page_size=1, page_token=first.next_page_token)
    with pytest.raises(InvalidField) as error:
        await client.call("ListFiles", request)
    assert error.value.metadata == {"field": "page_token"}


async def test_who_may_not_know_does_not_learn_what_exists(service: ArtifactService) -> None:
    ada, eve = service.client(), service.client(NOBODY_KNOWN)
    for model in ("prod.ml.none", "prod.none.x", "none.x.y"):
        with pytest.raises(NotFound):
            await ada.begin({"m": b"x"}, model=model)
        with pytest.raises(PermissionDenied):
            await eve.begin({"m": b"x"}, model=model)
        with pytest.raises(PermissionDenied):
            await eve.read(f"{model}/1", "m")


async def test_all_files_as_one_zip(service: ArtifactService) -> None:
    client = service.client()
    files = FILES | {f"many/{number}.txt": b"x" * number for number in range(1_100)}
    files |= {"große/Übersicht.txt": b"umlauts"}
    service.catalog.ready(VERSION, await client.upload(files))
    request = pb.ReadArchiveRequest(model_version=VERSION)
    pieces = [answer.chunk for answer in await client.call_stream("ReadArchive", request)]
    assert all(0 < len(piece) <= 1 << 20 for piece in pieces)
    again = [answer.chunk for answer in await client.call_stream("ReadArchive", request)]
    assert b"".join(again) == b"".join(pieces)
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    with pytest.raises(PermissionDenied):
        await service.client(BOB).call_stream("ReadArchive", request)
    with pytest.raises(NotFound):
        await client.call_stream("ReadArchive", pb.ReadArchiveRequest(model_version=f"{MODEL}/9"))


async def test_bill_of_materials(service: ArtifactService) -> None:
    client = service.client()
    digest = await client.upload({"model.bin": b"x", "requirements.txt": b"numpy==2.1.0\n"})
    service.catalog.ready(VERSION, digest)
    answer = await client.call("GetSbom", pb.GetSbomRequest(model_version=VERSION))
    content = json.loads(answer.cyclonedx_json)
    assert {each["name"] for each in content["components"]} == {"model.bin", "requirements.txt", "numpy"}
    service.catalog.pending(f"{MODEL}/2")
    with pytest.raises(InvalidState):
        await client.call("GetSbom", pb.GetSbomRequest(model_version=f"{MODEL}/2"))
