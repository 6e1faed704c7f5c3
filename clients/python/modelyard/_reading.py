"""Reading without a tree: one file, a range of it, a file to seek in, everything as a zip."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from modelyard import errors
from modelyard._download import check_destination, fixed, manifest
from modelyard._local import check
from modelyard._manifest import check_path
from modelyard._namespace import text_literal
from modelyard._progress import report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._progress import Progress
    from modelyard._versions import AsyncVersions
    from modelyard.types import FileEntry

_BUFFER_BYTES = 1024 * 1024


async def read(artifacts: AsyncArtifacts, reference: str, path: str, *, offset: int, length: int) -> bytes:
    """The bytes of one file; see `AsyncArtifacts.read`."""
    data = b"".join(
        [chunk async for chunk in artifacts.read_file(reference, path, offset=offset, length=length)]
    )
    if not offset and not length:
        check(await find(artifacts, reference, path), len(data), hashlib.sha256(data).hexdigest())
    return data


async def find(artifacts: AsyncArtifacts, reference: str, path: str) -> FileEntry:
    """The manifest's entry of a file.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: no file of an artifact can have this path.
    """
    wanted = f"path = {text_literal(check_path(path))}"
    for file in await artifacts.list_files(reference, filter=wanted).collect():
        return file
    raise errors.NotFound(
        f"{reference} has no file {path!r}", metadata={"resource_type": "file", "name": path}
    )


async def open_file(
    artifacts: AsyncArtifacts, versions: AsyncVersions, reference: str, path: str
) -> AsyncFile:
    """A file to read from and to seek in; see `AsyncArtifacts.open`."""
    reference = await fixed(versions, reference)
    return AsyncFile(artifacts, reference, await find(artifacts, reference, path))


class AsyncFile:
    """A file of an artifact, read in ranges; immutable, so it may be read for as long as the version exists.

    Attributes:
        entry: Path, size and SHA-256.
    """

    def __init__(self, artifacts: AsyncArtifacts, reference: str, entry: FileEntry) -> None:
        self._artifacts = artifacts
        self._reference = reference
        self._position = 0
        self.entry = entry

    async def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size` of them, or all that follow; nothing at the end."""
        left = max(0, self.entry.size - self._position)
        length = left if size < 0 else min(size, left)
        if not length:
            return b""
        chunks = self._artifacts.read_file(
            self._reference, self.entry.path, offset=self._position, length=length
        )
        data = b"".join([chunk async for chunk in chunks])
        if len(data) != length:
            raise errors.DigestMismatch(
                f"file {self.entry.path} ends {length - len(data)} bytes before the size that was announced"
            )
        self._position += length
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position; returns it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.entry.size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the beginning of {self.entry.path}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open between two reads."""


async def download_archive(
    artifacts: AsyncArtifacts,
    versions: AsyncVersions,
    reference: str,
    destination: Path,
    *,
    overwrite: bool,
    progress: Progress,
) -> Path:
    """Fetch a version as a zip file; see `AsyncArtifacts.download_archive`."""
    destination = await asyncio.to_thread(check_destination, destination, overwrite=overwrite)
    if destination.is_dir():
        raise errors.ConfigurationError(f"{destination} is a folder; name a file")
    reference = await fixed(versions, reference)
    _, files = await manifest(artifacts, reference)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    await asyncio.to_thread(partial.parent.mkdir, parents=True, exist_ok=True)
    try:
        with report("download", sum(file.size for file in files), len(files), progress) as advance:
            out = await asyncio.to_thread(partial.open, "wb")
            try:
                async for chunk in artifacts.read_archive(reference):
                    await asyncio.to_thread(out.write, chunk)
                    advance(len(chunk))
                await asyncio.to_thread(_sync, out)
            finally:
                await asyncio.to_thread(out.close)
        await asyncio.to_thread(_check_archive, partial, files)
        await asyncio.to_thread(partial.replace, destination)
    finally:
        await asyncio.to_thread(partial.unlink, missing_ok=True)
    return destination


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _check_archive(path: Path, files: Sequence[FileEntry]) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist(), key=str.encode)
            if names != [file.path for file in files]:
                raise errors.DigestMismatch("the zip has other members than the manifest has files")
            for file in files:
                size, digest = 0, hashlib.sha256()
                with archive.open(file.path) as member:
                    while data := member.read(_BUFFER_BYTES):
                        size += len(data)
                        digest.update(data)
                check(file, size, digest.hexdigest())
    except (zipfile.BadZipFile, EOFError) as error:
        raise errors.DigestMismatch(f"what came is no whole zip file: {error}") from error


class RemoteFile(io.RawIOBase):
    """The blocking form of an AsyncFile, as Python's own files are; wrap it in a BufferedReader."""

    def __init__(self, wrapped: AsyncFile) -> None:
        super().__init__()
        self._async = wrapped
        self.name = wrapped.entry.path

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        return self._async.seek(offset, whence)

    def readinto(self, buffer: object) -> int:
        """Read the next bytes."""
        from modelyard._sync import run

        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = run(self._async.read(len(view)))
        view[: len(data)] = data
        return len(data)
