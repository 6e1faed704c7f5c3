"""The rows of the artifact service on real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_artifact import store
from modelyard_artifact.manifest import build
from modelyard_artifact.models import Blob, FileEntry, Manifest, Upload, UploadState
from modelyard_artifact.tables import manifest_files, metadata
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidField
from modelyard_kit.filters import Asked
from modelyard_kit.ids import new_id

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def manifest(**files: str) -> Manifest:
    return build(FileEntry(path, len(text), sha(text)) for path, text in files.items())


def upload(of: Manifest, principal_id: str = "ada", at: datetime = NOW) -> Upload:
    return Upload(new_id(), "m1", "a.b.c", principal_id, of.digest, UploadState.OPEN, at, at)


@pytest.fixture
async def database(fresh_database: Callable[[str], str]) -> AsyncIterator[Database]:
    database = Database.connect(fresh_database("modelyard_artifact"))
    yield database
    await database.close()


async def run(database: Database, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return await database.in_tx(lambda connection: function(connection, *arguments, **options))


async def test_migrations_make_exactly_the_tables(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def differences(connection: Any) -> list[Any]:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
        return [each for each in found if "alembic_version" not in str(each)]

    assert await database.in_tx(lambda connection: connection.run_sync(differences)) == []


async def test_a_manifest_is_written_once_and_listed_by_bytes(database: Database) -> None:
    of = build(FileEntry(path, 1, sha("x")) for path in ("b", "B", "ä", "a/c", "a.c", "\U0001f600", "�"))
    await run(database, store.add_manifest, of)
    await run(database, store.add_manifest, of)
    files, token = await run(database, store.page_of_files, of.digest, Asked(size=100))
    assert (tuple(files), token) == (of.files, "")
    assert [file.path for file in files] == ["B", "a.c", "a/c", "b", "ä", "�", "\U0001f600"]
    first, token = await run(database, store.page_of_files, of.digest, Asked(size=3))
    rest, end = await run(database, store.page_of_files, of.digest, Asked(size=9, page_token=token))
    assert (tuple(first + rest), end) == (of.files, "")
    asked = Asked(
        size=9, filter=f"path LIKE 'a%' AND size = 1 AND sha256 = '{sha('x')}'", order_by="path desc"
    )
    found, _ = await run(database, store.page_of_files, of.digest, asked)
    assert [file.path for file in found] == ["a/c", "a.c"]
    with pytest.raises(InvalidField, match="page_token"):
        await run(database, store.page_of_files, "sha256:" + "0" * 64, Asked(size=3, page_token=token))
    assert await run(database, store.get_file, of.digest, "b") == FileEntry("b", 1, sha("x"))
    assert await run(database, store.get_file, of.digest, "c") is None


async def test_two_who_write_one_manifest_at_once_both_succeed(database: Database) -> None:
    of = manifest(**{f"file-{number}": str(number) for number in range(50)})
    attempts, together = 0, asyncio.Event()

    async def work(connection: AsyncConnection) -> None:
        nonlocal attempts
        await store.count_open_uploads(connection, "ada")  # from here on neither sees what the other writes
        attempts += 1
        if attempts == 2:
            together.set()
        await together.wait()
        await store.add_manifest(connection, of)

    await asyncio.gather(database.in_tx(work), database.in_tx(work))
    assert attempts == 3
    assert tuple(await run(database, store.list_files, of.digest, "", 100)) == of.files


async def test_missing_shrinks_as_blobs_come(database: Database) -> None:
    of = manifest(z="one", y="two", x="one")
    await run(database, store.add_manifest, of)
    assert await run(database, store.missing_blobs, of.digest) == [Blob(sha("one"), 3), Blob(sha("two"), 3)]
    assert await run(database, store.announced_blob, of.digest, sha("one")) == (Blob(sha("one"), 3), False)
    assert await run(database, store.announced_blob, of.digest, sha("three")) is None
    await run(database, store.add_blobs, [Blob(sha("one"), 3)], NOW)
    await run(database, store.add_blobs, [Blob(sha("one"), 3)], NOW)
    assert await run(database, store.missing_blobs, of.digest) == [Blob(sha("two"), 3)]
    assert await run(database, store.announced_blob, of.digest, sha("one")) == (Blob(sha("one"), 3), True)


async def test_known_content_under_a_wrong_size_stays_missing(database: Database) -> None:
    await run(database, store.add_blobs, [Blob(sha("one"), 3)], NOW)
    of = build([FileEntry("a", 4, sha("one"))])
    await run(database, store.add_manifest, of)
    assert await run(database, store.missing_blobs, of.digest) == [Blob(sha("one"), 4)]


async def test_artifacts_belong_to_models(database: Database) -> None:
    of = manifest(a="one", b="three")
    await run(database, store.add_manifest, of)
    assert await run(database, store.get_artifact, of.digest) is None
    for _ in range(2):
        await run(database, store.add_artifact, of.digest, NOW)
        await run(database, store.add_artifact_model, of.digest, "m1", NOW)
    artifact = await run(database, store.get_artifact, of.digest, model_id="m1")
    assert (artifact.digest, artifact.file_count, artifact.size) == (of.digest, 2, 8)
    assert artifact.create_time == NOW
    assert await run(database, store.get_artifact, of.digest, model_id="m2") is None
    assert await run(database, store.get_artifact, of.digest) == artifact


async def test_uploads_are_seen_by_their_principal_only(database: Database) -> None:
    one = upload(manifest(a="one"))
    await run(database, store.add_upload, one)
    assert await run(database, store.get_upload, one.id, "ada", lock=True) == one
    assert await run(database, store.get_upload, one.id, "bob") is None
    assert await run(database, store.count_open_uploads, "ada") == 1
    assert await run(database, store.count_open_uploads, "bob") == 0
    await run(database, store.finish_upload, one.id, NOW)
    assert (await run(database, store.get_upload, one.id, "ada")).state is UploadState.COMMITTED
    assert await run(database, store.count_open_uploads, "ada") == 0


async def test_abandoned_uploads_go_with_what_only_they_need(database: Database) -> None:
    shared, alone = manifest(a="one"), manifest(b="two")
    old, second, young = upload(shared), upload(alone), upload(shared, at=NOW + timedelta(days=2))
    for of in (shared, alone):
        await run(database, store.add_manifest, of)
    for each in (old, second, young):
        await run(database, store.add_upload, each)
    before = NOW + timedelta(days=1)
    assert await run(database, store.abandoned_uploads, before, 10) == [old.id, second.id]
    await run(database, store.touch_upload, second.id, before)
    assert await run(database, store.abandoned_uploads, before, 10) == [old.id]
    assert await run(database, store.delete_upload, old.id, before) == old
    assert await run(database, store.delete_upload, second.id, before) is None
    gone = await run(database, store.delete_upload, second.id, before + timedelta(days=1))
    assert gone == replace(second, update_time=before)
    kept = select(func.count()).select_from(manifest_files)
    rows = await database.in_tx(lambda connection: connection.execute(kept))
    assert rows.scalar_one() == 1  # `shared`, for `young`


async def test_committed_uploads_never_expire(database: Database) -> None:
    of = manifest(a="one")
    one = upload(of)
    await run(database, store.add_upload, one)
    await run(database, store.finish_upload, one.id, NOW)
    later = NOW + timedelta(days=99)
    assert await run(database, store.abandoned_uploads, later, 10) == []
    assert await run(database, store.delete_upload, one.id, later) is None
