"""order_by: which fields sort a list, and what comes after a given row in that order.

Text sorts by code point and NULL comes last in both directions. A unique field completes every order, so that no two rows
are equal in it and a page can start exactly after the last row of the page before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Label, and_, false, or_, tuple_

from modelyard_kit import limits
from modelyard_kit.filters.fields import ListFields
from modelyard_kit.filters.lexer import Kind, Token, mistake, tokens
from modelyard_kit.filters.nodes import FieldType, Reference, Value
from modelyard_kit.filters.sql import bound, ordered

_SOURCE = "order_by"
_UNORDERED = (FieldType.TEXT_SET, FieldType.PRINCIPAL)

KeyValues: TypeAlias = Sequence[Value | None]


@dataclass(frozen=True, eq=False)
class Key:
    """One field of an order.

    Attributes:
        reference: the field.
        expression: its value in SQL.
        descending: whether the largest comes first.
        required: whether no row lacks it.
        present: whether the query has only rows that do not lack it.
    """

    reference: Reference
    expression: ColumnElement[Any]
    descending: bool
    required: bool
    present: bool = False

    def __str__(self) -> str:
        return f"{self.reference} {'DESC' if self.descending else 'ASC'}"

    def beyond(self, value: Value | None, *, or_equal: bool = False) -> ColumnElement[bool]:
        """Return the condition for rows that come after `value`, by this key alone."""
        if value is None:
            return false()
        limit = bound(value, self.reference.type)
        if self.descending:
            after = self.expression <= limit if or_equal else self.expression < limit
        else:
            after = self.expression >= limit if or_equal else self.expression > limit
        return after if self.required or self.present else or_(after, self.expression.is_(None))

    def same(self, value: Value | None) -> ColumnElement[bool]:
        """Return the condition for rows that are at `value`."""
        if value is None:
            return self.expression.is_(None)
        return self.expression == bound(value, self.reference.type)


@dataclass(frozen=True, eq=False)
class Ordering:
    """The fields of an order, the last one unique.

    Attributes:
        keys: the fields.
        lacking: whether every row of the query lacks the first one.
    """

    keys: tuple[Key, ...]
    lacking: bool = False

    def __str__(self) -> str:
        return ", ".join(map(str, self.keys))

    def split(self) -> tuple[Ordering | None, Ordering]:
        """Return the order of the rows that have the first field, and of those that lack it, which come after them.

        None for the first one: no row lacks the field, or all of them do, so that there is nothing to split.
        """
        first, *others = self.keys
        if first.required or self.lacking:
            return None, self
        return Ordering((replace(first, present=True), *others)), replace(self, lacking=True)

    @property
    def columns(self) -> list[Label[Any]]:
        """What to select besides, so that the last row of a page tells where the next one starts."""
        return [key.expression.label(f"order_{position}") for position, key in enumerate(self.keys)]

    def clauses(self, columns: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
        """Return the ORDER BY over `columns`.

        NULLS LAST is said only where NULL can be: an index in the plain order does not serve it when descending. Where all NULLs
        were left out, they stand where an index by falling value with NULLS LAST has them, read either way.
        """
        clauses: list[ColumnElement[Any]] = []
        for key, column in list(zip(self.keys, columns, strict=True))[self.lacking :]:
            clause = column.desc() if key.descending else column.asc()
            if key.present and not key.descending:
                clause = clause.nulls_first()
            elif not key.required:
                clause = clause.nulls_last()
            clauses.append(clause)
        return clauses

    def after(self, values: KeyValues) -> ColumnElement[bool]:
        """Return the condition for the rows that come after the one with these values."""
        keys, values = self.keys[self.lacking :], values[self.lacking :]
        if all(key.required for key in keys) and len({key.descending for key in keys}) == 1:
            # The comparison of rows that an index over the same columns answers in one step.
            left = tuple_(*(key.expression for key in keys))
            right = tuple_(
                *(bound(_known(v), key.reference.type) for key, v in zip(keys, values, strict=True))
            )
            return left < right if keys[0].descending else left > right
        whole = _after(keys, values)
        # Says nothing new, but bounds the scan of an index that begins with the first key.
        bounded = keys[0].required or keys[0].present
        return and_(keys[0].beyond(values[0], or_equal=True), whole) if bounded else whole


def parse_order(text: str, fields: ListFields) -> Ordering:
    """Return the order that `text` asks for ("" is the default one of the list), completed by the unique field.

    Raises:
        InvalidField: of "order_by", with the column of the first mistake and what was expected there.
        LimitExceeded: it is too long or has too many fields.
    """
    limits.check("order_by_length", len(text))
    asked = _read(text if text.strip() else fields.default_order, fields)
    limits.check("order_by_fields", len(asked))
    references = [reference for reference, _ in asked]
    unique = Reference(fields.unique, None, fields.fields[fields.unique].type)
    if unique not in references:
        # In the direction of the field before it: then rows compare as a whole, which an index can serve.
        asked.append((unique, bool(asked) and asked[-1][1]))
    return Ordering(tuple(_key(reference, fields, descending=down) for reference, down in asked))


def _key(reference: Reference, fields: ListFields, *, descending: bool) -> Key:
    expression = ordered(fields.expression(reference), reference.type)
    return Key(reference, expression, descending, fields.is_required(reference))


def _read(text: str, fields: ListFields) -> list[tuple[Reference, bool]]:
    """Return the fields asked for, each with whether it descends."""
    words = list(tokens(text, _SOURCE))
    asked: list[tuple[Reference, bool]] = []
    position = 0
    while words[position].kind is not Kind.END or asked:
        reference = _field(words[position], fields)
        if any(reference == before for before, _ in asked):
            raise mistake(_SOURCE, words[position].column, f"{reference} is there twice")
        direction = words[position + 1].keyword
        asked.append((reference, direction == "DESC"))
        position += 2 if direction in ("ASC", "DESC") else 1
        if words[position].kind is Kind.END:
            break
        if words[position].raw != ",":
            expected = "',' or the end" if direction in ("ASC", "DESC") else "ASC, DESC, ',' or the end"
            raise mistake(_SOURCE, words[position].column, f"found {words[position]}, expected {expected}")
        position += 1
    return asked


def _field(token: Token, fields: ListFields) -> Reference:
    if token.kind is not Kind.NAME or token.keyword:
        raise mistake(_SOURCE, token.column, f"found {token}, expected a field")
    reference = fields.resolve(token, _SOURCE)
    if fields.orders and reference.name not in fields.orders:
        orders = " or ".join(fields.orders)
        problem = f"found {token}, expected {orders}: this list has no other order"
        raise mistake(_SOURCE, token.column, problem)
    if reference.type in _UNORDERED:
        raise mistake(_SOURCE, token.column, f"{reference} is {reference.type}, which has no order")
    return reference


def _after(keys: Sequence[Key], values: KeyValues) -> ColumnElement[bool]:
    beyond = keys[0].beyond(values[0])
    if len(keys) == 1:
        return beyond
    return or_(beyond, and_(keys[0].same(values[0]), _after(keys[1:], values[1:])))


def _known(value: Value | None) -> Value:
    if value is None:
        raise ValueError("a required field is NULL")
    return value
