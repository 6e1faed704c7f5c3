"""Folders and files that are not complete yet.

A download grows in `.<name>.<digest>.partial` beside its destination, a name that follows from what is downloaded and to
where. So the same download started again finds what an interrupted one left, checks it, and continues:

    files/     the files, under their paths
    ranges/    for each large file, lines of a segment's number and how many of its bytes were written

Only one program at a time works in such a folder; another one makes one of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._copy import sync_folder, sync_tree, write_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from modelyard.types import FileEntry

SEGMENT_BYTES = 32 * 1024 * 1024
"""Ranges in which large files are fetched."""
NOTE_BYTES = 4 * 1024 * 1024
"""What is fetched again of a range, at most, when a program was killed."""
_BUFFER_BYTES = 1024 * 1024


class PartialFolder:
    """A folder in the making, held by this program until `close`."""

    def __init__(self, destination: Path, digest: str) -> None:
        name = f".{destination.name}.{digest.removeprefix('sha256:')[:16]}.partial"
        self.destination = destination
        self.path = destination.with_name(name)
        self._descriptor = self._lock()
        self.files = self.path / "files"
        self.ranges = self.path / "ranges"
        self.files.mkdir(exist_ok=True)
        self.ranges.mkdir(exist_ok=True)

    def publish(self, paths: Iterable[Path | str], what: Path | None = None) -> None:
        """Make the files durable and give them their folder's name; what stood there goes only after that.

        Args:
            paths: The files.
            what: One file that gets the name instead of the folder.
        """
        sync_tree(self.files, paths)
        old = self.path / "old"
        if self.destination.exists() or self.destination.is_symlink():
            shutil.rmtree(old, ignore_errors=True)  # of a program that was killed here
            self.destination.rename(old)
        (what or self.files).rename(self.destination)
        sync_folder(self.destination.parent)
        self.remove()

    def remove(self) -> None:
        """Throw away what is here."""
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Let go of the folder; whatever is in it stays for the next program."""
        os.close(self._descriptor)

    def _lock(self) -> int:
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # another program finished just now
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                self.path = self.path.with_name(f"{self.path.name}-{uuid.uuid4().hex[:8]}")
                continue
            if self.path.exists() and os.path.samestat(os.fstat(descriptor), self.path.stat()):
                return descriptor
            os.close(descriptor)  # the folder that we locked was renamed or removed in between


class PartialFile:
    """A file whose segments arrive in any order; its hash follows as far as the bytes are without a gap.

    Segments are written by one thread each. Whichever thread finds the hash unattended takes it on to where the bytes
    end, so that a file is proved right a moment after its last byte came.
    """

    def __init__(self, path: Path, entry: FileEntry, ranges: Path) -> None:
        self.entry = entry
        self.path = path
        self._notes = ranges / entry.sha256
        self._written = [0] * max(1, -(-entry.size // SEGMENT_BYTES))
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._lock = threading.Lock()
        self.resumed = self._resume()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if self.resumed else os.O_TRUNC)
        self._descriptor = os.open(path, flags, 0o666)
        self._noted = list(self._written)
        # Small files are simply fetched again.
        self._log = None if len(self._written) == 1 else self._notes.open("a", encoding="ascii", buffering=1)

    @property
    def done(self) -> int:
        """Bytes that are here."""
        return sum(self._written)

    def missing(self) -> list[int]:
        """Numbers of the segments that are not complete."""
        return [
            number for number in range(len(self._written)) if self._written[number] < self._length(number)
        ]

    def left(self, number: int) -> tuple[int, int]:
        """Offset and length of what a segment lacks."""
        written = self._written[number]
        return number * SEGMENT_BYTES + written, self._length(number) - written

    def write(self, number: int, data: memoryview | bytes) -> int:
        """Write the next bytes of a segment; returns how many it took, fewer when there are too many."""
        offset, room = self.left(number)
        data = memoryview(data)[:room]
        write_all(self._descriptor, data, offset)
        self._written[number] += len(data)
        self._note(number)
        self._follow(wait=False)
        return len(data)

    def prove(self) -> tuple[int, str]:
        """Size and SHA-256 of what is here without a gap."""
        self._follow(wait=True)
        return self._hashed, self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        if self._log:
            self._log.close()

    def remove(self) -> None:
        """Throw it away."""
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _length(self, number: int) -> int:
        return min(SEGMENT_BYTES, self.entry.size - number * SEGMENT_BYTES)

    def _resume(self) -> bool:
        try:
            size = self.path.stat().st_size
            if len(self._written) == 1:
                # Written from front to end by one thread: the right size means that all of it came.
                self._written[0] = size if size == self.entry.size else 0
                return self._written[0] > 0
            for line in self._notes.read_text(encoding="ascii").splitlines():
                number, written = map(int, line.split())
                fits = number * SEGMENT_BYTES + written <= size
                if 0 <= number < len(self._written) and 0 <= written <= self._length(number) and fits:
                    self._written[number] = written
        except (FileNotFoundError, ValueError):
            return any(self._written)
        return any(self._written)

    def _note(self, number: int) -> None:
        """Remember how far a segment is, after its bytes were handed to the system."""
        written = self._written[number]
        worth = written - self._noted[number] >= NOTE_BYTES or written == self._length(number)
        if self._log and worth:
            self._log.write(f"{number} {written}\n")
            self._noted[number] = written

    def _follow(self, *, wait: bool) -> None:
        if not self._lock.acquire(blocking=wait):
            return  # somebody is at it, and looks again before he goes
        try:
            buffer = None
            while (end := self._contiguous()) > self._hashed:
                buffer = buffer or memoryview(bytearray(_BUFFER_BYTES))
                wanted = min(_BUFFER_BYTES, end - self._hashed)
                count = os.preadv(self._descriptor, [buffer[:wanted]], self._hashed)
                if not count:
                    return  # cut by somebody else: found when it is proved
                self._digest.update(buffer[:count])
                self._hashed += count
        finally:
            self._lock.release()

    def _contiguous(self) -> int:
        number = min(self._hashed // SEGMENT_BYTES, len(self._written) - 1)
        while number + 1 < len(self._written) and self._written[number] == self._length(number):
            number += 1
        return number * SEGMENT_BYTES + self._written[number]
