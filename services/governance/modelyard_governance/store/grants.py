"""Rows of grants, and what changed since a revision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import RowMapping, delete, func, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import GRANTS, PRINCIPAL_GRANTS
from modelyard_governance.models import Grant, HeldGrants
from modelyard_governance.tables import grants, memberships, permissions, principals
from modelyard_kit.access import Effect, Link, Privilege, ResourceGrant, ResourceType
from modelyard_kit.filters import Asked, fetch
from modelyard_kit.prepared import Prepared

_columns = (
    grants.c.id,
    grants.c.principal_id,
    principals.c.name,
    grants.c.privilege,
    grants.c.effect,
    grants.c.resource_type,
    grants.c.resource_id,
    grants.c.resource_name,
    grants.c.create_time,
)
_grants = select(*_columns).join(principals, principals.c.id == grants.c.principal_id)
_REVISION = Prepared(select(permissions.c.revision))


async def add(connection: AsyncConnection, grant: Grant) -> bool:
    """Insert a grant and return True, or return False when there is one like it."""
    statement = insert(grants).values(
        id=grant.id,
        principal_id=grant.principal_id,
        privilege=grant.privilege,
        effect=grant.effect,
        resource_type=grant.resource.type,
        resource_id=grant.resource.id,
        resource_name=grant.resource.name,
        create_time=grant.create_time,
    )
    inserted = await connection.execute(statement.on_conflict_do_nothing().returning(grants.c.id))
    return inserted.one_or_none() is not None


async def like(
    connection: AsyncConnection, principal_id: str, resource_id: str, privilege: Privilege, effect: Effect
) -> Grant | None:
    """Return the grant with this content."""
    query = _grants.where(*_content(principal_id, resource_id, privilege, effect))
    row = (await connection.execute(query)).mappings().one_or_none()
    return _grant(row) if row else None


async def remove(
    connection: AsyncConnection, principal_id: str, resource_id: str, privilege: Privilege, effect: Effect
) -> bool:
    """Delete the grant with this content; return False when there was none."""
    statement = delete(grants).where(*_content(principal_id, resource_id, privilege, effect))
    return (await connection.execute(statement.returning(grants.c.id))).one_or_none() is not None


def _content(principal_id: str, resource_id: str, privilege: Privilege, effect: Effect) -> Sequence[Any]:
    return (
        grants.c.principal_id == principal_id,
        grants.c.resource_id == resource_id,
        grants.c.privilege == privilege,
        grants.c.effect == effect,
    )


async def remove_other_owners(connection: AsyncConnection, resource_id: str, owner_id: str) -> list[str]:
    """Take the ownership of a resource from everybody but `owner_id`; return the ids of who lost it."""
    statement = delete(grants).where(
        grants.c.resource_id == resource_id,
        grants.c.privilege == Privilege.OWNERSHIP,
        grants.c.principal_id != owner_id,
    )
    return list((await connection.execute(statement.returning(grants.c.principal_id))).scalars())


async def page_on(connection: AsyncConnection, resource_id: str, asked: Asked) -> tuple[list[Grant], str]:
    """Return a page of the grants on a resource and the token of the next."""
    query = _grants.where(grants.c.resource_id == resource_id)
    rows, token = await fetch(connection, query, asked, GRANTS, scope=resource_id)
    return [_grant(row) for row in rows], token


async def page_of(connection: AsyncConnection, principal_id: str, asked: Asked) -> tuple[list[Grant], str]:
    """Return a page of what a principal was given itself and the token of the next."""
    query = _grants.where(grants.c.principal_id == principal_id)
    rows, token = await fetch(connection, query, asked, PRINCIPAL_GRANTS, scope=principal_id)
    return [_grant(row) for row in rows], token


async def mark_changed(connection: AsyncConnection, principal_ids: Iterable[str], *, revision: int) -> None:
    """Note that the grants of these principals changed at this revision."""
    await connection.execute(
        update(principals).where(principals.c.id.in_(list(principal_ids))).values(revision=revision)
    )


async def revision(connection: AsyncConnection) -> int:
    """Return the revision of all permissions."""
    [row] = await _REVISION.execute(connection, {})
    return int(row.revision)


async def changed_since(connection: AsyncConnection, since: int) -> list[HeldGrants]:
    """Return every principal whose grants changed after a revision, with all it holds; -1 means everybody."""
    by_id = grants.c.id
    held = (
        func.array_agg(aggregate_order_by(grants.c.resource_id, by_id)),
        func.array_agg(aggregate_order_by(grants.c.privilege, by_id)),
        func.array_agg(aggregate_order_by(grants.c.effect, by_id)),
    )
    groups = (
        select(func.array_agg(aggregate_order_by(memberships.c.group_id, memberships.c.group_id)))
        .where(memberships.c.member_id == principals.c.id)
        .scalar_subquery()
    )
    query = (
        select(
            principals.c.id,
            principals.c.name,
            principals.c.disable_time.is_not(None),
            principals.c.kind == "group",
            groups,
            *held,
        )
        .join(grants, grants.c.principal_id == principals.c.id, isouter=True)
        .where(principals.c.revision > since)
        .group_by(principals.c.id)
        .order_by(principals.c.id)
    )
    return [
        HeldGrants(
            principal_id,
            name,
            tuple(_held(*content) for content in zip(*contents, strict=True) if content[0]),
            groups=tuple(group_ids or ()),
            disabled=disabled,
            is_group=is_group,
        )
        for principal_id, name, disabled, is_group, group_ids, *contents in await connection.execute(query)
    ]


def _held(resource_id: str, privilege: str, effect: str) -> ResourceGrant:
    return ResourceGrant(resource_id, Privilege(privilege), Effect(effect))


def _grant(row: RowMapping) -> Grant:
    return Grant(
        id=row["id"],
        principal_id=row["principal_id"],
        principal=row["name"],
        privilege=Privilege(row["privilege"]),
        effect=Effect(row["effect"]),
        resource=Link(ResourceType(row["resource_type"]), row["resource_id"], row["resource_name"]),
        create_time=row["create_time"],
    )
