"""Rows of signing keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.identity_models import StoredKey
from modelyard_governance.tables import signing_keys

_keys = signing_keys.c


async def every(connection: AsyncConnection) -> list[StoredKey]:
    """Return every key, the newest first."""
    query = select(_keys.kid, _keys.sealed, _keys.sign_time, _keys.withdraw_time)
    return [StoredKey(*row) for row in await connection.execute(query.order_by(_keys.sign_time.desc()))]


async def put(connection: AsyncConnection, key: StoredKey) -> None:
    """Insert a key, or let one that was withdrawn begin again."""
    statement = insert(signing_keys).values(**asdict(key))
    times = {"sign_time": key.sign_time, "withdraw_time": key.withdraw_time}
    await connection.execute(statement.on_conflict_do_update(index_elements=[_keys.kid], set_=times))


async def withdraw(connection: AsyncConnection, kids: Iterable[str], at: datetime) -> None:
    """Note when keys end, for those that would end later or never."""
    later = _keys.withdraw_time.is_(None) | (_keys.withdraw_time > at)
    await connection.execute(
        update(signing_keys).where(_keys.kid.in_(list(kids)), later).values(withdraw_time=at)
    )


async def forget(connection: AsyncConnection, now: datetime) -> None:
    """Delete keys that were withdrawn, but for the one of the key file, which tells whether that file is known."""
    await connection.execute(
        delete(signing_keys).where(_keys.withdraw_time <= now, _keys.sealed.is_not(None))
    )
