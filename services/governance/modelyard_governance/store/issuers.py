"""Rows of external issuers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import ISSUERS
from modelyard_governance.identity_models import Issuer
from modelyard_governance.tables import issuers
from modelyard_kit.filters import Asked, fetch

_columns = tuple(issuers.c)


async def add(connection: AsyncConnection, issuer: Issuer) -> bool:
    """Insert an issuer and return True, or return False when its name or address is taken."""
    statement = insert(issuers).values(**asdict(issuer)).on_conflict_do_nothing().returning(issuers.c.id)
    return (await connection.execute(statement)).one_or_none() is not None


async def remove(connection: AsyncConnection, name: str) -> str | None:
    """Delete an issuer and return its id; None when there was none."""
    statement = delete(issuers).where(issuers.c.name == name).returning(issuers.c.id)
    return (await connection.execute(statement)).scalar_one_or_none()


async def count(connection: AsyncConnection) -> int:
    """Return how many there are."""
    return int((await connection.execute(select(func.count()).select_from(issuers))).scalar_one())


async def by_id(connection: AsyncConnection, issuer_id: str) -> Issuer | None:
    """Return the issuer with this id."""
    return await _one(connection, issuers.c.id == issuer_id)


async def by_name(connection: AsyncConnection, name: str) -> Issuer | None:
    """Return the issuer with this name."""
    return await _one(connection, issuers.c.name == name)


async def by_url(connection: AsyncConnection, url: str) -> Issuer | None:
    """Return the issuer with this value of the `iss` claim."""
    return await _one(connection, issuers.c.url == url)


async def _one(connection: AsyncConnection, condition: Any) -> Issuer | None:
    row = (await connection.execute(select(*_columns).where(condition))).one_or_none()
    return Issuer(*row) if row else None


async def page(connection: AsyncConnection, asked: Asked) -> tuple[list[Issuer], str]:
    """Return a page of issuers and the token of the next."""
    rows, token = await fetch(connection, select(*_columns), asked, ISSUERS)
    return [Issuer(*(row[column] for column in _columns)) for row in rows], token
