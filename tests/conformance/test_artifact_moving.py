"""Moving everything to another blob store: between disk and S3, cut and taken up again, and never said to be done when it is not."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelyard.cli import app
from modelyard_artifact import store
from modelyard_artifact.blobs import BlobStore
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.blobs.s3 import S3BlobStore
from modelyard_artifact.models import Blob
from modelyard_artifact.moving import Moved, Mover
from modelyard_kit import faults
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.ids import new_id
from tests.conformance.blob_store_suite import content, read
from tests.framework import s3
from tests.framework.artifact import MODEL, artifact_service

VERSION = f"{MODEL}/1"
CONTENTS = [random.Random(number).randbytes(number * 1000) for number in range(30)]
CONTENTS += [random.Random(99).randbytes(1 << 20)]


class Site:
    """A database that knows some blobs, and the store that has them."""

    def __init__(self, dsn: str, source: LocalBlobStore, root: Path) -> None:
        self.dsn = dsn
        self.database = Database.connect(dsn)
        self.source = source
        self.root = root
        self.advanced = 0

    async def add(self, data: bytes) -> Blob:
        """Store and record content."""
        blob = content_blob(data)
        await self.source.put_whole("u", {blob: data})
        await self.database.in_tx(lambda connection: store.add_blobs(connection, [blob], utc_now()))
        return blob

    async def move(self, target: BlobStore) -> Moved:
        """Move to a store."""
        return await Mover(self.database, self.source, target, at_once=4, advance=self._advance).move()

    def damage(self, blob: Blob) -> None:
        """Change a byte of a blob in the source."""
        path = self.root / "blobs" / blob.sha256[:2] / blob.sha256
        path.chmod(0o600)
        path.write_bytes(b"?" + path.read_bytes()[1:])

    def _advance(self, more: int) -> None:
        self.advanced += more


def content_blob(data: bytes) -> Blob:
    """Return the blob of some content."""
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


@pytest.fixture
async def site(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Site]:
    root = tmp_path / "source"
    source = LocalBlobStore(root, reserve=0)
    await source.open()
    made = Site(fresh_database("modelyard_artifact"), source, root)
    for data in CONTENTS:
        await made.add(data)
    yield made
    faults.configure("")
    await source.close()
    await made.database.close()


@pytest.fixture(scope="module")
def server() -> Iterator[s3.S3Server]:
    with s3.moto() as running:
        yield running


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[LocalBlobStore]:
    made = LocalBlobStore(tmp_path / "target", reserve=0)
    await made.open()
    yield made
    await made.close()


async def test_from_disk_to_s3_and_back(
    site: Site, server: s3.S3Server, disk: LocalBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    prefix = f"{new_id()}/"
    bucket = S3BlobStore(s3.BUCKET, prefix, staging=tmp_path / "staging", endpoint=server.endpoint, reserve=0)
    await bucket.open()
    there = await site.move(bucket)
    assert there.complete
    assert (there.blobs, there.copied) == (len(CONTENTS), len(CONTENTS))
    assert site.advanced == there.size == sum(map(len, CONTENTS))
    back = await Mover(site.database, bucket, disk, at_once=4, advance=lambda _: None).move()
    await bucket.close()
    assert back.complete
    for data in CONTENTS:
        assert await read(disk, content_blob(data)) == data
        assert await read(site.source, content_blob(data)) == data  # the source is left as it was
    assert s3.leftovers(server.endpoint, prefix) == []


async def test_again_copies_only_what_is_new_and_verifies_all(site: Site, disk: LocalBlobStore) -> None:
    assert (await site.move(disk)).copied == len(CONTENTS)
    await site.add(b"new")
    again = await site.move(disk)
    assert again.complete
    assert (again.blobs, again.copied) == (len(CONTENTS) + 1, 1)


async def test_a_cut_move_goes_on(site: Site, disk: LocalBlobStore) -> None:
    faults.configure("artifact.move.before_verify=error*1")
    with pytest.raises(faults.InjectedFault):
        await site.move(disk)
    faults.configure("")
    again = await site.move(disk)
    assert again.complete
    assert again.copied < again.blobs == len(CONTENTS)
    assert list((disk._root / "partial").rglob("*")) == []


@pytest.mark.parametrize("size", [1000, 1 << 20], ids=["small", "large"])
async def test_damage_in_the_source_is_said_and_not_carried_over(
    site: Site, disk: LocalBlobStore, size: int
) -> None:
    damaged = content_blob(next(data for data in CONTENTS if len(data) == size))
    site.damage(damaged)
    moved = await site.move(disk)
    assert not moved.complete
    assert list(moved.problems) == [damaged.sha256]
    assert "source" in moved.problems[damaged.sha256]
    assert moved.blobs == len(CONTENTS) - 1
    assert await disk.size(damaged.sha256) is None


async def test_damage_at_the_destination_is_found_and_repaired(site: Site, disk: LocalBlobStore) -> None:
    await site.move(disk)
    path = next(path for path in (disk._root / "blobs").rglob("*") if path.is_file() and path.stat().st_size)
    path.chmod(0o600)
    path.write_bytes(b"?" * path.stat().st_size)
    moved = await site.move(disk)
    assert list(moved.problems) == [path.name]
    assert (await site.move(disk)).complete


async def test_what_came_meanwhile_makes_it_incomplete(site: Site, disk: LocalBlobStore) -> None:
    first = min((content_blob(data) for data in CONTENTS), key=lambda blob: blob.sha256)
    late = next(
        bytes([number]) for number in range(256) if content_blob(bytes([number])).sha256 < first.sha256
    )
    mover = Mover(site.database, site.source, disk, at_once=1, advance=lambda _: None)
    page = mover._page

    async def slow(after: str) -> list[Blob]:
        if after:
            await site.add(late)
        return await page(after)

    mover._page = slow  # type: ignore[method-assign]
    moved = await mover.move()
    assert (moved.late, moved.complete) == (1, False)
    assert (await site.move(disk)).complete


async def test_the_verb(fresh_database: Callable[[str], str], tmp_path: Path) -> None:
    dsn, old, new = fresh_database("modelyard_artifact"), tmp_path / "old", tmp_path / "new"
    files = {f"f{number}": data for number, data in enumerate(CONTENTS)}
    async with artifact_service(dsn, old) as service:
        digest = await service.client().upload(files)
    arguments = [
        "artifacts",
        "migrate",
        "--from",
        f"file://{old}",
        "--to",
        f"file://{new}",
        "--database",
        dsn,
    ]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == 0, result.output
    assert f"{len(CONTENTS)} blobs" in result.output
    async with artifact_service(dsn, new) as service:
        service.catalog.ready(VERSION, digest)
        for path, data in files.items():
            assert await service.client().read(VERSION, path) == data
    _, blob = content(0)
    (old / "blobs" / blob.sha256[:2] / blob.sha256).unlink()
    (new / "blobs" / blob.sha256[:2] / blob.sha256).unlink()
    refused = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert refused.exit_code == 1
    assert "not complete" in refused.output


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("file:///a", "file:///a", "same place"),
        ("folder", "file:///a", "write file:///absolute/path"),
        ("file:///tmp", "s3:///x", "name the bucket"),
    ],
)
def test_the_verb_refuses(source: str, target: str, message: str) -> None:
    arguments = ["--from", source, "--to", target, "--database", "postgresql://x@/y"]
    result = CliRunner().invoke(app, ["artifacts", "migrate", *arguments])
    assert result.exit_code == 1
    assert message in result.output
