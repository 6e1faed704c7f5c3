"""What the lineage graph has yet to be told of deployments, in PostgreSQL. Every function runs in the caller's transaction.

A note is written in the transaction that makes it true, and is there once for each version of a deployment; those of a deployment
go when its end was told. So they survive whatever happens to this service or to the catalog, and do not pile up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.models import Deployment
from modelyard_inference.tables import lineage_notes
from modelyard_kit.prepared import Prepared

_PENDING = Prepared(
    sa.select(lineage_notes)
    .where(sa.not_(lineage_notes.c.told))
    .order_by(lineage_notes.c.time, lineage_notes.c.version_id.desc())
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_END = ""  # stands for the id of a version in the note of a deployment's end


@dataclass(frozen=True)
class Note:
    """What is to be told of one deployment: versions that came to answer for it, or that it was removed."""

    deployment_id: str
    name: str
    owner_id: str
    schema_id: str
    version_ids: tuple[str, ...]
    delete_time: datetime | None


async def answering(
    connection: AsyncConnection, deployment: Deployment, version_ids: Iterable[str], time: datetime
) -> None:
    """Note that versions answer for a deployment from now on, unless that was noted before."""
    await _write(connection, deployment, version_ids, time)


async def removed(connection: AsyncConnection, deployment: Deployment, time: datetime) -> None:
    """Note that a deployment is gone."""
    await _write(connection, deployment, [_END], time)


async def owned(connection: AsyncConnection, deployment: Deployment, time: datetime) -> None:
    """Note that a deployment has another owner, of which the graph is told with its versions once more."""
    c = lineage_notes.c
    values = {"owner_id": deployment.owner_id, "time": time, "told": False}
    await connection.execute(sa.update(lineage_notes).where(c.deployment_id == deployment.id).values(values))


async def pending(connection: AsyncConnection, limit: int) -> list[Note]:
    """Return what was not told yet, the oldest first, of `limit` rows at most."""
    by_deployment: dict[str, list[Any]] = {}
    for row in await _PENDING.execute(connection, {"limit": limit}):
        by_deployment.setdefault(row.deployment_id, []).append(row)
    return [_note(rows) for rows in by_deployment.values()]


async def told(connection: AsyncConnection, note: Note) -> None:
    """Note that the graph knows; of a deployment that is gone nothing more will come."""
    c = lineage_notes.c
    if note.delete_time is not None:
        await connection.execute(sa.delete(lineage_notes).where(c.deployment_id == note.deployment_id))
        return
    known = (c.deployment_id == note.deployment_id, c.version_id.in_(note.version_ids))
    await connection.execute(sa.update(lineage_notes).where(*known).values(told=True))


async def _write(
    connection: AsyncConnection, deployment: Deployment, version_ids: Iterable[str], time: datetime
) -> None:
    rows = [
        {
            "deployment_id": deployment.id,
            "version_id": version_id,
            "name": deployment.name,
            "owner_id": deployment.owner_id,
            "schema_id": deployment.schema_id,
            "time": time,
            "told": False,
        }
        for version_id in version_ids
    ]
    if rows:
        await connection.execute(upsert(lineage_notes).values(rows).on_conflict_do_nothing())


def _note(rows: list[sa.Row[tuple[object, ...]]]) -> Note:
    last = rows[-1]
    return Note(
        deployment_id=last.deployment_id,
        name=last.name,
        owner_id=last.owner_id,
        schema_id=last.schema_id,
        version_ids=tuple(row.version_id for row in rows if row.version_id != _END),
        delete_time=next((row.time for row in rows if row.version_id == _END), None),
    )
