"""Versions that are created at the same moment: one transaction for several of them, and to each its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.models import Model, ModelVersion, Path
from modelyard_catalog.tables import events
from modelyard_kit.access import Link
from modelyard_kit.errors import AlreadyExists, Contention, InvalidField, NotFound, RequestIdReused
from tests.conformance.catalog_stack import DIGEST, IRIS, CatalogStack

ROSE: Path = ("prod", "ml", "rose")


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    made = CatalogStack(fresh_database("modelyard_catalog"))
    await made.create_model(*IRIS)
    await made.create_model(*ROSE)
    yield made
    await made.close()


@pytest.fixture
def transactions(stack: CatalogStack, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The transactions that were begun, by the models they took turns for."""
    begun: list[Any] = []
    in_tx = stack.db.in_tx

    async def counted(work: Any, **options: Any) -> Any:
        begun.append(options.get("turns"))
        return await in_tx(work, **options)

    monkeypatch.setattr(stack.db, "in_tx", counted)
    return begun


async def numbers(stack: CatalogStack, model: Path) -> list[int]:
    """Return the numbers of the versions a model has, and check that it counts them right."""

    async def work(connection: AsyncConnection) -> list[int]:
        found = await stack.store.find(connection, Model, model)
        assert found is not None
        versions = await stack.store.versions_by_number(connection, found.id, range(100))
        assert found.latest_version == max(versions, default=0)
        assert found.revision == 1 + len(versions)
        return sorted(versions)

    return await stack.db.read(work)


async def created(stack: CatalogStack) -> list[str]:
    """Return the names of the versions whose creation was told, in the order of it."""
    query = (
        select(events.c.resource_name)
        .where(events.c.type == "catalog.model_version.created")
        .order_by(events.c.position)
    )

    async def work(connection: AsyncConnection) -> list[str]:
        return list((await connection.execute(query)).scalars())

    return await stack.db.read(work)


async def test_those_of_one_moment_share_a_transaction(stack: CatalogStack, transactions: list[Any]) -> None:
    made = await asyncio.gather(
        *(
            stack.create_version(model, digest="", metrics={"n": float(n)}, request_id=f"{n}", label=f"l{n}")
            for n, model in enumerate((IRIS, ROSE) * 5)
        )
    )
    assert len(transactions) == 2  # of the first alone, and of the rest
    assert [version.number for version in made] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert await numbers(stack, IRIS) == await numbers(stack, ROSE) == [1, 2, 3, 4, 5]
    assert await created(stack) == [version.name for version in made]
    for n, version in enumerate(made):

        async def read(connection: AsyncConnection, version: ModelVersion = version) -> ModelVersion | None:
            return await stack.store.get(connection, ModelVersion, version.id)

        assert await stack.db.read(read) == version
        assert version.metrics == {"n": float(n)}
        assert version.label == f"l{n}"


async def test_mistakes_are_told_to_who_made_them(stack: CatalogStack) -> None:
    stack.artifacts.missing.add("sha256:" + "b" * 64)
    await stack.create_version(label="taken", request_id="used")
    asked = [
        stack.create_version(digest=""),
        stack.create_version(digest=""),
        stack.create_version(("prod", "ml", "nothing"), digest=""),
        stack.create_version(digest="", label="taken"),
        stack.create_version(digest="", label="new"),
        stack.create_version(digest="", label="new"),
        stack.create_version(digest="sha256:" + "b" * 64),
        stack.create_version(digest="", request_id="used"),
        stack.create_version(digest=""),
    ]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [
        ModelVersion,
        ModelVersion,
        NotFound,
        AlreadyExists,
        ModelVersion,
        AlreadyExists,
        InvalidField,
        RequestIdReused,
        ModelVersion,
    ]
    assert "'prod.ml.iris@new'" in str(answers[5])
    good = [answer.number for answer in answers if isinstance(answer, ModelVersion)]
    assert sorted(good) == [2, 3, 4, 5]  # no number is lost to a mistake
    assert await numbers(stack, IRIS) == [1, 2, 3, 4, 5]
    assert len(await created(stack)) == 5


async def test_one_request_at_once_makes_one_version(stack: CatalogStack) -> None:
    made = await asyncio.gather(*(stack.create_version(request_id=f"r{n % 2}") for n in range(9)))
    assert len({version.id for version in made}) == 2
    assert await numbers(stack, IRIS) == [1, 2]


async def test_a_request_that_comes_again_would_fail_but_for_what_it_made(stack: CatalogStack) -> None:
    once = await stack.create_version(digest="", label="v1", request_id="once")
    assert (await stack.create_version(digest="", label="v1", request_id="once")).id == once.id
    renamed = text("UPDATE models SET name = 'lily' WHERE name = 'iris'")
    await stack.db.in_tx(lambda connection: connection.execute(renamed))
    again = await stack.create_version(digest="", label="v1", request_id="once")
    assert (again.id, again.name) == (once.id, "prod.ml.lily/1")
    with pytest.raises(NotFound):
        await stack.create_version(digest="", label="v1", request_id="another")


async def test_an_artifact_is_for_the_model_that_it_was_acquired_for(
    stack: CatalogStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = stack.artifacts.acquire

    async def swapped_meanwhile(digest: str, model: Link, version_id: str) -> None:
        await acquire(digest, model, version_id)
        renamed = text("UPDATE models SET name = CASE name WHEN 'iris' THEN 'lily' ELSE 'iris' END")
        await stack.db.in_tx(lambda connection: connection.execute(renamed))

    monkeypatch.setattr(stack.artifacts, "acquire", swapped_meanwhile)
    with pytest.raises(Contention):
        await stack.create_version(digest=DIGEST)
    assert await created(stack) == []
