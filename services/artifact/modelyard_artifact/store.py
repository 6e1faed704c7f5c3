"""The rows of the artifact service. Every function runs inside a transaction that the rules opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TEXT, insert

from modelyard_artifact.fields import FILES
from modelyard_artifact.models import Artifact, Blob, FileEntry, Upload, UploadState
from modelyard_artifact.tables import artifact_models, artifacts, blobs, manifest_files, requests, uploads
from modelyard_kit.filters import Asked, fetch

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.models import Manifest

_INSERT_FILES = text(
    "INSERT INTO manifest_files (digest, path, sha256, size)"
    " SELECT :digest, * FROM unnest(:paths, :hashes, :sizes) ON CONFLICT DO NOTHING"
).bindparams(
    bindparam("digest", type_=TEXT),
    bindparam("paths", type_=ARRAY(TEXT)),
    bindparam("hashes", type_=ARRAY(TEXT)),
    bindparam("sizes", type_=ARRAY(BIGINT)),
)


async def add_manifest(connection: AsyncConnection, manifest: Manifest) -> None:
    """Writes what the digest means; nothing where it is written already."""
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


async def delete_upload(connection: AsyncConnection, upload_id: str, before: datetime) -> bool:
    """Deletes an open upload that nobody worked on since `before`, and its manifest if nobody else needs it."""
    gone = delete(uploads).where(uploads.c.id == upload_id, _is_open(), uploads.c.update_time < before)
    digest = (await connection.execute(gone.returning(uploads.c.digest))).scalar_one_or_none()
    if digest is None:
        return False
    await connection.execute(delete(requests).where(requests.c.resource_id == upload_id))
    needed = exists().where(artifacts.c.digest == digest) | exists().where(uploads.c.digest == digest)
    await connection.execute(delete(manifest_files).where(manifest_files.c.digest == digest, ~needed))
    return True


async def missing_blobs(connection: AsyncConnection, digest: str) -> list[Blob]:
    """The content of a manifest that is not stored, each once, in the order of first use."""
    query = _missing(digest).group_by(manifest_files.c.sha256, manifest_files.c.size)
    rows = await connection.execute(query.order_by(func.min(manifest_files.c.path)))
    return [Blob(row.sha256, row.size) for row in rows]


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


async def add_blob(connection: AsyncConnection, blob: Blob, now: datetime) -> None:
    """Notes that the blob store has this content; harmless when that was noted before."""
    values = insert(blobs).values(sha256=blob.sha256, size=blob.size, create_time=now)
    await connection.execute(values.on_conflict_do_nothing())


async def add_artifact(connection: AsyncConnection, digest: str, now: datetime) -> None:
    """Writes the artifact of a manifest; nothing if it was committed before."""
    totals = select(
        manifest_files.c.digest, func.count(), func.sum(manifest_files.c.size), bindparam("now", now)
    ).where(manifest_files.c.digest == digest)
    columns = ["digest", "file_count", "size", "create_time"]
    values = insert(artifacts).from_select(columns, totals.group_by(manifest_files.c.digest))
    await connection.execute(values.on_conflict_do_nothing())


async def add_artifact_model(connection: AsyncConnection, digest: str, model_id: str, now: datetime) -> None:
    """Notes for which model an artifact was committed."""
    values = insert(artifact_models).values(digest=digest, model_id=model_id, create_time=now)
    await connection.execute(values.on_conflict_do_nothing())


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


async def page_of_files(
    connection: AsyncConnection, digest: str, asked: Asked
) -> tuple[list[FileEntry], str]:
    """A page of the files of a manifest, and the token of the next one."""
    query = select(manifest_files).where(manifest_files.c.digest == digest)
    rows, token = await fetch(connection, query, asked, FILES, scope=digest)
    return [FileEntry(row["path"], row["size"], row["sha256"]) for row in rows], token


async def get_file(connection: AsyncConnection, digest: str, path: str) -> FileEntry | None:
    """One file of a manifest."""
    query = select(manifest_files).where(manifest_files.c.digest == digest, manifest_files.c.path == path)
    row = (await connection.execute(query)).one_or_none()
    return FileEntry(row.path, row.size, row.sha256) if row else None


def _missing(digest: str) -> Select[Any]:
    return (
        select(manifest_files.c.sha256, manifest_files.c.size)
        .select_from(manifest_files.outerjoin(blobs, _same_content()))
        .where(manifest_files.c.digest == digest, blobs.c.sha256.is_(None))
    )


def _same_content() -> ColumnElement[bool]:
    # The size too: a manifest that announces a wrong size for known content can never be committed.
    return and_(blobs.c.sha256 == manifest_files.c.sha256, blobs.c.size == manifest_files.c.size)


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
    )
