"""Rows of principals and API tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import PRINCIPALS, TOKENS
from modelyard_governance.models import Account, ApiToken, StoredSecret
from modelyard_governance.tables import permissions, principals, tokens
from modelyard_kit.filters import Asked, fetch

CHANNEL = "modelyard_permissions"
"""What PostgreSQL notifies of every new revision."""

_account_columns = (
    principals.c.id,
    principals.c.name,
    principals.c.kind,
    principals.c.display_name,
    principals.c.create_time,
)
_token_columns = (
    tokens.c.id,
    tokens.c.principal_id,
    principals.c.name,
    tokens.c.description,
    tokens.c.create_time,
    tokens.c.expire_time,
    tokens.c.revoke_time,
)
_tokens = select(*_token_columns).join(principals, principals.c.id == tokens.c.principal_id)


async def next_revision(connection: AsyncConnection) -> int:
    """Take the next revision of all permissions; changes wait for each other here until they commit."""
    statement = (
        update(permissions).values(revision=permissions.c.revision + 1).returning(permissions.c.revision)
    )
    revision = int((await connection.execute(statement)).scalar_one())
    await connection.execute(select(func.pg_notify(CHANNEL, "")))
    return revision


async def insert_account(connection: AsyncConnection, account: Account, *, revision: int) -> bool:
    """Insert a principal and return True, or return False when its name is taken."""
    statement = upsert(principals).values(
        id=account.id,
        name=account.name,
        kind=account.kind,
        display_name=account.display_name,
        create_time=account.create_time,
        revision=revision,
    )
    inserted = await connection.execute(statement.on_conflict_do_nothing().returning(principals.c.id))
    return inserted.one_or_none() is not None


async def account_by_name(connection: AsyncConnection, name: str) -> Account | None:
    """Return the principal of that name."""
    return await _one_account(connection, principals.c.name == name)


async def account_by_id(connection: AsyncConnection, principal_id: str) -> Account | None:
    """Return the principal of that id."""
    return await _one_account(connection, principals.c.id == principal_id)


async def _one_account(connection: AsyncConnection, condition: Any) -> Account | None:
    row = (await connection.execute(select(*_account_columns).where(condition))).one_or_none()
    return Account(*row) if row else None


async def page_of_accounts(connection: AsyncConnection, asked: Asked) -> tuple[list[Account], str]:
    """Return a page of principals and the token of the next."""
    rows, token = await fetch(connection, select(*_account_columns), asked, PRINCIPALS)
    return [Account(**{column.name: row[column] for column in _account_columns}) for row in rows], token


async def insert_token(
    connection: AsyncConnection, token: ApiToken, *, lookup: str, secret_hash: bytes, bootstrap: bool = False
) -> None:
    """Insert an API token."""
    await connection.execute(
        insert(tokens).values(
            id=token.id,
            lookup=lookup,
            principal_id=token.principal_id,
            description=token.description,
            secret_hash=secret_hash,
            bootstrap=bootstrap,
            create_time=token.create_time,
            expire_time=token.expire_time,
            revoke_time=token.revoke_time,
        )
    )


async def count_live_tokens(connection: AsyncConnection, principal_id: str, *, now: datetime) -> int:
    """Return how many tokens of a principal still work."""
    query = (
        select(func.count())
        .select_from(tokens)
        .where(
            tokens.c.principal_id == principal_id,
            tokens.c.revoke_time.is_(None),
            (tokens.c.expire_time.is_(None)) | (tokens.c.expire_time > now),
        )
    )
    return int((await connection.execute(query)).scalar_one())


async def token_by_id(connection: AsyncConnection, token_id: str) -> ApiToken | None:
    """Return the token of that id."""
    row = (await connection.execute(_tokens.where(tokens.c.id == token_id))).one_or_none()
    return ApiToken(*row) if row else None


async def page_of_tokens(
    connection: AsyncConnection, principal_id: str, asked: Asked
) -> tuple[list[ApiToken], str]:
    """Return a page of the tokens of a principal and the token of the next page."""
    query = _tokens.where(tokens.c.principal_id == principal_id)
    rows, following = await fetch(connection, query, asked, TOKENS, scope=principal_id)
    return [ApiToken(*(row[column] for column in _token_columns)) for row in rows], following


async def secret(connection: AsyncConnection, lookup: str) -> StoredSecret | None:
    """Return what an exchange needs of the token whose text holds this id."""
    query = (
        select(*_account_columns, tokens.c.secret_hash, tokens.c.expire_time, tokens.c.revoke_time)
        .join(principals, principals.c.id == tokens.c.principal_id)
        .where(tokens.c.lookup == lookup)
    )
    row = (await connection.execute(query)).one_or_none()
    return StoredSecret(Account(*row[:5]), row[5], row[6], row[7]) if row else None


async def revoke_token(connection: AsyncConnection, token_id: str, *, now: datetime) -> bool:
    """Revoke a token; return False when it was revoked before."""
    statement = (
        update(tokens).where(tokens.c.id == token_id, tokens.c.revoke_time.is_(None)).values(revoke_time=now)
    )
    revoked = await connection.execute(statement.returning(tokens.c.id))
    return revoked.one_or_none() is not None


async def revoke_bootstrap_tokens(
    connection: AsyncConnection, principal_id: str, *, keep_lookup: str, now: datetime
) -> list[str]:
    """Revoke the tokens that came from earlier files of a principal and return their ids."""
    statement = (
        update(tokens)
        .where(
            tokens.c.principal_id == principal_id,
            tokens.c.bootstrap,
            tokens.c.revoke_time.is_(None),
            tokens.c.lookup != keep_lookup,
        )
        .values(revoke_time=now)
    )
    return list((await connection.execute(statement.returning(tokens.c.id))).scalars())
