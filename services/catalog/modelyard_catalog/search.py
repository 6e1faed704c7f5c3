"""Pages of lists: a query of ids with filter, order and permission, and one of the complete rows.

The first is planned anew for the values it has. The second never changes, so that it is planned once for all calls; and rows passed
over are not read whole, or not at all. Every function runs in the caller's transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Select, Table, and_, any_, cast, false, not_, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import visitors
from sqlalchemy.types import Uuid

from modelyard_catalog.commands import Browse
from modelyard_catalog.fields import list_fields
from modelyard_catalog.lookups import AMONG
from modelyard_catalog.models import Model, ModelVersion, Resource, Schema
from modelyard_catalog.rows import levels, read_row, select_live
from modelyard_catalog.tables import artifact_tests, metrics, model_versions
from modelyard_kit.access import SYSTEM_ID, Scope
from modelyard_kit.db import planned_for_values
from modelyard_kit.filters import Listing, PrincipalIds, nobody, read_listing

R = TypeVar("R", bound=Resource)

PARENT_COLUMN: Mapping[type[Resource], str] = {
    Schema: "catalog_id",
    Model: "schema_id",
    ModelVersion: "model_id",
}


async def page(
    connection: AsyncConnection,
    kind: type[R],
    asked: Browse,
    *,
    parent_id: str | None,
    scope: Scope | None,
    show_hidden: bool = False,
    principals: PrincipalIds = nobody,
) -> tuple[list[R], str]:
    """Return a page of rows and the token of the next one.

    Args:
        connection: where the transaction runs.
        kind: what is listed.
        asked: which rows, in which order.
        parent_id: the container whose rows are listed; None for catalogs, which have none.
        scope: what the caller may see; None is all: who may see a model may see its versions.
        show_hidden: whether the container may be deleted, or be in something deleted.
        principals: finds the id of an owner by name.

    Raises:
        InvalidField: of "filter", "order_by" or "page_token".
        LimitExceeded: filter or order_by is too large.
    """
    looked_up = _Metrics(parent_id or "")
    listing = _listing(kind, asked, parent_id, looked_up, principals)
    query = _ids(kind, asked, parent_id, scope, show_hidden=show_hidden)
    if _speaks_of(listing, artifact_tests):
        query = query.outerjoin(artifact_tests, artifact_tests.c.digest == model_versions.c.artifact_digest)
    query = looked_up.join(query)
    rows: list[Row[Any]] = []
    # Which index is good depends on the values: a tag that every second version has is not found as one that two have.
    async with planned_for_values(connection):
        for part in _parts(listing):
            rows += await connection.execute(part.apply(query, asked.size - len(rows)))
            if len(rows) > asked.size:
                break
    shown, token = listing.page([row._mapping for row in rows], asked.size)  # noqa: SLF001 - a public name of SQLAlchemy all the same
    ids = [row["id"] for row in shown]
    whole = {row.id: row for row in await AMONG[kind, show_hidden].execute(connection, {"ids": ids})}
    return [read_row(kind, whole[id]) for id in ids if id in whole], token  # noqa: A001 - what it is


def _parts(listing: Listing) -> tuple[Listing, ...]:
    """Return what to read one after the other: in the order of a metric, which has an index, first the versions that have it."""
    return listing.parts() if listing.ordering.keys[0].reference.name == "metrics" else (listing,)


def _listing(
    kind: type[Resource], asked: Browse, parent_id: str | None, metrics: _Metrics, principals: PrincipalIds
) -> Listing:
    """Return which rows, in which order."""
    # A list with the deleted rows is another list than one without them.
    scope = f"{parent_id or ''}{' deleted' if asked.show_deleted else ''}"
    fields = list_fields(kind, metrics.number)
    return read_listing(
        asked.filter, asked.order_by, asked.page_token, fields, scope=scope, principals=principals
    )


def _ids(
    kind: type[Resource], asked: Browse, parent_id: str | None, scope: Scope | None, *, show_hidden: bool
) -> Select[Any]:
    """Return the query of the ids to choose from."""
    table = levels(kind)[0]
    if scope is None:  # of what is in something deleted, no complete row is found
        query = select(table.c.id)
        query = query if asked.show_deleted else query.where(table.c.delete_time.is_(None))
    else:
        query = select_live(kind, show_deleted=asked.show_deleted, show_hidden=show_hidden)
        query = query.with_only_columns(table.c.id).where(_visible(kind, scope))
    return query if parent_id is None else query.where(table.c[PARENT_COLUMN[kind]] == parent_id)


def _speaks_of(listing: Listing, table: Table) -> bool:
    """Return whether a filter or an order needs a table. PostgreSQL would leave a join out that changes no rows, but reads its columns even so."""
    expressions = [*listing.ordering.columns, *([] if listing.filter is None else [listing.filter])]
    found = (element for expression in expressions for element in visitors.iterate(expression))
    return any(getattr(element, "table", None) is table for element in found)


class _Metrics:
    """Metrics that a filter or an order speaks of, each a join of its own.

    A join can be turned around where a subquery per row cannot: for `metrics.accuracy > 0.9`, by falling accuracy, the rows come
    out of the index on metrics in their order.
    """

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id
        self._tables: dict[str, Any] = {}

    def number(self, name: str) -> ColumnElement[float]:
        """Return the number of a metric in a query that went through `join`."""
        table = self._tables.setdefault(name, metrics.alias(f"metric_{len(self._tables)}"))
        number: ColumnElement[float] = table.c.number
        return number

    def join(self, query: Select[Any]) -> Select[Any]:
        """Return the query with the metrics asked for joined to it; a version without one stays."""
        for name, table in self._tables.items():
            of_version = and_(
                table.c.version_id == model_versions.c.id,
                table.c.model_id == self._model_id,
                table.c.name == name,
            )
            query = query.outerjoin(table, of_version)
        return query


def _visible(kind: type[Resource], scope: Scope) -> ColumnElement[bool]:
    """Return the condition under which a scope shows a row: the same decision as `access.decide`, for all rows at once."""
    if scope.everything:
        return true()
    if SYSTEM_ID in scope.denied:
        return false()
    tables = levels(kind)
    allowed: ColumnElement[bool] = true()
    if SYSTEM_ID not in scope.allowed:
        owned = [table.c.owner_id.in_(scope.owners) for table in tables]
        allowed = or_(false(), *owned, *_any_of(tables, scope.allowed))
    return and_(allowed, *(not_(condition) for condition in _any_of(tables, scope.denied)))


def _any_of(tables: Iterable[Any], ids: frozenset[str]) -> list[ColumnElement[bool]]:
    known = [id for id in sorted(ids) if is_uuid(id)]  # noqa: A001 - what it is
    if not known:
        return []
    array = cast(known, ARRAY(Uuid(as_uuid=False)))
    return [table.c.id == any_(array) for table in tables]


def is_uuid(text: str) -> bool:
    """Return whether a text can be the id of a row."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
