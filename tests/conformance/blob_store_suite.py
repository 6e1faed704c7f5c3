"""What every blob store must do. Subclass it, give a `store` fixture, and the engine is held to all of it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelyard_artifact.blobs import BlobStore
from modelyard_artifact.blobs.marks import Mark
from modelyard_artifact.errors import BlobLost, DigestMismatch, OffsetMismatch
from modelyard_artifact.models import CHUNK_BYTES, Blob

PIECE = 64 << 10


def content(size: int, seed: int = 1) -> tuple[bytes, Blob]:
    data = random.Random(seed).randbytes(size)
    return data, Blob(hashlib.sha256(data).hexdigest(), size)


async def send(store: BlobStore, owner: str, blob: Blob, data: bytes, *, piece: int = PIECE) -> None:
    partial = await store.resume(owner, blob)
    try:
        for start in range(0, len(data), piece):
            await partial.append(data[start : start + piece])
        await partial.finish()
    finally:
        await partial.close()


async def begin(store: BlobStore, owner: str, blob: Blob, data: bytes) -> None:
    partial = await store.resume(owner, blob)
    await partial.append(data)
    await partial.close()


async def read(store: BlobStore, blob: Blob, offset: int = 0, length: int | None = None) -> bytes:
    wanted = blob.size - offset if length is None else length
    pieces = [piece async for piece in store.read(blob, offset, wanted)]
    assert all(0 < len(piece) <= CHUNK_BYTES for piece in pieces)
    return b"".join(pieces)


class BlobStoreSuite(ABC):
    """The suite.

    `large` is a size that makes the engine take its way for large blobs (parts), if it has one; `knows_conditions` is False for a
    server that ignores `If-None-Match`.
    """

    large = 3 * CHUNK_BYTES + 17
    knows_conditions = True

    @pytest.fixture
    @abstractmethod
    def store(self) -> Any:
        """An empty store, open."""

    @abstractmethod
    def reopened(self, store: BlobStore) -> BlobStore:
        """The same place as after a restart of the process; not yet open."""

    @pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, CHUNK_BYTES + 1])
    async def test_what_goes_in_comes_out(self, store: BlobStore, size: int) -> None:
        data, blob = content(size)
        assert await store.size(blob.sha256) is None
        await send(store, "u1", blob, data)
        assert await store.size(blob.sha256) == size
        assert await read(store, blob) == data
        assert await store.received("u1") == {}

    async def test_large(self, store: BlobStore) -> None:
        data, blob = content(self.large)
        await send(store, "u1", blob, data, piece=CHUNK_BYTES)
        assert await store.size(blob.sha256) == blob.size
        assert await read(store, blob) == data

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 0), (0, 1), (1, 1), (CHUNK_BYTES - 1, 2), (CHUNK_BYTES, CHUNK_BYTES), (5, 2 * CHUNK_BYTES)],
    )
    async def test_ranges(self, store: BlobStore, offset: int, length: int) -> None:
        data, blob = content(3 * CHUNK_BYTES)
        await send(store, "u1", blob, data, piece=CHUNK_BYTES)
        assert await read(store, blob, offset, length) == data[offset : offset + length]

    async def test_the_end(self, store: BlobStore) -> None:
        data, blob = content(100)
        await send(store, "u1", blob, data)
        assert await read(store, blob, 100, 0) == b""
        assert await read(store, blob, 99, 1) == data[99:]

    async def test_a_blob_that_is_not_there(self, store: BlobStore) -> None:
        _, blob = content(10)
        assert await store.size(blob.sha256) is None
        with pytest.raises(BlobLost):
            await read(store, blob)
        await store.delete(blob.sha256)

    async def test_many_are_read_one_after_the_other(self, store: BlobStore) -> None:
        sizes = [10, 0, CHUNK_BYTES - 5, 4, 2, self.large, 7, 0]
        contents = [content(size) for size in sizes]
        for data, blob in contents:
            await send(store, "u1", blob, data)
        came: list[tuple[int, bytes]] = []
        async for pieces in store.read_each([blob for _, blob in contents]):
            assert sum(len(data) for _, data in pieces) <= CHUNK_BYTES
            came += pieces
        places = [place for place, _ in came]
        assert places == sorted(places)
        assert set(places) == set(range(len(sizes)))
        read_back = [b"".join(data for place, data in came if place == index) for index in range(len(sizes))]
        assert read_back == [data for data, _ in contents]
        await store.delete(contents[0][1].sha256)
        with pytest.raises(BlobLost):
            async for _ in store.read_each([blob for _, blob in contents]):
                pass

    async def test_delete(self, store: BlobStore) -> None:
        data, blob = content(10)
        await send(store, "u1", blob, data)
        await store.delete(blob.sha256)
        assert await store.size(blob.sha256) is None
        await send(store, "u1", blob, data)
        assert await read(store, blob) == data

    async def test_a_cut_transfer_continues(self, store: BlobStore) -> None:
        data, blob = content(3 * PIECE + 5)
        await begin(store, "u1", blob, data[: PIECE + 7])
        assert await store.received("u1") == {blob.sha256: PIECE + 7}
        assert await store.size(blob.sha256) is None
        partial = await store.resume("u1", blob)
        assert partial.offset == PIECE + 7
        await partial.append(data[PIECE + 7 :])
        await partial.finish()
        await partial.close()
        assert await read(store, blob) == data

    async def test_a_cut_transfer_continues_after_a_restart(self, store: BlobStore) -> None:
        data, blob = content(3 * PIECE)
        await begin(store, "u1", blob, data[:PIECE])
        again = self.reopened(store)
        await again.open()
        assert await again.received("u1") == {blob.sha256: PIECE}
        partial = await again.resume("u1", blob)
        assert partial.offset == PIECE
        await partial.append(data[PIECE:])
        await partial.finish()
        await partial.close()
        assert await read(again, blob) == data
        await again.close()

    async def test_everything_came_but_the_end_was_cut(self, store: BlobStore) -> None:
        data, blob = content(PIECE)
        await begin(store, "u1", blob, data)
        assert await store.received("u1") == {blob.sha256: PIECE}
        partial = await store.resume("u1", blob)
        await partial.finish()
        await partial.close()
        assert await read(store, blob) == data

    async def test_wrong_hash(self, store: BlobStore) -> None:
        _, blob = content(PIECE)
        other, _ = content(PIECE, seed=2)
        with pytest.raises(DigestMismatch) as error:
            await send(store, "u1", blob, other)
        assert error.value.metadata["expected"] == blob.sha256
        assert error.value.metadata["actual"] == hashlib.sha256(other).hexdigest()
        assert await store.size(blob.sha256) is None
        assert await store.received("u1") == {}

    async def test_more_bytes_than_announced(self, store: BlobStore) -> None:
        data, blob = content(PIECE)
        partial = await store.resume("u1", blob)
        await partial.append(data[:-1])
        with pytest.raises(DigestMismatch):
            await partial.append(data[-1:] + b"x")
        await partial.close()
        assert await store.received("u1") == {}
        await send(store, "u1", blob, data)
        assert await read(store, blob) == data

    async def test_less_bytes_than_announced(self, store: BlobStore) -> None:
        data, blob = content(PIECE)
        with pytest.raises(DigestMismatch):
            await send(store, "u1", blob, data[:-1])
        assert await store.size(blob.sha256) is None

    async def test_same_content_twice_is_harmless(self, store: BlobStore) -> None:
        data, blob = content(self.large)
        await send(store, "u1", blob, data)
        await send(store, "u2", blob, data)
        assert await read(store, blob) == data
        assert await store.received("u2") == {}

    async def test_same_content_at_once(self, store: BlobStore) -> None:
        data, blob = content(self.large)
        await asyncio.gather(
            *(send(store, f"u{number}", blob, data, piece=CHUNK_BYTES) for number in range(4))
        )
        assert await read(store, blob) == data

    @pytest.mark.parametrize("count", [1, 3, 20])
    async def test_small_blobs_come_together(self, store: BlobStore, count: int) -> None:
        contents = {blob: data for data, blob in (content(size, seed=size) for size in range(count))}
        await store.put_whole("u1", contents)
        await store.put_whole("u2", contents)  # what is there already is harmless
        for blob, data in contents.items():
            assert await store.size(blob.sha256) == blob.size
            assert await read(store, blob) == data
        assert await store.received("u1") == {}

    async def test_a_group_leaves_the_partials_alone(self, store: BlobStore) -> None:
        data, blob = content(2 * PIECE)
        partial = await store.resume("u1", blob)
        await partial.append(data[:PIECE])
        await store.put_whole("u1", {blob: data})
        await partial.append(data[PIECE:])
        await partial.finish()
        await partial.close()
        assert await read(store, blob) == data

    async def test_what_is_stored_is_listed(self, store: BlobStore) -> None:
        before = datetime.now(UTC) - timedelta(days=1)
        contents = {blob: data for data, blob in (content(size, seed=size) for size in range(5))}
        await store.put_whole("u1", contents)
        data, blob = content(PIECE, seed=99)
        await send(store, "u1", blob, data)
        await begin(store, "u1", content(PIECE, seed=98)[1], b"x")
        later = datetime.now(UTC) + timedelta(minutes=5)
        assert [each async for each in store.stored(before)] == []
        expected = sorted([*contents, blob], key=lambda each: each.sha256)
        assert [each async for each in store.stored(later)] == expected

    async def test_owners_are_known_until_they_are_discarded(self, store: BlobStore) -> None:
        data, blob = content(PIECE)
        await begin(store, "u1", blob, data[:10])
        await begin(store, "u2", blob, data[:10])
        assert set(await store.owners()) == {"u1", "u2"}
        await store.discard("u1")
        await store.tidy(datetime.now(UTC) - timedelta(days=1))
        assert set(await store.owners()) == {"u2"}
        assert await store.received("u2") == {blob.sha256: 10}

    async def test_owners_do_not_see_each_other(self, store: BlobStore) -> None:
        data, blob = content(PIECE)
        await begin(store, "u1", blob, data[:10])
        assert await store.received("u2") == {}
        partial = await store.resume("u2", blob)
        assert partial.offset == 0
        await partial.close()
        await store.discard("u2")
        assert await store.received("u1") == {blob.sha256: 10}

    async def test_a_newer_transfer_takes_over(self, store: BlobStore) -> None:
        data, blob = content(2 * PIECE)
        older = await store.resume("u1", blob)
        await older.append(data[:PIECE])
        newer = await store.resume("u1", blob)
        assert newer.offset == PIECE
        with pytest.raises(OffsetMismatch):
            await older.append(data[PIECE:])
        await newer.append(data[PIECE:])
        await older.close()
        await newer.finish()
        await newer.close()
        assert await read(store, blob) == data

    async def test_discard(self, store: BlobStore) -> None:
        data, blob = content(PIECE)
        await begin(store, "u1", blob, data[:10])
        open_still = await store.resume("u1", blob)
        await store.discard("u1")
        await store.discard("never")
        assert await store.received("u1") == {}
        with pytest.raises(OffsetMismatch):
            await open_still.append(data[10:])
        await open_still.close()
        await send(store, "u1", blob, data)
        assert await read(store, blob) == data

    async def test_a_store_is_nobodys_until_it_is_marked(self, store: BlobStore) -> None:
        assert await store.mark() is None
        await store.write_mark(Mark("a", 0, complete=False), first=True)
        assert await store.mark() == Mark("a", 0, complete=False)
        await store.write_mark(Mark("a", 0, complete=True), first=False)
        again = self.reopened(store)
        await again.open()
        assert await again.mark() == Mark("a", 0, complete=True)
        await again.close()

    async def test_the_mark_is_no_blob(self, store: BlobStore) -> None:
        await store.write_mark(Mark("a", 0, complete=True), first=True)
        later = datetime.now(UTC) + timedelta(days=1)
        assert [blob async for blob in store.stored(later)] == []
        assert list(await store.owners()) == []

    async def test_of_two_who_mark_a_store_the_first_has_it(self, store: BlobStore) -> None:
        await store.write_mark(Mark("a", 0, complete=True), first=True)
        await store.write_mark(Mark("b", 0, complete=True), first=True)
        assert await store.mark() == Mark("a" if self.knows_conditions else "b", 0, complete=True)
