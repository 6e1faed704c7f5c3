"""Filters as SQL conditions. Everything that callers write becomes a bound parameter.

NULL works as in SQL: what compares with it is unknown, and so is the opposite of that; rows for which the whole filter is
unknown are left out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Text,
    Uuid,
    and_,
    any_,
    collate,
    literal,
    not_,
    or_,
)
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.types import TypeEngine

from modelyard_kit.filters.fields import ListFields
from modelyard_kit.filters.nodes import (
    And,
    Compare,
    Comparison,
    FieldType,
    IsNull,
    Like,
    Node,
    Not,
    OneOf,
    Or,
    Value,
)

# Collations of every PostgreSQL from 17 on: both order by code point, whatever the locale of the database, and the second
# also knows the letters of Unicode in both cases.
CODE_POINTS = "C"
LETTERS = "pg_c_utf8"

_TEXTS = frozenset((FieldType.TEXT, FieldType.ENUM, FieldType.TEXT_SET))
_TYPES: Mapping[FieldType, TypeEngine[Any]] = {
    FieldType.TEXT: Text(),
    FieldType.ENUM: Text(),
    FieldType.TEXT_SET: Text(),
    FieldType.PRINCIPAL: Text(),
    FieldType.INTEGER: BigInteger(),
    FieldType.REAL: Double(),
    FieldType.BOOLEAN: Boolean(),
    FieldType.TIMESTAMP: TIMESTAMP(timezone=True),
    FieldType.ID: Uuid(as_uuid=False),
}
_COMPARE: Mapping[Comparison, Callable[[Any, Any], ColumnElement[bool]]] = {
    Comparison.EQUAL: operator.eq,
    Comparison.NOT_EQUAL: operator.ne,
    Comparison.LESS: operator.lt,
    Comparison.AT_MOST: operator.le,
    Comparison.GREATER: operator.gt,
    Comparison.AT_LEAST: operator.ge,
}


def chosen(node: Node, fields: ListFields) -> ColumnElement[bool]:
    """Return the condition under which a filter chooses a row: as `condition`, but false may stand for unknown.

    Below AND and OR the two choose the same rows; below NOT they do not.
    """
    match node:
        case And(terms):
            return and_(*(chosen(term, fields) for term in terms))
        case Or(terms):
            return or_(*(chosen(term, fields) for term in terms))
        case Compare(reference, Comparison.EQUAL, value):
            held = fields.holds(reference, value)
            return condition(node, fields) if held is None else held
    return condition(node, fields)


def condition(node: Node, fields: ListFields) -> ColumnElement[bool]:
    """Return the SQL condition of a filter."""
    match node:
        case And(terms):
            return and_(*(condition(term, fields) for term in terms))
        case Or(terms):
            return or_(*(condition(term, fields) for term in terms))
        case Not(term):
            return not_(condition(term, fields))
    if node.reference.type is FieldType.TEXT_SET:
        return _of_set(node, fields)
    return _of_value(node, fields.expression(node.reference))


def bound(value: Value, of: FieldType) -> ColumnElement[Any]:
    """Return a value as a parameter of a type, so that PostgreSQL does not guess one."""
    return literal(value, _TYPES[of])


def ordered(expression: ColumnElement[Any], of: FieldType) -> ColumnElement[Any]:
    """Return the expression as it compares and sorts: text by code point, the same on every machine."""
    return collate(expression, CODE_POINTS) if of in _TEXTS else expression


def _of_value(node: Compare | OneOf | Like | IsNull, expression: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return a comparison of one value."""
    match node:
        case Compare(reference, comparison, value):
            # Equality is the same in every collation, and an index in the column's own can serve it.
            equality = comparison in (Comparison.EQUAL, Comparison.NOT_EQUAL)
            left = expression if equality else ordered(expression, reference.type)
            return _COMPARE[comparison](left, bound(value, reference.type))
        case OneOf(reference, values, negated):
            found = expression == any_(_array(values, reference.type))
            return not_(found) if negated else found
        case Like(_, pattern, ignore_case, negated):
            return _like(expression, pattern, ignore_case=ignore_case, negated=negated)
        case IsNull(_, negated):
            return expression.is_not(None) if negated else expression.is_(None)


def _of_set(node: Compare | OneOf | Like | IsNull, fields: ListFields) -> ColumnElement[bool]:
    """Return whether some element fulfils the comparison; negated: whether none does. Never unknown."""
    query = fields.elements(node.reference)
    element = query.selected_columns[0]
    match node:
        case Compare(_, comparison, value):
            negated = comparison is Comparison.NOT_EQUAL
            query = query.where(element == bound(value, FieldType.TEXT))
        case OneOf(_, values, negated):
            query = query.where(element == any_(_array(values, FieldType.TEXT)))
        case Like(_, pattern, ignore_case, negated):
            query = query.where(_like(element, pattern, ignore_case=ignore_case, negated=False))
        case IsNull(_, is_not):
            negated = not is_not
    return not_(query.exists()) if negated else query.exists()


def _like(
    expression: ColumnElement[Any], pattern: str, *, ignore_case: bool, negated: bool
) -> ColumnElement[bool]:
    parameter = bound(pattern, FieldType.TEXT)
    if ignore_case:
        found = collate(expression, LETTERS).ilike(parameter)
    else:
        found = collate(expression, CODE_POINTS).like(parameter)
    return not_(found) if negated else found


def _array(values: Sequence[Value], of: FieldType) -> ColumnElement[Any]:
    """Return the values as one parameter, however many there are."""
    return literal(list(values), ARRAY(_TYPES[of]))
