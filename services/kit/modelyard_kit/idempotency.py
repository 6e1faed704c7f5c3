"""`request_id`: the same create twice is one create (AIP-155).

The key is (principal, method, request_id); what is remembered is which resource the first call made and a fingerprint of what it
asked for. Written in the transaction of the create.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Column, DateTime, Insert, MetaData, Table, Text, bindparam, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit import limits
from modelyard_kit.errors import RequestIdReused
from modelyard_kit.prepared import Prepared
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
CLAIMED = "requests_pkey"
"""The constraint that lets a request make one resource."""

_COLUMNS = ("principal_id", "method", "request_id", "fingerprint", "resource_id")
_CLAIM = Prepared(
    upsert(_requests)
    .values({name: bindparam(name) for name in _COLUMNS})
    .on_conflict_do_nothing()
    .returning(_requests.c.resource_id)
)


def create(operations: Any) -> None:
    """Create the table in a service's first migration; `operations` is `alembic.op`."""
    _requests.create(operations.get_bind())


def fingerprint(content: bytes) -> str:
    """Return what identifies the content of a request: give it everything but the `request_id`."""
    return hashlib.sha256(content).hexdigest()


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
    if await _CLAIM.execute(connection, asdict(claim)):
        return None
    return await replay(
        connection,
        principal_id=claim.principal_id,
        method=claim.method,
        request_id=claim.request_id,
        fingerprint=claim.fingerprint,
    )


def claiming(parameter: str) -> Insert:
    """Build the insert of several claims, as a part of a statement that makes all the resources.

    It violates the constraint `CLAIMED` if one of the requests came before, or comes twice among them; at the same time elsewhere, it
    waits until that one has ended.

    Args:
        parameter: name of the parameter with the claims, as `records_of` returns them.
    """
    return insert_records(_requests, _COLUMNS, parameter=parameter)


def records_of(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return claims as `claiming` takes them; those of no request make none.

    Raises:
        LimitExceeded: a request id is longer than the limit `request_id_length`.
    """
    records = [asdict(claim) for claim in claims if claim.request_id]
    for record in records:
        limits.check("request_id_length", len(record["request_id"]))
    return records


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
