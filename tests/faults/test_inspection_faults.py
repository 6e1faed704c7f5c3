"""Workers of inspections that die at every step. Invariant: each committed artifact is inspected in the end, and told of once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.artifact.v1.artifact_pb2 import Inspection
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.inspection.bounds import Bounds
from modelyard_artifact.inspections import InspectionWorker
from modelyard_artifact.inspector import Inspector
from modelyard_kit import faults
from modelyard_kit.clock import utc_now
from tests.faults.forked import Forked
from tests.faults.inspection_process import work
from tests.framework.artifact import MODEL, ArtifactService, artifact_service

REAL = "modelyard_artifact.inspection"


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def dsn(fresh_database: Callable[[str], str]) -> str:
    return fresh_database("modelyard_artifact")


@pytest.fixture
async def service(dsn: str, blobs: Path) -> AsyncIterator[ArtifactService]:
    async with artifact_service(dsn, blobs) as running:
        yield running


async def inspection(service: ArtifactService, digest: str) -> Inspection:
    request = pb.GetInspectionRequest(digest=digest, model=MODEL)
    found: Inspection = (await service.client().call("GetInspection", request)).inspection
    return found


async def finish(service: ArtifactService, blobs: Path, digest: str) -> None:
    """Let another worker wait for the lease to run out and do it, and check that it was told of once."""
    store = LocalBlobStore(blobs, reserve=0)
    await store.open()
    worker = InspectionWorker(
        service.database, Inspector(store, Bounds()), utc_now, lease=timedelta(seconds=30)
    )
    while not await worker.work():
        await asyncio.sleep(0.1)
    await store.close()
    assert (await inspection(service, digest)).state == Inspection.STATE_DONE
    query = text("SELECT count(*) FROM outbox WHERE type = 'artifact.artifact.inspected'")
    assert (await service.database.read(lambda c: c.execute(query))).scalar_one() == 1


@pytest.mark.parametrize("step", ["artifact.inspection.before_start", "artifact.inspection.before_finish"])
async def test_crash_of_the_service(service: ArtifactService, dsn: str, blobs: Path, step: str) -> None:
    digest = await service.client().upload({"f": b"content"})
    child = Forked(work, dsn, blobs, REAL, failpoints=f"{step}=crash")
    assert await child.wait() == faults.CRASH_EXIT_CODE
    assert (await inspection(service, digest)).state == Inspection.STATE_PENDING
    await finish(service, blobs, digest)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
async def test_the_process_of_an_inspection_ends_with_its_service(
    service: ArtifactService, dsn: str, blobs: Path
) -> None:
    digest = await service.client().upload({"f": b"content"})
    child = Forked(work, dsn, blobs, REAL, failpoints="artifact.inspection.before_finish=sleep:60")
    running: list[psutil.Process] = []
    while not running:
        running = [one for one in psutil.Process(child.pid).children() if REAL in " ".join(one.cmdline())]
        await asyncio.sleep(0.01)
    child.kill()
    await child.wait()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, running, 10)
    assert (len(gone), alive) == (1, [])
    await finish(service, blobs, digest)
