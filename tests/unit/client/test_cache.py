"""The cache of downloaded content gives what it was given, or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard import _cache
from modelyard._cache import BlobCache, parse_size
from modelyard.errors import ConfigurationError

GIB = 2**30


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache", limit=GIB)


@pytest.fixture
def keep(cache: BlobCache, tmp_path: Path) -> Callable[[bytes], Path]:
    """Add content from a file that stays where it is; returns the file."""

    def add(data: bytes) -> Path:
        path = tmp_path / f"file-{sha(data)[:8]}"
        path.write_bytes(data)
        assert cache.add(sha(data), path)
        return path

    return add


def test_what_was_added_is_taken(cache: BlobCache, keep: Callable[[bytes], Path], tmp_path: Path) -> None:
    keep(b"weights")
    assert cache.take(sha(b"weights"), 7, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"weights"
    assert not cache.take(sha(b"other"), 5, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_change_of_a_download_reaches_no_other(
    cache: BlobCache, keep: Callable[[bytes], Path], tmp_path: Path
) -> None:
    original = keep(b"weights")
    assert cache.take(sha(b"weights"), 7, tmp_path / "first")
    (tmp_path / "first").write_bytes(b"changed")
    assert cache.take(sha(b"weights"), 7, tmp_path / "second")
    original.write_bytes(b"changed")  # the entry is a link to it
    assert (tmp_path / "second").read_bytes() == b"weights"
    assert not cache.take(sha(b"weights"), 7, tmp_path / "third")
    assert not (tmp_path / "third").exists()
    assert cache.entries() == []


@pytest.mark.parametrize("spoil", [b"", b"weight", b"weightz", b"weights and more"])
def test_a_spoiled_entry_is_dropped(
    cache: BlobCache, keep: Callable[[bytes], Path], tmp_path: Path, spoil: bytes
) -> None:
    keep(b"weights").write_bytes(spoil)
    assert not cache.take(sha(b"weights"), 7, tmp_path / "out")
    assert cache.entries() == []


def test_an_entry_that_is_a_link_is_not_followed(cache: BlobCache, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"weights")
    entry = cache.folder / "blobs" / sha(b"weights")[:2] / sha(b"weights")
    entry.parent.mkdir(parents=True)
    entry.symlink_to(secret)
    assert not cache.take(sha(b"weights"), 7, tmp_path / "out")


def test_across_file_systems_it_copies_and_checks(
    cache: BlobCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "other file system")

    monkeypatch.setattr(os, "link", refuse)
    source = tmp_path / "file"
    source.write_bytes(b"weights")
    assert cache.add(sha(b"weights"), source)
    source.write_bytes(b"changed")
    assert cache.take(sha(b"weights"), 7, tmp_path / "out")
    cache.add(sha(b"not this"), source)
    assert [entry.sha256 for entry in cache.entries()] == [sha(b"weights")]
    assert not list((cache.folder / "tmp").iterdir())


def test_what_was_not_used_for_longest_goes_first(
    cache: BlobCache, keep: Callable[[bytes], Path], tmp_path: Path
) -> None:
    contents = [bytes([number]) * 100 for number in range(4)]
    for number, data in enumerate(contents):
        keep(data).unlink()
        entry = cache.folder / "blobs" / sha(data)[:2] / sha(data)
        os.utime(entry, (1000 + number, 1000))
    assert cache.take(sha(contents[0]), 100, tmp_path / "out")
    assert cache.prune(250) == 200
    assert {entry.sha256 for entry in cache.entries()} == {sha(contents[0]), sha(contents[3])}
    assert cache.prune(250) == 0


def test_what_is_a_file_elsewhere_costs_nothing_and_stays(
    cache: BlobCache, keep: Callable[[bytes], Path]
) -> None:
    keep(b"shared")
    keep(b"alone").unlink()
    assert cache.prune(0) == 5
    assert [(entry.sha256, entry.shared) for entry in cache.entries()] == [(sha(b"shared"), True)]
    assert cache.clear() == 1


def test_what_is_being_copied_out_is_not_evicted(
    cache: BlobCache, keep: Callable[[bytes], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(b"weights").unlink()
    copy = _cache.copy_verified
    freed: list[int] = []

    def slowly(*arguments: object) -> bool:
        freed.append(cache.prune(0))
        return copy(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_cache, "copy_verified", slowly)
    assert cache.take(sha(b"weights"), 7, tmp_path / "out")
    assert freed == [0]
    assert cache.prune(0) == 7


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    cache = BlobCache(tmp_path / "file" / "cache", limit=GIB)
    assert not cache.add(sha(b"weights"), tmp_path / "file")
    assert not cache.take(sha(b"weights"), 7, tmp_path / "out")
    assert cache.entries() == []
    assert cache.prune() == 0


def test_a_limit_of_nothing_turns_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MODELYARD_CACHE_SIZE", "0")
    (tmp_path / "file").write_bytes(b"weights")
    assert not BlobCache().add(sha(b"weights"), tmp_path / "file")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("17", 17), ("500MiB", 500 * 2**20), ("20 GiB", 20 * GIB), ("1tib", 2**40)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--to") == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.5GiB", "5 apples", "10GB"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--to: .* is no size"):
        parse_size(text, "--to")
