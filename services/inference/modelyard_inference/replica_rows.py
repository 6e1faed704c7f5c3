"""Replicas in PostgreSQL, for those who read what they are doing. Every function runs in the caller's transaction."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import rows
from modelyard_inference.models import Group, Replica
from modelyard_inference.tables import groups, replicas


async def of_deployment(connection: AsyncConnection, deployment_id: str) -> list[Replica]:
    """Return the replicas of a deployment, oldest first."""
    query = sa.select(replicas).where(replicas.c.deployment_id == deployment_id).order_by(replicas.c.id)
    return list(map(rows.replica, (await connection.execute(query)).mappings()))


async def running(connection: AsyncConnection, deployment_id: str) -> list[tuple[Replica, Group]]:
    """Return the replicas of a deployment with their groups, oldest first."""
    query = sa.select(groups).where(groups.c.deployment_id == deployment_id)
    found = {group.id: group for group in map(rows.group, (await connection.execute(query)).mappings())}
    return [(replica, found[replica.group_id]) for replica in await of_deployment(connection, deployment_id)]
