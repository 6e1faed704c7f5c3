"""Copies of local content, verified while they are made."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BUFFER_BYTES = 1024 * 1024
_FICLONE = 0x40049409
_NO_CLONE = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM}
_SYNC_EACH = 32


def copy_verified(source: int, target: Path | str, size: int, sha256: str) -> bool:
    """Copy what an open file holds if it is this content; on file systems that can, the copy shares its blocks.

    Args:
        source: Descriptor of the file, at its beginning.
        target: File to make; its folder exists. Absent afterwards if the content is another.
        size: Bytes it should have.
        sha256: SHA-256 it should have.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_BUFFER_BYTES, max(size, 1))))
    found = 0
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        # The clone is what gets hashed: the source may be changed in the meantime, the clone is ours.
        cloned = size >= _BUFFER_BYTES and _clone(source, descriptor)
        reading = descriptor if cloned else source
        while count := os.readv(reading, [buffer]):
            found += count
            if found > size:
                break
            digest.update(buffer[:count])
            if not cloned:
                write_all(descriptor, buffer[:count], found - count)
    finally:
        os.close(descriptor)
    if found == size and digest.hexdigest() == sha256:
        return True
    os.unlink(target)
    return False


def write_all(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """Write bytes at an offset, all of them."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def sync_tree(root: Path, files: Iterable[Path | str]) -> None:
    """Make files and folders below a folder durable."""
    paths = list(files)
    if len(paths) > _SYNC_EACH and _sync_file_system(root):
        return
    for path in paths:
        _sync(path)
    for folder, _, _ in os.walk(root):
        _sync(folder)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    _sync(path)


def _clone(source: int, target: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def _sync_file_system(root: Path) -> bool:
    """One request for thousands of files instead of one for each, where the system has it."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(root))
    finally:
        os.close(descriptor)
    return True


def _sync(path: Path | str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
