"""A worker of inspections as a process of its own, for tests that crash it: DSN, blob folder, and a program to run instead."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path

from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.inspection.bounds import Bounds
from modelyard_artifact.inspections import InspectionWorker
from modelyard_artifact.inspector import Inspector
from modelyard_kit import faults
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database


async def work(dsn: str, blobs: Path, module: str) -> None:
    """Do one inspection; the lease is short, so that the next worker need not wait."""
    store = LocalBlobStore(blobs, reserve=0)
    await store.open()
    inspector = Inspector(store, Bounds(), module=module)
    worker = InspectionWorker(Database.connect(dsn), inspector, utc_now, lease=timedelta(seconds=2))
    await worker.work()


if __name__ == "__main__":
    faults.configure(os.environ.get("MODELYARD_FAILPOINTS", ""))
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
