"""A blob store is of one installation: no other deletes its content, and nobody serves from a place that lacks it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact import belonging, store
from modelyard_artifact.belonging import WrongBlobStoreError
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.blobs.marks import MARK_NAME, Mark
from modelyard_artifact.blobs.memory import MemoryBlobStore
from modelyard_artifact.models import Blob
from modelyard_artifact.moving import Mover
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from tests.conformance.blob_store_suite import content
from tests.framework.artifact import MODEL, artifact_service

FILES = {"model.onnx": b"weights", "README.md": b"words"}
VERSION = f"{MODEL}/1"
TWO_DAYS = 2 * 86_400
NewDatabase = Callable[[str], str]


def age(folder: Path, seconds: float) -> None:
    """Make every blob in a folder older."""
    for path in (folder / "blobs").rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


def stored(folder: Path) -> set[str]:
    return {path.name for path in (folder / "blobs").rglob("*") if path.is_file()}


async def upload(dsn: str, folder: Path) -> str:
    """Run an installation long enough to store an artifact."""
    async with artifact_service(dsn, folder) as service:
        return await service.client().upload(FILES)


async def refusal(dsn: str, folder: Path) -> str:
    """Return why an installation does not start."""
    with pytest.raises(SystemExit) as ended:
        async with artifact_service(dsn, folder, garbage_grace_hours=0):
            pass
    return str(ended.value)


async def test_another_installation_does_not_start_on_the_store(
    fresh_database: NewDatabase, tmp_path: Path
) -> None:
    mine, other = fresh_database("modelyard_artifact"), fresh_database("modelyard_artifact")
    digest = await upload(mine, tmp_path)
    age(tmp_path, TWO_DAYS)
    told = await refusal(other, tmp_path)
    assert "belongs to another installation" in told
    assert f"MODELYARD_BLOBS=file://{tmp_path}" in told
    async with artifact_service(mine, tmp_path) as service:
        service.catalog.ready(VERSION, digest)
        assert await service.client().read(VERSION, "model.onnx") == b"weights"


async def test_nor_if_the_store_has_no_mark_yet(fresh_database: NewDatabase, tmp_path: Path) -> None:
    mine, other = fresh_database("modelyard_artifact"), fresh_database("modelyard_artifact")
    await upload(mine, tmp_path)
    (tmp_path / MARK_NAME).unlink()
    age(tmp_path, TWO_DAYS)
    assert "none of the 0 blobs that this installation stored last" in await refusal(other, tmp_path)
    assert not (tmp_path / MARK_NAME).exists()
    await upload(mine, tmp_path)  # whose it is gives it its mark
    assert "belongs to another installation" in await refusal(other, tmp_path)


async def test_a_folder_that_is_not_mounted_is_not_served_from(
    fresh_database: NewDatabase, tmp_path: Path
) -> None:
    dsn = fresh_database("modelyard_artifact")
    await upload(dsn, tmp_path / "volume")
    (tmp_path / "volume").rename(tmp_path / "elsewhere")
    assert "has none of 2 blobs" in await refusal(dsn, tmp_path / "volume")
    for path in sorted((tmp_path / "volume").rglob("*"), reverse=True):
        path.rmdir()  # holds folders alone: nothing was marked
    (tmp_path / "volume").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "volume")
    await upload(dsn, tmp_path / "volume")


async def test_single_losses_do_not_keep_a_store_without_a_mark_from_serving(
    fresh_database: NewDatabase, tmp_path: Path
) -> None:
    dsn = fresh_database("modelyard_artifact")
    await upload(dsn, tmp_path)
    (tmp_path / MARK_NAME).unlink()
    next(path for path in (tmp_path / "blobs").rglob("*") if path.is_file()).unlink()
    async with artifact_service(dsn, tmp_path):
        assert (tmp_path / MARK_NAME).exists()


@pytest.mark.parametrize("text", ["", "mine"])
async def test_a_mark_that_cannot_be_read_is_said(
    fresh_database: NewDatabase, tmp_path: Path, text: str
) -> None:
    (tmp_path / MARK_NAME).write_text(text)
    assert f"{MARK_NAME} in the blob store is no mark" in await refusal(
        fresh_database("modelyard_artifact"), tmp_path
    )


async def test_processes_that_start_at_once_agree(fresh_database: NewDatabase) -> None:
    database, blobs = Database.connect(fresh_database("modelyard_artifact")), MemoryBlobStore()
    await asyncio.gather(*(belonging.claim(database, blobs) for _ in range(8)))
    assert blobs.marked is not None
    await database.close()


async def test_of_two_installations_that_start_at_once_one_has_the_store(fresh_database: NewDatabase) -> None:
    databases = [Database.connect(fresh_database("modelyard_artifact")) for _ in range(2)]
    blobs = MemoryBlobStore()
    claims = (belonging.claim(database, blobs) for database in databases)
    answers = await asyncio.gather(*claims, return_exceptions=True)
    assert sorted(type(answer) for answer in answers if answer) == [WrongBlobStoreError]
    for database in databases:
        await database.close()


async def test_a_move_that_was_cut_is_not_served_from(fresh_database: NewDatabase, tmp_path: Path) -> None:
    dsn = fresh_database("modelyard_artifact")
    await upload(dsn, tmp_path / "old")
    database = Database.connect(dsn)
    old, new = (LocalBlobStore(tmp_path / name, reserve=0) for name in ("old", "new"))
    await old.open()
    await new.open()
    lost = Blob(content(10)[1].sha256, 10)
    await database.in_tx(lambda connection: store.add_blobs(connection, [lost], utc_now()))
    assert not (await Mover(database, old, new, at_once=1, advance=lambda _: None).move()).complete
    assert "a move into this blob store has not ended" in await refusal(dsn, tmp_path / "new")
    await old.put_whole("u", {lost: content(10)[0]})
    assert (await Mover(database, old, new, at_once=1, advance=lambda _: None).move()).complete
    await upload(dsn, tmp_path / "new")
    await old.close()
    await new.close()
    await database.close()


async def moved(dsn: str, source: Path, target: Path) -> bool:
    """Move everything; return whether all of it arrived."""
    database, stores = Database.connect(dsn), [LocalBlobStore(each, reserve=0) for each in (source, target)]
    for each in stores:
        await each.open()
    done = await Mover(database, *stores, at_once=4, advance=lambda _: None).move()
    for each in stores:
        await each.close()
    await database.close()
    return done.complete


async def test_after_a_move_the_store_of_before_is_not_served_from(
    fresh_database: NewDatabase, tmp_path: Path
) -> None:
    dsn, old, new = fresh_database("modelyard_artifact"), tmp_path / "old", tmp_path / "new"
    await upload(dsn, old)
    assert await moved(dsn, old, new)
    await upload(dsn, old)  # nobody has begun to use the new one
    await upload(dsn, new)
    assert "everything was moved from this blob store" in await refusal(dsn, old)
    assert await moved(dsn, new, old)
    await upload(dsn, old)
    assert "everything was moved from this blob store" in await refusal(dsn, new)


async def test_what_came_after_the_move_is_not_left_behind(
    fresh_database: NewDatabase, tmp_path: Path
) -> None:
    dsn, old, new = fresh_database("modelyard_artifact"), tmp_path / "old", tmp_path / "new"
    await upload(dsn, old)
    assert await moved(dsn, old, new)
    async with artifact_service(dsn, old) as service:
        await service.client().upload({"late": b"late"})
    assert "content was stored after the move" in await refusal(dsn, new)
    assert await moved(dsn, old, new)
    await upload(dsn, new)


async def test_nothing_is_moved_to_where_another_would_delete_it(
    fresh_database: NewDatabase, tmp_path: Path
) -> None:
    database, theirs = Database.connect(fresh_database("modelyard_artifact")), MemoryBlobStore()
    theirs.marked = Mark("theirs", 0, complete=True)
    mine = MemoryBlobStore()
    data, blob = content(10)
    await mine.put_whole("u", {blob: data})
    await database.in_tx(lambda connection: store.add_blobs(connection, [blob], utc_now()))
    with pytest.raises(WrongBlobStoreError, match="another installation"):
        await Mover(database, mine, theirs, at_once=1, advance=lambda _: None).move()
    assert theirs.blobs == {}
    theirs.marked = None  # as before there were marks
    data, other = content(10, seed=2)
    theirs.put(other.sha256, data)
    with pytest.raises(WrongBlobStoreError, match="has content, and none of the 1 blobs"):
        await Mover(database, mine, theirs, at_once=1, advance=lambda _: None).move()
    assert theirs.blobs == {other.sha256: data}
    assert theirs.marked is None
    await database.close()


async def test_what_an_older_database_does_not_know_has_its_grace(
    fresh_database: NewDatabase, tmp_path: Path
) -> None:
    dsn = fresh_database("modelyard_artifact")
    await upload(dsn, tmp_path)
    data, unknown = content(10)
    local = LocalBlobStore(tmp_path, reserve=0)
    await local.open()
    await local.put_whole("u", {unknown: data})
    await local.close()
    age(tmp_path, TWO_DAYS)
    for hours, kept in ((168, True), (1, False)):
        async with artifact_service(dsn, tmp_path, garbage_grace_hours=hours) as service:
            await service.client().call("CollectGarbage", pb.CollectGarbageRequest())
            assert (unknown.sha256 in stored(tmp_path)) is kept
