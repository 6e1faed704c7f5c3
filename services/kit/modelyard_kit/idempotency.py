"""`request_id`: the same create twice is one create (AIP-155).

The key is (principal, method, request_id); what is remembered is which resource the first call made and a fingerprint of what it
asked for. Written in the transaction of the create.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Column, DateTime, MetaData, Table, Text, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit import limits
from modelyard_kit.errors import RequestIdReused
from modelyard_kit.records import insert_records


def requests_table(metadata: MetaData) -> Table:
    """Define the table of remembered requests in a service's metadata."""
    return Table(
        "requests",
        metadata,
        Column("principal_id", Text, primary_key=True),
        Column("method", Text, primary_key=True),
        Column("request_id", Text, primary_key=True),
        Column("fingerprint", Text, nullable=False),
        Column("resource_id", Text, nullable=False),
        Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


_requests = requests_table(MetaData())
_CLAIM_ALL = insert_records(_requests, ("principal_id", "method", "request_id", "fingerprint", "resource_id"))
_CLAIM = upsert(_requests).on_conflict_do_nothing().returning(_requests.c.resource_id)


def create(operations: Any) -> None:
    """Create the table in a service's first migration; `operations` is `alembic.op`."""
    _requests.create(operations.get_bind())


def fingerprint(content: bytes) -> str:
    """Return what identifies the content of a request: give it everything but the `request_id`."""
    return hashlib.sha256(content).hexdigest()


class Repeated(Exception):
    """One of several requests has an answer already, so they cannot be answered together."""


@dataclass(frozen=True)
class Claim:
    """That a request makes a resource: who asks, by which method, which request with which content, and the id it gives."""

    principal_id: str
    method: str
    request_id: str
    fingerprint: str
    resource_id: str


async def claim(connection: AsyncConnection, claim: Claim) -> str | None:
    """Note that this request makes a resource, or return the id of the one that it made before.

    Like `replay` and `remember` in one statement, for work that comes before everything else and knows the id that it will give.
    The same request at the same time waits here until the first one has ended, at READ COMMITTED too.

    Raises:
        RequestIdReused: it was used with other content.
        LimitExceeded: it is longer than the limit `request_id_length`.
    """
    if not claim.request_id:
        return None
    limits.check("request_id_length", len(claim.request_id))
    if (await connection.execute(_CLAIM, asdict(claim))).one_or_none() is not None:
        return None
    return await replay(
        connection,
        principal_id=claim.principal_id,
        method=claim.method,
        request_id=claim.request_id,
        fingerprint=claim.fingerprint,
    )


async def claim_all(connection: AsyncConnection, claims: Sequence[Claim]) -> None:
    """Note that these requests make resources.

    Raises:
        Repeated: one of them came before, or comes twice among them; the transaction is of no use any more.
        LimitExceeded: a request id is longer than the limit `request_id_length`.
    """
    rows = [asdict(claim) for claim in claims if claim.request_id]
    for row in rows:
        limits.check("request_id_length", len(row["request_id"]))
    if not rows:
        return
    try:
        await connection.execute(_CLAIM_ALL, {"records": rows})
    except IntegrityError as error:
        raise Repeated from error


async def replay(
    connection: AsyncConnection, *, principal_id: str, method: str, request_id: str, fingerprint: str
) -> str | None:
    """Return the id of the resource that this request made before, or None if it is new (or has no request id).

    Raises:
        RequestIdReused: it was used with other content.
        LimitExceeded: it is longer than the limit `request_id_length`.
    """
    if not request_id:
        return None
    limits.check("request_id_length", len(request_id))
    query = select(_requests.c.fingerprint, _requests.c.resource_id).where(
        _requests.c.principal_id == principal_id,
        _requests.c.method == method,
        _requests.c.request_id == request_id,
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise RequestIdReused(request_id)
    return str(row.resource_id)


async def remember(
    connection: AsyncConnection,
    *,
    principal_id: str,
    method: str,
    request_id: str,
    fingerprint: str,
    resource_id: str,
) -> None:
    """Note which resource this request made; nothing if it has no request id."""
    if not request_id:
        return
    await connection.execute(
        insert(_requests).values(
            principal_id=principal_id,
            method=method,
            request_id=request_id,
            fingerprint=fingerprint,
            resource_id=resource_id,
        )
    )
