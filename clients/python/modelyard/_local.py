"""The part of a download that needs no network: what is here already, and where the rest goes. Runs in threads."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import errors
from modelyard._copy import copy_verified, write_all
from modelyard._partial import PartialFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard._cache import BlobCache
    from modelyard._partial import PartialFolder
    from modelyard.types import FileEntry


class Tree:
    """The files of a download in their folder.

    Attributes:
        contents: One file for each content, in the order of the manifest.
        twins: The other files with the same contents, each with the one it is copied from.
        fetched: Files that came over the network.
    """

    def __init__(self, folder: PartialFolder, files: Sequence[FileEntry], cache: BlobCache) -> None:
        self._folder = folder
        self._root = str(folder.files)
        self._cache = cache
        firsts: dict[str, FileEntry] = {}
        self.twins: list[tuple[FileEntry, FileEntry]] = []
        for file in files:
            first = firsts.setdefault(file.sha256, file)
            if first is not file:
                self.twins.append((file, first))
        self.contents = list(firsts.values())
        self.fetched: list[FileEntry] = []
        self._resumed = _clean(folder.files, {file.path for file in files})
        for parent in {file.path.rpartition("/")[0] for file in files}:
            os.makedirs(f"{self._root}/{parent}", exist_ok=True)

    def target(self, file: FileEntry) -> str:
        """Where a file is written."""
        return f"{self._root}/{file.path}"

    def present(self, files: Sequence[FileEntry]) -> list[bool]:
        """Whether each file is here whole: left by an interrupted download, or copied from the cache."""
        return [self._present(file) for file in files]

    def partial(self, file: FileEntry) -> PartialFile:
        """A file to be written in segments, with what is there of it."""
        return PartialFile(Path(self.target(file)), file, self._folder.ranges)

    def write_small(self, contents: Sequence[tuple[FileEntry, bytes]]) -> None:
        """Write whole files after checking them.

        Raises:
            DigestMismatch: one has other content.
        """
        for file, data in contents:
            check(file, len(data), hashlib.sha256(data).hexdigest())
            descriptor = os.open(
                self.target(file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666
            )
            try:
                write_all(descriptor, data, 0)
            finally:
                os.close(descriptor)

    def copy_twins(self) -> None:
        """Write the files whose content came under another path."""
        for file, first in self.twins:
            source = os.open(self.target(first), os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not copy_verified(source, self.target(file), file.size, file.sha256):
                    raise errors.DigestMismatch(f"{self.target(first)} was changed while it was downloaded")
            finally:
                os.close(source)

    def _present(self, file: FileEntry) -> bool:
        if self._resumed:
            partial = self.partial(file)
            try:
                if partial.done == file.size and partial.prove() == (file.size, file.sha256):
                    return True
                if partial.done and partial.done < file.size:
                    return False  # continued, rather than copied
            finally:
                partial.close()
            partial.remove()
        return self._cache.take(file.sha256, file.size, self.target(file))


def check(file: FileEntry, size: int, sha256: str) -> None:
    """Refuse content that is not what the manifest says.

    Raises:
        DigestMismatch: it is not.
    """
    if (size, sha256) != (file.size, file.sha256):
        raise errors.DigestMismatch(
            f"file {file.path} came with {size} bytes and SHA-256 {sha256}, "
            f"announced were {file.size} bytes and {file.sha256}",
            metadata={"expected": file.sha256, "actual": sha256},
        )


def _clean(folder: Path, wanted: set[str]) -> bool:
    """Remove what does not belong to the download; returns whether something that does is here."""
    found = False
    for parent, folders, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.relpath(path, folder).replace(os.sep, "/") in wanted and not os.path.islink(path):
                found = True
            else:
                os.unlink(path)
        for name in folders:
            path = os.path.join(parent, name)
            if os.path.islink(path):
                os.unlink(path)
    return found
