"""An OCI artifact where it lies: a folder, or a zip as OCI's console and ADS make it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard import archives
from modelyard.errors import InvalidArgument
from modelyard.oci.tests import is_oci, run
from modelyard.oci.tree import FolderTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from modelyard.oci.report import Report

MANIFEST = "model_artifact_manifest.json"
_MAX_MANIFEST_BYTES = 64 * 2**20
_SUFFIX = ".zip"


def validate(path: str | Path) -> Report:
    """Run OCI's introspection tests on a folder or zip; the artifact service runs the same on commit.

    Raises:
        ArchiveRefused: the zip is hostile or damaged.
        InvalidArgument: there is no such folder or zip, or a file is not as its model_artifact_manifest.json says.
        MissingExtra: PyYAML is not installed.
    """
    with opened(Path(path), any_zip=True) as folder:
        if not folder.is_dir():
            raise InvalidArgument(f"{path} is no folder and no zip: OCI model artifacts are one or the other")
        return run(FolderTree(folder))


@contextmanager
def opened(path: Path, *, any_zip: bool = False) -> Iterator[Path]:
    """Give the folder of an artifact: a zip that holds an OCI artifact is unpacked for as long as the block runs.

    Anything else is given as it is. A single folder around everything in the zip is left out, as OCI does.

    Args:
        path: Folder or file.
        any_zip: Whether to unpack a zip also when it looks like no OCI artifact.

    Raises:
        ArchiveRefused: the zip is hostile or damaged.
        InvalidArgument: a file is not as the artifact's model_artifact_manifest.json says.
    """
    path = path.expanduser()
    if path.is_dir():
        if (path / MANIFEST).is_file() and is_oci(FolderTree(path).names()):
            check_manifest(path)
        yield path
        return
    if path.suffix.lower() != _SUFFIX or not path.is_file():
        yield path
        return
    if not any_zip and not is_oci([member.path for member in archives.check(path)]):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="modelyard-") as private:
        folder = Path(private) / "artifact"
        members = archives.unpack(path, folder)
        top = folder / _enclosing([member.path for member in members])
        if (top / MANIFEST).is_file():
            check_manifest(top)
        yield top


def _enclosing(paths: Sequence[str]) -> str:
    """The one folder that holds everything, with a required file in it; empty if there is none."""
    first = {path.partition("/")[0] for path in paths}
    if len(first) != 1 or any("/" not in path for path in paths):
        return ""
    folder = next(iter(first))
    return folder if is_oci([path.partition("/")[2] for path in paths]) else ""


def check_manifest(folder: Path) -> None:
    """Compare the files of a folder with its model_artifact_manifest.json.

    Raises:
        InvalidArgument: the manifest cannot be understood, or a file is missing, additional, or not as it says.
    """
    expected = _manifest(folder / MANIFEST)
    found = set(FolderTree(folder).names()) - {MANIFEST}
    for path in sorted(expected.keys() ^ found):
        where = (
            "is in the manifest, but not there" if path in expected else "is there, but not in the manifest"
        )
        raise InvalidArgument(f"{MANIFEST}: {path} {where}: the artifact was changed after it was made")
    for path, (size, sha256) in sorted(expected.items()):
        file = folder / path
        if file.stat().st_size != size or _sha256(file) != sha256:
            raise InvalidArgument(
                f"{MANIFEST}: {path} is not the file it describes: it was changed or damaged"
            )


def _manifest(source: Path) -> dict[str, tuple[int, str]]:
    if source.stat().st_size > _MAX_MANIFEST_BYTES:
        raise InvalidArgument(f"{MANIFEST} is larger than {_MAX_MANIFEST_BYTES:,} bytes")
    try:
        content: Any = json.loads(source.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{MANIFEST} is not JSON: {error}") from error
    files = content.get("files") if isinstance(content, dict) and content.get("version") == 1 else None
    if not isinstance(files, dict):
        raise InvalidArgument(f"{MANIFEST}: version 1 with an object `files` is wanted")
    expected: dict[str, tuple[int, str]] = {}
    for path, entry in files.items():
        if (
            not isinstance(entry, dict)
            or type(entry.get("size")) is not int
            or not isinstance(entry.get("sha256"), str)
        ):
            raise InvalidArgument(
                f"{MANIFEST}: files[{path!r}] must have a number `size` and a text `sha256`"
            )
        expected[path] = (entry["size"], entry["sha256"].lower())
    return expected


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
