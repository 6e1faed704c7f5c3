"""Crashes at every durable step of collection. Invariant: what is committed is complete and right; what nobody refers to is
gone after the next collection, rows and content.
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
from tests.framework.artifact import MODEL, artifact_service

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
