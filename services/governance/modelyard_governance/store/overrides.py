"""Rows of overrides of gates."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.gate_models import Override
from modelyard_governance.models import GatedAction
from modelyard_governance.tables import gate_overrides
from modelyard_kit.access import Link, ResourceType

_row = gate_overrides.c


async def add(connection: AsyncConnection, override: Override) -> None:
    """Insert an override."""
    await connection.execute(
        insert(gate_overrides).values(
            id=override.id,
            version_id=override.version.id,
            version_name=override.version.name,
            action=override.action,
            aliases=list(override.aliases),
            reason=override.reason,
            principal_id=override.principal_id,
            principal=override.principal,
            create_time=override.create_time,
            expire_time=override.expire_time,
        )
    )


async def count_live(connection: AsyncConnection, version_id: str, *, now: datetime) -> int:
    """Return how many overrides of a version count now."""
    query = select(func.count()).where(_row.version_id == version_id, _row.expire_time > now)
    return int((await connection.execute(query)).scalar_one())


async def live(connection: AsyncConnection, version_id: str, *, now: datetime) -> list[Override]:
    """Return the overrides of a version that count now, the newest first."""
    query = (
        select(gate_overrides)
        .where(_row.version_id == version_id, _row.expire_time > now)
        .order_by(_row.create_time.desc())
    )
    return [
        Override(
            id=row.id,
            version=Link(ResourceType.MODEL_VERSION, row.version_id, row.version_name),
            action=GatedAction(row.action),
            aliases=tuple(row.aliases),
            reason=row.reason,
            principal_id=row.principal_id,
            principal=row.principal,
            create_time=row.create_time,
            expire_time=row.expire_time,
        )
        for row in await connection.execute(query)
    ]
