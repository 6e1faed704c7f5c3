"""Blobs in a folder of the local disk.

`blobs/ab/<sha256>` are complete and never written again; `partial/` holds what is arriving; `installation.json` says whose they are. A partial becomes a blob by
one rename on the same file system, after its content was synced and before its folder is. Small blobs that come together
are synced and renamed together.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from modelyard_artifact.blobs import BlobStore
from modelyard_artifact.blobs.marks import MARK_NAME, Mark
from modelyard_artifact.blobs.partials import (
    Disk,
    Partials,
    make_folder,
    sync_folder,
    sync_many,
    write_new,
)
from modelyard_artifact.errors import BlobLost
from modelyard_artifact.models import CHUNK_BYTES, Blob
from modelyard_kit.faults import failpoint
from modelyard_kit.ids import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from modelyard_artifact.blobs import Partial

DEFAULT_RESERVE = 64 << 20


class LocalBlobStore(BlobStore):
    """A folder of the local disk.

    Args:
        root: the folder; made when missing, mode 0700.
        reserve: bytes of the file system that uploads leave free.
    """

    def __init__(self, root: Path, *, reserve: int = DEFAULT_RESERVE) -> None:
        self._root = root
        self._disk = Disk()
        self._partials = Partials(root / "partial", self._disk, self._publish, reserve=reserve)

    async def open(self) -> None:
        """Makes all folders, so that a root that cannot be written is found at the start."""
        await self._disk.run(self._make_folders)

    async def close(self) -> None:
        """See BlobStore."""
        self._disk.close()

    async def mark(self) -> Mark | None:
        """See BlobStore."""
        try:
            return Mark.parse(await self._disk.run((self._root / MARK_NAME).read_bytes))
        except FileNotFoundError:
            return None

    async def write_mark(self, mark: Mark, *, first: bool) -> None:
        """See BlobStore."""
        await self._disk.run(self._write_mark, mark, first=first)

    async def size(self, sha256: str) -> int | None:
        """See BlobStore."""
        try:
            return (await self._disk.run(os.stat, self._path(sha256))).st_size
        except FileNotFoundError:
            return None

    async def received(self, owner: str) -> Mapping[str, int]:
        """See BlobStore."""
        return await self._partials.received(owner)

    async def resume(self, owner: str, blob: Blob) -> Partial:
        """See BlobStore."""
        return await self._partials.resume(owner, blob)

    async def discard(self, owner: str) -> None:
        """See BlobStore."""
        await self._partials.discard(owner)

    async def tidy(self, older_than: datetime) -> None:
        """See BlobStore. Everything here has an owner or is a blob."""

    async def owners(self) -> Collection[str]:
        """See BlobStore."""
        return await self._partials.owners()

    async def stored(self, older_than: datetime) -> AsyncIterator[Blob]:
        """See BlobStore."""
        for folder in await self._disk.run(_sorted, self._root / "blobs"):
            for blob in await self._disk.run(_blobs_in, folder, older_than.timestamp()):
                yield blob

    async def put_whole(self, owner: str, contents: Mapping[Blob, bytes | memoryview]) -> None:
        """See BlobStore."""
        folder = await self._disk.run(self._write_group, owner, contents)
        await failpoint("artifact.blob.before_rename")
        changed = await self._disk.run(
            self._take, {blob.sha256: f"{folder}/{blob.sha256}" for blob in contents}
        )
        await failpoint("artifact.blob.after_rename")
        await self._disk.run(sync_many, self._root, changed)
        await self._disk.run(folder.rmdir)

    async def read(self, blob: Blob, offset: int, length: int) -> AsyncIterator[bytes]:
        """See BlobStore."""
        try:
            descriptor = await self._disk.run(os.open, self._path(blob.sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise BlobLost(blob.sha256, "is not on the disk") from error
        try:
            end = offset + length
            while offset < end:
                piece = await self._disk.run(os.pread, descriptor, min(CHUNK_BYTES, end - offset), offset)
                if not piece:
                    raise BlobLost(blob.sha256, f"ends at byte {offset} instead of {blob.size}")
                offset += len(piece)
                yield piece
        finally:
            os.close(descriptor)

    async def read_whole(self, blobs: Sequence[Blob]) -> list[bytes]:
        """See BlobStore. One visit to a thread for all of them."""
        return await self._disk.run(lambda: [self._read(blob) for blob in blobs])

    async def delete(self, sha256: str) -> None:
        """See BlobStore."""
        with contextlib.suppress(FileNotFoundError):
            await self._disk.run(os.unlink, self._path(sha256))

    async def _publish(self, source: Path, blob: Blob) -> None:
        await self._disk.run(_seal, source)
        await failpoint("artifact.blob.before_rename")
        changed = await self._disk.run(self._take, {blob.sha256: str(source)})
        await failpoint("artifact.blob.after_rename")
        await self._disk.run(sync_many, self._root, changed)

    def _write_group(self, owner: str, contents: Mapping[Blob, bytes | memoryview]) -> Path:
        self._partials.check_room(sum(map(len, contents.values())))
        folder = self._partials.group_folder(owner)
        try:
            for blob, data in contents.items():
                write_new(f"{folder}/{blob.sha256}", data)
            sync_many(self._root, [f"{folder}/{blob.sha256}" for blob in contents])
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _make_folders(self) -> None:
        for name in ("blobs", "partial"):
            make_folder(self._root / name)
        # All of them now and durable by one sync, so that nobody has to think of them who stores a blob.
        for number in range(256):
            (self._root / "blobs" / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        sync_folder(self._root / "blobs")

    def _write_mark(self, mark: Mark, *, first: bool) -> None:
        final, new = self._root / MARK_NAME, self._root / f"{MARK_NAME}.{new_id()}"
        write_new(str(new), mark.content)
        sync_many(self._root, [str(new)])
        if first:
            with contextlib.suppress(FileExistsError):
                os.link(new, final)
            new.unlink()
        else:
            new.replace(final)
        sync_folder(self._root)

    def _take(self, files: Mapping[str, str]) -> set[str]:
        """Gives files the names of their content, and returns the folders to be synced for that.

        Content decides the name, so replacing a blob that is there already changes nothing a reader could see.
        """
        for sha256, file in files.items():
            os.replace(file, self._path(sha256))
        return {f"{self._root}/blobs/{start}" for start in {sha256[:2] for sha256 in files}}

    def _read(self, blob: Blob) -> bytes:
        try:
            descriptor = os.open(self._path(blob.sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise BlobLost(blob.sha256, "is not on the disk") from error
        try:
            data = os.read(descriptor, blob.size + 1)
        finally:
            os.close(descriptor)
        if len(data) != blob.size:
            raise BlobLost(blob.sha256, f"has {len(data)} bytes instead of {blob.size}")
        return data

    def _path(self, sha256: str) -> str:
        # One level of folders: with 256 of them a million blobs are no burden, and making folders costs as much as files.
        return f"{self._root}/blobs/{sha256[:2]}/{sha256}"


def _seal(path: Path) -> None:
    path.chmod(0o400)
    os.utime(path)  # since when it is a blob


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _blobs_in(folder: Path, older_than: float) -> list[Blob]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat()
            if status.st_mtime < older_than:
                found.append(Blob(entry.name, status.st_size))
    return sorted(found, key=lambda blob: blob.sha256)
