"""Rows of principals and API tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import PRINCIPALS, TOKENS
from modelyard_governance.models import Account, ApiToken, StoredSecret
from modelyard_governance.tables import issuers, permissions, principals, tokens
from modelyard_kit.access import Privilege
from modelyard_kit.filters import Asked, fetch

CHANNEL = "modelyard_permissions"
"""What PostgreSQL notifies of every new revision."""

_account_columns = (
    principals.c.id,
    principals.c.name,
    principals.c.kind,
    principals.c.display_name,
    principals.c.create_time,
    principals.c.disable_time,
    principals.c.issuer_id,
    issuers.c.name.label("issuer"),
    principals.c.subject,
)
_accounts = select(*_account_columns).select_from(
    principals.outerjoin(issuers, issuers.c.id == principals.c.issuer_id)
)
_token_columns = (
    tokens.c.id,
    tokens.c.principal_id,
    principals.c.name,
    tokens.c.description,
    tokens.c.create_time,
    tokens.c.expire_time,
    tokens.c.revoke_time,
    tokens.c.privileges,
    tokens.c.last_use_time,
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
        issuer_id=account.issuer_id,
        subject=account.subject,
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


async def account_by_subject(connection: AsyncConnection, issuer_id: str, subject: str) -> Account | None:
    """Return the principal that somebody is here who is `subject` to an external issuer."""
    return await _one_account(
        connection, and_(principals.c.issuer_id == issuer_id, principals.c.subject == subject)
    )


async def _one_account(connection: AsyncConnection, condition: Any) -> Account | None:
    row = (await connection.execute(_accounts.where(condition))).one_or_none()
    return Account(*row) if row else None


async def set_disabled(connection: AsyncConnection, principal_id: str, since: datetime | None) -> bool:
    """Note since when a principal is disabled, None for not; return False when it was so already."""
    state = principals.c.disable_time.is_(None)
    statement = (
        update(principals)
        .where(principals.c.id == principal_id, state if since else ~state)
        .values(disable_time=since)
    )
    return (await connection.execute(statement.returning(principals.c.id))).one_or_none() is not None


async def page_of_accounts(connection: AsyncConnection, asked: Asked) -> tuple[list[Account], str]:
    """Return a page of principals and the token of the next."""
    rows, token = await fetch(connection, _accounts, asked, PRINCIPALS)
    return [Account(*(row[column] for column in _account_columns)) for row in rows], token


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
            privileges=list(token.privileges),
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
    return _token(row) if row else None


async def page_of_tokens(
    connection: AsyncConnection, principal_id: str, asked: Asked
) -> tuple[list[ApiToken], str]:
    """Return a page of the tokens of a principal and the token of the next page."""
    query = _tokens.where(tokens.c.principal_id == principal_id)
    rows, following = await fetch(connection, query, asked, TOKENS, scope=principal_id)
    return [_token([row[column] for column in _token_columns]) for row in rows], following


async def secret(connection: AsyncConnection, lookup: str) -> StoredSecret | None:
    """Return what an exchange needs of the token whose text holds this id."""
    query = _tokens.add_columns(tokens.c.secret_hash).where(tokens.c.lookup == lookup)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    *content, secret_hash = row
    token = _token(content)
    account = await account_by_id(connection, token.principal_id)
    return None if account is None else StoredSecret(account, secret_hash, token)


async def note_use(connection: AsyncConnection, token_id: str, *, now: datetime) -> None:
    """Write when a token was last exchanged."""
    await connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_use_time=now))


def _token(row: Sequence[Any]) -> ApiToken:
    token = ApiToken(*row)
    return replace(token, privileges=tuple(map(Privilege, token.privileges)))


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
