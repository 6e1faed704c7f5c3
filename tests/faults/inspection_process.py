"""A worker of inspections as a process of its own, for tests that crash it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.inspection.bounds import Bounds
from modelyard_artifact.inspections import InspectionWorker
from modelyard_artifact.inspector import Inspector
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database


def work(_: Connection, dsn: str, blobs: Path, module: str) -> None:
    """Do one inspection with a program; the lease is short, so that the next worker need not wait."""
    asyncio.run(_work(dsn, blobs, module))


async def _work(dsn: str, blobs: Path, module: str) -> None:
    store = LocalBlobStore(blobs, reserve=0)
    await store.open()
    inspector = Inspector(store, Bounds(), module=module)
    worker = InspectionWorker(Database.connect(dsn), inspector, utc_now, lease=timedelta(seconds=2))
    await worker.work()
