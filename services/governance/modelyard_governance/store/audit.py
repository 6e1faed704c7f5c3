"""Rows of the audit chain. No function changes one, and only entries before the recorded beginning are removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    Insert,
    Text,
    any_,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.types import AuditCheckpoint, CheckpointPurpose
from modelyard_governance.fields import AUDIT
from modelyard_governance.models import ChainEnds, Entry
from modelyard_governance.tables import audit, audit_checkpoints, audit_head
from modelyard_kit.filters import Asked, fetch

_columns = (
    audit.c.sequence,
    audit.c.event_id,
    audit.c.resource_id,
    audit.c.canonical_event,
    audit.c.previous_hash,
    audit.c.hash,
)
# An array, so that PostgreSQL is not sent another statement for every number of events.
_KNOWN = select(audit.c.event_id).where(audit.c.event_id == any_(bindparam("ids", type_=ARRAY(Text))))


def _append() -> Insert:
    """Build an insert of any number of entries in one statement: one array for each column."""
    arrays = (bindparam(each.name, type_=ARRAY(each.type)) for each in _columns)
    rows = func.unnest(*arrays).table_valued(*(column(each.name, each.type) for each in _columns))
    return insert(audit).from_select(list(_columns), select(rows.render_derived(name="entry")))


_APPEND = _append()


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


async def ends(connection: AsyncConnection, *, lock: bool = False) -> ChainEnds:
    """Return where the chain begins and ends; with `lock`, appenders wait until this transaction ends."""
    query = select(audit_head)
    row = (await connection.execute(query.with_for_update() if lock else query)).one()
    return ChainEnds((row.anchor_sequence, row.anchor_hash), (row.sequence, row.hash))


async def known(connection: AsyncConnection, event_ids: Iterable[str]) -> frozenset[str]:
    """Return which of these events are in the chain."""
    return frozenset((await connection.execute(_KNOWN, {"ids": list(event_ids)})).scalars())


async def append(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Append entries that continue the head, which must be locked."""
    if not entries:
        return
    rows = {each.name: [getattr(entry, each.name) for entry in entries] for each in _columns}
    await connection.execute(_APPEND, rows)
    await connection.execute(update(audit_head).values(sequence=entries[-1].sequence, hash=entries[-1].hash))


async def entries(connection: AsyncConnection, *, after: int, limit: int) -> list[Entry]:
    """Return entries in order, from the one after sequence `after`."""
    query = select(*_columns).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(limit)
    return [Entry(*row) for row in await connection.execute(query)]


async def page(
    connection: AsyncConnection, asked: Asked, resource_id: str, subjects: Sequence[str] = ()
) -> tuple[list[Entry], str]:
    """Return a page of entries and the token of the next.

    Args:
        connection: the transaction.
        asked: filter, order and page.
        resource_id: only entries of this resource, if it is named.
        subjects: only entries about one of these versions, by id or name, if there are any.
    """
    query = select(*_columns)
    if resource_id:
        query = query.where(audit.c.resource_id == resource_id)
    if subjects:
        query = query.where(audit.c.subjects.bool_op("&&")(cast(list(subjects), ARRAY(Text))))
    rows, token = await fetch(connection, query, asked, AUDIT, scope="/".join((resource_id, *subjects[:1])))
    return [Entry(*(row[column] for column in _columns)) for row in rows], token


async def add_checkpoint(connection: AsyncConnection, checkpoint: AuditCheckpoint) -> None:
    """Keep a checkpoint; one of the same entry that is there already stays."""
    values = {
        "sequence": checkpoint.sequence,
        "hash": bytes.fromhex(checkpoint.hash),
        "anchor_sequence": checkpoint.anchor_sequence,
        "anchor_hash": bytes.fromhex(checkpoint.anchor_hash),
        "time": checkpoint.time,
        "key_id": checkpoint.key_id,
        "signature": checkpoint.signature,
    }
    await connection.execute(upsert(audit_checkpoints).values(values).on_conflict_do_nothing())


async def newest_checkpoint(
    connection: AsyncConnection, *, before: datetime | None = None
) -> AuditCheckpoint | None:
    """Return the checkpoint of the latest entry, of those made before a time if one is given."""
    query = select(audit_checkpoints).order_by(audit_checkpoints.c.sequence.desc()).limit(1)
    if before is not None:
        query = query.where(audit_checkpoints.c.time < before)
    row = (await connection.execute(query)).one_or_none()
    return _checkpoint(row) if row else None


async def checkpoints(connection: AsyncConnection, *, first: int, last: int) -> list[AuditCheckpoint]:
    """Return the checkpoints made of entries of a range, both ends included."""
    query = select(audit_checkpoints).where(audit_checkpoints.c.sequence.between(first, last))
    return [
        _checkpoint(row) for row in await connection.execute(query.order_by(audit_checkpoints.c.sequence))
    ]


async def begin_after(connection: AsyncConnection, checkpoint: AuditCheckpoint) -> None:
    """Let the chain begin after the entry of a checkpoint; those before may then be removed. The head must be locked."""
    await connection.execute(
        update(audit_head).values(
            anchor_sequence=checkpoint.sequence, anchor_hash=bytes.fromhex(checkpoint.hash)
        )
    )
    await connection.execute(
        delete(audit_checkpoints).where(audit_checkpoints.c.sequence < checkpoint.sequence)
    )


async def remove_dropped(connection: AsyncConnection, *, limit: int) -> int:
    """Remove entries that lie before the beginning of the chain, and return how many."""
    anchor = select(audit_head.c.anchor_sequence).scalar_subquery()
    old = select(audit.c.sequence).where(audit.c.sequence <= anchor).order_by(audit.c.sequence).limit(limit)
    return (await connection.execute(delete(audit).where(audit.c.sequence.in_(old)))).rowcount


def _checkpoint(row: Any) -> AuditCheckpoint:
    return AuditCheckpoint(
        purpose=CheckpointPurpose.CHECKPOINT,
        anchor_sequence=row.anchor_sequence,
        anchor_hash=row.anchor_hash.hex(),
        sequence=row.sequence,
        hash=row.hash.hex(),
        time=row.time,
        key_id=row.key_id,
        signature=row.signature,
    )
