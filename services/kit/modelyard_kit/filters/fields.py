"""The fields that a list can be filtered and ordered by: what they hold, and how SQL gets at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, TypeAlias

from sqlalchemy import Column, ColumnElement, Double, Select, case, cast, func

from modelyard_kit.filters.lexer import KEYWORDS, NAME, Token, mistake, shown
from modelyard_kit.filters.nodes import FieldType, Reference, Value


@dataclass(frozen=True, eq=False)
class Field:
    """One value per row.

    Attributes:
        type: what it holds; not TEXT_SET.
        expression: the value in SQL. REAL is double precision, TIMESTAMP has a time zone, ENUM is text, ID is a uuid, PRINCIPAL is
            the id of a principal as text.
        values: of an ENUM, every value.
        required: never NULL. Then an order by it keeps no place for NULL, so that an index can serve it.
    """

    type: FieldType
    expression: ColumnElement[Any]
    values: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True, eq=False)
class SetField:
    """Several texts per row, such as aliases: a condition holds if it holds for one of them.

    Attributes:
        elements: a query of one text column, correlated with the row.
    """

    elements: Select[tuple[str]]

    @property
    def type(self) -> FieldType:
        """A set of text."""
        return FieldType.TEXT_SET

    @property
    def values(self) -> tuple[str, ...]:
        """Any text."""
        return ()


@dataclass(frozen=True, eq=False)
class MapField:
    """One value per row and key, such as tags and metrics; NULL where the row lacks the key.

    Attributes:
        type: what a key holds; not TEXT_SET.
        lookup: the value of a key in SQL. The key comes from the caller: it must become a bound parameter.
        values: of an ENUM, every value.
        holds: a condition that is true where a key has a value, and false or NULL anywhere else: where it only matters which
            rows are chosen, it stands for the comparison, so that an index and its statistics can serve it.
        known: what the keys can be, for a map that cannot have any; each is a key, or with `<key>` at its end the start of one.
    """

    type: FieldType
    lookup: Callable[[str], ColumnElement[Any]]
    values: tuple[str, ...] = ()
    holds: Callable[[str, Value], ColumnElement[bool]] | None = None
    known: tuple[str, ...] = ()

    def takes(self, key: str) -> bool:
        """Return whether a row can have the key."""
        return not self.known or any(_is_one_of(key, known) for known in self.known)


AnyField: TypeAlias = Field | SetField | MapField


@dataclass(frozen=True)
class ListFields:
    """What one list can be filtered and ordered by.

    Attributes:
        fields: by name. A name may have one dot (`provenance.commit`) unless a map has the part before it.
        unique: a required field that no two rows share; it completes every order.
        default_order: the order_by when none is asked for; "" is by `unique` alone.
        orders: for a list whose order lies in what it is, the fields that an order_by may name; () is all that have an order.
    """

    fields: Mapping[str, AnyField]
    unique: str
    default_order: str = ""
    orders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.fields:
            first, _, rest = name.partition(".")
            if first.upper() in KEYWORDS or not NAME.fullmatch(first):
                raise ValueError(f"{name!r} cannot be the name of a field")
            if rest and isinstance(self.fields.get(first), MapField):
                raise ValueError(f"{name!r} could be read as a key of {first!r}")
        unique = self.fields.get(self.unique)
        if not isinstance(unique, Field) or not unique.required:
            raise ValueError(f"{self.unique!r} cannot complete an order: it is not a required field")

    def resolve(self, token: Token, source: str) -> Reference:
        """Return the field that a name stands for.

        Raises:
            InvalidField: there is none, or it is a map and the key is missing or cannot be there.
        """
        whole = token.value if token.key is None else f"{token.value}.{token.key}"
        field = self.fields.get(whole)
        if field is not None and not token.quoted and not isinstance(field, MapField):
            return Reference(whole, None, field.type)
        field = self.fields.get(token.value)
        if isinstance(field, MapField):
            if token.key is None:
                example = f"{token.value}.key or {token.value}.'two words'"
                problem = f"{token.value} is a map: expected a key as well, such as {example}"
                raise mistake(source, token.column, problem)
            if not field.takes(token.key):
                keys = ", ".join(f"{token.value}.{key}" for key in field.known)
                raise mistake(source, token.column, f"unknown field {shown(whole)}; known: {keys}")
            return Reference(token.value, token.key, field.type)
        if field is not None:
            raise mistake(source, token.column, f"{token.value} is {field.type} and has no keys")
        known = ", ".join(self._closest(whole))
        raise mistake(
            source, token.column, f"unknown field {shown(token.raw)}; known, the closest first: {known}"
        )

    def values_of(self, reference: Reference) -> tuple[str, ...]:
        """Return every value of an ENUM."""
        return self.fields[reference.name].values

    def expression(self, reference: Reference) -> ColumnElement[Any]:
        """Return a value in SQL; `reference` is not a set."""
        field = self.fields[reference.name]
        if isinstance(field, MapField) and reference.key is not None:
            return field.lookup(reference.key)
        if isinstance(field, Field):
            return field.expression
        raise TypeError(f"{reference} has no single value")

    def holds(self, reference: Reference, value: Value) -> ColumnElement[bool] | None:
        """Return the condition of `MapField.holds`, if the field has one."""
        field = self.fields[reference.name]
        if isinstance(field, MapField) and field.holds is not None and reference.key is not None:
            return field.holds(reference.key, value)
        return None

    def elements(self, reference: Reference) -> Select[tuple[str]]:
        """Return the elements of a set in SQL."""
        field = self.fields[reference.name]
        if isinstance(field, SetField):
            return field.elements
        raise TypeError(f"{reference} is not a set")

    def is_required(self, reference: Reference) -> bool:
        """Return whether it is never NULL."""
        field = self.fields[reference.name]
        return isinstance(field, Field) and field.required

    def _closest(self, name: str) -> list[str]:
        """Return the name of every field, the ones most like `name` first."""
        names = [f"{known}.<key>" if isinstance(of, MapField) else known for known, of in self.fields.items()]
        asked = name.lower()
        return sorted(names, key=lambda known: -SequenceMatcher(None, asked, known.split(".<")[0]).ratio())


def _is_one_of(key: str, known: str) -> bool:
    start = known.removesuffix("<key>")
    return key == known if start == known else key.startswith(start) and key != start


def json_text(column: Column[Any], key: str) -> ColumnElement[str]:
    """Return the text under a key of a JSONB object; NULL if it lacks the key. For `MapField.lookup`."""
    text: ColumnElement[str] = column[key].astext
    return text


def json_number(column: Column[Any], key: str) -> ColumnElement[float]:
    """Return the number under a key of a JSONB object; NULL if it lacks the key or has no number there.

    The number must fit double precision, as every number does that came in as protobuf.
    """
    return case((func.jsonb_typeof(column[key]) == "number", cast(column[key].astext, Double)))
