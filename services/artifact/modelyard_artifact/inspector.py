"""Runs one inspection in a process of its own, which may be killed, run wild or crash without harm to the service.

The process gets no path and no address, only bytes on its standard input, and answers with JSON on its standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from modelyard_artifact.errors import BlobLost
from modelyard_artifact.inspection.bounds import Bounds
from modelyard_artifact.inspection.frames import Frame
from modelyard_artifact.inspection_store import findings_of

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Iterator, Sequence

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.inspection_models import Findings
    from modelyard_artifact.models import FileEntry

_MODULE = "modelyard_artifact.inspection"
_ANSWER_BYTES = 32 * 2**20
_COMPLAINT_BYTES = 64 * 2**10
_SHOWN_CHARACTERS = 500


class InspectionFailed(Exception):
    """The inspection cannot be done; the message says why, for people."""


class Inspector:
    """Starts the process, feeds it, reads its answer, and makes sure that it ends."""

    def __init__(self, blobs: BlobStore, bounds: Bounds, *, module: str = _MODULE) -> None:
        self._blobs = blobs
        self._bounds = bounds
        self._module = module

    async def inspect(self, files: Sequence[FileEntry]) -> Findings:
        """Find out about files.

        Raises:
            InspectionFailed: the process crashed, took too long or too much, or content is lost.
            OSError, DomainError: content cannot be read at the moment.
        """
        with tempfile.TemporaryDirectory(
            prefix="modelyard-inspection-", ignore_cleanup_errors=True
        ) as folder:
            process = await self._start(folder)
            stdin, stdout, stderr = _pipes(process)
            # Heard until the process has ended, whatever happens here: a pipe that nobody empties is never seen to close, and
            # asyncio waits for that (https://github.com/python/cpython/issues/119710).
            heard = asyncio.gather(_read(stdout, _ANSWER_BYTES), _read(stderr, _COMPLAINT_BYTES))
            try:
                async with asyncio.timeout(self._bounds.wall_seconds):
                    await self._tell(stdin, files)
                    answer, complaint = await asyncio.shield(heard)
                    await process.wait()
            except TimeoutError:
                raise InspectionFailed(
                    f"it took longer than {self._bounds.wall_seconds:g} s and was ended"
                ) from None
            except BlobLost as error:
                raise InspectionFailed(str(error)) from error
            finally:
                _kill(process)
                await heard
                await process.wait()
        if process.returncode:
            raise InspectionFailed(self._why(process.returncode, complaint))
        return _parse(answer)

    async def _start(self, folder: str) -> Process:
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-B",
            "-m",
            self._module,
            json.dumps(asdict(self._bounds)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env={"TMPDIR": folder, "LANG": "C.UTF-8", **kept},
            start_new_session=True,
        )

    async def _tell(self, stdin: asyncio.StreamWriter, files: Sequence[FileEntry]) -> None:
        # A process that ended does not listen any more; its exit code says why.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._feed(stdin, files)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stdin.close()
            await stdin.wait_closed()

    async def _feed(self, stdin: asyncio.StreamWriter, files: Sequence[FileEntry]) -> None:
        for whole, some in groupby(self._frames(files), key=lambda one: one[1].whole):
            if whole:
                await self._feed_whole(stdin, list(some))
                continue
            for file, frame in some:
                stdin.write(frame.header())
                async for data in self._blobs.read(file.blob, 0, frame.sent):
                    stdin.write(data)
                    await stdin.drain()
        await stdin.drain()

    async def _feed_whole(
        self, stdin: asyncio.StreamWriter, files: Sequence[tuple[FileEntry, Frame]]
    ) -> None:
        begun = -1
        async for pieces in self._blobs.read_each([file.blob for file, _ in files]):
            for place, data in pieces:
                if place != begun:
                    stdin.write(files[place][1].header())
                    begun = place
                stdin.write(data)
            await stdin.drain()

    def _frames(self, files: Sequence[FileEntry]) -> Iterator[tuple[FileEntry, Frame]]:
        """Each file and how much of it is looked at."""
        left = self._bounds.total_bytes
        for file in files:
            whole = file.size <= min(self._bounds.file_bytes, left)
            sent = file.size if whole else min(file.size, self._bounds.head_bytes)
            left = max(0, left - sent)
            yield file, Frame(file.path, file.size, sent)

    def _why(self, code: int, complaint: bytes) -> str:
        if code == -signal.SIGXCPU:
            return f"it used more than {self._bounds.cpu_seconds} s of processor time and was ended"
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        lines = complaint.decode("utf-8", "replace").strip().splitlines() or ["without a word"]
        if lines[-1].startswith("MemoryError"):
            return f"it needed more than {self._bounds.memory_bytes // 2**20} MiB of memory"
        return f"its process ended with code {code}: {lines[-1][:_SHOWN_CHARACTERS]}".replace("\0", "\\0")


def _parse(answer: bytes) -> Findings:
    # Not trusted: the process has read what may be an attack on it.
    try:
        return findings_of(json.loads(answer))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InspectionFailed("its process answered what cannot be understood") from error


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Everything, of which `limit` bytes are kept, so that the writer never waits."""
    kept = b""
    while data := await stream.read(2**16):
        kept += data[: limit - len(kept)]
    return kept


def _pipes(process: Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamReader]:
    if not (process.stdin and process.stdout and process.stderr):
        raise InspectionFailed("it could not be started with pipes")
    return process.stdin, process.stdout, process.stderr


def _kill(process: Process) -> None:
    """Kill it and all that it has started, which would hold its pipes open: it leads a session, so a group, of its own."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
