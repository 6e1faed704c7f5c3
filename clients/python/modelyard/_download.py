"""Fetching a tree: into a folder beside the destination, verified while written, shown only when complete.

What is on this machine already is not fetched: what an interrupted download of the same left, what the cache holds, and
content that the tree has twice. A program that is killed leaves the folder, and the same download again continues in it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import errors
from modelyard._cache import BlobCache
from modelyard._fetch import Fetch
from modelyard._local import Tree
from modelyard._manifest import check_path, manifest_digest
from modelyard._partial import PartialFolder
from modelyard._progress import report
from modelyard.references import parse_version_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._connection import Connection
    from modelyard._progress import Progress
    from modelyard._versions import AsyncVersions
    from modelyard.types import FileEntry


async def download(
    artifacts: AsyncArtifacts,
    versions: AsyncVersions,
    connection: Connection,
    reference: str,
    destination: Path,
    *,
    overwrite: bool,
    progress: Progress,
) -> Path:
    """Fetch the files of a version into a folder that appears complete or not at all.

    Raises:
        ConfigurationError: the destination exists and may not be overwritten.
        DigestMismatch: what came is not what the manifest says; nothing of it is left.
    """
    destination = await asyncio.to_thread(check_destination, destination, overwrite=overwrite)
    reference = await fixed(versions, reference)
    digest, files = await manifest(artifacts, reference)
    cache = BlobCache()
    folder = await asyncio.to_thread(PartialFolder, destination, digest)
    try:
        tree = await asyncio.to_thread(Tree, folder, files, cache)
        with report("download", sum(file.size for file in files), len(files), progress) as advance:
            await Fetch(artifacts, connection, reference, tree, advance).run()
        await asyncio.to_thread(folder.publish, map(tree.target, files))
    except errors.DigestMismatch:
        await asyncio.to_thread(folder.remove)
        raise
    finally:
        folder.close()
    came = [(entry.sha256, f"{destination}/{entry.path}") for entry in tree.fetched]
    await asyncio.to_thread(_remember, cache, came)
    return destination


async def download_file(
    artifacts: AsyncArtifacts,
    versions: AsyncVersions,
    connection: Connection,
    reference: str,
    path: str,
    destination: Path,
    *,
    overwrite: bool,
    progress: Progress,
) -> Path:
    """Fetch one file, which appears complete or not at all.

    Raises:
        ConfigurationError: the destination is a folder, or exists and may not be overwritten.
        NotFound: the version has no such file.
        DigestMismatch: what came is not what the manifest says; nothing of it is left.
    """
    destination = await asyncio.to_thread(check_destination, destination, overwrite=overwrite)
    if destination.is_dir():
        raise errors.ConfigurationError(f"{destination} is a folder; name a file")
    reference = await fixed(versions, reference)
    entry = await artifacts.find(reference, check_path(path))
    cache = BlobCache()
    folder = await asyncio.to_thread(PartialFolder, destination, entry.sha256)
    try:
        tree = await asyncio.to_thread(Tree, folder, [entry], cache)
        with report("download", entry.size, 1, progress) as advance:
            await Fetch(artifacts, connection, reference, tree, advance).run()
        await asyncio.to_thread(folder.publish, [tree.target(entry)], Path(tree.target(entry)))
    except errors.DigestMismatch:
        await asyncio.to_thread(folder.remove)
        raise
    finally:
        folder.close()
    if tree.fetched:
        await asyncio.to_thread(_remember, cache, [(entry.sha256, str(destination))])
    return destination


async def fixed(versions: AsyncVersions, reference: str) -> str:
    """The version by its number: an alias may move between two files."""
    if parse_version_reference(reference).number is None:
        return (await versions.get(reference)).name
    return reference


async def manifest(artifacts: AsyncArtifacts, reference: str) -> tuple[str, Sequence[FileEntry]]:
    """Digest and files of a version, which belong together.

    Raises:
        DigestMismatch: they do not.
    """
    digest, files = await artifacts.list_all(reference)
    for file in files:
        check_path(file.path)  # the answer decides where we write
    if manifest_digest(files) != digest:
        raise errors.DigestMismatch(f"the files of {reference} do not make up its artifact {digest}")
    return digest, files


def check_destination(destination: Path, *, overwrite: bool) -> Path:
    """The destination as an absolute path.

    Raises:
        ConfigurationError: something is there and may not be overwritten.
    """
    destination = destination.expanduser().absolute()
    if not overwrite and destination.exists() and not _is_empty_folder(destination):
        raise errors.ConfigurationError(
            f"{destination} exists; choose another folder or allow it to be replaced (overwrite=True, --overwrite)"
        )
    return destination


def _remember(cache: BlobCache, contents: Sequence[tuple[str, str]]) -> None:
    added = [cache.add(sha256, path) for sha256, path in contents]
    if any(added):
        cache.prune()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
