"""Queries of resources by id, name or reference, any number at once.

Calls make them again and again, and to build one takes longer than PostgreSQL takes to answer it. So they are prepared once. What is
asked comes as arrays, one for each part of a name; every row of an answer says by its `place` (from 1) what it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

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

_ID = Uuid(as_uuid=False)


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

    Attributes:
        one: tells the query of one thing, which may depend on what kind of name it has.
    """

    many: Prepared
    one: Callable[[Mapping[str, Any]], Prepared]

    async def rows(self, connection: AsyncConnection, asked: Arrays) -> Sequence[Any]:
        """Return the rows of what is there of all that is asked."""
        if any(len(values) != 1 for values in asked.values()):
            return await self.many.execute(connection, asked)
        values = {name: values[0] for name, values in asked.items()}
        return await self.one(values).execute(connection, values)


Build = Callable[[FromClause], Select[Any]]
"""Builds a query of a table that has a row for each thing asked: the parts of a name, other columns, and its place."""


def _many(build: Build, types: Mapping[str, TypeEngine[Any]]) -> Prepared:
    arrays = (bindparam(name, type_=ARRAY(type_)) for name, type_ in types.items())
    columns = (column(name, type_) for name, type_ in types.items())
    asked = func.unnest(*arrays).table_valued(*columns, with_ordinality="place", name="asked")
    return Prepared(build(asked.render_derived()))


def _one(build: Build, types: Mapping[str, TypeEngine[Any]]) -> Prepared:
    values = (bindparam(name, type_=type_).label(name) for name, type_ in types.items())
    return Prepared(build(select(*values, literal_column("1").label("place")).subquery("asked")))


def _parts(kind: type[Resource]) -> dict[str, TypeEngine[Any]]:
    """Return the columns of what is asked that hold the parts of a name."""
    return {f"name_{up}": Text() for up in range(len(levels(kind)))}


def _lookup(build: Build, kind: type[Resource]) -> Lookup:
    one = _one(build, _parts(kind))
    return Lookup(_many(build, _parts(kind)), lambda _: one)


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


class _Meaning(Enum):
    """What kind of reference to a version it is."""

    NUMBER = auto()
    FIRST = auto()
    LAST = auto()
    NAMED = auto()

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> _Meaning:
        """Return the kind of what is asked; the same distinction as that of `_number`."""
        if asked["number"] is not None:
            return cls.NUMBER
        return _COMPUTED.get(asked["alias"], cls.NAMED)


_COMPUTED = {
    ComputedAlias.FIRST: _Meaning.FIRST,
    ComputedAlias.LAST: _Meaning.LAST,
    ComputedAlias.DEFAULT: _Meaning.LAST,
}


def _numbers(asked: FromClause) -> Mapping[_Meaning, ColumnElement[int]]:
    """Return the number that each kind of reference to the model of the query means; no name is both an alias and a label."""
    of_model = model_versions.alias("of_model")
    live = select(of_model.c.number).where(
        of_model.c.model_id == models.c.id, of_model.c.delete_time.is_(None)
    )
    # As part of the text: of a parameter PostgreSQL would not know that there is an index for its value.
    ready = live.where(of_model.c.state == literal_column(f"'{VersionState.READY}'")).limit(
        literal_column("1")
    )
    labelled = live.where(of_model.c.label == asked.c.alias, of_model.c.label != literal_column("''"))
    aliased = select(aliases.c.number).where(
        aliases.c.model_id == models.c.id, aliases.c.alias == asked.c.alias
    )

    def one(query: Select[Any]) -> ColumnElement[int]:
        return query.correlate(models, asked).scalar_subquery()

    return {
        _Meaning.NUMBER: asked.c.number,
        _Meaning.FIRST: one(ready.order_by(of_model.c.number)),
        _Meaning.LAST: one(ready.order_by(of_model.c.number.desc())),
        _Meaning.NAMED: func.coalesce(one(aliased), one(labelled)),
    }


def _number(meaning: _Meaning | None, asked: FromClause) -> ColumnElement[int]:
    """Return the number that a reference of a kind means, or of any kind."""
    numbers = _numbers(asked)
    if meaning is not None:
        return numbers[meaning]
    computed = ((asked.c.alias == alias, numbers[kind]) for alias, kind in _COMPUTED.items())
    by_number = (asked.c.number.is_not(None), numbers[_Meaning.NUMBER])
    return case(by_number, *computed, else_=numbers[_Meaning.NAMED])


def _versions(meaning: _Meaning | None, asked: FromClause) -> Select[Any]:
    query = select_live(ModelVersion).add_columns(asked.c.place)
    return query.where(*_called(Model, asked), model_versions.c.number == _number(meaning, asked))


def _version_lookup() -> Lookup:
    """Build the queries of versions; of one, that of its kind of reference alone.

    A query of any kind would be planned anew for every call, because it costs so much less once what does not apply is left out.
    """
    types = {**_parts(Model), "number": BigInteger(), "alias": Text()}
    ones = {meaning: _one(partial(_versions, meaning), types) for meaning in _Meaning}
    return Lookup(_many(partial(_versions, None), types), lambda asked: ones[_Meaning.of(asked)])


BY_NAME: Mapping[type[Resource], Lookup] = {
    kind: _lookup(partial(_by_name, kind), kind) for kind in CONTAINERS
}
"""With `names`: catalogs, schemas or models."""

VERSIONS = _version_lookup()
"""With `versions`: the versions that references mean at this moment."""

LOCKED = _lookup(_locked_models, Model)
"""With `names`: what a new version needs of its model, whose row stays locked to the end of the transaction."""

BY_ID: Mapping[type[Resource], Prepared] = {
    kind: Prepared(select_live(kind).where(levels(kind)[0].c.id == bindparam("id")))
    for kind in (*CONTAINERS, ModelVersion)
}
"""With `id`: anything."""

AMONG: Mapping[tuple[type[Resource], bool], Prepared] = {
    (kind, hidden): Prepared(
        select_live(kind, show_deleted=True, show_hidden=hidden).where(
            levels(kind)[0].c.id == any_(bindparam("ids", type_=ARRAY(_ID)))
        )
    )
    for kind in (*CONTAINERS, ModelVersion)
    for hidden in (False, True)
}
"""With `ids`: any number of things of a kind, deleted or not, in no order; with True also those in something deleted."""
