"""The files of an artifact as the tests see them: names, and the beginning of any file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from modelyard.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_FILES = 100_000


class Tree(Protocol):
    """Read-only files."""

    def names(self) -> Sequence[str]:
        """The path of every file, with `/`, relative to the top."""

    def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file."""


class MemoryTree:
    """Files held in memory, of some only the path."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def names(self) -> Sequence[str]:
        """The path of every file."""
        return sorted(self._files)

    def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file."""
        return self._files[path][:limit]


class FolderTree:
    """The files below a folder. Links to folders are not followed."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder.

        Raises:
            InvalidArgument: it holds more than 100,000 files.
        """
        self._folder = folder
        self._names = sorted(_files(folder))

    def names(self) -> Sequence[str]:
        """The path of every file."""
        return self._names

    def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file."""
        with (self._folder / path).open("rb") as file:
            return file.read(limit)


def _files(folder: Path) -> list[str]:
    found: list[str] = []
    for path in folder.rglob("*"):
        if path.is_file():
            found.append(path.relative_to(folder).as_posix())
            if len(found) > MAX_FILES:
                raise InvalidArgument(
                    f"{folder} holds more than {MAX_FILES:,} files, the most an artifact can have"
                )
    return found
