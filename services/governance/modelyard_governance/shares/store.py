"""Rows of shares, and the entries of the audit chain that belong to one version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ARRAY, Text, cast, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import SHARES
from modelyard_governance.models import Entry
from modelyard_governance.shares.models import Share
from modelyard_governance.tables import audit, shares
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.filters import Asked, fetch

_ENTRY = (
    audit.c.sequence,
    audit.c.event_id,
    audit.c.resource_id,
    audit.c.canonical_event,
    audit.c.previous_hash,
    audit.c.hash,
)
_REFUSED = "%.access.denied"


async def add(connection: AsyncConnection, share: Share) -> None:
    """Insert a share."""
    await connection.execute(insert(shares).values(_values(share)))


async def replace(connection: AsyncConnection, share: Share) -> None:
    """Write a share that is there again."""
    await connection.execute(update(shares).where(shares.c.id == share.id).values(_values(share)))


async def remove(connection: AsyncConnection, share_id: str) -> None:
    """Delete a share."""
    await connection.execute(delete(shares).where(shares.c.id == share_id))


async def count(connection: AsyncConnection) -> int:
    """Return how many there are."""
    return int((await connection.execute(select(func.count()).select_from(shares))).scalar_one())


async def get(connection: AsyncConnection, share_id: str) -> Share | None:
    """Return a share by its id."""
    row = (await connection.execute(select(shares).where(shares.c.id == share_id))).mappings().one_or_none()
    return _share(row) if row else None


async def named(connection: AsyncConnection, name: str, *, lock: bool = False) -> Share | None:
    """Return the share of a name; with `lock`, others who want to change it wait until this transaction ends."""
    query = select(shares).where(shares.c.name == name)
    row = (await connection.execute(query.with_for_update() if lock else query)).mappings().one_or_none()
    return _share(row) if row else None


async def page(connection: AsyncConnection, asked: Asked) -> tuple[list[Share], str]:
    """Return a page of shares and the token of the next."""
    rows, token = await fetch(connection, select(shares), asked, SHARES, scope="")
    return [_share(row) for row in rows], token


async def entries_of(
    connection: AsyncConnection, version_id: str, resources: Sequence[str], *, after: int, limit: int
) -> list[Entry]:
    """Return entries about a version in order, from the one after sequence `after`.

    Only those whose resource is one of `resources`: what happened to others that the version is part of, as deployments, is theirs.
    """
    query = select(*_ENTRY).where(
        audit.c.subjects.bool_op("&&")(cast([version_id], ARRAY(Text))),
        audit.c.resource_id.in_(resources),
        audit.c.type.not_like(_REFUSED),
        audit.c.sequence > after,
    )
    rows = await connection.execute(query.order_by(audit.c.sequence).limit(limit))
    return [Entry(*row) for row in rows]


def _values(share: Share) -> dict[str, Any]:
    members = [{"type": link.type, "id": link.id, "name": link.name} for link in share.members]
    return asdict(share) | {"members": members, "exporters": list(share.exporters)}


def _share(row: Any) -> Share:
    members = tuple(Link(ResourceType(each["type"]), each["id"], each["name"]) for each in row["members"])
    return Share(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        recipient=row["recipient"],
        members=members,
        exporters=tuple(row["exporters"]),
        creator=row["creator"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )
