"""Rows of memberships in groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import MEMBER, MEMBERSHIPS
from modelyard_governance.identity_models import Membership
from modelyard_governance.tables import issuers, memberships, principals
from modelyard_kit.filters import Asked, fetch

_columns = (
    principals.c.name,
    MEMBER.c.name.label("member"),
    MEMBER.c.kind,
    func.coalesce(issuers.c.name, "").label("issuer"),
    memberships.c.create_time,
)
_memberships = select(*_columns).select_from(
    memberships.join(principals, principals.c.id == memberships.c.group_id)
    .join(MEMBER, MEMBER.c.id == memberships.c.member_id)
    .outerjoin(issuers, issuers.c.id == memberships.c.issuer_id)
)


async def put(
    connection: AsyncConnection, group_id: str, member_id: str, *, now: datetime, issuer_id: str | None = None
) -> bool:
    """Insert a membership and return True, or return False when there is one from the same source.

    What somebody here says replaces what an issuer says, and not the other way round.
    """
    statement = insert(memberships).values(
        group_id=group_id, member_id=member_id, issuer_id=issuer_id, create_time=now
    )
    key = [memberships.c.group_id, memberships.c.member_id]
    if issuer_id is None:
        statement = statement.on_conflict_do_update(
            index_elements=key, set_={"issuer_id": None}, where=memberships.c.issuer_id.is_not(None)
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=key)
    return (await connection.execute(statement.returning(memberships.c.group_id))).one_or_none() is not None


async def get(connection: AsyncConnection, group_id: str, member_id: str) -> Membership:
    """Return a membership that is there."""
    query = _memberships.where(memberships.c.group_id == group_id, memberships.c.member_id == member_id)
    return Membership(*(await connection.execute(query)).one())


async def remove(connection: AsyncConnection, group_id: str, member_id: str) -> bool:
    """Delete a membership; return False when there was none."""
    statement = delete(memberships).where(
        memberships.c.group_id == group_id, memberships.c.member_id == member_id
    )
    return (await connection.execute(statement.returning(memberships.c.group_id))).one_or_none() is not None


async def remove_from(connection: AsyncConnection, member_id: str, group_ids: Collection[str]) -> None:
    """Delete the memberships of one member in some groups."""
    await connection.execute(
        delete(memberships).where(
            memberships.c.member_id == member_id, memberships.c.group_id.in_(list(group_ids))
        )
    )


async def remove_of_issuer(connection: AsyncConnection, issuer_id: str) -> list[str]:
    """Delete what an issuer said; return the ids of who was in a group by its word."""
    statement = delete(memberships).where(memberships.c.issuer_id == issuer_id)
    return sorted(set((await connection.execute(statement.returning(memberships.c.member_id))).scalars()))


async def contains(connection: AsyncConnection, group_id: str, member_id: str) -> bool:
    """Return whether `member_id` is in the group, directly or through other groups."""
    inside = select(memberships.c.member_id).where(memberships.c.group_id == group_id).cte(recursive=True)
    deeper = select(memberships.c.member_id).join(inside, inside.c.member_id == memberships.c.group_id)
    query = select(inside.union(deeper).c.member_id)
    found = query.where(query.selected_columns[0] == member_id).limit(1)
    return (await connection.execute(found)).one_or_none() is not None


async def counts(connection: AsyncConnection, group_id: str, member_id: str) -> tuple[int, int]:
    """Return how many members a group has, and in how many groups a principal is."""
    members = select(func.count()).select_from(memberships).where(memberships.c.group_id == group_id)
    groups = select(func.count()).select_from(memberships).where(memberships.c.member_id == member_id)
    row = (await connection.execute(select(members.scalar_subquery(), groups.scalar_subquery()))).one()
    return row[0], row[1]


async def groups_by_issuer(connection: AsyncConnection, member_id: str, issuer_id: str) -> frozenset[str]:
    """Return the ids of the groups that a principal is in by the word of an issuer."""
    query = select(memberships.c.group_id).where(
        memberships.c.member_id == member_id, memberships.c.issuer_id == issuer_id
    )
    return frozenset((await connection.execute(query)).scalars())


async def groups_named(connection: AsyncConnection, names: Iterable[str]) -> frozenset[str]:
    """Return the ids of the groups with these names, of those that are there."""
    query = select(principals.c.id).where(principals.c.name.in_(list(names)), principals.c.kind == "group")
    return frozenset((await connection.execute(query)).scalars())


async def page(connection: AsyncConnection, asked: Asked) -> tuple[list[Membership], str]:
    """Return a page of memberships and the token of the next."""
    rows, token = await fetch(connection, _memberships, asked, MEMBERSHIPS)
    return [Membership(*(row[column] for column in _columns)) for row in rows], token
