"""The artifact service as a process of its own, for tests that crash it.

Arguments: DSN, blob folder or setting `blobs`, more settings as JSON, most bytes of a file (0: any).
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

import structlog

from tests.framework.artifact import artifact_service


async def serve(dsn: str, blobs: Path | str, settings: dict[str, object]) -> None:
    """Serve until killed; the first line of output is the address."""
    async with artifact_service(dsn, blobs, **settings) as service:
        sys.stdout.write(f"{service.address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if file_bytes := int(sys.argv[4]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    place = sys.argv[2] if "://" in sys.argv[2] else Path(sys.argv[2])
    asyncio.run(serve(sys.argv[1], place, json.loads(sys.argv[3])))
