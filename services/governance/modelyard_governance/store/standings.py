"""Rows of standings: where each reviewed version stands, for lists and for the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Integer, RowMapping, bindparam, case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import APPROVALS
from modelyard_governance.models import (
    Approval,
    ApprovalState,
    KnownStanding,
    MarkedStanding,
    StateChange,
    Version,
    Visible,
)
from modelyard_governance.store.approvals import reviews_of_all
from modelyard_governance.tables import standings
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.filters import Asked, fetch, permitted
from modelyard_kit.prepared import Prepared

_row = standings.c
# What is asked again and again whether there is something to do.
_MARKED = Prepared(
    select(_row.version_id, _row.marks, _row.look_up)
    .where(or_(_row.seen < _row.marks, _row.expire_time <= func.now()))
    .order_by(_row.version_id)
    .limit(bindparam("limit", type_=Integer))
)
_UNDELIVERED = Prepared(
    select(_row.version_id, _row.state, _row.sequence)
    .where(_row.delivered < _row.sequence)
    .order_by(_row.version_id)
    .limit(bindparam("limit", type_=Integer))
)


async def put(connection: AsyncConnection, version: Version, approval: Approval) -> None:
    """Write where a version stands that was just reviewed.

    It is marked as well: the version may have been renamed or moved since the catalog was asked.
    """
    await _write(connection, version, approval)
    await mark(connection, [approval.version.id], look_up=True)


async def _write(connection: AsyncConnection, version: Version, approval: Approval) -> None:
    """Write where a version stands; a new state gets the next sequence."""
    model, schema, catalog = version.chain[1:4]
    content: dict[str, Any] = {
        "model_id": model.id,
        "schema_id": schema.id,
        "catalog_id": catalog.id,
        "name": approval.version.name,
        "author_id": version.author_id,
        "listed": True,
        "state": approval.state,
        "approvals": approval.approvals,
        "required_approvals": approval.required_approvals,
        "review_time": max(review.create_time for review in approval.reviews),
        "expire_time": approval.expire_time,
    }
    nothing_due = {"sequence": 1, "delivered": 0, "marks": 0, "seen": 0, "look_up": False}
    statement = insert(standings).values(version_id=approval.version.id, **content, **nothing_due)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[_row.version_id], set_=content | {"sequence": _next_sequence(approval.state)}
        )
    )


async def mark(connection: AsyncConnection, resource_ids: Iterable[str], *, look_up: bool) -> None:
    """Note that the standings of these versions, and of all inside these resources, may be others by now.

    Args:
        connection: the transaction.
        resource_ids: of catalogs, schemas, models and versions.
        look_up: whether name and place may be others too, so that the catalog must be asked.
    """
    ids = list(resource_ids)
    inside = (column.in_(ids) for column in (_row.version_id, _row.model_id, _row.schema_id, _row.catalog_id))
    values = {"marks": _row.marks + 1} | ({"look_up": True} if look_up else {})
    await connection.execute(update(standings).where(or_(*inside)).values(values))


async def marked(connection: AsyncConnection, *, limit: int) -> list[MarkedStanding]:
    """Return standings that are to be looked at again: marked, or with an approval that has expired."""
    return [MarkedStanding(*row) for row in await _MARKED.execute(connection, {"limit": limit})]


async def known(connection: AsyncConnection, version_id: str) -> KnownStanding | None:
    """Return what is written of a version."""
    query = select(
        _row.marks, _row.name, _row.model_id, _row.schema_id, _row.catalog_id, _row.author_id
    ).where(_row.version_id == version_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else KnownStanding(*row)


async def settle(connection: AsyncConnection, version: Version, approval: Approval) -> None:
    """Write where a version stands now, and that nothing more is to be looked at."""
    await _write(connection, version, approval)
    done = {"seen": _row.marks, "look_up": False}
    await connection.execute(update(standings).where(_row.version_id == approval.version.id).values(done))


async def unlist(connection: AsyncConnection, version_id: str) -> None:
    """Note that the catalog does not have a version at the moment; its standing is kept for when it comes back."""
    done = {"listed": False, "seen": _row.marks, "look_up": False}
    await connection.execute(update(standings).where(_row.version_id == version_id).values(done))


async def undelivered(connection: AsyncConnection, *, limit: int) -> list[StateChange]:
    """Return states that the catalog does not know yet."""
    rows = await _UNDELIVERED.execute(connection, {"limit": limit})
    return [StateChange(row.version_id, ApprovalState(row.state), row.sequence) for row in rows]


async def mark_delivered(connection: AsyncConnection, changes: Sequence[StateChange]) -> None:
    """Note that the catalog knows these states."""
    for change in changes:
        later = (_row.version_id == change.version_id, _row.delivered < change.sequence)
        await connection.execute(update(standings).where(*later).values(delivered=change.sequence))


async def page(connection: AsyncConnection, asked: Asked, visible: Visible) -> tuple[list[Approval], str]:
    """Return a page of where the versions stand that a caller may see, complete, and the token of the next."""
    query = select(_row.version_id, _row.name, _row.state, _row.approvals, _row.required_approvals).where(
        _row.listed,
        permitted(visible.read, (_row.version_id, _row.model_id, _row.schema_id, _row.catalog_id)),
        permitted(visible.use_schema, (_row.schema_id, _row.catalog_id)),
        permitted(visible.use_catalog, (_row.catalog_id,)),
    )
    rows, token = await fetch(connection, query, asked, APPROVALS)
    said = await reviews_of_all(connection, [row["version_id"] for row in rows])
    return [_approval(row, said.get(row["version_id"], ())) for row in rows], token


def _next_sequence(state: ApprovalState) -> Any:
    # The first state of a version that was reviewed before there were standings is one more, whatever was assumed of it.
    changed = or_(_row.state != state, _row.sequence == 0)
    return case((changed, _row.sequence + 1), else_=_row.sequence)


def _approval(row: RowMapping, reviews: Iterable[Any]) -> Approval:
    return Approval(
        version=Link(ResourceType.MODEL_VERSION, row["version_id"], row["name"]),
        state=ApprovalState(row["state"]),
        approvals=row["approvals"],
        required_approvals=row["required_approvals"],
        reviews=tuple(reviews),
    )
