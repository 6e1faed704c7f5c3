"""Crashes and failures at every durable step of an upload. Invariant: what is committed is complete and right, and
nothing else is visible; what GetUpload acknowledged need not be sent again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from sqlalchemy import text

from modelyard.api.artifact.v1.artifact_pb2 import Upload
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_kit import faults
from modelyard_kit.channels import open_channel
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from tests.framework.artifact import (
    ADA,
    MODEL,
    ArtifactClient,
    ArtifactService,
    artifact_service,
    chunks,
    header,
    missing_pieces,
)

ROOT = Path(__file__).parents[2]
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
    dsn: str, blobs: Path, failpoints: str
) -> AsyncIterator[tuple[ArtifactClient, asyncio.subprocess.Process]]:
    """Run the service as a process; killed at the end if it still lives."""
    with tempfile.TemporaryDirectory(
        prefix="my-art-"
    ) as folder:  # holds the socket, which a crash leaves behind
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.artifact_process",
            dsn,
            str(blobs),
            cwd=ROOT,
            env={**os.environ, "MODELYARD_FAILPOINTS": failpoints, "TMPDIR": folder},
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout
        try:
            address = (await child.stdout.readline()).decode().strip()
            channel = open_channel(address)
            yield ArtifactClient(channel, ADA), child
            await channel.close()
        finally:
            if child.returncode is None:
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
        events = text("SELECT count(*) FROM outbox")
        rows = await service.database.read(lambda connection: connection.execute(events))
        assert rows.scalar_one() == 1


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
