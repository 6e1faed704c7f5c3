"""Content on this machine, by its SHA-256: what was downloaded once is not downloaded again.

    <folder>/blobs/ab/<sha256>      whole files
    <folder>/tmp/                   files on their way in

Any number of programs may use one folder at once: a file gets its name by one system call, a reader keeps what it has open
when somebody evicts it, and **everything is hashed while it is read out**, so a spoiled entry is dropped and never given.

That is why content may come in as a hard link to the file that was downloaded, at no cost: if its owner changes that file,
the entry fails its check at the next use. It never goes out as a link, only as a copy (a reflink where the file system has
them): a change of one download must not change another, or the files of a running model.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._copy import copy_verified
from modelyard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER_VARIABLE = "MODELYARD_CACHE"
SIZE_VARIABLE = "MODELYARD_CACHE_SIZE"
DEFAULT_SIZE = 20 * 2**30
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_ABANDONED_SECONDS = 24 * 3600.0
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class CacheEntry:
    """Content in the cache; `shared` if its bytes are also a file elsewhere, so that evicting it frees nothing."""

    sha256: str
    size: int
    last_used: datetime
    shared: bool


def cache_folder() -> Path:
    """The folder that programs of this user share: MODELYARD_CACHE, or `modelyard` in the user's cache folder."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "modelyard"


def cache_limit() -> int:
    """Bytes that the cache may hold: MODELYARD_CACHE_SIZE, or 20 GiB.

    Raises:
        ConfigurationError: it is no size.
    """
    given = os.environ.get(SIZE_VARIABLE)
    return DEFAULT_SIZE if not given else parse_size(given, SIZE_VARIABLE)


def parse_size(text: str, name: str) -> int:
    """A size: `0`, `500MiB`, `20GiB`.

    Raises:
        ConfigurationError: it is none; the message names `name`.
    """
    number = text.strip().rstrip("KMGTiIbBkmgt").strip()
    unit = text.strip()[len(number) :].strip().upper()
    if not number.isdecimal() or unit not in _UNITS:
        raise ConfigurationError(f"{name}: {text!r} is no size; write bytes or 500MiB, 20GiB")
    return int(number) * _UNITS[unit]


class BlobCache:
    """Content by SHA-256 in a folder.

    Args:
        folder: The folder, made when first needed; by default the user's.
        limit: Bytes it may hold; 0 keeps nothing. By default the user's setting.
    """

    def __init__(self, folder: Path | None = None, *, limit: int | None = None) -> None:
        self.folder = cache_folder() if folder is None else folder
        self.limit = cache_limit() if limit is None else limit

    def take(self, sha256: str, size: int, target: Path | str) -> bool:
        """Copy content to a new file if it is here; what turns out to be something else is dropped.

        Args:
            sha256: Which content.
            size: Its size in bytes.
            target: File to make; its folder exists.
        """
        entry = self._path(sha256)
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False  # not here, or not readable for us: it is downloaded then
        try:
            with contextlib.suppress(OSError):  # the lock of a file's owner, perhaps; reading works without
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # kept from eviction meanwhile
            if copy_verified(descriptor, target, size, sha256):
                status = os.fstat(descriptor)
                # Only the time of access: the time of change may be that of somebody's file.
                _touch(descriptor, status.st_mtime_ns)
                return True
            _remove(entry)
            return False
        finally:
            os.close(descriptor)

    def add(self, sha256: str, source: Path | str) -> bool:
        """Keep the verified content of a file; false if this machine has no place for it.

        Args:
            sha256: SHA-256 of the content.
            source: The file, on whose file system the entry costs nothing.
        """
        if not self.limit:
            return False
        entry = self._path(sha256)
        try:
            try:
                self._link_or_copy(sha256, source, entry)
            except FileNotFoundError:  # the first one of its folder
                Path(entry).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._link_or_copy(sha256, source, entry)
        except OSError:
            # A cache that cannot be written (no room, read-only home) is slow, not wrong: the caller has its file.
            return False
        return True

    def entries(self) -> list[CacheEntry]:
        """Everything here, least recently used first."""
        return sorted(self._scan(), key=lambda entry: entry.last_used)

    def prune(self, limit: int | None = None) -> int:
        """Remove what was not used for longest until the rest fits; returns the bytes that were freed.

        What is being copied out, and what is also a file elsewhere, stays and is not counted: removing the one would
        hinder somebody, removing the other would free nothing.

        Args:
            limit: Bytes that may stay; by default the limit of the cache.
        """
        self._remove_abandoned()
        alone = [entry for entry in self.entries() if not entry.shared]
        excess = sum(entry.size for entry in alone) - (self.limit if limit is None else limit)
        freed = 0
        for entry in alone:
            if freed >= excess:
                break
            if self._evict(entry.sha256):
                freed += entry.size
        return freed

    def clear(self) -> int:
        """Remove everything that is not being copied out; returns how many entries went."""
        self._remove_abandoned()
        return sum(self._evict(entry.sha256) for entry in self._scan())

    def _path(self, sha256: str) -> str:
        return f"{self.folder}/blobs/{sha256[:2]}/{sha256}"

    def _link_or_copy(self, sha256: str, source: Path | str, entry: str) -> None:
        try:
            os.link(source, entry)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            self._copy(sha256, source, entry)

    def _copy(self, sha256: str, source: Path | str, entry: str) -> None:
        """From another file system: beside the entry first, since a name must never stand for half a file."""
        temporary = self.folder / "tmp" / f"{sha256}.{uuid.uuid4().hex}"
        temporary.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if copy_verified(descriptor, temporary, os.fstat(descriptor).st_size, sha256):
                temporary.replace(entry)
        finally:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)

    def _evict(self, sha256: str) -> bool:
        entry = self._path(sha256)
        try:
            descriptor = os.open(entry, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(entry)
        except OSError:
            return False  # being copied out
        finally:
            os.close(descriptor)
        return True

    def _scan(self) -> Iterator[CacheEntry]:
        for folder in _children(self.folder / "blobs"):
            for path in _children(Path(folder.path)):
                try:
                    status = path.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # evicted by somebody else just now
                used = datetime.fromtimestamp(status.st_atime, UTC)
                yield CacheEntry(path.name, status.st_size, used, status.st_nlink > 1)

    def _remove_abandoned(self) -> None:
        for path in _children(self.folder / "tmp"):
            try:
                if time.time() - path.stat(follow_symlinks=False).st_mtime > _ABANDONED_SECONDS:
                    Path(path.path).unlink()
            except FileNotFoundError:
                continue


def _remove(entry: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # somebody else was faster
        os.unlink(entry)


def _children(folder: Path) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _touch(descriptor: int, changed_ns: int) -> None:
    try:
        os.utime(descriptor, ns=(time.time_ns(), changed_ns))
    except PermissionError:
        return  # somebody else's file: the system's own time of access has to do
