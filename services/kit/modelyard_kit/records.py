"""Many rows in one statement: as one JSON array, which PostgreSQL reads by the types of the table's own columns.

To send rows one by one costs both sides more, and a statement with as many parameters as there are values is another statement
for every number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Insert,
    Table,
    bindparam,
    column,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB


def insert_records(table: Table, names: Sequence[str], *, parameter: str = "records") -> Insert:
    """Build an insert of the rows in a parameter: a list of dictionaries with these names, of what JSON has.

    Times are given as ISO 8601, UUIDs as text.
    """
    columns = [table.c[name] for name in names]
    like: ColumnElement[Any] = literal_column(f"NULL::{table.name}")
    rows = func.jsonb_populate_recordset(like, bindparam(parameter, type_=JSONB)).table_valued(
        *(column(each.name, each.type) for each in columns)
    )
    return insert(table).from_select(
        list(names), select(*(_value(each, rows.c[each.name]) for each in columns))
    )


def _value(of: Column[Any], given: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return what is given for a column: null is NULL to `jsonb_populate_recordset`, but a value where there must be one."""
    is_value = isinstance(of.type, JSONB) and not of.nullable
    return func.coalesce(given, literal_column("'null'::jsonb")) if is_value else given
