"""Every engine against the suite; S3 against two servers."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from modelyard_artifact.blobs import BlobStore, partials
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.blobs.memory import MemoryBlobStore
from modelyard_artifact.blobs.s3 import S3BlobStore
from modelyard_artifact.errors import BlobLost, StorageFull
from modelyard_artifact.models import CHUNK_BYTES
from modelyard_kit import faults
from modelyard_kit.errors import InvalidState, PeerUnavailable
from modelyard_kit.ids import new_id
from tests.conformance.blob_store_suite import PIECE, BlobStoreSuite, begin, content, read, send
from tests.framework import folders, s3


class TestMemory(BlobStoreSuite):
    @pytest.fixture
    async def store(self) -> BlobStore:
        return MemoryBlobStore()

    def reopened(self, store: BlobStore) -> BlobStore:
        return store  # memory lives as long as the process

    async def test_full(self) -> None:
        store = MemoryBlobStore(capacity=100)
        _, blob = content(101)
        with pytest.raises(StorageFull):
            await store.resume("u1", blob)


class TestLocal(BlobStoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[BlobStore]:
        store = LocalBlobStore(tmp_path / "s", reserve=0)
        await store.open()
        yield store
        await store.close()

    def reopened(self, store: BlobStore) -> BlobStore:
        assert isinstance(store, LocalBlobStore)
        return LocalBlobStore(store._root, reserve=0)

    async def test_layout_and_modes(self, store: BlobStore, tmp_path: Path) -> None:
        data, blob = content(10)
        await send(store, "u1", blob, data)
        path = tmp_path / "s" / "blobs" / blob.sha256[:2] / blob.sha256
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o400
        assert (tmp_path / "s" / "blobs").stat().st_mode & 0o777 == 0o700

    async def test_no_room_is_said_before_bytes_are_taken(self, tmp_path: Path) -> None:
        store = LocalBlobStore(tmp_path, reserve=shutil.disk_usage(tmp_path).total)
        await store.open()
        with pytest.raises(StorageFull):
            await store.resume("u1", content(10)[1])
        await store.close()

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    async def test_disk_full_keeps_what_was_received(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        data, blob = content(2 * PIECE)
        partial = await store.resume("u1", blob)
        await partial.append(data[:PIECE])
        real = os.pwrite

        def full(descriptor: int, view: bytes, offset: int) -> int:
            if offset == PIECE:
                return real(descriptor, view[:100], offset)  # a short write, then nothing more
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StorageFull):
            await partial.append(data[PIECE:])
        monkeypatch.undo()
        await partial.close()
        assert await store.received("u1") == {blob.sha256: PIECE}
        partial = await store.resume("u1", blob)
        await partial.append(data[PIECE:])
        await partial.finish()
        await partial.close()
        assert await read(store, blob) == data

    async def test_two_processes_do_not_mix_one_partial(self, store: BlobStore) -> None:
        _, blob = content(PIECE)
        partial = await store.resume("u1", blob)
        other = self.reopened(store)
        await other.open()
        with pytest.raises(InvalidState):
            await other.resume("u1", blob)
        await partial.close()
        await (await other.resume("u1", blob)).close()
        await other.close()

    async def test_damage_is_noticed(self, store: BlobStore, tmp_path: Path) -> None:
        data, blob = content(PIECE)
        await send(store, "u1", blob, data)
        path = tmp_path / "s" / "blobs" / blob.sha256[:2] / blob.sha256
        path.chmod(0o600)
        os.truncate(path, 10)
        with pytest.raises(BlobLost):
            await read(store, blob)

    async def test_a_partial_that_grew_too_long_is_thrown_away(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        data, blob = content(PIECE)
        await begin(store, "u1", blob, data)
        with (tmp_path / "s" / "partial" / "u1" / blob.sha256).open("ab") as file:
            file.write(b"x")
        with pytest.raises(Exception, match="thrown away"):
            await store.resume("u1", blob)
        await send(store, "u1", blob, data)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which pages of a file are in memory")
@pytest.mark.parametrize(("size", "stays"), [((32 << 20) - 5, True), (32 << 20, False)])
async def test_only_large_content_leaves_the_page_cache(
    monkeypatch: pytest.MonkeyPatch, size: int, stays: bool
) -> None:
    monkeypatch.setattr(partials, "_LARGE_BYTES", 32 << 20)
    data, blob = content(size)
    with tempfile.TemporaryDirectory(
        dir=folders.ON_DISK, prefix="my-"
    ) as folder:  # what is in memory alone has no such cache
        store = LocalBlobStore(Path(folder), reserve=0)
        await store.open()
        await send(store, "u1", blob, data, piece=CHUNK_BYTES)
        path = Path(folder) / "blobs" / blob.sha256[:2] / blob.sha256
        share = in_memory(path)
        assert share > 0.9 if stays else share < 0.1 or is_of_memory(path)
        assert await read(store, blob) == data
        await store.close()


def is_of_memory(path: Path) -> bool:
    """Return whether the file system keeps a file in memory whatever it is told, as tmpfs does."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return in_memory(path) > 0.9


def in_memory(path: Path) -> float:
    """Return the share of a file's pages that are in the page cache (mincore(2))."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        begin = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(
            ctypes.c_void_p(ctypes.addressof(begin)), ctypes.c_size_t(len(mapped)), pages
        )
        del begin
    assert not failed
    return sum(page & 1 for page in pages) / len(pages)


@pytest.fixture(scope="module")
def moto_server() -> Iterator[s3.S3Server]:
    with s3.moto() as server:
        yield server


@pytest.fixture(scope="module")
def rclone_server() -> Iterator[s3.S3Server]:
    with s3.rclone() as server:
        yield server


class Place(NamedTuple):
    endpoint: str
    prefix: str
    staging: Path


class S3Suite(BlobStoreSuite):
    large = 3 * (5 << 20) + 17  # 5 MiB is the least size of a part that S3 allows

    @pytest.fixture
    def place(self, server: s3.S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
        for name, value in s3.ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        return Place(server.endpoint, f"{new_id()}/", tmp_path)

    @pytest.fixture
    async def store(self, place: Place) -> AsyncIterator[BlobStore]:
        self._place = place
        store = self._new()
        await store.open()
        yield store
        await store.close()

    def reopened(self, store: BlobStore) -> BlobStore:
        return self._new()

    def _new(self) -> S3BlobStore:
        endpoint, prefix, staging = self._place
        return S3BlobStore(
            s3.BUCKET, prefix, staging=staging, endpoint=endpoint, reserve=0, part_bytes=5 << 20
        )

    async def test_nothing_stays_in_staging(self, store: BlobStore, place: Place) -> None:
        data, blob = content(CHUNK_BYTES)
        await send(store, "u1", blob, data)
        assert [path for path in place.staging.rglob("*") if path.is_file()] == []

    @pytest.mark.parametrize(
        "step", ["artifact.blob.before_put", "artifact.blob.before_complete", "artifact.blob.after_put"]
    )
    async def test_a_failure_in_the_bucket_shows_nothing_half(self, store: BlobStore, step: str) -> None:
        data, blob = content(self.large if step.endswith("complete") else CHUNK_BYTES)
        faults.configure(f"{step}=error*1")
        with pytest.raises(faults.InjectedFault):
            await send(store, "u1", blob, data, piece=CHUNK_BYTES)
        faults.configure("")
        assert await store.size(blob.sha256) == (blob.size if step.endswith("after_put") else None)
        assert await store.received("u1") == {blob.sha256: blob.size}
        partial = await store.resume("u1", blob)
        await partial.finish()
        await partial.close()
        assert await read(store, blob) == data

    async def test_wrong_bucket_is_said_at_the_start(self, place: Place) -> None:
        store = S3BlobStore("no-such-bucket", "", staging=place.staging, endpoint=place.endpoint)
        with pytest.raises(RuntimeError, match=r"no-such-bucket.*MODELYARD_BLOBS"):
            await store.open()

    async def test_a_server_that_is_gone_is_unavailable(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert isinstance(store, S3BlobStore)
        from botocore.exceptions import EndpointConnectionError

        async def gone(**_: object) -> None:
            raise EndpointConnectionError(endpoint_url="http://x")

        monkeypatch.setattr(store._s3, "head_object", gone)
        with pytest.raises(PeerUnavailable):
            await store.size("0" * 64)


class TestS3Moto(S3Suite):
    @pytest.fixture
    def server(self, moto_server: s3.S3Server) -> s3.S3Server:
        return moto_server


class TestS3Rclone(S3Suite):
    knows_conditions = False

    @pytest.fixture
    def server(self, rclone_server: s3.S3Server) -> s3.S3Server:
        return rclone_server
