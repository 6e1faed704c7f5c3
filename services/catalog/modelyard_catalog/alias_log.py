"""The history of aliases in PostgreSQL: what `CatalogStore.move_aliases` appended, read back.

Every function runs in the caller's transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.fields import ALIAS_MOVES
from modelyard_catalog.models import RecordedMove
from modelyard_catalog.tables import alias_history
from modelyard_kit.filters import Asked, fetch

_COLUMNS = (
    alias_history.c.sequence,
    alias_history.c.alias,
    alias_history.c.number_before,
    alias_history.c.number_after,
    alias_history.c.actor_name,
    alias_history.c.time,
)


async def page(
    connection: AsyncConnection, model_id: str, alias: str, asked: Asked
) -> tuple[list[RecordedMove], str]:
    """Return a page of the moves of a model's aliases, or of one, newest first, and the token of the next."""
    rows, token = await fetch(
        connection, _moves(model_id, alias), asked, ALIAS_MOVES, scope=f"{model_id} {alias}"
    )
    return [RecordedMove(*(row[column] for column in _COLUMNS)) for row in rows], token


async def last(
    connection: AsyncConnection, model_id: str, alias: str, *, until: datetime | None = None
) -> RecordedMove | None:
    """Return the last move of an alias, at `until` at the latest; None if it was never moved."""
    query = _moves(model_id, alias).order_by(alias_history.c.sequence.desc()).limit(1)
    if until is not None:
        query = query.where(alias_history.c.time <= until)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else RecordedMove(*row)


def _moves(model_id: str, alias: str) -> Select[Any]:
    query = select(*_COLUMNS).where(alias_history.c.model_id == model_id)
    return query.where(alias_history.c.alias == alias) if alias else query
