"""The artifact service as a process of its own, for tests that crash it: DSN and blob folder as arguments."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import structlog

from tests.framework.artifact import artifact_service


async def serve(dsn: str, blobs: Path) -> None:
    """Serve until killed; the first line of output is the address."""
    async with artifact_service(dsn, blobs) as service:
        sys.stdout.write(f"{service.address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
