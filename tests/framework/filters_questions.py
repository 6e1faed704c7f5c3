"""Random filters and orders over the fields of a list, with values that its rows often have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from modelyard_kit.filters import Asked, FieldType, ListFields
from modelyard_kit.filters.nodes import (
    And,
    Compare,
    Comparison,
    IsNull,
    Like,
    Node,
    Not,
    OneOf,
    Or,
    Reference,
)
from modelyard_kit.filters.parser import OPERATORS
from tests.framework.filters_reference import Row, evaluate, sort, value_of

START = datetime(2026, 1, 1, tzinfo=UTC)
ID = "0198c5f0-7a3b-7c11-9d5e-2f6a1b3c4d5e"
Order = Sequence[tuple[Reference, bool]]

texts = st.text(st.sampled_from("aBä%_\\' 日"), max_size=3)
reals = st.integers(-2, 2).map(float) | st.sampled_from((0.5, 1e-9, 1e300))
times = st.integers(0, 3).map(lambda seconds: START + timedelta(seconds=seconds))
names = st.sampled_from(("champion", "old", "b"))
patterns = st.lists(st.sampled_from(("%", "_", "a", "B", "v", "\\%", "1")), max_size=3).map("".join)
_VALUES: Mapping[FieldType, st.SearchStrategy[Any]] = {
    FieldType.TEXT: texts,
    FieldType.TEXT_SET: names,
    FieldType.BOOLEAN: st.booleans(),
    FieldType.INTEGER: st.integers(0, 9),
    FieldType.REAL: reals,
    FieldType.TIMESTAMP: times,
    FieldType.ID: st.just(ID),
    FieldType.PRINCIPAL: st.just(ID),
}


@dataclass(frozen=True)
class Question:
    """Rows, filters over them, an order, the size of a page."""

    rows: Sequence[Row]
    filters: Sequence[Node]
    order: Order
    size: int

    @property
    def asked(self) -> list[Asked]:
        """Return the requests for the first page of each filter."""
        order_by = ", ".join(
            f"{reference}{' desc' if descending else ''}" for reference, descending in self.order
        )
        return [Asked(size=self.size, filter=str(node), order_by=order_by) for node in self.filters]

    def expected(self, unique: Reference, *, descending: bool = False) -> list[list[Any]]:
        """Return the values of the unique field that each list must have; `descending` is the order of the list by default."""
        keys = [*(self.order or [(unique, descending)])]
        keys.append((unique, keys[-1][1]))
        ordered = sort(self.rows, keys)
        return [[value_of(unique, row) for row in ordered if evaluate(node, row)] for node in self.filters]


@dataclass(frozen=True)
class Questions:
    """Makes questions about one list.

    Attributes:
        fields: of the list.
        keys: for each map, the keys to ask for.
    """

    fields: ListFields
    keys: Mapping[str, st.SearchStrategy[str]] = field(default_factory=dict)

    def about(self, rows: st.SearchStrategy[Sequence[Row]]) -> st.SearchStrategy[Question]:
        """Return questions about such rows; there is at least one row."""
        return rows.flatmap(self._of)

    def _of(self, rows: Sequence[Row]) -> st.SearchStrategy[Question]:
        nodes = st.lists(self._trees(rows), min_size=3, max_size=3)
        return st.builds(Question, st.just(rows), nodes, self._orders(), st.integers(1, 4))

    def _orders(self) -> st.SearchStrategy[Order]:
        unordered = (FieldType.TEXT_SET, FieldType.PRINCIPAL)
        sortable = [
            name
            for name, of in self.fields.fields.items()
            if of.type not in unordered and name in (self.fields.orders or self.fields.fields)
        ]
        key = st.tuples(self._references(sortable), st.booleans())
        return st.lists(key, max_size=3, unique_by=lambda one: one[0])

    def _references(self, names_: Sequence[str]) -> st.SearchStrategy[Reference]:
        return st.sampled_from(sorted(names_)).flatmap(self._reference)

    def _reference(self, name: str) -> st.SearchStrategy[Reference]:
        keys: st.SearchStrategy[Any] = self.keys.get(name, st.none())
        return st.builds(Reference, st.just(name), keys, st.just(self.fields.fields[name].type))

    def _trees(self, rows: Sequence[Row]) -> st.SearchStrategy[Node]:
        def grow(terms: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
            several = st.lists(terms, min_size=2, max_size=3).map(tuple)
            return st.builds(Not, terms) | st.builds(And, several) | st.builds(Or, several)

        conditions = self._references(list(self.fields.fields)).flatmap(lambda of: self._condition(of, rows))
        return st.recursive(conditions, grow, max_leaves=6)

    def _condition(self, reference: Reference, rows: Sequence[Row]) -> st.SearchStrategy[Node]:
        """One comparison, often with a value that some row has."""
        operators = st.sampled_from(OPERATORS[reference.type])
        return operators.flatmap(lambda operator: self._comparison(reference, operator, rows))

    def _comparison(
        self, reference: Reference, operator: str, rows: Sequence[Row]
    ) -> st.SearchStrategy[Node]:
        negated = "NOT " in operator
        match operator.replace("NOT ", ""):
            case "IS NULL":
                return st.just(IsNull(reference, negated))
            case "IN":
                several = st.lists(self._values(reference, rows), min_size=1, max_size=3)
                return several.map(lambda values: OneOf(reference, tuple(values), negated))
            case "LIKE" | "ILIKE" as like:
                return patterns.map(lambda pattern: Like(reference, pattern, like == "ILIKE", negated))
        return self._values(reference, rows).map(
            lambda value: Compare(reference, Comparison(operator), value)
        )

    def _values(self, reference: Reference, rows: Sequence[Row]) -> st.SearchStrategy[Any]:
        if reference.type is FieldType.ENUM:
            return st.sampled_from(self.fields.fields[reference.name].values)
        if reference.type is FieldType.TEXT_SET:
            there = [element for row in rows for element in row[reference.name]]
        else:
            there = [value for row in rows if (value := value_of(reference, row)) is not None]
        values = _VALUES[reference.type]
        return values | st.sampled_from(there) if there else values
