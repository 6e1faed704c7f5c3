"""The rows of the artifact service. Every function runs inside a transaction that the rules opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    and_,
    any_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TEXT, aggregate_order_by, insert

from modelyard_artifact.fields import FILES
from modelyard_artifact.models import Artifact, Blob, FileEntry, Upload, UploadState
from modelyard_artifact.tables import artifact_models, artifacts, blobs, manifest_files, requests, uploads
from modelyard_kit.filters import Asked, fetch
from modelyard_kit.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import CollectionAggregate
    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.models import Manifest

_INSERT_FILES = text(
    "INSERT INTO manifest_files (digest, path, sha256, size)"
    " SELECT :digest, * FROM unnest(:paths, :hashes, :sizes)"
    " WHERE NOT EXISTS (SELECT FROM manifest_files WHERE digest = :digest)"
).bindparams(
    bindparam("digest", type_=TEXT),
    bindparam("paths", type_=ARRAY(TEXT)),
    bindparam("hashes", type_=ARRAY(TEXT)),
    bindparam("sizes", type_=ARRAY(BIGINT)),
)

_INSERT_BLOBS = text(
    "INSERT INTO blobs (sha256, size, create_time)"
    " SELECT *, :now FROM unnest(:hashes, :sizes)"
    " ON CONFLICT (sha256) DO UPDATE SET damaged = false WHERE blobs.damaged"
).bindparams(
    bindparam("hashes", type_=ARRAY(TEXT)),
    bindparam("sizes", type_=ARRAY(BIGINT)),
    bindparam("now", type_=DateTime(timezone=True)),
)


async def lock_manifests(connection: AsyncConnection, *, removing: bool) -> None:
    """Keeps those who add manifests and those who remove manifests or judge blobs by them out of each other's way.

    It must come first in a transaction: only then does what is read afterwards include all that others did before.

    Args:
        connection: the transaction, in which nothing was read yet.
        removing: whether it removes; any number of others add at once.
    """
    mode = "SHARE ROW EXCLUSIVE" if removing else "ROW EXCLUSIVE"
    await connection.execute(text(f"LOCK TABLE manifest_files IN {mode} MODE"))


async def add_manifest(connection: AsyncConnection, manifest: Manifest) -> None:
    """Writes what the digest means; nothing where it is written already. In a serializable transaction, as it looks first.

    Looking once costs less than ON CONFLICT does for each of 100,000 rows.
    """
    await connection.execute(
        _INSERT_FILES,
        {
            "digest": manifest.digest,
            "paths": [file.path for file in manifest.files],
            "hashes": [file.sha256 for file in manifest.files],
            "sizes": [file.size for file in manifest.files],
        },
    )


async def add_upload(connection: AsyncConnection, upload: Upload) -> None:
    """Writes a new upload."""
    await connection.execute(
        insert(uploads).values(
            id=upload.id,
            model_id=upload.model_id,
            model=upload.model,
            principal_id=upload.principal_id,
            digest=upload.digest,
            state=upload.state.value,
            create_time=upload.create_time,
            update_time=upload.create_time,
        )
    )


async def count_open_uploads(connection: AsyncConnection, principal_id: str) -> int:
    """Number of uploads of a principal that are not committed."""
    query = select(func.count()).where(uploads.c.principal_id == principal_id, _is_open())
    return int((await connection.execute(query)).scalar_one())


async def get_upload(
    connection: AsyncConnection, upload_id: str, principal_id: str, *, lock: bool = False
) -> Upload | None:
    """Reads an upload of this principal; `lock` keeps others from changing it until the transaction ends."""
    query = select(uploads).where(uploads.c.id == upload_id, uploads.c.principal_id == principal_id)
    if lock:
        query = query.with_for_update()
    row = (await connection.execute(query)).one_or_none()
    return _upload(row) if row else None


async def keep_upload(connection: AsyncConnection, upload_id: str) -> bool:
    """Keeps an upload from being removed until the transaction ends; False if it is gone."""
    query = select(uploads.c.id).where(uploads.c.id == upload_id)
    kept = await connection.execute(query.with_for_update(read=True, key_share=True))
    return kept.one_or_none() is not None


async def touch_upload(connection: AsyncConnection, upload_id: str, now: datetime) -> None:
    """Notes that somebody works on the upload, so that it does not expire."""
    await connection.execute(update(uploads).where(uploads.c.id == upload_id).values(update_time=now))


async def finish_upload(connection: AsyncConnection, upload_id: str, now: datetime) -> None:
    """Marks an upload as committed."""
    change = update(uploads).where(uploads.c.id == upload_id)
    await connection.execute(change.values(state=UploadState.COMMITTED.value, update_time=now))


async def abandoned_uploads(connection: AsyncConnection, before: datetime, limit: int) -> list[str]:
    """Ids of open uploads that nobody worked on since `before`, oldest first."""
    query = select(uploads.c.id).where(_is_open(), uploads.c.update_time < before)
    rows = await connection.execute(query.order_by(uploads.c.update_time).limit(limit))
    return [row.id for row in rows]


async def open_uploads(connection: AsyncConnection, upload_ids: Sequence[str]) -> set[str]:
    """Those of some uploads that take bytes."""
    query = select(uploads.c.id).where(uploads.c.id.in_(upload_ids), _is_open())
    return set((await connection.execute(query)).scalars())


async def delete_upload(
    connection: AsyncConnection, upload_id: str, before: datetime | None = None
) -> Upload | None:
    """Deletes an open upload, if given only one that nobody worked on since `before`, and its manifest if nobody needs it.

    Returns:
        What it was; None if there is none.
    """
    gone = delete(uploads).where(uploads.c.id == upload_id, _is_open())
    if before is not None:
        gone = gone.where(uploads.c.update_time < before)
    row = (await connection.execute(gone.returning(uploads))).one_or_none()
    if row is None:
        return None
    await connection.execute(delete(requests).where(requests.c.resource_id == upload_id))
    await remove_manifest(connection, row.digest)
    return _upload(row)


async def remove_manifest(connection: AsyncConnection, digest: str) -> None:
    """Forgets what a digest means unless an artifact or an upload still needs it; under `lock_manifests`."""
    needed = exists().where(artifacts.c.digest == digest) | exists().where(uploads.c.digest == digest)
    await connection.execute(delete(manifest_files).where(manifest_files.c.digest == digest, ~needed))


async def missing_blobs(connection: AsyncConnection, digest: str) -> list[Blob]:
    """The content of a manifest that is not stored, each once, in the order of first use."""
    [row] = await _MISSING.execute(connection, {"digest": digest})
    sizes = dict(zip(row.hashes or (), row.sizes or (), strict=True))
    return [Blob(sha256, size) for sha256, size in sizes.items()]


async def announced_blob(connection: AsyncConnection, digest: str, sha256: str) -> tuple[Blob, bool] | None:
    """The blob as a manifest announces it and whether it is stored; None if the manifest does not have it."""
    query = (
        select(manifest_files.c.size, blobs.c.sha256.is_not(None).label("stored"))
        .select_from(manifest_files.outerjoin(blobs, _same_content()))
        .where(manifest_files.c.digest == digest, manifest_files.c.sha256 == sha256)
        .limit(1)
    )
    row = (await connection.execute(query)).one_or_none()
    return (Blob(sha256, row.size), bool(row.stored)) if row else None


async def announced_blobs(
    connection: AsyncConnection, digest: str, hashes: Sequence[str]
) -> list[tuple[Blob, bool]]:
    """Those of some blobs that a manifest announces, each once, and whether they are stored."""
    rows = await _ANNOUNCED.execute(connection, {"digest": digest, "hashes": hashes})
    return [(Blob(row.sha256, row.size), row.stored) for row in rows]


async def add_blobs(connection: AsyncConnection, new: Sequence[Blob], now: datetime) -> None:
    """Notes that the blob store has these contents; harmless when that was noted before."""
    # In one order everywhere, so that two uploads of the same content wait for each other and never in a circle.
    ordered = sorted(new, key=lambda blob: blob.sha256)
    rows = {"hashes": [blob.sha256 for blob in ordered], "sizes": [blob.size for blob in ordered], "now": now}
    await connection.execute(_INSERT_BLOBS, rows)


async def count_blobs(connection: AsyncConnection) -> tuple[int, int]:
    """Number of recorded blobs, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(blobs.c.size), 0)).select_from(blobs)
    row = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])


async def list_blobs(connection: AsyncConnection, after: str, limit: int) -> list[Blob]:
    """Recorded blobs in the order of their hashes, those after a hash."""
    query = select(blobs.c.sha256, blobs.c.size).where(blobs.c.sha256 > after)
    rows = await connection.execute(query.order_by(blobs.c.sha256).limit(limit))
    return [Blob(row.sha256, row.size) for row in rows]


async def add_artifact(connection: AsyncConnection, digest: str, now: datetime) -> None:
    """Writes the artifact of a manifest, if it was not committed before."""
    totals = select(
        manifest_files.c.digest,
        func.count(),
        func.sum(manifest_files.c.size),
        bindparam("now", now),
        bindparam("since", now),
    ).where(manifest_files.c.digest == digest)
    columns = ["digest", "file_count", "size", "create_time", "unreferenced_since"]
    values = insert(artifacts).from_select(columns, totals.group_by(manifest_files.c.digest))
    # Committed again: its grace begins again too, unless it is referenced anyway.
    again = {"unreferenced_since": now}
    await connection.execute(
        values.on_conflict_do_update(
            index_elements=["digest"], set_=again, where=artifacts.c.unreferenced_since.is_not(None)
        )
    )


async def add_artifact_model(connection: AsyncConnection, digest: str, model_id: str, now: datetime) -> None:
    """Notes for which model an artifact was committed."""
    values = insert(artifact_models).values(digest=digest, model_id=model_id, create_time=now)
    await connection.execute(values.on_conflict_do_nothing())


async def models_of(connection: AsyncConnection, digest: str) -> set[str]:
    """Ids of the models that an artifact was committed for or copied to."""
    query = select(artifact_models.c.model_id).where(artifact_models.c.digest == digest)
    return set((await connection.execute(query)).scalars())


async def get_artifact(
    connection: AsyncConnection, digest: str, *, model_id: str | None = None
) -> Artifact | None:
    """Reads a committed artifact; with `model_id` only if it was committed for that model."""
    query = select(artifacts).where(artifacts.c.digest == digest)
    if model_id is not None:
        of_model = and_(artifact_models.c.digest == digest, artifact_models.c.model_id == model_id)
        query = query.where(exists().where(of_model))
    row = (await connection.execute(query)).one_or_none()
    return Artifact(row.digest, row.file_count, row.size, row.create_time) if row else None


async def list_files(connection: AsyncConnection, digest: str, after: str, limit: int) -> list[FileEntry]:
    """Files of a manifest in byte order of their paths, those after a path."""
    query = select(manifest_files).where(manifest_files.c.digest == digest, manifest_files.c.path > after)
    rows = await connection.execute(query.order_by(manifest_files.c.path).limit(limit))
    return [FileEntry(row.path, row.size, row.sha256) for row in rows]


async def page_of_files(
    connection: AsyncConnection, digest: str, asked: Asked
) -> tuple[list[FileEntry], str]:
    """A page of the files of a manifest, and the token of the next one."""
    query = select(manifest_files).where(manifest_files.c.digest == digest)
    rows, token = await fetch(connection, query, asked, FILES, scope=digest)
    return [FileEntry(row["path"], row["size"], row["sha256"]) for row in rows], token


async def get_files(connection: AsyncConnection, digest: str, paths: Sequence[str]) -> dict[str, FileEntry]:
    """Those of some files that a manifest has, by path."""
    query = select(manifest_files).where(
        manifest_files.c.digest == digest, manifest_files.c.path == _any(paths)
    )
    rows = await connection.execute(query)
    return {row.path: FileEntry(row.path, row.size, row.sha256) for row in rows}


async def get_file(connection: AsyncConnection, digest: str, path: str) -> FileEntry | None:
    """One file of a manifest."""
    query = select(manifest_files).where(manifest_files.c.digest == digest, manifest_files.c.path == path)
    row = (await connection.execute(query)).one_or_none()
    return FileEntry(row.path, row.size, row.sha256) if row else None


def _any(values: Sequence[str]) -> CollectionAggregate[bool]:
    # One parameter however many they are: thousands of them take longer to be written into the statement than to be found.
    return any_(bindparam(None, list(values), ARRAY(TEXT)))


def _same_content() -> ColumnElement[bool]:
    # The size too: a manifest that announces a wrong size for known content can never be committed.
    same = and_(blobs.c.sha256 == manifest_files.c.sha256, blobs.c.size == manifest_files.c.size)
    return and_(same, ~blobs.c.damaged)


def _in_order(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """All values of a column in the order of the manifest."""
    return func.array_agg(aggregate_order_by(column, manifest_files.c.path))


_ANNOUNCED = Prepared(
    select(manifest_files.c.sha256, manifest_files.c.size, blobs.c.sha256.is_not(None).label("stored"))
    .select_from(manifest_files.outerjoin(blobs, _same_content()))
    .where(
        manifest_files.c.digest == bindparam("digest"),
        manifest_files.c.sha256 == any_(bindparam("hashes", type_=ARRAY(TEXT))),
    )
    .distinct()
)

# Two arrays, because a row for each of 100,000 blobs takes several times as long to be read.
_MISSING = Prepared(
    select(
        _in_order(manifest_files.c.sha256).label("hashes"),
        _in_order(manifest_files.c.size).label("sizes"),
    )
    .select_from(manifest_files.outerjoin(blobs, _same_content()))
    .where(manifest_files.c.digest == bindparam("digest"), blobs.c.sha256.is_(None))
)


def _is_open() -> ColumnElement[bool]:
    # Written out, because the partial indexes are found only with a constant.
    return literal_column("state") == literal_column("'OPEN'")


def _upload(row: Any) -> Upload:
    return Upload(
        id=row.id,
        model_id=row.model_id,
        model=row.model,
        principal_id=row.principal_id,
        digest=row.digest,
        state=UploadState(row.state),
        create_time=row.create_time,
        update_time=row.update_time,
    )
