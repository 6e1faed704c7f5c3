"""The filter language in plain Python over plain rows: what the SQL must agree with.

A row maps each field to its value, None for NULL; a map to a dict, a set to a list. True, False and None are the three values
of SQL's logic.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cmp_to_key
from typing import Any

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
    Reference,
)

Row = Mapping[str, Any]

_COMPARE: Mapping[Comparison, Callable[[Any, Any], bool]] = {
    Comparison.EQUAL: operator.eq,
    Comparison.NOT_EQUAL: operator.ne,
    Comparison.LESS: operator.lt,
    Comparison.AT_MOST: operator.le,
    Comparison.GREATER: operator.gt,
    Comparison.AT_LEAST: operator.ge,
}


def evaluate(node: Node, row: Row) -> bool | None:
    """Return whether a row fulfils a filter; None if that is unknown."""
    match node:
        case Not(term):
            return _not(evaluate(term, row))
        case And(terms):
            return _all([evaluate(term, row) for term in terms])
        case Or(terms):
            return _not(_all([_not(evaluate(term, row)) for term in terms]))
    if node.reference.type is FieldType.TEXT_SET:
        return _of_set(node, row[node.reference.name])
    return _of_value(node, value_of(node.reference, row))


def value_of(reference: Reference, row: Row) -> Any:
    """Return a field's value, None for NULL."""
    if reference.key is None:
        return row[reference.name]
    value = row[reference.name].get(reference.key)
    if reference.type is not FieldType.REAL:
        return value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def sort(rows: Iterable[Row], keys: Sequence[tuple[Reference, bool]]) -> list[Row]:
    """Return the rows in an order of (field, descending), NULL last in both directions."""

    def compare(left: Row, right: Row) -> int:
        for reference, descending in keys:
            a, b = value_of(reference, left), value_of(reference, right)
            if a == b:
                continue
            if a is None or b is None:
                return 1 if a is None else -1
            return -1 if (a > b) == descending else 1
        return 0

    return sorted(rows, key=cmp_to_key(compare))


def matches(text: str, pattern: str, *, ignore_case: bool) -> bool:
    """Return whether a LIKE pattern fits the whole text."""
    if ignore_case:
        text, pattern = _lower(text), _lower(pattern)
    reachable = {0}  # positions of `text` that the pattern so far can end at
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            reachable = set(range(min(reachable), len(text) + 1)) if reachable else set()
            continue
        wanted = next(characters) if character == "\\" else character
        anything = character == "_"
        reachable = {at + 1 for at in reachable if at < len(text) and (anything or text[at] == wanted)}
    return len(text) in reachable


def _lower(text: str) -> str:
    """Return the text in lower case letter by letter: no letter becomes two."""
    return "".join("i" if letter == "İ" else letter.lower() for letter in text)


def _of_value(node: Compare | OneOf | Like | IsNull, value: Any) -> bool | None:
    if isinstance(node, IsNull):
        return (value is None) != node.negated
    if value is None:
        return None
    match node:
        case Compare(_, comparison, other):
            return _COMPARE[comparison](value, other)
        case OneOf(_, values, negated):
            return (value in values) != negated
        case Like(_, pattern, ignore_case, negated):
            return matches(value, pattern, ignore_case=ignore_case) != negated


def _of_set(node: Compare | OneOf | Like | IsNull, elements: Sequence[str]) -> bool:
    match node:
        case Compare(_, comparison, value):
            return (value in elements) == (comparison is Comparison.EQUAL)
        case OneOf(_, values, negated):
            return any(element in values for element in elements) != negated
        case Like(_, pattern, ignore_case, negated):
            return any(matches(e, pattern, ignore_case=ignore_case) for e in elements) != negated
        case IsNull(_, negated):
            return bool(elements) == negated


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _all(values: Sequence[bool | None]) -> bool | None:
    if False in values:
        return False
    return None if None in values else True
