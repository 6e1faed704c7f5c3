"""Crashes and failures at every durable step of an upload. Invariant: what is committed is complete and right, and
nothing else is visible; what GetUpload acknowledged need not be sent again.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import text

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.artifact.v1.artifact_pb2 import Upload
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.uploads import Uploads
from modelyard_kit import faults
from modelyard_kit.channels import open_channel
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from tests.faults.artifact_process import serve
from tests.faults.forked import Forked
from tests.framework.artifact import (
    ADA,
    ITSELF,
    MODEL,
    OTHER_MODEL,
    ArtifactClient,
    ArtifactService,
    artifact_service,
    chunks,
    header,
    missing_pieces,
)

VERSION = f"{MODEL}/1"
DATA = random.Random(7).randbytes((2 << 20) + 3)
UPLOAD_STEPS = [
    "artifact.blob.after_verify",
    "artifact.blob.before_rename",
    "artifact.blob.after_rename",
    "artifact.blob.before_record",
    "artifact.blob.after_record",
]
COMMIT_STEPS = ["artifact.commit.before_transaction", "artifact.commit.after_transaction"]


@pytest.fixture
def dsn(fresh_database: Callable[[str], str]) -> str:
    return fresh_database("modelyard_artifact")


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture(autouse=True)
def no_failpoints() -> Iterator[None]:
    yield
    faults.configure("")


@asynccontextmanager
async def process(
    dsn: str, blobs: Path | str, failpoints: str, *, file_bytes: int = 0, **settings: object
) -> AsyncIterator[tuple[ArtifactClient, Forked]]:
    """Run the service as a process; killed at the end if it still lives."""
    # The folder holds the socket, which a crash leaves behind.
    with tempfile.TemporaryDirectory(prefix="my-art-") as folder:
        child = Forked(serve, dsn, blobs, settings, file_bytes, failpoints=failpoints, folder=Path(folder))
        try:
            channel = open_channel(await child.line())
            yield ArtifactClient(channel, ADA), child
            await channel.close()
        finally:
            child.kill()
            await child.wait()


async def recorded(dsn: str) -> set[str]:
    database = Database.connect(dsn)
    rows = await database.read(lambda connection: connection.execute(text("SELECT sha256 FROM blobs")))
    await database.close()
    return {row.sha256 for row in rows}


def stored(blobs: Path) -> dict[str, bytes]:
    files = [path for path in (blobs / "blobs").rglob("*") if path.is_file()]
    return {path.name: path.read_bytes() for path in files}


async def assert_nothing_half(dsn: str, blobs: Path) -> None:
    found = stored(blobs)
    for name, data in found.items():
        assert hashlib.sha256(data).hexdigest() == name
    assert await recorded(dsn) <= set(found)


async def finish(service: ArtifactService, upload_id: str) -> None:
    """Continue where the crash left the upload, and check the result."""
    client = service.client()
    upload = await client.get(upload_id)
    if upload.state == Upload.STATE_OPEN:
        await client.resume(upload_id, [DATA])
    artifact = await client.commit(upload_id)
    service.catalog.ready(VERSION, artifact.digest)
    assert await client.read(VERSION, "m") == DATA


@pytest.mark.parametrize("step", UPLOAD_STEPS)
async def test_crash_while_a_blob_is_completed(dsn: str, blobs: Path, step: str) -> None:
    async with process(dsn, blobs, f"{step}=crash") as (client, child):
        upload = await client.begin({"m": DATA})
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await client.send(missing_pieces(upload, [DATA]))
        assert await child.wait() == faults.CRASH_EXIT_CODE
    await assert_nothing_half(dsn, blobs)
    async with artifact_service(dsn, blobs) as service:
        await finish(service, upload.id)
    await assert_nothing_half(dsn, blobs)


@pytest.mark.parametrize("step", COMMIT_STEPS)
async def test_crash_while_committing(dsn: str, blobs: Path, step: str) -> None:
    async with process(dsn, blobs, f"{step}=crash") as (client, child):
        upload = await client.begin({"m": DATA})
        await client.send(missing_pieces(upload, [DATA]))
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await client.commit(upload.id)
        assert await child.wait() == faults.CRASH_EXIT_CODE
    async with artifact_service(dsn, blobs) as service:
        await finish(service, upload.id)
        told = [event.type for event in await service.events()]
        assert told == ["artifact.upload.begun", "artifact.artifact.committed"]


async def test_kill_in_the_middle_of_a_blob(dsn: str, blobs: Path) -> None:
    async with process(dsn, blobs, "") as (client, child):
        upload = await client.begin({"m": DATA})
        stream = client.stub.UploadBlobs(metadata=client.metadata)
        await stream.write(header(upload.id, DATA))
        for piece in list(chunks(DATA))[:7]:
            await stream.write(piece)
        acknowledged = await client.acknowledged(upload.id)
        child.kill()
        await child.wait()
        stream.cancel()
    assert stored(blobs) == {}
    async with artifact_service(dsn, blobs) as service:
        again = await service.client().get(upload.id)
        assert again.missing[0].offset >= acknowledged
        await finish(service, upload.id)


@pytest.mark.parametrize("step", UPLOAD_STEPS)
async def test_failure_while_a_blob_is_completed(dsn: str, blobs: Path, step: str) -> None:
    async with artifact_service(dsn, blobs) as service:
        client = service.client()
        upload = await client.begin({"m": DATA})
        faults.configure(f"{step}=error*1")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.stub.UploadBlobs(
                iter(missing_pieces(upload, [DATA])), metadata=client.metadata, timeout=60
            )
        assert error.value.code() is grpc.StatusCode.INTERNAL
        await assert_nothing_half(dsn, blobs)
        await finish(service, upload.id)


async def test_a_sender_that_hangs_up_at_the_last_byte_loses_nothing(dsn: str, blobs: Path) -> None:
    async with artifact_service(dsn, blobs) as service:
        client = service.client()
        upload = await client.begin({"m": DATA})
        faults.configure("artifact.blob.before_rename=sleep:0.5")
        stream = client.stub.UploadBlobs(metadata=client.metadata)
        for piece in missing_pieces(upload, [DATA]):
            await stream.write(piece)
        await client.acknowledged(upload.id, len(DATA))
        stream.cancel()
        faults.configure("")
        # The next stream waits for the end of the one before and then finds the blob there, or completes it.
        await finish(service, upload.id)
        await assert_nothing_half(dsn, blobs)


async def test_full_disk_is_said_and_the_upload_continues_later(
    dsn: str, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with artifact_service(dsn, blobs) as service:
        client = service.client()
        upload = await client.begin({"m": DATA})
        await client.send([header(upload.id, DATA), *list(chunks(DATA))[:4]])
        monkeypatch.setattr("shutil.disk_usage", lambda _path: _Full())
        with pytest.raises(DomainError) as error:
            await client.send(missing_pieces(await client.get(upload.id), [DATA]))
        assert error.value.reason == "STORAGE_FULL"
        monkeypatch.undo()
        assert (await client.get(upload.id)).missing[0].offset == 4 << 16
        await finish(service, upload.id)


class _Full:
    free = 0


@pytest.mark.parametrize("whole", [False, True], ids=["chunks", "whole"])
async def test_a_file_that_the_disk_does_not_take(dsn: str, blobs: Path, whole: bool) -> None:
    """A limit on the size of files stands for a disk that is full only when it is written to."""
    data = DATA[: 900 << 10] if whole else DATA
    async with process(dsn, blobs, "", file_bytes=500 << 10) as (client, _):
        upload = await client.begin({"m": data})
        pieces = [_whole(upload.id, [data])] if whole else missing_pieces(upload, [data])
        with pytest.raises(DomainError) as error:
            await client.send(pieces)
        assert error.value.reason == "STORAGE_FULL"
        assert (await client.get(upload.id)).missing[0].offset <= 500 << 10
    await assert_nothing_half(dsn, blobs)
    async with artifact_service(dsn, blobs) as service:
        await service.client().resume(upload.id, [data])
        await service.client().commit(upload.id)
    assert set(stored(blobs)) == {hashlib.sha256(data).hexdigest()}
    assert list((blobs / "partial").rglob("*")) == []


GROUP_STEPS = UPLOAD_STEPS[1:]


@pytest.mark.parametrize("step", GROUP_STEPS)
@pytest.mark.parametrize("count", [3, 40])
async def test_crash_while_a_group_is_stored(dsn: str, blobs: Path, step: str, count: int) -> None:
    contents = [bytes([number]) * (number + 1) for number in range(count)]
    files = {f"f{number}": data for number, data in enumerate(contents)}
    async with process(dsn, blobs, f"{step}=crash") as (client, child):
        upload = await client.begin(files)
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await client.send([_whole(upload.id, contents)])
        assert await child.wait() == faults.CRASH_EXIT_CODE
    await assert_nothing_half(dsn, blobs)
    async with artifact_service(dsn, blobs) as service:
        client = service.client()
        missing = (await client.get(upload.id)).missing
        assert len(missing) == (0 if step.endswith("after_record") else count)
        if missing:
            assert await client.send([_whole(upload.id, contents)]) == count
        service.catalog.ready(VERSION, (await client.commit(upload.id)).digest)
        assert await client.read(VERSION, f"f{count - 1}") == contents[-1]
    assert set(stored(blobs)) == await recorded(dsn)
    assert list((blobs / "partial").rglob("*")) == []


@pytest.mark.parametrize("step", ["artifact.cancel.after_transaction", "artifact.commit.after_transaction"])
async def test_what_a_crash_leaves_of_an_upload_goes(dsn: str, blobs: Path, step: str) -> None:
    async with process(dsn, blobs, f"{step}=crash") as (client, child):
        upload = await client.begin({"m": DATA, "n": b"n"})
        await client.send([header(upload.id, DATA), *list(chunks(DATA))[:2]])
        # Another upload brings the content; this one has its own half of it still there.
        other = await client.begin({"m": DATA, "n": b"n"}, model=OTHER_MODEL)
        await client.send(missing_pieces(other, [DATA, b"n"]))
        cancel = client.call("CancelUpload", pb.CancelUploadRequest(upload_id=upload.id))
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await (cancel if step.startswith("artifact.cancel") else client.commit(upload.id))
        cancel.close()
        assert await child.wait() == faults.CRASH_EXIT_CODE
    assert (blobs / "partial" / upload.id).exists()
    async with artifact_service(dsn, blobs) as service:
        unused: Any = None
        store = LocalBlobStore(blobs, reserve=0)
        uploads = Uploads(service.database, store, unused, unused, utc_now)
        assert await uploads.expire(ITSELF, timedelta(hours=1)) == 0
        await store.close()
    assert [path.name for path in (blobs / "partial").rglob("*")] == [other.id]


def _whole(upload_id: str, contents: list[bytes]) -> pb.UploadBlobsRequest:
    return pb.UploadBlobsRequest(blobs=pb.WholeBlobs(upload_id=upload_id, contents=contents))


async def test_leftovers_of_a_crash_do_not_stop_the_next_start(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path, reserve=0)
    await store.open()
    await store.close()
    (tmp_path / "partial" / "u1").mkdir()
    (tmp_path / "partial" / "u1" / ("0" * 64)).write_bytes(b"half")
    store = LocalBlobStore(tmp_path, reserve=0)
    await store.open()
    assert await store.received("u1") == {"0" * 64: 4}
    await store.close()
