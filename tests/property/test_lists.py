"""Any filter over any rows: the lists of governance and inference show what plain Python picks, in the same order, page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance import fields as governance_fields
from modelyard_governance import tables as governance
from modelyard_governance.models import Visible as Shown
from modelyard_governance.store import identity, standings
from modelyard_inference import fields as inference_fields
from modelyard_inference import tables as inference
from modelyard_inference.models import Version
from modelyard_inference.store import InferenceStore, Visible
from modelyard_kit.access import Scope
from modelyard_kit.db import Database
from modelyard_kit.filters import Asked, ListFields
from modelyard_kit.filters.nodes import Reference
from tests.framework.filters_questions import START, Question, Questions, texts, times
from tests.framework.filters_reference import Row
from tests.framework.postgres import TestPostgres, transaction

ALL = Scope("", frozenset(), frozenset(), everything=True)
PEOPLE = ("ada", "bob", "eve")
WANTED = asdict(Version("v", "prod.ml.iris/1", 1, "m", "prod.ml.iris", "", "", {}, ""))
Rows = list[dict[str, Any]]
Fetch = Callable[[AsyncConnection, Asked], Awaitable[tuple[Sequence[Any], str]]]


def uuid(number: int) -> str:
    return f"0198c5f0-7a3b-7c11-9d5e-{number:012d}"


@dataclass(frozen=True)
class Listed:
    """One list: its fields, rows to put into it, and how that is done and read."""

    package: str
    fields: ListFields
    row: Callable[[int], st.SearchStrategy[dict[str, Any]]]
    fill: Callable[[AsyncConnection, Sequence[Row]], Awaitable[None]]
    fetch: Fetch
    key: Callable[[Any], Any]

    @property
    def questions(self) -> st.SearchStrategy[Question]:
        numbers = st.integers(1, 7).map(range)
        rows = numbers.flatmap(lambda found: st.tuples(*map(self.row, found)).map(list))
        return Questions(self.fields).about(rows)


def principal(number: int) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "name": st.sampled_from(("b", "B", "a.", "a")).map(lambda name: f"{name}{number}"),
            "id": st.integers(0, 99).map(lambda high: uuid(high * 10 + number)),
            "kind": st.sampled_from(governance_fields.PRINCIPALS.fields["kind"].values),
            "display_name": texts,
            "create_time": times,
            "disable_time": st.none() | times,
        }
    )


async def fill_principals(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    values = [{**row, "kind": row["kind"].lower(), "revision": 0} for row in rows]
    await connection.execute(insert(governance.principals), values)


def approval(number: int) -> st.SearchStrategy[dict[str, Any]]:
    model = st.sampled_from(("prod.ml.iris", "prod.ml.b", "dev.ml.iris"))
    row = st.fixed_dictionaries(
        {
            "id": st.integers(0, 99).map(lambda high: uuid(high * 10 + number)),
            "model": model,
            "state": st.sampled_from(("PENDING", "APPROVED", "REJECTED")),
            "approvals": st.integers(0, 3),
            "required_approvals": st.integers(1, 3),
            "author_id": st.sampled_from(("", uuid(1), uuid(2))),
            "reviewer": st.lists(st.sampled_from(PEOPLE), unique=True),
            "review_time": times,
        }
    )
    return row.map(lambda found: {**found, "model_version": f"{found['model']}/{number}"})


async def fill_approvals(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    people = [
        {"id": name, "name": name, "kind": "user", "display_name": "", "create_time": START, "revision": 0}
        for name in PEOPLE
    ]
    await connection.execute(insert(governance.principals), people)
    nothing_due = {"sequence": 1, "delivered": 1, "marks": 0, "seen": 0, "look_up": False}
    columns = ("state", "approvals", "required_approvals", "author_id", "review_time")
    stored = [
        {
            **{name: row[name] for name in columns},
            "version_id": row["id"],
            "name": row["model_version"],
            "model_id": "m",
            "schema_id": "s",
            "catalog_id": "c",
            "listed": True,
            **nothing_due,
        }
        for row in rows
    ]
    await connection.execute(insert(governance.standings), stored)
    said = [
        {
            "version_id": row["id"],
            "reviewer_id": name,
            "reviewer_name": name,
            "verdict": "APPROVE",
            "comment": "",
            "create_time": START,
        }
        for row in rows
        for name in row["reviewer"]
    ]
    if said:
        await connection.execute(insert(governance.reviews), said)


def deployment(number: int) -> st.SearchStrategy[dict[str, Any]]:
    targets = st.lists(
        st.tuples(st.sampled_from(("a.b.c", "a.b.d")), st.sampled_from(("@champion", "/1")), st.booleans()),
        min_size=1,
        max_size=2,
    )
    row = st.fixed_dictionaries(
        {
            "id": st.integers(0, 99).map(lambda high: uuid(high * 10 + number)),
            "name": st.sampled_from(("b", "B", "a_")).map(lambda name: f"prod.ml.{name}{number}"),
            "description": texts,
            "state": st.sampled_from(inference_fields.DEPLOYMENTS.fields["state"].values),
            "state_message": texts,
            "replicas": st.integers(1, 3),
            "max_request_bytes": st.integers(1, 3),
            "timeout": st.sampled_from((0.5, 1.0, 2.5)),
            "require_signature": st.booleans(),
            "revision": st.integers(1, 3),
            "owner_id": st.sampled_from((uuid(1), uuid(2))),
            "targets": targets,
            "create_time": times,
            "update_time": times,
        }
    )
    return row.map(
        lambda found: {
            **found,
            "owner": found["owner_id"],
            "target": [model + suffix for model, suffix, _ in found["targets"]],
            "model": [model for model, _, _ in found["targets"]],
            "model_version": [f"{model}/1" for model, _, answers in found["targets"] if answers],
        }
    )


async def fill_deployments(connection: AsyncConnection, rows: Sequence[Row]) -> None:
    containers = dict.fromkeys(("schema_id", "schema_owner_id", "catalog_id", "catalog_owner_id"), "x")
    columns = inference.deployments.c
    stored = [
        {
            **{name: value for name, value in row.items() if name in columns},
            **containers,
            "timeout_ms": int(row["timeout"] * 1000),
            "active": True,
            "conditions": [],
            "sticky_header": "",
            "rollout_policy": {},
            "resources": {},
            "autoscaling": {},
            "traffic_limits": {},
            "private": False,
            "log_policy": {},
            "batching": {},
            "environment_variables": {},
            "environment": {},
            "update_strategy": "AVAILABILITY_PRESERVING",
        }
        for row in rows
    ]
    await connection.execute(insert(inference.deployments), stored)
    targets = [
        {
            "deployment_id": row["id"],
            "position": position,
            "reference": model + suffix,
            "model": model,
            "follows": suffix != "/1",
            "weight": 1,
            "wanted": WANTED,
            "problem": "",
            "serving": f"{model}/1" if answers else "",
            "serving_digest": "",
            "serving_weight": 0,
            "shadow_percent": 0,
        }
        for row in rows
        for position, (model, suffix, answers) in enumerate(row["targets"])
    ]
    await connection.execute(insert(inference.targets), targets)


LISTS: Mapping[str, Listed] = {
    "principals": Listed(
        "modelyard_governance",
        governance_fields.PRINCIPALS,
        principal,
        fill_principals,
        identity.page_of_accounts,
        lambda row: row.name,
    ),
    "approvals": Listed(
        "modelyard_governance",
        governance_fields.APPROVALS,
        approval,
        fill_approvals,
        lambda connection, asked: standings.page(connection, asked, Shown(ALL, ALL, ALL)),
        lambda row: row.version.id,
    ),
    "deployments": Listed(
        "modelyard_inference",
        inference_fields.DEPLOYMENTS,
        deployment,
        fill_deployments,
        lambda connection, asked: InferenceStore().page(
            connection, asked, schema_id="", visible=Visible(ALL, ALL, ALL)
        ),
        lambda row: row.id,
    ),
}


@dataclass(frozen=True)
class Bench:
    """Databases to fill anew for every question."""

    runner: asyncio.Runner
    databases: Mapping[str, Database]

    def keys(self, listed: Listed, question: Question) -> list[list[Any]]:
        """Return the values of the unique field that each list has over all its pages."""
        return self.runner.run(self._keys(listed, question))

    async def _keys(self, listed: Listed, question: Question) -> list[list[Any]]:
        async with transaction(self.databases[listed.package].engine) as (connection, _):
            await listed.fill(connection, question.rows)
            return [await self._walk(connection, listed, asked) for asked in question.asked]

    async def _walk(self, connection: AsyncConnection, listed: Listed, asked: Asked) -> list[Any]:
        found: list[Any] = []
        while True:
            rows, token = await listed.fetch(connection, asked)
            assert len(rows) <= asked.size
            found += map(listed.key, rows)
            if not token:
                return found
            asked = replace(asked, page_token=token)


@pytest.fixture(scope="module")
def bench(postgres_server: TestPostgres) -> Iterator[Bench]:
    packages = {listed.package for listed in LISTS.values()}
    databases = {package: Database.connect(postgres_server.fresh(package)) for package in packages}
    with asyncio.Runner() as runner:
        yield Bench(runner, databases)
        for database in databases.values():
            runner.run(database.close())


@pytest.mark.parametrize("name", sorted(LISTS))
@settings(max_examples=60)
@given(data=st.data())
def test_lists_have_what_plain_python_picks(bench: Bench, name: str, data: st.DataObject) -> None:
    listed = LISTS[name]
    question = data.draw(listed.questions)
    unique = Reference(listed.fields.unique, None, listed.fields.fields[listed.fields.unique].type)
    assert bench.keys(listed, question) == question.expected(unique)
