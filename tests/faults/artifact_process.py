"""The artifact service as a process of its own, for tests that crash it."""

from __future__ import annotations

import asyncio
import resource
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import structlog

from tests.framework.artifact import artifact_service


def serve(
    said: Connection, dsn: str, blobs: Path | str, settings: dict[str, object], file_bytes: int
) -> None:
    """Serve until killed; the first thing it says is its address.

    Args:
        said: where it says so.
        dsn: the database.
        blobs: a folder, or the setting `blobs`.
        settings: more settings.
        file_bytes: most bytes of a file; 0: any.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    asyncio.run(_serve(said, dsn, blobs, settings))


async def _serve(said: Connection, dsn: str, blobs: Path | str, settings: dict[str, object]) -> None:
    async with artifact_service(dsn, blobs, **settings) as service:
        said.send(service.address)
        await asyncio.Event().wait()
