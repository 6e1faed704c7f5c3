"""The rows of the life of bytes: who uses an artifact, and which blobs go. Inside a transaction that the rules opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, TEXT, insert

from modelyard_artifact.models import Blob
from modelyard_artifact.store import remove_manifest
from modelyard_artifact.tables import (
    artifact_models,
    artifact_references,
    artifacts,
    blobs,
    condemned_blobs,
    manifest_files,
    requests,
    uploads,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection

_CONDEMN = text(
    "WITH gone AS (DELETE FROM blobs WHERE sha256 = ANY(:hashes) AND NOT EXISTS"
    " (SELECT FROM manifest_files WHERE manifest_files.sha256 = blobs.sha256) RETURNING sha256, size)"
    " INSERT INTO condemned_blobs (sha256, size) SELECT sha256, size FROM gone ON CONFLICT DO NOTHING RETURNING size"
).bindparams(bindparam("hashes", type_=ARRAY(TEXT)))

_CONDEMN_UNRECORDED = text(
    "INSERT INTO condemned_blobs (sha256, size) SELECT sha256, size FROM unnest(:hashes, :sizes) AS stored(sha256, size)"
    " WHERE NOT EXISTS (SELECT FROM blobs WHERE blobs.sha256 = stored.sha256)"
    " AND NOT EXISTS (SELECT FROM manifest_files WHERE manifest_files.sha256 = stored.sha256)"
    " ON CONFLICT DO NOTHING RETURNING size"
).bindparams(bindparam("hashes", type_=ARRAY(TEXT)), bindparam("sizes", type_=ARRAY(BIGINT)))


@dataclass(frozen=True, slots=True)
class Unused:
    """An artifact that nobody refers to."""

    digest: str
    size: int
    since: datetime


async def hold(connection: AsyncConnection, digest: str, model_ids: Sequence[str]) -> bool:
    """Keeps an artifact of one of these models from being collected; False if there is none."""
    of_model = exists().where(
        artifact_models.c.digest == artifacts.c.digest, artifact_models.c.model_id.in_(model_ids)
    )
    change = update(artifacts).where(artifacts.c.digest == digest, of_model).values(unreferenced_since=None)
    return (await connection.execute(change)).rowcount == 1


async def add_reference(
    connection: AsyncConnection, digest: str, model_version_id: str, now: datetime
) -> None:
    """Notes that a version has, or is about to get, an artifact."""
    values = {"digest": digest, "model_version_id": model_version_id, "create_time": now}
    again = insert(artifact_references).values(values)
    await connection.execute(
        again.on_conflict_do_update(index_elements=["digest", "model_version_id"], set_={"create_time": now})
    )


async def pardon(connection: AsyncConnection, digest: str) -> None:
    """Stops the deletion of blobs of a manifest, and waits for one that is being deleted.

    They stay missing: a crash may have come between the deletion of their content and the end of its transaction.
    """
    named = select(manifest_files.c.sha256).where(manifest_files.c.digest == digest)
    await connection.execute(delete(condemned_blobs).where(condemned_blobs.c.sha256.in_(named)))


async def unchecked(connection: AsyncConnection, before: datetime, limit: int) -> list[str]:
    """Digests of artifacts about which the catalog was not asked since `before`, the longest ago first."""
    query = select(artifacts.c.digest).where(artifacts.c.check_time < before)
    return list((await connection.execute(query.order_by(artifacts.c.check_time).limit(limit))).scalars())


async def mark_used(connection: AsyncConnection, digests: Sequence[str], now: datetime) -> None:
    """Notes that versions have these artifacts."""
    change = update(artifacts).where(artifacts.c.digest.in_(digests))
    await connection.execute(change.values(unreferenced_since=None, check_time=now))


async def mark_unused(
    connection: AsyncConnection, digests: Sequence[str], now: datetime, before: datetime
) -> None:
    """Notes that no version has these artifacts; references made since `before` may still be on their way to one."""
    await _lock(connection, digests)
    await connection.execute(
        delete(artifact_references).where(
            artifact_references.c.digest.in_(digests), artifact_references.c.create_time < before
        )
    )
    change = update(artifacts).where(artifacts.c.digest.in_(digests))
    await connection.execute(change.values(check_time=now))
    newly = change.where(artifacts.c.unreferenced_since.is_(None), ~_referenced())
    await connection.execute(newly.values(unreferenced_since=now))


async def collectable(connection: AsyncConnection, before: datetime, after: str, limit: int) -> list[Unused]:
    """Artifacts that nobody refers to since `before`, by digest, those after a digest."""
    query = (
        select(artifacts.c.digest, artifacts.c.size, artifacts.c.unreferenced_since)
        .where(artifacts.c.unreferenced_since < before, ~_referenced(), artifacts.c.digest > after)
        .order_by(artifacts.c.digest)
        .limit(limit)
    )
    rows = await connection.execute(query)
    return [Unused(row.digest, row.size, row.unreferenced_since) for row in rows]


async def remove_artifact(connection: AsyncConnection, digest: str, before: datetime) -> bool:
    """Removes an artifact that nobody refers to since `before`; False if somebody came. Under `lock_manifests`."""
    await _lock(connection, [digest])
    # A statement of its own: it sees references that were made while the lock was waited for.
    still = select(artifacts.c.digest).where(
        artifacts.c.digest == digest, artifacts.c.unreferenced_since < before, ~_referenced()
    )
    if (await connection.execute(still)).one_or_none() is None:
        return False
    ended = select(uploads.c.id).where(uploads.c.digest == digest, uploads.c.state == "COMMITTED")
    await connection.execute(delete(requests).where(requests.c.resource_id.in_(ended)))
    await connection.execute(
        delete(uploads).where(uploads.c.digest == digest, uploads.c.state == "COMMITTED")
    )
    await connection.execute(delete(artifact_models).where(artifact_models.c.digest == digest))
    await connection.execute(delete(artifacts).where(artifacts.c.digest == digest))
    await remove_manifest(connection, digest)
    return True


async def unnamed_blobs(
    connection: AsyncConnection, after: str, limit: int, *, without: Sequence[str] = ()
) -> list[Blob]:
    """Blobs that no manifest names, or only manifests of the artifacts `without`, by hash, those after a hash."""
    named = exists().where(manifest_files.c.sha256 == blobs.c.sha256)
    if without:
        named = named.where(manifest_files.c.digest.not_in(without))
    query = select(blobs.c.sha256, blobs.c.size).where(~named, blobs.c.sha256 > after)
    rows = await connection.execute(query.order_by(blobs.c.sha256).limit(limit))
    return [Blob(row.sha256, row.size) for row in rows]


async def condemn(connection: AsyncConnection, hashes: Sequence[str]) -> list[int]:
    """Takes those blobs out that no manifest names, and returns their sizes; under `lock_manifests`."""
    return list((await connection.execute(_CONDEMN, {"hashes": list(hashes)})).scalars())


async def condemn_unrecorded(connection: AsyncConnection, stored: Sequence[Blob]) -> list[int]:
    """Takes those out of stored blobs that have no row and that no manifest names, and returns their sizes; under `lock_manifests`."""
    rows = {"hashes": [blob.sha256 for blob in stored], "sizes": [blob.size for blob in stored]}
    return list((await connection.execute(_CONDEMN_UNRECORDED, rows)).scalars())


async def condemned(connection: AsyncConnection, limit: int) -> list[Blob]:
    """Blobs to be deleted."""
    rows = await connection.execute(select(condemned_blobs).order_by(condemned_blobs.c.sha256).limit(limit))
    return [Blob(row.sha256, row.size) for row in rows]


async def claim(connection: AsyncConnection, sha256: str) -> bool:
    """Reserves a condemned blob for its deletion until the transaction ends; False if it was pardoned or somebody is at it."""
    query = select(condemned_blobs.c.sha256).where(condemned_blobs.c.sha256 == sha256)
    return (await connection.execute(query.with_for_update(skip_locked=True))).one_or_none() is not None


async def forget(connection: AsyncConnection, sha256: str) -> None:
    """Removes a condemned blob whose content is gone."""
    await connection.execute(delete(condemned_blobs).where(condemned_blobs.c.sha256 == sha256))


async def _lock(connection: AsyncConnection, digests: Sequence[str]) -> None:
    query = select(artifacts.c.digest).where(artifacts.c.digest.in_(digests)).order_by(artifacts.c.digest)
    await connection.execute(query.with_for_update())


def _referenced() -> ColumnElement[bool]:
    condition: Any = exists().where(artifact_references.c.digest == artifacts.c.digest)
    return condition  # type: ignore[no-any-return]


async def count_condemned(connection: AsyncConnection) -> tuple[int, int]:
    """Number and bytes of blobs to be deleted."""
    query = select(func.count(), func.coalesce(func.sum(condemned_blobs.c.size), 0))
    row = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])
