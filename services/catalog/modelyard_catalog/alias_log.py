"""The history of aliases in PostgreSQL: what `CatalogStore.move_aliases` appended, read back.

Every function runs in the caller's transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.models import RecordedMove
from modelyard_catalog.tables import alias_history


async def page(
    connection: AsyncConnection, model_id: str, alias: str, *, before: int | None, limit: int
) -> list[RecordedMove]:
    """Return moves of a model's aliases, or of one, newest first, with sequences under `before`."""
    query = _moves(model_id, alias).limit(limit)
    if before is not None:
        query = query.where(alias_history.c.sequence < before)
    return [RecordedMove(*row) for row in await connection.execute(query)]


async def last(
    connection: AsyncConnection, model_id: str, alias: str, *, until: datetime | None = None
) -> RecordedMove | None:
    """Return the last move of an alias, at `until` at the latest; None if it was never moved."""
    query = _moves(model_id, alias).limit(1)
    if until is not None:
        query = query.where(alias_history.c.time <= until)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else RecordedMove(*row)


def _moves(model_id: str, alias: str) -> Select[Any]:
    history = alias_history.c
    query = select(
        history.sequence,
        history.alias,
        history.number_before,
        history.number_after,
        history.actor_name,
        history.time,
    )
    query = query.where(history.model_id == model_id).order_by(history.sequence.desc())
    return query.where(history.alias == alias) if alias else query
