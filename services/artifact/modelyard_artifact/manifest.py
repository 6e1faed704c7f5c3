"""The published rules for the files of an artifact: paths, and the digest of the manifest. Pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING

from modelyard_artifact.models import FileEntry, Manifest
from modelyard_kit.limits import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_HEADER = b"modelyard-manifest-v1\n"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # all characters of the category Cc


def build(files: Iterable[FileEntry]) -> Manifest:
    """Sorts the files by the bytes of their paths and computes the digest over them.

    The digest is `sha256:` and the SHA-256 of the line `modelyard-manifest-v1` and one line
    `<sha256> <size> <path>` per file, each ended by one newline.
    """
    ordered = tuple(sorted(files, key=lambda file: file.path.encode()))
    digest = hashlib.sha256(_HEADER)
    for file in ordered:
        digest.update(f"{file.sha256} {file.size} {file.path}\n".encode())
    return Manifest(digest=f"sha256:{digest.hexdigest()}", files=ordered)


def path_problem(path: str) -> str | None:
    """Says what is wrong with a path, or None when nothing is."""
    if not path:
        return "is empty: name the file by its path relative to the artifact, like 'model/weights.bin'"
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    maximum = LIMITS["path_bytes"].maximum
    if size > maximum:
        return f"has {size} bytes in UTF-8; the limit path_bytes is {maximum}"
    if "\\" in path:
        return "has a backslash: separate folders with '/'"
    if _CONTROL.search(path):
        return "has a control character"
    if not unicodedata.is_normalized("NFC", path):
        return "is not in Unicode form NFC: normalise it before sending"
    parts = path.split("/")
    if "" in parts:
        return "has an empty part: no '/' at the beginning or end, and none twice in a row"
    if "." in parts or ".." in parts:
        return "has a part '.' or '..': paths are relative to the artifact and go only downwards"
    return None


def collisions(paths: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yields (index, problem) for paths that cannot lie in one folder together.

    That is: the same path twice, paths that differ only in case (one file on macOS and Windows), and a file where
    another path needs a folder.
    """
    keys = [_fold(path) for path in paths]
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for index, (path, key) in enumerate(zip(paths, keys, strict=True)):
        if seen.get(key) == path:
            yield index, f"{path!r} is there twice"
        elif key in seen:
            yield index, f"{path!r} and {seen[key]!r} differ only in case, which is one file on some systems"
        seen.setdefault(key, path)
        end = path.rfind("/")
        # Whoever noted a folder noted all above it.
        while end >= 0 and (folder := _fold(path[:end])) not in folders:
            folders[folder] = path
            end = path.rfind("/", 0, end)
    for index, (path, key) in enumerate(zip(paths, keys, strict=True)):
        if (inside := folders.get(key)) is not None:
            yield index, f"{path!r} is a file, but {inside!r} needs a folder there"


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())
