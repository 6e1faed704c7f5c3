"""The files of artifacts on this machine: downloaded once, verified, shared by all replicas.

An artifact lies in `<folder>/<64 hex digits of its digest>/`. It gets that name by an atomic rename after every byte was
checked, so what has the name is whole. Single contents come from and go to the cache that clients use (`modelyard._cache`),
so that a version that shares files with another, or was downloaded by somebody here, costs less network. Its copies are
hashed on the way, so nobody who can write to that cache can change what a replica loads.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path, PurePosixPath

import structlog

from modelyard._cache import BlobCache
from modelyard._manifest import manifest_digest
from modelyard.types import FileEntry
from modelyard_inference.models import Version
from modelyard_inference.planner.observed import ArtifactStatus
from modelyard_inference.ports import ArtifactSource
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault, failpoint

SPARE = 8
"""Artifacts kept although nothing uses them, so that going back to a version needs no download."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
SILENCE_SECONDS = 60.0
"""A download that brings nothing for so long has failed."""
_PARALLEL = 2
_PARTIAL = ".partial-"

_log = structlog.get_logger()


class ArtifactDamaged(Exception):
    """What was received is not the artifact that was asked for, or not all of it."""


class ArtifactCache:
    """Artifacts in a local folder, fetched in the background."""

    def __init__(
        self,
        source: ArtifactSource,
        folder: Path,
        blobs: BlobCache,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._blobs = blobs
        self._folder = folder
        self._monotonic = monotonic
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._problems: dict[str, tuple[str, float, int]] = {}  # message, not before, failures in a row
        self._slots = asyncio.Semaphore(_PARALLEL)

    def prepare(self) -> None:
        """Make the folder and remove what interrupted downloads left."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def path(self, digest: str) -> Path:
        """Return the folder of an artifact, whether it is there or not."""
        return self._folder / digest.removeprefix("sha256:")

    def status(self, digest: str) -> ArtifactStatus:
        """Return whether an artifact is there, and why its last download failed."""
        problem, _, _ = self._problems.get(digest, ("", 0.0, 0))
        return ArtifactStatus(present=self.path(digest).is_dir(), problem=problem)

    def fetch(self, version: Version, done: Callable[[], None]) -> None:
        """Begin to download a version's artifact unless that goes on already or failed a moment ago.

        Args:
            version: the version whose artifact is wanted.
            done: called at the end, good or bad.
        """
        digest = version.artifact_digest
        _, not_before, _ = self._problems.get(digest, ("", 0.0, 0))
        if digest in self._tasks or self._monotonic() < not_before or self.path(digest).is_dir():
            return

        def ended(_: asyncio.Task[None]) -> None:
            del self._tasks[digest]
            done()

        task = self._tasks[digest] = asyncio.create_task(self._fetch(version))
        task.add_done_callback(ended)

    async def close(self) -> None:
        """Stop every download."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def prune(self, used: Collection[str]) -> None:
        """Remove artifacts that nothing uses, but for the most recent few."""
        names = {digest.removeprefix("sha256:") for digest in used}
        unused = [
            path
            for path in self._folder.iterdir()
            if path.name not in names and not path.name.startswith(".")
        ]
        unused.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in unused[SPARE:]:
            doomed = path.with_name(f"{_PARTIAL}{path.name}")
            path.rename(doomed)  # half an artifact must never have its name
            shutil.rmtree(doomed, ignore_errors=True)

    async def _fetch(self, version: Version) -> None:
        digest = version.artifact_digest
        try:
            async with self._slots:
                await self._download(version)
        except (DomainError, ArtifactDamaged, OSError, InjectedFault) as error:
            failures = self._problems.get(digest, ("", 0.0, 0))[2]
            pause = min(FIRST_PAUSE * 2 ** min(failures, 16), LONGEST_PAUSE)
            message = f"its artifact could not be downloaded: {error}"
            self._problems[digest] = (message, self._monotonic() + pause, failures + 1)
            _log.warning(
                "artifact_download_failed", version=version.name, error=str(error), retry_seconds=pause
            )
        else:
            self._problems.pop(digest, None)

    async def _download(self, version: Version) -> None:
        # The model may be called otherwise by now, and another one as it was.
        name = await self._source.version_name(version.id)
        digest, files = await self._source.files(name)
        if digest != version.artifact_digest or manifest_digest(files) != digest:
            raise ArtifactDamaged(f"the file list of {version.name} is not that of {version.artifact_digest}")
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self._folder))
        try:
            for entry in files:
                target = partial / _safe(entry.path)
                if not await asyncio.to_thread(self._take, entry, target):
                    await _receive(self._source.read(name, entry.path), target, entry)
            await failpoint("inference.artifact.received")
            await asyncio.to_thread(_publish, partial, self.path(digest))
            await asyncio.to_thread(self._remember, self.path(digest), files)
        finally:
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)

    def _take(self, entry: FileEntry, target: Path) -> bool:
        """Make the folder of a file, and the file if its content is here."""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._blobs.take(entry.sha256, entry.size, target):
            return False
        target.chmod(0o400)
        _sync(target)
        return True

    def _remember(self, folder: Path, files: Sequence[FileEntry]) -> None:
        for entry in files:
            self._blobs.add(entry.sha256, folder / entry.path)
        self._blobs.prune()


async def _receive(chunks: AsyncIterator[bytes], target: Path, entry: FileEntry) -> None:
    """Write one file and check it."""
    descriptor = await asyncio.to_thread(os.open, target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    hasher, size = hashlib.sha256(), 0
    try:
        while chunk := await _next(chunks):
            size += len(chunk)
            if size > entry.size:
                break
            await asyncio.to_thread(_append, descriptor, hasher, chunk)
        await asyncio.to_thread(os.fsync, descriptor)
    finally:
        os.close(descriptor)
    if size != entry.size or hasher.hexdigest() != entry.sha256:
        raise ArtifactDamaged(f"file {entry.path!r} arrived with other content than its artifact has")


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """Return what comes next, empty at the end."""
    try:
        # Not `wait_for`, which until Python 3.12 forgets a cancellation that comes with what it waits for.
        async with asyncio.timeout(SILENCE_SECONDS):
            return await anext(chunks, b"")
    except TimeoutError as error:
        raise ArtifactDamaged(f"nothing arrived for {SILENCE_SECONDS:g} s") from error


def _append(descriptor: int, hasher: hashlib._Hash, chunk: bytes) -> None:
    hasher.update(chunk)
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def _safe(path: str) -> PurePosixPath:
    """Return a path that stays inside the folder it is joined to."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable():
        raise ArtifactDamaged(f"its file list has the path {path!r}, which is not allowed")
    return PurePosixPath(path)


def _publish(partial: Path, final: Path) -> None:
    """Give a complete folder its name for good."""
    for folder in [partial, *(path for path in partial.rglob("*") if path.is_dir())]:
        _sync(folder)
    try:
        partial.rename(final)
    except OSError:
        if not final.is_dir():  # else somebody else published the same content
            raise
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
