"""Partials on local disk: where engines that keep or stage content in files receive it.

One file per owner and hash: `<root>/<owner>/<sha256>`. It only ever grows at its end, so after a crash it holds a prefix
of what was sent; its hash state is rebuilt by reading it again. Every call into the disk runs in a thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from modelyard_artifact.blobs import Partial
from modelyard_artifact.errors import DigestMismatch, OffsetMismatch, StorageFull
from modelyard_kit.errors import InvalidState
from modelyard_kit.faults import failpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelyard_artifact.models import Blob

P = ParamSpec("P")
T = TypeVar("T")

Publish = Callable[[Path, "Blob"], Awaitable[None]]
"""Takes a verified, durable file of a partial and makes it a blob; the file may be moved or is removed afterwards."""

_SYNCFS = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)  # Linux; Python does not have it
_FEW = 8  # files up to which one sync each is quicker than one of the whole file system
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITEBACK_BYTES = 8 << 20  # so much is handed to the disk at once while more is arriving
_BEHIND_BYTES = 64 << 20  # so far behind what is arriving the disk may be
_LARGE_BYTES = 256 << 20
"""Size from which content does not stay in the page cache: it would push out what is read more often than once for each machine."""
_REHASH_BYTES = 64 << 20  # per visit to a thread, so that one huge partial does not hold a thread for long


class Disk:
    """Runs blocking calls in threads of its own and turns "no room" into the domain's word for it."""

    def __init__(self, *, threads: int = 16) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="blobs")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in a thread.

        Raises:
            StorageFull: the file system has no room or the quota is used up.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise StorageFull from error
            raise

    def close(self) -> None:
        """Ends the threads after what they are doing now."""
        self._pool.shutdown(wait=False)


class Partials:
    """The partials under one folder.

    Args:
        root: folder of its own; made when missing.
        disk: threads to use.
        publish: makes a verified partial a blob.
        reserve: bytes of the file system that uploads must leave free.
        read_next: whether the file is read again at once, to be sent elsewhere: then also a large one stays in the page cache.
    """

    def __init__(
        self, root: Path, disk: Disk, publish: Publish, *, reserve: int, read_next: bool = False
    ) -> None:
        self._root = root
        self._disk = disk
        self._publish = publish
        self._reserve = reserve
        self._read_next = read_next
        self._open: dict[Path, _FilePartial] = {}

    async def received(self, owner: str) -> Mapping[str, int]:
        """See BlobStore. What it answers is durable: the files are synced first."""
        return await self._disk.run(lambda: dict(_synced_sizes(self._root / owner)))

    async def resume(self, owner: str, blob: Blob) -> Partial:
        """See BlobStore.

        Raises:
            InvalidState: another process is receiving this blob for this owner.
        """
        path = self._root / owner / blob.sha256
        older = self._open.get(path)
        passing = blob.size >= _LARGE_BYTES and not self._read_next
        partial = self._open[path] = _FilePartial(
            path, blob, self._disk, self._publish, self._forget, passing=passing
        )
        try:
            await partial.begin(older)
            await self._disk.run(self.check_room, blob.size - partial.offset)
        except BaseException:
            await partial.close()
            raise
        return partial

    async def owners(self) -> Collection[str]:
        """See BlobStore."""
        return await self._disk.run(os.listdir, self._root)

    def group_folder(self, owner: str) -> Path:
        """A new, empty folder for a group of whole files; it goes with the owner. Blocks."""
        make_folder(self._root / owner)
        return Path(tempfile.mkdtemp(prefix=".", dir=self._root / owner))

    def check_room(self, needed: int) -> None:
        """Blocks. Raises StorageFull if fewer bytes would be left than the reserve."""
        if needed > shutil.disk_usage(self._root).free - self._reserve:
            raise StorageFull

    async def discard(self, owner: str) -> None:
        """See BlobStore."""
        folder = self._root / owner
        for path, partial in list(self._open.items()):
            if path.parent == folder:
                await partial.close()
        await self._disk.run(shutil.rmtree, folder, ignore_errors=True)

    def _forget(self, path: Path, partial: _FilePartial) -> None:
        if self._open.get(path) is partial:
            del self._open[path]


class _FilePartial(Partial):
    """One file being received.

    `_turn` puts its calls in order, so that a newer transfer waits for the end of a `finish`. `_lock` does the same for
    threads, because a cancelled call leaves its thread running.
    """

    def __init__(
        self,
        path: Path,
        blob: Blob,
        disk: Disk,
        publish: Publish,
        on_close: Callable[[Path, _FilePartial], None],
        *,
        passing: bool,
    ) -> None:
        self._path = path
        self._blob = blob
        self._disk = disk
        self._publish = publish
        self._on_close = on_close
        self._passing = passing  # through the page cache, instead of staying there
        self._hash = hashlib.sha256()
        self._offset = 0
        self._descriptor: int | None = None
        self._closed = False
        self._dirty = False
        self._turn = asyncio.Lock()
        self._lock = threading.Lock()

    @property
    def offset(self) -> int:
        return self._offset

    async def begin(self, older: _FilePartial | None) -> None:
        """Cuts off an older transfer, then reads what it left, to continue its hash."""
        async with self._turn:
            if older:
                await older.close()
            await self._disk.run(self._open_file)
            while await self._disk.run(self._load_more):
                pass
            if self._offset > self._blob.size:
                await self._refuse(_bytes(self._blob.size), _bytes(self._offset))

    async def append(self, data: bytes | memoryview) -> None:
        async with self._turn:
            end = self._offset + len(data)
            if end > self._blob.size:
                await self._refuse(_bytes(self._blob.size), f"at least {_bytes(end)}")
            await self._disk.run(self._append, data)

    async def finish(self) -> None:
        async with self._turn:
            self._check_open()
            if self._offset != self._blob.size:
                await self._refuse(_bytes(self._blob.size), _bytes(self._offset))
            digest = await self._disk.run(self._sync)
            if digest != self._blob.sha256:
                await self._refuse(self._blob.sha256, digest)
            await failpoint("artifact.blob.after_verify")
            await self._publish(self._path, self._blob)
            await self._throw_away()

    async def close(self) -> None:
        self._closed = True
        async with self._turn:
            await self._disk.run(self._release)
        self._on_close(self._path, self)

    async def _refuse(self, expected: str, actual: str) -> NoReturn:
        await self._throw_away()
        raise DigestMismatch(expected=expected, actual=actual)

    async def _throw_away(self) -> None:
        await self._disk.run(self._path.unlink, missing_ok=True)
        self._closed = True
        await self._disk.run(self._release)

    def _open_file(self) -> None:
        with self._lock:
            self._check_open()
            self._descriptor = _open_locked(self._path)

    def _load_more(self) -> bool:
        with self._lock:
            end = self._offset + _REHASH_BYTES
            while self._offset < end:
                piece = os.pread(self._handle(), 1 << 20, self._offset)
                if not piece:
                    return False
                self._hash.update(piece)
                self._offset += len(piece)
            return True

    def _append(self, data: bytes | memoryview) -> None:
        with self._lock:
            handle = self._handle()
            self._dirty = True
            try:
                _write_all(handle, data, self._offset)
            except OSError:
                os.ftruncate(handle, self._offset)  # the file stays what the hash has seen
                raise
            self._hash.update(data)
            begin, self._offset = self._offset, self._offset + len(data)
            begin -= begin % _WRITEBACK_BYTES
            if self._offset >= begin + _WRITEBACK_BYTES:
                first = max(0, begin - _BEHIND_BYTES) if self._passing else begin
                let_go(handle, first, begin + _WRITEBACK_BYTES - first)

    def _sync(self) -> str:
        with self._lock:
            os.fsync(self._handle())
            if self._passing:
                let_go(self._handle(), 0, self._offset)
            self._dirty = False
            return self._hash.hexdigest()

    def _release(self) -> None:
        with self._lock:
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                try:
                    if self._dirty:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def _handle(self) -> int:
        self._check_open()
        if self._descriptor is None:
            raise ValueError("the partial is not open")
        return self._descriptor

    def _check_open(self) -> None:
        if self._closed:
            raise OffsetMismatch(
                "a newer transfer of this blob has taken over: ask GetUpload where to continue",
                expected=self._offset,
                actual=self._offset,
            )


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_many(root: Path, paths: Collection[str]) -> None:
    """Makes files or folders below `root` durable, all at once where the system can: one wait instead of thousands."""
    if len(paths) > _FEW and _SYNCFS is not None:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _SYNCFS(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(root))
        finally:
            os.close(descriptor)
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def let_go(descriptor: int, offset: int, length: int) -> None:
    """Lets the disk begin with what was written, so that the sync at the end finds little left to do, and frees the memory of what it has."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def make_folder(path: Path) -> None:
    """Makes a folder, only for this user, and everything above it, durably."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_folder(path.parent)


def _open_locked(path: Path) -> int:
    make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise InvalidState(
                "upload", path.parent.name, state="receiving this blob elsewhere", wanted="idle"
            ) from error
        raise
    return descriptor


def _synced_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    try:
        paths = sorted(folder.iterdir())
        sync_folder(folder)
    except FileNotFoundError:
        return
    for path in paths:
        if path.name.startswith("."):
            continue  # a group of whole files, which nobody continues
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # became a blob or was thrown away just now
        try:
            size = os.fstat(descriptor).st_size
            os.fsync(descriptor)
            yield path.name, size
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def write_new(path: str, data: bytes | memoryview) -> None:
    """Writes a file that is not there yet and that nobody writes again, only for this user."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        _write_all(descriptor, data, 0)
    finally:
        os.close(descriptor)


def _bytes(count: int) -> str:
    return f"{count} bytes"
