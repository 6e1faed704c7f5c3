"""Events in PostgreSQL: what each belongs to, and those of a window that a watcher asked for and may see.

The last three ids of an event's `scope` are always those of its model, schema and catalog, as far as it has them; ids before
them only help to find it. An event without a scope is shown to owners of the system alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    ColumnExpressionArgument,
    Text,
    Uuid,
    and_,
    any_,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import Watch
from modelyard_catalog.search import is_uuid
from modelyard_catalog.tables import catalogs, events, model_versions, models, schemas
from modelyard_kit import outbox
from modelyard_kit.access import SYSTEM_ID, Chain, Link, ResourceType, Scope

_IDS = ARRAY(Uuid(as_uuid=False))
_MODEL = models.join(schemas, models.c.schema_id == schemas.c.id)
_CONTAINERS: Mapping[ResourceType, tuple[Any, list[Any]]] = {
    ResourceType.CATALOG: (catalogs, [catalogs.c.id]),
    ResourceType.SCHEMA: (schemas, [schemas.c.id, schemas.c.catalog_id]),
    ResourceType.MODEL: (_MODEL, [models.c.id, schemas.c.id, schemas.c.catalog_id]),
    ResourceType.MODEL_VERSION: (
        model_versions.join(_MODEL, model_versions.c.model_id == models.c.id),
        [model_versions.c.id, models.c.id, schemas.c.id, schemas.c.catalog_id],
    ),
}

_DEPTH = func.cardinality(events.c.scope)
_OWNED_TABLES = (catalogs, schemas, models)


@dataclass(frozen=True)
class Scopes:
    """What a principal may see, for each kind of container."""

    catalogs: Scope
    schemas: Scope
    models: Scope


def scope_of(resource: Link) -> ColumnElement[Any] | None:
    """Return SQL that finds the ids of a resource of the catalog and its containers; None for anything else."""
    if resource.type not in _CONTAINERS:
        return None
    tables, ids = _CONTAINERS[resource.type]
    return select(array(ids)).select_from(tables).where(ids[0] == resource.id).scalar_subquery()


def scope_of_chain(chain: Chain) -> list[str]:
    """Return the ids of a chain as events carry them."""
    return [link.id for link in chain if link.id != SYSTEM_ID]


async def window(
    connection: AsyncConnection,
    watch: Watch,
    resource_id: str | None,
    scopes: Scopes,
    *,
    after: int,
    upto: int,
    rows: int,
    size: int,
) -> list[tuple[int, outbox.Event]]:
    """Return the first events with numbers over `after`, up to `upto`, that match and are visible, with their numbers.

    Args:
        connection: the transaction.
        watch: which types are wanted.
        resource_id: id of what the events must be about or be inside of.
        scopes: what is visible.
        after: the last number dealt with.
        upto: the last number to look at; with `after` this bounds the work.
        rows: events to return at most.
        size: bytes of their data to return at most, but always one event.
    """
    running = func.sum(func.octet_length(cast(events.c.data, Text))).over(order_by=events.c.sequence)
    found = (
        select(
            events, running.label("size"), func.row_number().over(order_by=events.c.sequence).label("rank")
        )
        .where(
            events.c.sequence > after,
            events.c.sequence <= upto,
            *_wanted(watch, resource_id),
            _visible(scopes),
        )
        .order_by(events.c.sequence)
        .limit(rows)
        .subquery()
    )
    query = select(found).where(or_(found.c.size <= size, found.c.rank == 1)).order_by(found.c.sequence)
    return [(row.sequence, outbox.event_of(row)) for row in await connection.execute(query)]


def _wanted(watch: Watch, resource_id: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if watch.types or watch.prefixes:
        exact = [events.c.type == any_(cast(list(watch.types), ARRAY(Text)))] if watch.types else []
        begins = [func.starts_with(events.c.type, prefix, type_=Boolean) for prefix in watch.prefixes]
        conditions.append(or_(*exact, *begins))
    if resource_id is not None:
        conditions.append(literal(resource_id, Uuid(as_uuid=False)) == any_(events.c.scope))
    return conditions


def _visible(scopes: Scopes) -> ColumnElement[bool]:
    """Return the condition under which a caller sees an event: as `access.decide` on what the event is about.

    Owners are those of now, as everywhere else; containers are those at the time of the event.
    """
    if scopes.models.everything:
        return true()
    catalog, schema, model = (events.c.scope[_DEPTH - up] for up in range(3))
    return and_(
        _holds(scopes.catalogs, [catalog]),
        or_(_DEPTH < 2, _holds(scopes.schemas, [catalog, schema])),
        or_(_DEPTH < 3, _holds(scopes.models, [catalog, schema, model])),
    )


def _holds(scope: Scope, ids: Sequence[ColumnElement[str]]) -> ColumnElement[bool]:
    """Return the condition under which a scope holds on one of the ids: those of a catalog, its schema, its model."""
    if SYSTEM_ID in scope.denied:
        return false()
    allowed: ColumnElement[bool] = true()
    if SYSTEM_ID not in scope.allowed:
        owned: list[ColumnExpressionArgument[bool]] = [
            exists().where(table.c.id == id_, table.c.owner_id.in_(scope.owners))
            for table, id_ in zip(_OWNED_TABLES, ids, strict=False)
        ]
        allowed = or_(false(), *owned, *_among(ids, scope.allowed))
    return and_(allowed, *(not_(condition) for condition in _among(ids, scope.denied)))


def _among(ids: Sequence[ColumnElement[str]], wanted: frozenset[str]) -> list[ColumnElement[bool]]:
    known = [text for text in sorted(wanted) if is_uuid(text)]
    return [id_ == any_(cast(known, _IDS)) for id_ in ids] if known else []
