"""Shadows in PostgreSQL: who gets copies, and what came of comparing. Every function runs in the caller's transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.models import GroupState, ReplicaState
from modelyard_inference.shadow_counts import ShadowCounts
from modelyard_inference.tables import deployments, groups, replicas, shadow_counts
from modelyard_kit.prepared import Prepared

_NAMES = tuple(asdict(ShadowCounts()))


@dataclass(frozen=True)
class Shadowed:
    """A shadow that gets copies now."""

    deployment: str
    """Its name."""
    group_id: str
    timeout_seconds: float
    answering: tuple[str, ...]
    """Addresses of the replicas that callers hear."""
    copied: tuple[str, ...]
    """Addresses of its own replicas."""


def _shadowed() -> sa.Select[Any]:
    of_shadows = sa.select(groups.c.deployment_id).where(
        groups.c.shadow, groups.c.state == GroupState.SERVING
    )
    return (
        sa.select(
            groups.c.deployment_id,
            groups.c.id,
            groups.c.shadow,
            deployments.c.name,
            deployments.c.timeout_ms,
            replicas.c.address,
        )
        .join(replicas, replicas.c.group_id == groups.c.id)
        .join(deployments, deployments.c.id == groups.c.deployment_id)
        .where(
            groups.c.deployment_id.in_(of_shadows),
            sa.or_(groups.c.state == GroupState.SERVING, groups.c.state == GroupState.DRAINING),
            replicas.c.state == ReplicaState.READY,
        )
    )


_SHADOWED = Prepared(_shadowed())


async def shadowed(connection: AsyncConnection) -> list[Shadowed]:
    """Return every shadow that gets copies now, with the replicas of both sides."""
    found: dict[str, list[Any]] = defaultdict(list)
    for row in await _SHADOWED.execute(connection, {}):
        found[row.deployment_id].append(row)
    return [
        Shadowed(
            rows[0].name,
            group_id,
            rows[0].timeout_ms / 1000,
            tuple(row.address for row in rows if not row.shadow),
            tuple(row.address for row in rows if row.id == group_id),
        )
        for rows in found.values()
        for group_id in {row.id for row in rows if row.shadow}
    ]


async def count(connection: AsyncConnection, group_id: str, counts: ShadowCounts) -> None:
    """Add to the counts of a shadow, unless it is gone."""
    there = sa.select(groups.c.id).where(groups.c.id == group_id).with_for_update(read=True)
    if (await connection.execute(there)).one_or_none() is None:
        return
    statement = upsert(shadow_counts).values(group_id=group_id, **asdict(counts))
    sums = {name: shadow_counts.c[name] + statement.excluded[name] for name in _NAMES}
    await connection.execute(statement.on_conflict_do_update(index_elements=["group_id"], set_=sums))


async def counts_of(connection: AsyncConnection, ids: Sequence[str]) -> Mapping[str, ShadowCounts]:
    """Return what was counted for the shadows of deployments that get copies now, by id of the deployment."""
    query = (
        sa.select(groups.c.deployment_id, *(shadow_counts.c[name] for name in _NAMES))
        .join(groups, groups.c.id == shadow_counts.c.group_id)
        .where(groups.c.deployment_id.in_(ids), groups.c.state == GroupState.SERVING)
    )
    rows = (await connection.execute(query)).mappings()
    return {row["deployment_id"]: ShadowCounts(*(row[name] for name in _NAMES)) for row in rows}
