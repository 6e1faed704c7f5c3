"""Rows of the audit chain. There is no function that changes or removes one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import AUDIT
from modelyard_governance.models import Entry
from modelyard_governance.tables import audit, audit_head
from modelyard_kit.filters import Asked, fetch

_columns = (
    audit.c.sequence,
    audit.c.event_id,
    audit.c.resource_id,
    audit.c.canonical_event,
    audit.c.previous_hash,
    audit.c.hash,
)


async def lock_head(connection: AsyncConnection) -> tuple[int, bytes]:
    """Return sequence and hash of the last entry; other appenders wait until this transaction ends."""
    return await _head(connection, lock=True)


async def head(connection: AsyncConnection) -> tuple[int, bytes]:
    """Return sequence and hash of the last entry; 0 and zeros before the first."""
    return await _head(connection, lock=False)


async def _head(connection: AsyncConnection, *, lock: bool) -> tuple[int, bytes]:
    query = select(audit_head.c.sequence, audit_head.c.hash)
    row = (await connection.execute(query.with_for_update() if lock else query)).one()
    return row.sequence, row.hash


async def known(connection: AsyncConnection, event_ids: Iterable[str]) -> frozenset[str]:
    """Return which of these events are in the chain."""
    query = select(audit.c.event_id).where(audit.c.event_id.in_(list(event_ids)))
    return frozenset((await connection.execute(query)).scalars())


async def append(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Append entries that continue the head, which must be locked."""
    if not entries:
        return
    await connection.execute(insert(audit), [asdict(entry) for entry in entries])
    await connection.execute(update(audit_head).values(sequence=entries[-1].sequence, hash=entries[-1].hash))


async def entries(connection: AsyncConnection, *, after: int, limit: int) -> list[Entry]:
    """Return entries in order, from the one after sequence `after`."""
    query = select(*_columns).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(limit)
    return [Entry(*row) for row in await connection.execute(query)]


async def page(connection: AsyncConnection, asked: Asked, resource_id: str) -> tuple[list[Entry], str]:
    """Return a page of entries, of one resource if it is named, and the token of the next."""
    query = select(*_columns)
    if resource_id:
        query = query.where(audit.c.resource_id == resource_id)
    rows, token = await fetch(connection, query, asked, AUDIT, scope=resource_id)
    return [Entry(*(row[column] for column in _columns)) for row in rows], token
