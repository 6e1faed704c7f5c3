"""Statements of SQLAlchemy that are compiled once, and then executed by asyncpg alone.

At every execution SQLAlchemy looks its compiled form up, adapts asyncpg to DBAPI and wraps the rows, which takes about four times as
long as asyncpg does. A statement that a call makes again and again, and whose text never changes, can do without. It is written
as any other, runs in the same transaction, and raises the same errors.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from opentelemetry import trace
from sqlalchemy import Insert, Select, Update
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from modelyard_kit.driver import driver_of, from_json, translated

_Process = Callable[[Any], Any]

_DIALECT = PGDialect_asyncpg(json_deserializer=from_json)  # type: ignore[no-untyped-call]
_tracer = trace.get_tracer("modelyard")


@dataclass(frozen=True)
class _Form:
    """The text of a statement, and what becomes of its parameters: for each its name, its value unless given, and its conversion."""

    sql: str
    parameters: Sequence[tuple[str, Any, _Process | None]]


class Prepared:
    """A statement whose text does not depend on what it is asked: `= ANY` of an array instead of `IN` a list.

    Args:
        statement: what to execute; its parameters are its `bindparam`s.
    """

    def __init__(self, statement: Select[Any] | Insert | Update) -> None:
        self.statement = statement
        self._row: Callable[[Any], Any] | None = None

    async def execute(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Execute it and return its rows, named tuples by the names of the columns.

        Args:
            connection: what `Database` hands to work.
            parameters: values by the names of the `bindparam`s.

        Raises:
            IntegrityError: a constraint is violated.
            DBAPIError: PostgreSQL refuses it, or is lost.
        """
        form = self._form
        values = [
            _bound(parameters.get(name, default), process) for name, default, process in form.parameters
        ]
        driver = driver_of(connection)
        with translated(form.sql):
            if self._row is None:
                self._row, records = await self._first(driver, values)
            else:
                records = await self.fetch(driver, values)
        return list(map(self._row, records))

    @property
    def text(self) -> str:
        """The SQL."""
        return self._form.sql

    async def fetch(self, driver: Any, values: Sequence[Any]) -> Sequence[Any]:
        """Return the records of asyncpg for values in the order of the text."""
        sql = self._form.sql
        with _span(sql) if trace.get_current_span().is_recording() else nullcontext():
            records: Sequence[Any] = await driver.fetch(sql, *values)
        return records

    @cached_property
    def _form(self) -> _Form:
        compiled = self.statement.compile(dialect=_DIALECT)
        kinds = {name: bind.type for name, bind in compiled.binds.items()}
        names = compiled.positiontup or ()
        parameters = [(name, compiled.params[name], _binder(kinds[name])) for name in names]
        return _Form(str(compiled), parameters)

    async def _first(self, driver: Any, values: Sequence[Any]) -> tuple[Callable[[Any], Any], Sequence[Any]]:
        """Find out how to read rows, then execute it."""
        return await self._reader(driver), await self.fetch(driver, values)

    async def _reader(self, driver: Any) -> Callable[[Any], Any]:
        """Return what makes a row of a record."""
        answered = (await driver.prepare(self._form.sql)).get_attributes()
        names = [each.name for each in answered]
        kinds = zip(self.statement.exported_columns, answered, strict=True)
        converted = (_result(column.type, each.type.oid) for column, each in kinds)
        processes = [(at, process) for at, process in enumerate(converted) if process is not None]
        make: Any = namedtuple("Row", names)._make  # type: ignore[attr-defined]  # the names are not known before

        def read(record: Any) -> Any:
            values = list(record)
            for at, process in processes:
                values[at] = process(values[at])
            return make(values)

        return read


def _span(sql: str) -> AbstractContextManager[Any]:
    """Begin a span as those that are made of SQLAlchemy's statements."""
    told = {"db.system": "postgresql", "db.statement": sql}
    return _tracer.start_as_current_span(sql.split(None, 1)[0], kind=trace.SpanKind.CLIENT, attributes=told)


def _bound(value: Any, process: _Process | None) -> Any:
    return value if process is None else process(value)


def _binder(kind: TypeEngine[Any]) -> _Process | None:
    return kind.dialect_impl(_DIALECT).bind_processor(_DIALECT)


def _result(kind: TypeEngine[Any], oid: int) -> _Process | None:
    return kind.dialect_impl(_DIALECT).result_processor(_DIALECT, oid)
