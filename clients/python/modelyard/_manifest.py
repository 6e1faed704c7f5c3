"""Files of an artifact: found, checked, hashed; and the published rule for the digest."""

from __future__ import annotations

import asyncio
import hashlib
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.errors import InvalidArgument
from modelyard.types import FileEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_PATH_BYTES = 1024
_HEADER = "modelyard-manifest-v1\n"
_READ_BYTES = 1024 * 1024
_HASHERS = 4


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine and its entry in the manifest."""

    source: Path
    entry: FileEntry


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
    elif any(unicodedata.category(char) == "Cc" for char in path):
        problem = "contains a control character"
    elif any(0xD800 <= ord(char) <= 0xDFFF for char in path):
        problem = "is not UTF-8"
    elif len(path.encode()) > MAX_PATH_BYTES:
        problem = f"is longer than {MAX_PATH_BYTES} bytes"
    elif unicodedata.normalize("NFC", path) != path:
        problem = "is not in Unicode form NFC"
    if problem:
        raise InvalidArgument(f"file {path!r} cannot be part of an artifact: its path {problem}")
    return path


async def scan(root: Path) -> list[LocalFile]:
    """The file, or every file under the folder, with size and SHA-256.

    Raises:
        InvalidArgument: there is nothing, nothing but folders, or a path that cannot be stored.
    """
    found = await asyncio.to_thread(_find, root)
    limit = asyncio.Semaphore(_HASHERS)

    async def hashed(path: str, source: Path) -> LocalFile:
        async with limit:
            return LocalFile(source, await asyncio.to_thread(_hash, path, source))

    return list(await asyncio.gather(*(hashed(path, source) for path, source in found)))


def _find(root: Path) -> Sequence[tuple[str, Path]]:
    root = root.expanduser().absolute()
    if root.is_file():
        return [(check_path(unicodedata.normalize("NFC", root.name)), root)]
    if not root.is_dir():
        raise InvalidArgument(f"{root} is no file and no folder")
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            source = Path(folder, name)
            path = check_path(unicodedata.normalize("NFC", source.relative_to(root).as_posix()))
            if not source.is_file():
                raise InvalidArgument(f"{source} is neither a regular file nor a link to one")
            if path in found:
                raise InvalidArgument(
                    f"{source} and {found[path]} have the same path {path!r} in Unicode form NFC"
                )
            found[path] = source
    if not found:
        raise InvalidArgument(f"folder {root} holds no files")
    return sorted(found.items(), key=lambda item: item[0].encode())


def _hash(path: str, source: Path) -> FileEntry:
    digest = hashlib.sha256()
    size = 0
    with source.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
            size += len(data)
    return FileEntry(path, size, digest.hexdigest())
