"""What is stored, counted and walked through. Inside a transaction that the rules opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.selectable import Select

from modelyard_artifact.blobs.marks import Mark
from modelyard_artifact.models import Blob
from modelyard_artifact.tables import (
    artifacts,
    blobs,
    condemned_blobs,
    installation,
    manifest_files,
    uploads,
)
from modelyard_kit.ids import new_id

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_USERS = 100


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is stored: numbers, and sizes in bytes."""

    artifact_count: int
    logical_size: int
    blob_count: int
    stored_size: int
    used_size: int
    open_upload_count: int
    unreferenced_blob_count: int
    unreferenced_size: int

    @property
    def deduplication_ratio(self) -> float:
        """Size of all artifacts by the size of the blobs they use; 1 if there are none."""
        return self.logical_size / self.used_size if self.used_size else 1.0


async def statistics(connection: AsyncConnection) -> Statistics:
    """Counts everything; reads whole tables."""
    artifact_count, logical_size = await _sums(connection, artifacts.c.size)
    blob_count, stored_size = await _sums(connection, blobs.c.size)
    of_artifact = exists().where(
        manifest_files.c.sha256 == blobs.c.sha256, manifest_files.c.digest == artifacts.c.digest
    )
    _, used_size = await _sums(connection, blobs.c.size, of_artifact)
    named = exists().where(manifest_files.c.sha256 == blobs.c.sha256)
    unnamed_count, unnamed_size = await _sums(connection, blobs.c.size, ~named)
    condemned_count, condemned_size = await _sums(connection, condemned_blobs.c.size)
    open_uploads = select(func.count()).where(uploads.c.state == "OPEN")
    return Statistics(
        artifact_count=artifact_count,
        logical_size=logical_size,
        blob_count=blob_count + condemned_count,
        stored_size=stored_size + condemned_size,
        used_size=used_size,
        open_upload_count=int((await connection.execute(open_uploads)).scalar_one()),
        unreferenced_blob_count=unnamed_count + condemned_count,
        unreferenced_size=unnamed_size + condemned_size,
    )


async def read_installation(connection: AsyncConnection) -> Mark:
    """What the mark of this installation's blob store says; the id is made when it is asked for the first time."""
    await connection.execute(insert(installation).values(id=new_id()).on_conflict_do_nothing())
    row = (await connection.execute(select(installation))).one()
    return Mark(row.id, row.moves, complete=True)


async def set_moves(connection: AsyncConnection, moves: int) -> None:
    """Remembers how often the content has moved."""
    await connection.execute(update(installation).values(moves=moves))


async def newest(connection: AsyncConnection, limit: int) -> list[Blob]:
    """The blobs that were stored last. Reads the whole table."""
    query = select(blobs.c.sha256, blobs.c.size).where(~blobs.c.damaged)
    rows = await connection.execute(query.order_by(blobs.c.create_time.desc()).limit(limit))
    return [Blob(row.sha256, row.size) for row in rows]


async def totals(connection: AsyncConnection, digest: str) -> tuple[int, int] | None:
    """Number and bytes of blobs, of an artifact or all; None if there is no such artifact."""
    if digest:
        known = select(artifacts.c.digest).where(artifacts.c.digest == digest)
        if (await connection.execute(known)).one_or_none() is None:
            return None
    chosen = _chosen(digest).subquery()
    query = select(func.count(), func.coalesce(func.sum(chosen.c.size), 0))
    row = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])


async def page(connection: AsyncConnection, digest: str, after: str, limit: int) -> list[Blob]:
    """Blobs of an artifact, or all, by hash, those after a hash."""
    query = _chosen(digest).where(blobs.c.sha256 > after).order_by(blobs.c.sha256).limit(limit)
    return [Blob(row.sha256, row.size) for row in await connection.execute(query)]


async def note_damaged(connection: AsyncConnection, sha256: str) -> None:
    """Note that the content of a blob was thrown away, so that uploads which name it are asked for it."""
    await connection.execute(update(blobs).where(blobs.c.sha256 == sha256).values(damaged=True))


async def users(connection: AsyncConnection, sha256: str) -> list[str] | None:
    """Digests of artifacts that use a blob, the first 100; None if the blob is not there any more."""
    known = select(blobs.c.sha256).where(blobs.c.sha256 == sha256)
    if (await connection.execute(known)).one_or_none() is None:
        return None
    query = (
        select(manifest_files.c.digest)
        .distinct()
        .join(artifacts, artifacts.c.digest == manifest_files.c.digest)
        .where(manifest_files.c.sha256 == sha256)
    )
    return list((await connection.execute(query.order_by(manifest_files.c.digest).limit(_USERS))).scalars())


def _chosen(digest: str) -> Select[Any]:
    query = select(blobs.c.sha256, blobs.c.size)
    if not digest:
        return query
    return query.where(
        exists().where(manifest_files.c.digest == digest, manifest_files.c.sha256 == blobs.c.sha256)
    )


async def _sums(connection: AsyncConnection, size: Any, *where: Any) -> tuple[int, int]:
    query = select(func.count(), func.coalesce(func.sum(size), 0)).where(*where)
    row = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])
