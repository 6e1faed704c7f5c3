"""Queries of resources by id, name or reference, any number at once.

Calls make them again and again, and to build one takes longer than PostgreSQL takes to answer it. So they are prepared once. What is
asked comes as arrays, one for each part of a name; every row of an answer says by its `place` (from 1) what it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
    bindparam,
    case,
    column,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import VersionRef
from modelyard_catalog.models import (
    CONTAINERS,
    ComputedAlias,
    Model,
    ModelVersion,
    Path,
    Resource,
    VersionState,
)
from modelyard_catalog.rows import levels, model_columns, select_live
from modelyard_catalog.tables import aliases, catalogs, model_versions, models, schemas
from modelyard_kit.prepared import Prepared

Arrays = Mapping[str, Sequence[Any]]


def names(paths: Iterable[Path]) -> Arrays:
    """Return the parameters of `BY_NAME` and `LOCKED`: one array for each part of the names, innermost first."""
    return {f"name_{up}": parts for up, parts in enumerate(reversed(list(zip(*paths, strict=True))))}


def versions(refs: Sequence[VersionRef]) -> Arrays:
    """Return the parameters of `VERSIONS`."""
    return {
        **names(ref.model for ref in refs),
        "number": [ref.number for ref in refs],
        "alias": [ComputedAlias.DEFAULT if ref.alias is None else ref.alias for ref in refs],
    }


@dataclass(frozen=True)
class Lookup:
    """A query of what is asked: of many things as arrays, of one as plain values.

    PostgreSQL spends less on the second: about 1.8 instead of 2.8 ms of processor a look-up among 10,000 versions, on a slow
    machine, in two runs a few minutes apart.
    """

    many: Prepared
    one: Prepared

    async def rows(self, connection: AsyncConnection, asked: Arrays) -> Sequence[Any]:
        """Return the rows of what is there of all that is asked."""
        if any(len(values) != 1 for values in asked.values()):
            return await self.many.execute(connection, asked)
        return await self.one.execute(connection, {name: values[0] for name, values in asked.items()})


def _lookup(build: Callable[[FromClause], Select[Any]], parts: int, **others: Any) -> Lookup:
    """Build a query of a table that has a row for each thing asked: the parts of a name, other columns, and its place."""
    types = {f"name_{up}": Text() for up in range(parts)} | others
    arrays = (bindparam(name, type_=ARRAY(type_)) for name, type_ in types.items())
    columns = (column(name, type_) for name, type_ in types.items())
    many = func.unnest(*arrays).table_valued(*columns, with_ordinality="place", name="asked")
    values = (bindparam(name, type_=type_).label(name) for name, type_ in types.items())
    one = select(*values, literal_column("1").label("place")).subquery("asked")
    return Lookup(Prepared(build(many.render_derived())), Prepared(build(one)))


def _called(kind: type[Resource], asked: FromClause) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions that give a kind and its containers the names that were asked for."""
    return (table.c.name == asked.c[f"name_{up}"] for up, table in enumerate(levels(kind)))


def _by_name(kind: type[Resource], asked: FromClause) -> Select[Any]:
    return select_live(kind).add_columns(asked.c.place).where(*_called(kind, asked))


def _locked_models(asked: FromClause) -> Select[Any]:
    live = (table.c.delete_time.is_(None) for table in levels(Model))
    found = select(models.c.latest_version, *model_columns(), asked.c.place)
    found = found.join_from(models, schemas).join(catalogs).where(*_called(Model, asked), *live)
    # In the order of their ids, so that of two who lock several neither waits for what the other has.
    return found.order_by(models.c.id).with_for_update(of=models)


def _number(asked: FromClause) -> ColumnElement[int]:
    """Return the number that a reference to the model of the query means; no name is both an alias and a label."""
    of_model = model_versions.alias("of_model")
    live = select(of_model.c.number).where(
        of_model.c.model_id == models.c.id, of_model.c.delete_time.is_(None)
    )
    ready = live.where(of_model.c.state == VersionState.READY).limit(1)
    labelled = live.where(of_model.c.label == asked.c.alias, of_model.c.label != "")
    aliased = select(aliases.c.number).where(
        aliases.c.model_id == models.c.id, aliases.c.alias == asked.c.alias
    )

    def one(query: Select[Any]) -> ColumnElement[int]:
        return query.correlate(models, asked).scalar_subquery()

    return case(
        (asked.c.number.is_not(None), asked.c.number),
        (asked.c.alias == ComputedAlias.FIRST, one(ready.order_by(of_model.c.number))),
        (
            or_(asked.c.alias == ComputedAlias.LAST, asked.c.alias == ComputedAlias.DEFAULT),
            one(ready.order_by(of_model.c.number.desc())),
        ),
        else_=func.coalesce(one(aliased), one(labelled)),
    )


def _versions(asked: FromClause) -> Select[Any]:
    query = select_live(ModelVersion).add_columns(asked.c.place)
    return query.where(*_called(Model, asked), model_versions.c.number == _number(asked))


BY_NAME: Mapping[type[Resource], Lookup] = {
    kind: _lookup(partial(_by_name, kind), len(levels(kind))) for kind in CONTAINERS
}
"""With `names`: catalogs, schemas or models."""

VERSIONS = _lookup(_versions, len(levels(Model)), number=BigInteger(), alias=Text())
"""With `versions`: the versions that references mean at this moment."""

LOCKED = _lookup(_locked_models, len(levels(Model)))
"""With `names`: what a new version needs of its model, whose row stays locked to the end of the transaction."""

BY_ID: Mapping[type[Resource], Prepared] = {
    kind: Prepared(select_live(kind).where(levels(kind)[0].c.id == bindparam("id")))
    for kind in (*CONTAINERS, ModelVersion)
}
"""With `id`: anything."""
