"""Processes for tests that crash them, forked from one that has imported everything.

Importing a service takes seconds of a processor, and there are dozens of these tests. What is forked has no thread, loop or
connection of another one; it ends and can be killed like any process.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from modelyard_kit import faults

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "tests.faults.artifact_process",
        "tests.faults.catalog_process",
        "tests.faults.inspection_process",
        "modelyard_artifact.blobs.s3",
    ]
)

Work = Callable[..., None]
"""What a process does: gets the end of a pipe, then the arguments."""


class Forked:
    """A running process; `said` is what it sends."""

    def __init__(
        self, work: Work, *arguments: object, failpoints: str = "", folder: Path | None = None
    ) -> None:
        self.said, end = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(
            target=_begin, args=(dict(os.environ), failpoints, folder, work, end, arguments)
        )
        self._process.start()
        end.close()

    async def line(self) -> str:
        """Wait for the next thing it says; fails if it ends without."""
        return str(await asyncio.to_thread(self.said.recv))

    @property
    def pid(self) -> int | None:
        """Its id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it, if it still lives."""
        self._process.kill()

    async def wait(self) -> int | None:
        """Wait for its end and return its exit code."""
        await asyncio.to_thread(self._process.join)
        return self._process.exitcode


def _begin(
    environment: dict[str, str],
    failpoints: str,
    folder: Path | None,
    work: Work,
    said: Connection,
    arguments: tuple[object, ...],
) -> None:
    # The environment of the test, not of whichever was the first to fork.
    os.environ.clear()
    os.environ.update(environment, MODELYARD_FAILPOINTS=failpoints)
    tempfile.tempdir = str(folder) if folder else None
    faults.configure(failpoints)
    work(said, *arguments)
