"""Many small files in few messages: sent as whole blobs, read by ReadFiles."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact.errors import DigestMismatch
from modelyard_artifact.messages import MAX_PATHS
from modelyard_artifact.models import MAX_WHOLE_BLOBS
from modelyard_kit.errors import InvalidField, NotFound, RequestIdReused
from tests.framework.artifact import (
    BOB,
    MODEL,
    ArtifactClient,
    ArtifactService,
    artifact_service,
    chunks,
    header,
)

VERSION = f"{MODEL}/1"
MIB = 1 << 20
FILES = {f"part/{number}": random.Random(number).randbytes(number * 37) for number in range(200)}


@pytest.fixture
async def service(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[ArtifactService]:
    async with artifact_service(fresh_database("modelyard_artifact"), tmp_path / "blobs") as running:
        yield running


def whole(upload_id: str, *contents: bytes) -> pb.UploadBlobsRequest:
    return pb.UploadBlobsRequest(blobs=pb.WholeBlobs(upload_id=upload_id, contents=contents))


async def read_files(client: ArtifactClient, paths: list[str], version: str = VERSION) -> list[bytes]:
    """Read files whole, checking the order of the pieces."""
    request = pb.ReadFilesRequest(model_version=version, paths=paths)
    contents: list[list[bytes]] = [[] for _ in paths]
    last = 0
    async for answer in client.stub.ReadFiles(request, metadata=client.metadata, timeout=60):
        assert sum(len(piece.data) for piece in answer.pieces) <= MIB
        for piece in answer.pieces:
            assert piece.index >= last
            last = piece.index
            contents[last].append(piece.data)
    assert all(contents)
    return [b"".join(pieces) for pieces in contents]


async def test_whole_blobs_become_files(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin(FILES)
    contents = list(FILES.values())
    assert await client.send([whole(upload.id, *contents[:120]), whole(upload.id, *contents[120:])]) == 200
    assert not (await client.get(upload.id)).missing
    artifact = await client.commit(upload.id)
    service.catalog.ready(VERSION, artifact.digest)
    paths = list(reversed(FILES))
    assert await read_files(client, paths) == [FILES[path] for path in paths]


async def test_whole_blobs_and_chunks_share_a_stream(service: ArtifactService) -> None:
    client = service.client()
    large = random.Random(0).randbytes(3 * MIB)
    upload = await client.begin({"large": large, "a": b"1", "b": b"2", "empty": b""})
    pieces = [
        whole(upload.id, b"1", b"1"),
        header(upload.id, large),
        *chunks(large),
        whole(upload.id, b"2", b""),
    ]
    assert await client.send(pieces) == 4
    service.catalog.ready(VERSION, (await client.commit(upload.id)).digest)
    assert await read_files(client, ["large", "empty", "a"]) == [large, b"", b"1"]


async def test_what_is_stored_already_is_let_go_by(service: ArtifactService) -> None:
    client = service.client()
    await client.upload({"a": b"1"})
    upload = await client.begin({"a": b"1", "b": b"2"})
    assert await client.send([whole(upload.id, b"1", b"2")]) == 2
    await client.commit(upload.id)


async def test_content_that_nobody_announced_is_refused(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin({"a": b"1"})
    with pytest.raises(DigestMismatch):
        await client.send([whole(upload.id, b"1", b"2")])
    assert not (
        await client.get(upload.id)
    ).missing  # what came with it and was announced need not come again
    with pytest.raises(NotFound):
        await service.client(BOB).send([whole(upload.id, b"1")])


@pytest.mark.parametrize(
    "contents", [[], [b""] * (MAX_WHOLE_BLOBS + 1), [b"x" * MIB, b"x"]], ids=["none", "many", "large"]
)
async def test_refused_pieces(service: ArtifactService, contents: list[bytes]) -> None:
    client = service.client()
    upload = await client.begin({"a": b"1"})
    with pytest.raises(InvalidField, match="blobs.contents"):
        await client.send([whole(upload.id, *contents)])


@pytest.mark.parametrize(
    "paths", [[], ["a"] * (MAX_PATHS + 1), ["a", "../b"]], ids=["none", "many", "hostile"]
)
async def test_refused_paths(service: ArtifactService, paths: list[str]) -> None:
    client = service.client()
    service.catalog.ready(VERSION, await client.upload({"a": b"1"}))
    with pytest.raises(InvalidField, match="paths"):
        await client.call_stream("ReadFiles", pb.ReadFilesRequest(model_version=VERSION, paths=paths))


async def test_an_absent_file_is_named(service: ArtifactService) -> None:
    client = service.client()
    service.catalog.ready(VERSION, await client.upload({"a": b"1"}))
    with pytest.raises(NotFound, match="absent"):
        await client.call_stream(
            "ReadFiles", pb.ReadFilesRequest(model_version=VERSION, paths=["a", "absent"])
        )


async def test_an_upload_is_not_continued_for_another_model_of_the_same_name(
    service: ArtifactService,
) -> None:
    client = service.client()
    first = await client.begin({"a": b"1"}, request_id="same")
    assert (await client.begin({"a": b"1"}, request_id="same")).id == first.id
    service.catalog.models[MODEL] = "id-of-another-iris"
    with pytest.raises(RequestIdReused):
        await client.begin({"a": b"1"}, request_id="same")
