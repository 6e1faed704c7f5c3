"""Fetching files: into a folder beside the destination, verified while written, shown only when complete."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from modelyard import errors
from modelyard._manifest import check_path, manifest_digest
from modelyard._progress import report
from modelyard.references import parse_version_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._progress import Progress
    from modelyard._versions import AsyncVersions
    from modelyard.types import FileEntry

MAX_ATTEMPTS = 5
"""Streams cut one after the other without a byte getting through, before giving up."""
_PARALLEL = 4
_FIRST_PAUSE = 0.2
_CUT = (errors.Unavailable, errors.DeadlineExceeded, errors.Cancelled)


async def download(
    artifacts: AsyncArtifacts,
    versions: AsyncVersions,
    reference: str,
    destination: Path,
    *,
    overwrite: bool,
    progress: Progress,
) -> Path:
    """Fetch the files of a version into a folder that appears complete or not at all.

    Raises:
        ConfigurationError: the destination exists and may not be overwritten.
        DigestMismatch: what came is not what the manifest says.
    """
    destination = await asyncio.to_thread(_check_destination, destination, overwrite=overwrite)
    if parse_version_reference(reference).number is None:
        # An alias may move between two files; a number cannot.
        reference = (await versions.get(reference)).name
    digest, files = await _manifest(artifacts, reference)
    staged = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}")
    await asyncio.to_thread(staged.mkdir, parents=True)
    try:
        await _fetch_all(artifacts, reference, files, staged, progress)
        if manifest_digest(files) != digest:
            raise errors.DigestMismatch(f"the files of {reference} do not make up its artifact {digest}")
        await asyncio.to_thread(_put_in_place, staged, destination)
    finally:
        await asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True)
    return destination


async def _manifest(artifacts: AsyncArtifacts, reference: str) -> tuple[str, Sequence[FileEntry]]:
    files = await artifacts.list_files(reference).collect()
    for file in files:
        check_path(file.path)  # the answer decides where we write
    version_digest = await artifacts.digest_of(reference)
    return version_digest, files


async def _fetch_all(
    artifacts: AsyncArtifacts, reference: str, files: Sequence[FileEntry], staged: Path, progress: Progress
) -> None:
    limit = asyncio.Semaphore(_PARALLEL)
    with report("download", sum(file.size for file in files), progress) as advance:

        async def fetch(file: FileEntry) -> None:
            async with limit:
                await _fetch(artifacts, reference, file, staged, advance)

        tasks = [asyncio.create_task(fetch(file)) for file in files]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _fetch(
    artifacts: AsyncArtifacts, reference: str, file: FileEntry, staged: Path, advance: Callable[[int], None]
) -> None:
    target = staged / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    attempts = 0
    with target.open("wb") as out:
        while True:
            before = out.tell()
            try:
                await _receive(artifacts, reference, file, out, digest, advance)
                break
            except _CUT:
                attempts = 0 if out.tell() > before else attempts + 1
                if attempts >= MAX_ATTEMPTS:
                    raise
                await asyncio.sleep(_FIRST_PAUSE * 2**attempts)
        size = out.tell()
    if size != file.size or digest.hexdigest() != file.sha256:
        raise errors.DigestMismatch(
            f"file {file.path} of {reference} came with {size} bytes and SHA-256 {digest.hexdigest()}, "
            f"announced were {file.size} bytes and {file.sha256}",
            metadata={"expected": file.sha256, "actual": digest.hexdigest()},
        )


async def _receive(
    artifacts: AsyncArtifacts,
    reference: str,
    file: FileEntry,
    out: BinaryIO,
    digest: hashlib._Hash,
    advance: Callable[[int], None],
) -> None:
    """Append what is left of a file; stops as soon as there is more than was announced."""
    if out.tell() >= file.size:
        return
    async for chunk in artifacts.read_file(reference, file.path, offset=out.tell()):
        digest.update(chunk)
        await asyncio.to_thread(out.write, chunk)
        advance(len(chunk))
        if out.tell() > file.size:
            return


def _put_in_place(staged: Path, destination: Path) -> None:
    """Give the folder its name; what stood there goes only after that."""
    old = destination.with_name(f"{staged.name}.old")
    if destination.exists():
        destination.replace(old)
    staged.replace(destination)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)


def _check_destination(destination: Path, *, overwrite: bool) -> Path:
    destination = destination.expanduser().absolute()
    if not overwrite and destination.exists() and not _is_empty_folder(destination):
        raise errors.ConfigurationError(
            f"{destination} exists; choose another folder or allow it to be replaced (overwrite=True, --overwrite)"
        )
    return destination


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
