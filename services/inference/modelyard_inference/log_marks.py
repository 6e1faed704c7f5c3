"""How far the logs of predictions have come to a destination, in PostgreSQL. Every function runs in the caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.log_files import Position
from modelyard_inference.tables import deployments, groups, log_marks, replicas


@dataclass(frozen=True)
class Mark:
    """How far one log of a replica has come."""

    position: Position
    next_number: int
    """Number of the line that is expected next; 0 if none is, because lines were not meant for the destination for a while."""


@dataclass(frozen=True)
class Writer:
    """A replica whose logs are wanted at a destination."""

    replica_id: str
    deployment: str
    model_version: str
    shadow: bool
    marks: Mapping[str, Mark]
    """By log."""


async def writers(connection: AsyncConnection, destination: str, replica_id: str = "") -> list[Writer]:
    """Return the replicas whose deployment wants its logs at a destination; only one of them if it is named."""
    query = (
        sa.select(replicas.c.id, deployments.c.name, groups.c.version, groups.c.shadow)
        .join(deployments, deployments.c.id == replicas.c.deployment_id)
        .join(groups, groups.c.id == replicas.c.group_id)
        .where(_wanted(destination))
    )
    kept = sa.select(log_marks).where(log_marks.c.destination == destination)
    if replica_id:
        query, kept = (
            query.where(replicas.c.id == replica_id),
            kept.where(log_marks.c.replica_id == replica_id),
        )
    marks: dict[str, dict[str, Mark]] = defaultdict(dict)
    for row in await connection.execute(kept):
        marks[row.replica_id][row.log] = Mark(Position(row.inode, row.read_to, row.begin), row.next_number)
    return [
        Writer(row.id, row.name, row.version["name"], row.shadow, marks.get(row.id, {}))
        for row in await connection.execute(query)
    ]


async def set_mark(
    connection: AsyncConnection, replica_id: str, destination: str, log: str, mark: Mark
) -> None:
    """Note how far a log has come; nothing of a replica that is gone meanwhile."""
    there = (
        sa.select(replicas.c.id).where(replicas.c.id == replica_id).with_for_update(read=True, key_share=True)
    )
    if (await connection.execute(there)).first() is None:
        return
    at = mark.position
    values = {
        "inode": at.inode,
        "read_to": at.offset,
        "begin": at.begin,
        "next_number": mark.next_number,
    }
    insert = upsert(log_marks).values(replica_id=replica_id, destination=destination, log=log, **values)
    keys = ["replica_id", "destination", "log"]
    await connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=values))


async def expect_nothing(connection: AsyncConnection, destination: str) -> None:
    """Note where lines are not meant for a destination any more, so that nobody misses them there."""
    off = (
        sa.select(replicas.c.id)
        .join(deployments, deployments.c.id == replicas.c.deployment_id)
        .where(~_wanted(destination))
    )
    await connection.execute(
        sa.update(log_marks)
        .where(
            log_marks.c.destination == destination,
            log_marks.c.next_number != 0,
            log_marks.c.replica_id.in_(off),
        )
        .values(next_number=0)
    )


def _wanted(destination: str) -> sa.ColumnElement[bool]:
    found: sa.ColumnElement[bool] = deployments.c.log_policy[destination].as_boolean()
    return found
