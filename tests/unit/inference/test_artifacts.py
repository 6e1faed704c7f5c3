"""The artifact cache holds whole, verified artifacts or nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelyard._cache import BlobCache
from modelyard._manifest import manifest_digest
from modelyard.types import FileEntry
from modelyard_inference import artifacts
from modelyard_inference.artifacts import SPARE, ArtifactCache
from modelyard_inference.models import Version
from modelyard_kit.errors import PeerUnavailable

EMPTY_MANIFEST = "sha256:" + hashlib.sha256(b"modelyard-manifest-v1\n").hexdigest()


class Source:
    """Files in memory; can lie."""

    def __init__(self, **files: bytes) -> None:
        self.content = {name.replace("__", "/"): data for name, data in files.items()}
        self.sent = dict(self.content)
        self.lists = 0
        self.down = False
        self.name = "prod.ml.iris/1"

    @property
    def entries(self) -> list[FileEntry]:
        return [
            FileEntry(path, len(data), hashlib.sha256(data).hexdigest())
            for path, data in self.content.items()
        ]

    @property
    def version(self) -> Version:
        digest = manifest_digest(self.entries)
        return Version("v", "prod.ml.iris/1", 1, "m", "prod.ml.iris", digest, "sklearn", {}, "u")

    async def version_name(self, version_id: str) -> str:
        assert version_id == "v"
        return self.name

    async def files(self, version: str) -> tuple[str, list[FileEntry]]:
        assert version == self.name
        self.lists += 1
        if self.down:
            raise PeerUnavailable("artifact")
        return self.version.artifact_digest, self.entries

    async def read(self, version: str, path: str) -> AsyncIterator[bytes]:
        for start in range(0, len(self.sent[path]), 3):
            yield self.sent[path][start : start + 3]


async def fetch(cache: ArtifactCache, version: Version) -> None:
    done = asyncio.Event()
    cache.fetch(version, done.set)
    async with asyncio.timeout(60):
        await done.wait()


def make(source: Source, folder: Path) -> ArtifactCache:
    cache = ArtifactCache(source, folder / "artifacts", BlobCache(folder / "blobs", limit=1 << 30))
    cache.prepare()
    return cache


async def test_fetch_writes_every_file_once(tmp_path: Path) -> None:
    source = Source(model__weights=b"0123456789", card=b"")
    cache = make(source, tmp_path)
    digest = source.version.artifact_digest
    assert not cache.status(digest).present
    await fetch(cache, source.version)
    assert cache.status(digest).present
    assert (cache.path(digest) / "model" / "weights").read_bytes() == b"0123456789"
    assert (cache.path(digest) / "card").read_bytes() == b""
    cache.fetch(source.version, lambda: None)
    assert source.lists == 1


async def test_version_of_a_renamed_model_is_fetched_under_its_new_name(tmp_path: Path) -> None:
    source = Source(weights=b"0123456789")
    source.name = "prod.ml.flower/1"
    cache = make(source, tmp_path)
    await fetch(cache, source.version)
    assert cache.status(source.version.artifact_digest).present


def test_manifest_digest_is_that_of_the_contract() -> None:
    assert manifest_digest([]) == EMPTY_MANIFEST
    entries = [FileEntry("b", 1, "2" * 64), FileEntry("a", 3, "1" * 64)]
    text = f"modelyard-manifest-v1\n{'1' * 64} 3 a\n{'2' * 64} 1 b\n"
    assert manifest_digest(entries) == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("sent", [b"012345678X", b"012", b"0123456789abc"])
async def test_damaged_file_leaves_nothing(tmp_path: Path, sent: bytes) -> None:
    source = Source(weights=b"0123456789")
    source.sent["weights"] = sent
    cache = make(source, tmp_path)
    await fetch(cache, source.version)
    status = cache.status(source.version.artifact_digest)
    assert not status.present
    assert "'weights' arrived with other content" in status.problem
    assert list((tmp_path / "artifacts").iterdir()) == []


@pytest.mark.parametrize("path", ["../up", "/root", "a//b", "a/./b", "a\\b", "a\nb"])
async def test_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    source = Source()
    source.content[path] = source.sent[path] = b"x"
    cache = make(source, tmp_path)
    await fetch(cache, source.version)
    assert "not allowed" in cache.status(source.version.artifact_digest).problem
    assert [entry.name for entry in tmp_path.iterdir()] == ["artifacts"]


async def test_failed_download_is_repeated_only_after_a_pause(tmp_path: Path) -> None:
    now = 0.0
    source = Source(weights=b"x")
    blobs = BlobCache(tmp_path / "blobs", limit=0)
    cache = ArtifactCache(source, tmp_path / "artifacts", blobs, monotonic=lambda: now)
    cache.prepare()
    source.down = True
    await fetch(cache, source.version)
    assert "artifact service cannot be reached" in cache.status(source.version.artifact_digest).problem
    source.down = False
    cache.fetch(source.version, lambda: None)
    assert source.lists == 1
    now = 1.0
    await fetch(cache, source.version)
    assert cache.status(source.version.artifact_digest).present
    assert not cache.status(source.version.artifact_digest).problem


async def test_silence_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(version: str, path: str) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    monkeypatch.setattr(artifacts, "SILENCE_SECONDS", 0.01)
    source = Source(weights=b"x")
    monkeypatch.setattr(source, "read", silence)
    cache = make(source, tmp_path)
    await fetch(cache, source.version)
    problem = cache.status(source.version.artifact_digest).problem
    assert problem == "its artifact could not be downloaded: nothing arrived for 0.01 s"


@pytest.mark.parametrize("turns", range(3))
async def test_an_end_that_comes_with_a_chunk_is_heard(tmp_path: Path, turns: int) -> None:
    """Whichever turn of the loop it comes in, after something arrived."""
    asked, arrived = asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        asked.set()
        await arrived.wait()
        yield b"0123456789"

    entry = FileEntry("weights", 10, "0" * 64)
    receiving = asyncio.create_task(artifacts._receive(chunks(), tmp_path / "weights", entry))
    await asked.wait()
    arrived.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    assert receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving


async def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / ".partial-x").mkdir(parents=True)
    make(Source(), tmp_path)
    assert list((tmp_path / "artifacts").iterdir()) == []


async def test_prune_keeps_what_is_used_and_a_few_more(tmp_path: Path) -> None:
    cache = make(Source(), tmp_path)
    digests = [f"sha256:{number:064x}" for number in range(SPARE + 3)]
    for digest in digests:
        cache.path(digest).mkdir()
    cache.prune(digests[:1])
    assert cache.path(digests[0]).exists()
    assert len(list((tmp_path / "artifacts").iterdir())) == SPARE + 1


async def test_content_that_was_downloaded_once_comes_from_the_cache(tmp_path: Path) -> None:
    source = Source(weights=b"0123456789", card=b"old")
    cache = make(source, tmp_path)
    await fetch(cache, source.version)
    source.content["card"] = source.sent["card"] = b"new"
    source.sent["weights"] = b"nobody asks for it"
    await fetch(cache, source.version)
    folder = cache.path(source.version.artifact_digest)
    assert (folder / "weights").read_bytes() == b"0123456789"
    assert (folder / "weights").stat().st_mode & 0o777 == 0o400
    assert (folder / "card").read_bytes() == b"new"


async def test_a_spoiled_cache_spoils_no_replica(tmp_path: Path) -> None:
    source = Source(weights=b"0123456789")
    cache = make(source, tmp_path)
    await fetch(cache, source.version)
    entry = BlobCache(tmp_path / "blobs", limit=1).entries()[0]
    path = tmp_path / "blobs" / "blobs" / entry.sha256[:2] / entry.sha256
    path.unlink()
    path.write_bytes(b"9876543210")
    source.content["card"] = source.sent["card"] = b"new"
    await fetch(cache, source.version)
    assert (cache.path(source.version.artifact_digest) / "weights").read_bytes() == b"0123456789"
