"""Values of a filter, checked against the type of the field they are compared with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from modelyard_kit.filters.lexer import Kind, Token, mistake, shown
from modelyard_kit.filters.nodes import FieldType, Reference, Value, quoted

# Bounds of PostgreSQL's bigint.
INTEGERS = range(-(2**63), 2**63)

_DIGITS = 20  # more than any bigint has, and few enough for int() to take at once
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6}0*)?(?:[Zz]|[-+][0-9]{2}:[0-9]{2})"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

PrincipalIds = Callable[[str], str | None]
"""Returns the id of the principal with a name, or None if there is none."""

_EXAMPLES: Mapping[FieldType, str] = {
    FieldType.TEXT: "text in quotes, such as 'iris'",
    FieldType.TEXT_SET: "text in quotes, such as 'iris'",
    FieldType.PRINCIPAL: "the name or the id of a principal in quotes, such as 'ada'",
    FieldType.INTEGER: "an integer of 64 bits, such as 42",
    FieldType.REAL: "a number, such as 0.95",
    FieldType.BOOLEAN: "TRUE or FALSE",
    FieldType.TIMESTAMP: "an RFC 3339 time of at most 6 decimals in quotes, such as '2026-01-31T12:00:00Z'",
    FieldType.ID: "an id in quotes, such as '0198c5f0-7a3b-7c11-9d5e-2f6a1b3c4d5e'",
}


def read_value(token: Token, reference: Reference, values: tuple[str, ...], source: str) -> Value:
    """Return the value that a word stands for, as `reference` holds it.

    Args:
        token: where a value is expected.
        reference: the field it is compared with.
        values: of an ENUM, every value.
        source: what the word is part of, for the error.

    Raises:
        InvalidField: the word is no value, or not one of that type.
    """
    value = _enum(token, values) if reference.type is FieldType.ENUM else _READERS[reference.type](token)
    if value is not None:
        return value
    takes = f"one of {', '.join(map(quoted, values))}" if values else _EXAMPLES[reference.type]
    problem = f"found {token}, expected a value: {reference} is {reference.type} and takes {takes}"
    raise mistake(source, token.column, problem + _hint(token, reference))


def nobody(name: str) -> None:
    """Know no principal: for lists without fields of the type PRINCIPAL."""


def principal_id(token: Token, reference: Reference, principals: PrincipalIds, source: str) -> str:
    """Return the id of the principal that a word names; what has the form of an id is one.

    Raises:
        InvalidField: nobody has that name.
    """
    found = parse_id(token.value) or principals(token.value)
    if found is None:
        problem = (
            f"there is no principal called {shown(token.value)}: {reference} takes the name or the id of one"
        )
        raise mistake(source, token.column, problem)
    return found


def parse_time(text: str) -> datetime | None:
    """Return the time that RFC 3339 text stands for, in UTC, or None if it is not such text."""
    if not _RFC3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_id(text: str) -> str | None:
    """Return a UUID in its usual form, or None if it is not one."""
    return str(UUID(text)) if _UUID.fullmatch(text) else None


def _hint(token: Token, reference: Reference) -> str:
    if token.keyword == "NULL":
        return f"; write {reference} IS NULL"
    if token.kind is Kind.NAME and not token.keyword:
        return "; text needs quotes"
    return ""


def _text(token: Token) -> str | None:
    return token.value if token.kind is Kind.TEXT else None


def _integer(token: Token) -> int | None:
    if token.kind is not Kind.NUMBER or len(token.raw) > _DIGITS or not token.raw.lstrip("+-").isdigit():
        return None
    value = int(token.raw)
    return value if value in INTEGERS else None


def _real(token: Token) -> float | None:
    if token.kind is not Kind.NUMBER:
        return None
    value = float(token.raw)
    return value if math.isfinite(value) else None


def _boolean(token: Token) -> bool | None:
    return {"TRUE": True, "FALSE": False}.get(token.keyword)


def _time(token: Token) -> datetime | None:
    return parse_time(token.value) if token.kind is Kind.TEXT else None


def _id(token: Token) -> str | None:
    return parse_id(token.value) if token.kind is Kind.TEXT else None


def _enum(token: Token, values: tuple[str, ...]) -> str | None:
    """Return the value in its own spelling, whatever the case it is asked for in."""
    if token.kind is not Kind.TEXT:
        return None
    return next((value for value in values if value.lower() == token.value.lower()), None)


_READERS: Mapping[FieldType, Callable[[Token], Value | None]] = {
    FieldType.TEXT: _text,
    FieldType.TEXT_SET: _text,
    FieldType.PRINCIPAL: _text,
    FieldType.INTEGER: _integer,
    FieldType.REAL: _real,
    FieldType.BOOLEAN: _boolean,
    FieldType.TIMESTAMP: _time,
    FieldType.ID: _id,
}
