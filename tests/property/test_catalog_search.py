"""Any filter over any versions: the catalog lists what plain Python picks, in the same order, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import search
from modelyard_catalog.commands import Browse
from modelyard_catalog.fields import list_fields
from modelyard_catalog.models import Model, ModelVersion
from modelyard_catalog.tables import aliases, artifact_tests, metrics, model_versions
from modelyard_kit.clock import utc_now
from modelyard_kit.filters import FieldType
from modelyard_kit.filters.nodes import Reference
from tests.conformance.catalog_stack import IRIS, CatalogStack
from tests.framework.filters_questions import Question, Questions, names, reals, texts, times
from tests.framework.filters_reference import Row, value_of
from tests.framework.postgres import TestPostgres, transaction

FIELDS = list_fields(ModelVersion, lambda _: metrics.c.number)
tag_keys = st.sampled_from(("team", "git.commit", "two words"))
metric_names = st.sampled_from(("accuracy", "loss", "val/f1"))
custom_keys = st.sampled_from(("owner", "two words", "a.b"))
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
        "approval": draw(st.sampled_from(("NONE", "PENDING", "APPROVED", "REJECTED"))),
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
    # Told of artifacts, which versions may share.
    ends = {row["artifact_digest"]: draw(st.sampled_from((None, "PASSED", "FAILED"))) for row in rows}
    return [row | {"artifact_tests": ends[row["artifact_digest"]]} for row in rows]


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
        async with transaction(self.stack.db.engine) as (connection, _):
            await self._fill(connection, rows)
            return [await self._browse(connection, one) for one in asked]

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
        ends = {row["artifact_digest"]: row["artifact_tests"] for row in rows}
        told = [
            {"digest": digest, "state": state, "results": {}, "sequence": 1, "update_time": utc_now()}
            for digest, state in ends.items()
            if state
        ]
        for table, values in ((artifact_tests, told), (metrics, measured), (aliases, pointing)):
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
            "approval_state": row["approval"],
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


@settings(max_examples=80)
@given(Questions(FIELDS, MAPS).about(catalogs()))
def test_lists_have_what_plain_python_picks(lists: Lists, question: Question) -> None:
    asked = [Browse(**vars(one)) for one in question.asked]
    expected = question.expected(Reference("number", None, FieldType.INTEGER), descending=True)
    assert lists.numbers(question.rows, asked) == expected, asked
