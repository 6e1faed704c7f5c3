"""Any filter over any versions: the catalog lists what plain Python picks, in the same order, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import search
from modelyard_catalog.commands import Browse
from modelyard_catalog.fields import list_fields
from modelyard_catalog.models import Model, ModelVersion
from modelyard_catalog.tables import aliases, metrics, model_versions
from modelyard_kit.filters import FieldType
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
from tests.conformance.catalog_stack import IRIS, CatalogStack
from tests.framework.filters_reference import Row, evaluate, sort, value_of
from tests.framework.postgres import TestPostgres

FIELDS = list_fields(ModelVersion, lambda _: metrics.c.number)
START = datetime(2026, 1, 1, tzinfo=UTC)

texts = st.text(st.sampled_from("aBä%_\\' 日"), max_size=3)
tag_keys = st.sampled_from(("team", "git.commit", "two words"))
metric_names = st.sampled_from(("accuracy", "loss", "val/f1"))
custom_keys = st.sampled_from(("owner", "two words", "a.b"))
reals = st.integers(-2, 2).map(float) | st.sampled_from((0.5, 1e-9, 1e300))
times = st.integers(0, 3).map(lambda seconds: START + timedelta(seconds=seconds))
names = st.sampled_from(("champion", "old", "b"))
MAPS: dict[str, st.SearchStrategy[str]] = {
    "tags": tag_keys,
    "metrics": metric_names,
    "metadata": st.sampled_from(("framework", "use_case")) | custom_keys.map("custom.".__add__),
}
PLAIN = ("label", "description", "state_message", "runtime", "artifact_digest", "author_name", "copied_from")


@st.composite
def versions(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """A version as the reference sees it: every field of the list by its name."""
    facts = draw(
        st.none()
        | st.dictionaries(
            MAPS["metadata"],
            st.text(st.sampled_from("aB"), min_size=1, max_size=2),
            max_size=3,
        )
    )
    commit = draw(st.none() | texts)
    row: dict[str, Any] = dict.fromkeys(name for name in FIELDS.fields if name.startswith("provenance."))
    return row | {
        **{name: draw(texts) for name in PLAIN},
        "id": f"0198c5f0-7a3b-7c11-9d5e-{draw(st.integers(0, 999)):08d}{number:04d}",
        "number": number,
        "state": draw(st.sampled_from(("PENDING", "READY", "FAILED"))),
        "author_id": "",
        "copied_from_id": "",
        # A label is there once in a model.
        "label": draw(st.sampled_from(("", f"v{number}", f"r{number}"))),
        "create_time": draw(times),
        "update_time": draw(times),
        "delete_time": None,
        "provenance.git_commit": commit,
        "tags": draw(st.dictionaries(tag_keys, texts, max_size=2)),
        "metrics": draw(st.dictionaries(metric_names, reals | st.booleans() | texts | st.none(), max_size=3)),
        "metadata": facts or {},
        "alias": [],
    }


@st.composite
def catalogs(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = [draw(versions(number)) for number in range(1, draw(st.integers(1, 8)) + 1)]
    for alias in draw(st.sets(names)):
        draw(st.sampled_from(rows))["alias"].append(alias)
    return rows


@st.composite
def references(draw: st.DrawFn) -> Reference:
    name = draw(st.sampled_from(sorted(FIELDS.fields)))
    return Reference(name, draw(MAPS[name]) if name in MAPS else None, FIELDS.fields[name].type)


VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.TEXT: texts,
    FieldType.TEXT_SET: names,
    FieldType.INTEGER: st.integers(0, 9),
    FieldType.REAL: reals,
    FieldType.TIMESTAMP: times,
    FieldType.ENUM: st.sampled_from(("PENDING", "READY", "FAILED")),
    FieldType.ID: st.just("0198c5f0-7a3b-7c11-9d5e-2f6a1b3c4d5e"),
}
patterns = st.lists(st.sampled_from(("%", "_", "a", "B", "v", "\\%", "1")), max_size=3).map("".join)


@st.composite
def conditions(draw: st.DrawFn, rows: Sequence[Row]) -> Node:
    """One comparison, often with a value that some version has."""
    reference = draw(references())
    values = VALUES[reference.type]
    if reference.type is not FieldType.TEXT_SET:
        there = [value for row in rows if (value := value_of(reference, row)) is not None]
        values = values | st.sampled_from(there) if there else values
    operator = draw(st.sampled_from(OPERATORS[reference.type]))
    negated = "NOT " in operator
    match operator.replace("NOT ", ""):
        case "IS NULL":
            return IsNull(reference, negated)
        case "IN":
            return OneOf(reference, tuple(draw(st.lists(values, min_size=1, max_size=3))), negated)
        case "LIKE" | "ILIKE" as like:
            return Like(reference, draw(patterns), like == "ILIKE", negated)
    return Compare(reference, Comparison(operator), draw(values))


def trees(rows: Sequence[Row]) -> st.SearchStrategy[Node]:
    def grow(terms: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        several = st.lists(terms, min_size=2, max_size=3).map(tuple)
        return st.builds(Not, terms) | st.builds(And, several) | st.builds(Or, several)

    return st.recursive(conditions(rows), grow, max_leaves=6)


Question = tuple[list[dict[str, Any]], list[Node], list[tuple[Reference, bool]], int]


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Versions, filters, an order, the size of a page."""
    rows = draw(catalogs())
    ordered = references().filter(lambda reference: reference.type is not FieldType.TEXT_SET)
    order = draw(st.lists(st.tuples(ordered, st.booleans()), max_size=3, unique_by=lambda key: key[0]))
    return rows, draw(st.lists(trees(rows), min_size=3, max_size=3)), order, draw(st.integers(1, 4))


@dataclass(frozen=True)
class Lists:
    """A catalog with one empty model, filled anew for every question."""

    runner: asyncio.Runner
    stack: CatalogStack
    model: Model

    def numbers(self, rows: Sequence[Row], asked: Sequence[Browse]) -> list[list[int]]:
        """Return the numbers that each list has over all its pages."""
        return self.runner.run(self._numbers(rows, asked))

    async def _numbers(self, rows: Sequence[Row], asked: Sequence[Browse]) -> list[list[int]]:
        async with self.stack.db.engine.connect() as connection, connection.begin() as transaction:
            await self._fill(connection, rows)
            found = [await self._browse(connection, one) for one in asked]
            await transaction.rollback()
            return found

    async def _browse(self, connection: AsyncConnection, asked: Browse) -> list[int]:
        found: list[int] = []
        token = ""
        while True:
            page = replace(asked, page_token=token)
            rows, token = await search.page(
                connection, ModelVersion, page, parent_id=self.model.id, scope=None
            )
            found += [row.number for row in rows]
            if not token:
                return found

    async def _fill(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        await connection.execute(insert(model_versions), [self._stored(row) for row in rows])
        measured = [
            {
                "version_id": row["id"],
                "model_id": self.model.id,
                "name": name,
                "value": value,
                "number": value_of(Reference("metrics", name, FieldType.REAL), row),
            }
            for row in rows
            for name, value in row["metrics"].items()
        ]
        pointing = [
            {"model_id": self.model.id, "alias": alias, "number": row["number"]}
            for row in rows
            for alias in row["alias"]
        ]
        for table, values in ((metrics, measured), (aliases, pointing)):
            if values:
                await connection.execute(insert(table), values)

    def _stored(self, row: Row) -> dict[str, Any]:
        known = {name: value for name, value in row["metadata"].items() if not name.startswith("custom.")}
        custom = [
            {"key": name.removeprefix("custom."), "value": value, "category": "OTHER", "description": ""}
            for name, value in row["metadata"].items()
            if name.startswith("custom.")
        ]
        commit = row["provenance.git_commit"]
        plain = {name: row[name] for name in row if name in model_versions.c}
        return plain | {
            "revision": 1,
            "model_id": self.model.id,
            "provenance": None if commit is None else {"git_commit": commit},
            "metadata": (known | ({"custom": custom} if custom else {})) or None,
        }


@pytest.fixture(scope="module")
def lists(postgres_server: TestPostgres) -> Iterator[Lists]:
    stack = CatalogStack(postgres_server.fresh("modelyard_catalog"))
    with asyncio.Runner() as runner:
        yield Lists(runner, stack, runner.run(stack.create_model(*IRIS)))
        runner.run(stack.close())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(questions())
def test_lists_have_what_plain_python_picks(lists: Lists, question: Question) -> None:
    rows, nodes, order, size = question
    order_by = ", ".join(f"{reference}{' desc' if descending else ''}" for reference, descending in order)
    keys = order or [(Reference("number", None, FieldType.INTEGER), True)]
    keys = [*keys, (Reference("number", None, FieldType.INTEGER), keys[-1][1])]
    asked = [Browse(size=size, filter=str(node), order_by=order_by) for node in nodes]
    for node, numbers in zip(nodes, lists.numbers(rows, asked), strict=True):
        expected = [row["number"] for row in sort(rows, keys) if evaluate(node, row)]
        assert numbers == expected, f"{node} by {order_by}"
