"""Rows of trust roots."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.models import TrustRoot, TrustRootKind
from modelyard_governance.tables import trust_roots
from modelyard_kit.access import Link, ResourceType

_MOST = 1_000


async def add(connection: AsyncConnection, root: TrustRoot) -> None:
    """Insert a trust root."""
    await connection.execute(
        insert(trust_roots).values(
            id=root.id,
            resource_type=root.resource.type,
            resource_id=root.resource.id,
            resource_name=root.resource.name,
            name=root.name,
            kind=root.kind,
            pem=root.pem,
            fingerprint=root.fingerprint,
            expire_time=root.expire_time,
            create_time=root.create_time,
        )
    )


async def remove(connection: AsyncConnection, root_id: str) -> None:
    """Delete a trust root."""
    await connection.execute(delete(trust_roots).where(trust_roots.c.id == root_id))


async def get(connection: AsyncConnection, root_id: str) -> TrustRoot | None:
    """Return a trust root by its id."""
    row = (await connection.execute(select(trust_roots).where(trust_roots.c.id == root_id))).one_or_none()
    return _root(row) if row else None


async def named(connection: AsyncConnection, resource_id: str, name: str) -> TrustRoot | None:
    """Return the trust root of a name that stands on a resource."""
    query = select(trust_roots).where(trust_roots.c.resource_id == resource_id, trust_roots.c.name == name)
    row = (await connection.execute(query)).one_or_none()
    return _root(row) if row else None


async def count(connection: AsyncConnection, resource_id: str) -> int:
    """Return how many stand on a resource."""
    query = select(func.count()).where(trust_roots.c.resource_id == resource_id)
    return int((await connection.execute(query)).scalar_one())


async def on(connection: AsyncConnection, resource_ids: Iterable[str]) -> list[TrustRoot]:
    """Return those that stand on any of these resources, at most 1,000."""
    query = select(trust_roots).where(trust_roots.c.resource_id.in_(list(resource_ids)))
    return [_root(row) for row in await connection.execute(query.order_by(trust_roots.c.name).limit(_MOST))]


def _root(row: Any) -> TrustRoot:
    return TrustRoot(
        id=row.id,
        resource=Link(ResourceType(row.resource_type), row.resource_id, row.resource_name),
        name=row.name,
        kind=TrustRootKind(row.kind),
        pem=row.pem,
        fingerprint=row.fingerprint,
        expire_time=row.expire_time,
        create_time=row.create_time,
    )
