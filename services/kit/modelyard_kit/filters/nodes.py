"""What a filter means, once it is read: typed conditions, and their text in normal form."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

# A key of a map that needs no quotes.
BARE_KEY = re.compile(r"[\w\-/]+(?:\.[\w\-/]+)*")

Value: TypeAlias = str | int | float | bool | datetime


class FieldType(StrEnum):
    """What a field holds, which decides the values and operators it takes."""

    TEXT = "TEXT"
    INTEGER = "INTEGER"
    REAL = "REAL"
    BOOLEAN = "BOOLEAN"
    TIMESTAMP = "TIMESTAMP"
    ENUM = "ENUM"
    ID = "ID"
    TEXT_SET = "TEXT_SET"
    PRINCIPAL = "PRINCIPAL"


class Comparison(StrEnum):
    """A comparison with one value."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="


@dataclass(frozen=True)
class Reference:
    """A field, or one key of a map."""

    name: str
    key: str | None
    type: FieldType

    def __str__(self) -> str:
        if self.key is None:
            return self.name
        return f"{self.name}.{self.key if BARE_KEY.fullmatch(self.key) else quoted(self.key)}"


@dataclass(frozen=True)
class Compare:
    """`number > 3`."""

    reference: Reference
    comparison: Comparison
    value: Value

    def __str__(self) -> str:
        return f"{self.reference} {self.comparison} {_shown(self.value)}"


@dataclass(frozen=True)
class OneOf:
    """`number IN (3, 4)`."""

    reference: Reference
    values: tuple[Value, ...]
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.reference} {_not(self.negated)}IN ({', '.join(map(_shown, self.values))})"


@dataclass(frozen=True)
class Like:
    r"""`name LIKE 'iris%'`: `%` is any text, `_` any character, `\` takes the meaning from the next character."""

    reference: Reference
    pattern: str
    ignore_case: bool = False
    negated: bool = False

    def __str__(self) -> str:
        operator = "ILIKE" if self.ignore_case else "LIKE"
        return f"{self.reference} {_not(self.negated)}{operator} {quoted(self.pattern)}"


@dataclass(frozen=True)
class IsNull:
    """`description IS NULL`."""

    reference: Reference
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.reference} IS {_not(self.negated)}NULL"


@dataclass(frozen=True)
class Not:
    """The opposite of a condition; of an unknown one unknown."""

    term: Node

    def __str__(self) -> str:
        return f"NOT {_enclosed(self.term)}"


@dataclass(frozen=True)
class And:
    """All of at least two conditions."""

    terms: tuple[Node, ...]

    def __str__(self) -> str:
        return " AND ".join(map(_enclosed, self.terms))


@dataclass(frozen=True)
class Or:
    """At least one of at least two conditions."""

    terms: tuple[Node, ...]

    def __str__(self) -> str:
        return " OR ".join(map(_enclosed, self.terms))


Node: TypeAlias = Compare | OneOf | Like | IsNull | Not | And | Or


def quoted(text: str) -> str:
    """Return text as the language writes it."""
    return "'" + text.replace("'", "''") + "'"


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return quoted(value.isoformat())
    return quoted(value) if isinstance(value, str) else repr(value)


def _not(negated: bool) -> str:  # noqa: FBT001
    return "NOT " if negated else ""


def _enclosed(term: Node) -> str:
    return f"({term})" if isinstance(term, And | Or) else str(term)
