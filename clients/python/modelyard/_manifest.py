"""Files of an artifact: found, checked, hashed; and the published rule for the digest."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from modelyard._ignore import ignored
from modelyard._progress import report
from modelyard.errors import InvalidArgument
from modelyard.types import FileEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from modelyard._progress import Progress

T = TypeVar("T")

MAX_PATH_BYTES = 1024
_HEADER = "modelyard-manifest-v1\n"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # all characters of the category Cc
_SURROGATE = re.compile(r"[\ud800-\udfff]")
SMALL_BYTES = 256 * 1024
"""Files up to this size are read at once, and share messages."""
BATCH_BYTES = 4 * 1024 * 1024
BATCH_FILES = 256
_READ_BYTES = 1024 * 1024
_TELL_BYTES = 32 * 1024 * 1024
_HASHERS = min(8, os.cpu_count() or 1)
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change the ends of lines


class LocalFile(NamedTuple):
    """A file of this machine, or the part of one that begins at `offset`, and its entry in the manifest."""

    source: str
    entry: FileEntry
    offset: int = 0


def manifest_digest(files: Iterable[FileEntry]) -> str:
    """The digest of an artifact with these files: see `Artifact` in the contracts."""
    ordered = sorted(files, key=lambda file: file.path.encode())
    text = _HEADER + "".join(f"{file.sha256} {file.size} {file.path}\n" for file in ordered)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def check_path(path: str) -> str:
    """A path of an artifact, as it may stand in a manifest.

    Raises:
        InvalidArgument: it is absolute, leaves the artifact, or has characters that not every system can store.
    """
    problem = ""
    if not path or any(part in {"", ".", ".."} for part in path.split("/")):
        problem = "has an empty, '.' or '..' part"
    elif "\\" in path:
        problem = "contains a backslash"
    elif _CONTROL.search(path):
        problem = "contains a control character"
    elif _SURROGATE.search(path):
        problem = "is not UTF-8"
    elif len(path.encode()) > MAX_PATH_BYTES:
        problem = f"is longer than {MAX_PATH_BYTES} bytes"
    elif unicodedata.normalize("NFC", path) != path:
        problem = "is not in Unicode form NFC"
    if problem:
        raise InvalidArgument(f"file {path!r} cannot be part of an artifact: its path {problem}")
    return path


async def scan(root: Path, progress: Progress = None) -> list[LocalFile]:
    """The file, or every file under the folder, with size and SHA-256.

    Raises:
        InvalidArgument: there is nothing, nothing but folders, or a path that cannot be stored.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(_HASHERS, thread_name_prefix="modelyard-hash") as pool:
        found = await loop.run_in_executor(pool, _find, root)
        with report("hash", sum(file.size for file in found), len(found), progress) as advance:
            stop = threading.Event()

            def tell(size: int, files: int) -> None:
                if stop.is_set():
                    raise InterruptedError
                loop.call_soon_threadsafe(advance, size, files)

            try:
                jobs = [
                    loop.run_in_executor(pool, _hash_all, batch, tell) for batch in batches(found, _by_size)
                ]
                hashed = [file for batch in await asyncio.gather(*jobs) for file in batch]
                await asyncio.sleep(0)  # what the threads told last
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return hashed


def batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in batches that are worth a visit to a thread: many small files, or one large one."""
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= BATCH_BYTES or len(batch) >= BATCH_FILES:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


class _Found(NamedTuple):
    path: str
    source: str
    size: int


def _by_size(found: _Found) -> int:
    return found.size


def _find(root: Path) -> Sequence[_Found]:
    root = root.expanduser().absolute()
    if root.is_file():
        path = check_path(unicodedata.normalize("NFC", root.name))
        return [_Found(path, str(root), root.stat().st_size)]
    if not root.is_dir():
        raise InvalidArgument(f"{root} is no file and no folder")
    found: dict[str, _Found] = {}
    ignore = ignored(root)
    for folder, _, names in os.walk(root):
        above = "" if folder == str(root) else f"{os.path.relpath(folder, root).replace(os.sep, '/')}/"
        for name in names:
            source = f"{folder}{os.sep}{name}"
            path = unicodedata.normalize("NFC", f"{above}{name}")
            if ignore(path):
                continue
            check_path(path)
            if path in found:
                raise InvalidArgument(
                    f"{source} and {found[path].source} have the same path {path!r} in Unicode form NFC"
                )
            found[path] = _Found(path, source, _regular_size(source))
    if not found:
        raise InvalidArgument(f"folder {root} holds no files")
    return sorted(found.values(), key=lambda file: file.path.encode())


def _regular_size(source: str) -> int:
    """The size of a regular file or of one that a link leads to."""
    try:
        status = os.stat(source)
    except OSError:
        status = None  # a link that leads nowhere, or in a circle
    if status is None or not stat.S_ISREG(status.st_mode):
        raise InvalidArgument(f"{source} is neither a regular file nor a link to one")
    return status.st_size


def _hash_all(batch: Sequence[_Found], tell: Callable[[int, int], None]) -> list[LocalFile]:
    """Hash files in one thread; a large one tells of its progress on the way."""
    hashed = []
    told = files = 0
    for file in batch:
        digest = hashlib.sha256()
        size = 0
        for piece in _pieces(file):
            digest.update(piece)
            size += len(piece)
            told += len(piece)
            if told >= _TELL_BYTES:
                tell(told, files)
                told = files = 0
        files += 1
        hashed.append(LocalFile(file.source, FileEntry(file.path, size, digest.hexdigest())))
    tell(told, files)
    return hashed


def _pieces(file: _Found) -> Iterator[bytes | memoryview]:
    """The content of a file; a piece may be overwritten by the next one."""
    if file.size <= SMALL_BYTES:
        content = read_at(file.source, 0, file.size + 1)
        if len(content) == file.size:
            yield content
            return
    buffer = memoryview(bytearray(_READ_BYTES))
    with open(file.source, "rb", buffering=0) as source:
        while count := source.readinto(buffer):
            yield buffer[:count]


def read_at(path: str, offset: int, length: int) -> bytes:
    """Up to `length` bytes of a file in as few system calls as can be."""
    descriptor = os.open(path, os.O_RDONLY | _BINARY)
    try:
        if offset:
            os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)
    finally:
        os.close(descriptor)
