"""How many replicas groups should have, in PostgreSQL. Every function runs in the caller's transaction."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.scaling import Scale
from modelyard_inference.tables import groups


async def set_scale(connection: AsyncConnection, group_id: str, scale: Scale | None) -> None:
    """Write what was decided about a group; None forgets it."""
    statement = sa.update(groups).where(groups.c.id == group_id)
    await connection.execute(statement.values(scale=scale.to_json() if scale else None))
