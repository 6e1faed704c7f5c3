"""What replicas were told to write down, in PostgreSQL. Every function runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.models import ReplicaState
from modelyard_inference.tables import deployments, log_switches, replicas
from modelyard_kit.prepared import Prepared

_MOST = 1_000
"""Replicas that are looked at together; the others' turn is next."""


@dataclass(frozen=True)
class Switched:
    """A process that writes something else down than its deployment wants, or of which nobody knows."""

    replica_id: str
    process_started: str
    address: str
    policy: LogPolicy
    """What its deployment wants."""


def _to_be_told() -> sa.Select[Any]:
    told = sa.and_(
        log_switches.c.replica_id == replicas.c.id,
        log_switches.c.process_started == replicas.c.process_started,
        log_switches.c.policy == deployments.c.log_policy,
    )
    return (
        sa.select(replicas.c.id, replicas.c.process_started, replicas.c.address, deployments.c.log_policy)
        .join(deployments, deployments.c.id == replicas.c.deployment_id)
        .where(replicas.c.state == ReplicaState.READY, ~sa.exists().where(told))
        .order_by(sa.func.random())  # none that does not listen keeps others waiting
        .limit(_MOST)
    )


_TO_BE_TOLD = Prepared(_to_be_told())


async def to_be_told(connection: AsyncConnection) -> list[Switched]:
    """Return processes that answer and were not told yet what their deployment wants to be written down."""
    return [
        Switched(row.id, row.process_started, row.address, LogPolicy.from_json(row.log_policy))
        for row in await _TO_BE_TOLD.execute(connection, {})
    ]


async def note(connection: AsyncConnection, switched: Sequence[Switched]) -> None:
    """Note what processes were told; of replicas that are gone meanwhile nothing is noted."""
    ids = [one.replica_id for one in switched]
    query = sa.select(replicas.c.id).where(replicas.c.id.in_(ids)).with_for_update(read=True, key_share=True)
    there = set((await connection.execute(query)).scalars())
    rows = [
        {"replica_id": one.replica_id, "process_started": one.process_started, "policy": asdict(one.policy)}
        for one in switched
        if one.replica_id in there
    ]
    if rows:
        insert = upsert(log_switches)
        new = {name: insert.excluded[name] for name in ("process_started", "policy")}
        await connection.execute(insert.on_conflict_do_update(index_elements=["replica_id"], set_=new), rows)
