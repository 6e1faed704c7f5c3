"""Crashes at every durable step of collection, and of throwing damaged content away. Invariant: what is committed is complete and
right, or found and mended; what nobody refers to is gone after the next collection, rows and content.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc.aio
import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_kit import faults
from modelyard_kit.errors import DomainError
from tests.faults.test_artifact_faults import DATA, process, recorded, stored
from tests.framework.artifact import MODEL, artifact_service, sha

VERSION = f"{MODEL}/1"
STEPS = [
    "artifact.collect.before_artifact",
    "artifact.collect.before_condemn",
    "artifact.collect.before_delete",
    "artifact.collect.after_delete",
]


@pytest.fixture
def dsn(fresh_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MODELYARD_GARBAGE_GRACE_HOURS", "0")
    return fresh_database("modelyard_artifact")


@pytest.mark.parametrize("step", STEPS)
async def test_crash_while_collecting(dsn: str, tmp_path: Path, step: str) -> None:
    async with process(dsn, tmp_path, f"{step}=crash") as (client, child):
        await client.upload({"a": DATA, "b": b"b"})
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await client.call("CollectGarbage", pb.CollectGarbageRequest())
        assert await child.wait() == faults.CRASH_EXIT_CODE
    async with artifact_service(dsn, tmp_path) as service:
        await service.client().call("CollectGarbage", pb.CollectGarbageRequest())
        assert stored(tmp_path) == {}
        assert await recorded(dsn) == set()


@pytest.mark.parametrize("step", STEPS)
async def test_an_upload_after_a_crash_while_collecting_is_whole(dsn: str, tmp_path: Path, step: str) -> None:
    files = {"a": DATA, "b": b"b"}
    async with process(dsn, tmp_path, f"{step}=crash") as (client, child):
        await client.upload(files)
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await client.call("CollectGarbage", pb.CollectGarbageRequest())
        await child.wait()
    async with artifact_service(dsn, tmp_path) as service:
        client = service.client()
        digest = await client.upload(files)
        service.catalog.ready(VERSION, digest)
        await client.call("CollectGarbage", pb.CollectGarbageRequest())
        assert {path: await client.read(VERSION, path) for path in files} == files


async def test_crash_while_throwing_damaged_content_away(dsn: str, tmp_path: Path) -> None:
    files = {"a": DATA, "b": b"b"}
    verify = pb.VerifyBlobsRequest(discard_damaged=True)
    async with process(dsn, tmp_path, "artifact.verify.discarded=crash") as (client, child):
        await client.upload(files)
        (path,) = (path for path in (tmp_path / "blobs").rglob("*") if path.name == sha(b"b"))
        path.chmod(0o600)
        path.write_bytes(b"B")
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await client.call_stream("VerifyBlobs", verify)
        assert await child.wait() == faults.CRASH_EXIT_CODE
    async with artifact_service(dsn, tmp_path) as service:
        client = service.client()
        found = [one for answer in await client.call_stream("VerifyBlobs", verify) for one in answer.damaged]
        assert [one.problem for one in found] == ["lost"]
        service.catalog.ready(VERSION, await client.upload(files))
        assert {path: await client.read(VERSION, path) for path in files} == files
