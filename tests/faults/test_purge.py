"""The catalog dies in the middle of a purge, again and again: in the end everything is gone, once, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import AliasChange, Browse, Delete, Undelete, VersionRef
from modelyard_catalog.models import ModelVersion, Schema
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import NotFound
from modelyard_kit.faults import CRASH_EXIT_CODE
from tests.conformance.catalog_stack import ADA, IRIS, CatalogStack
from tests.faults.catalog_process import sweep
from tests.faults.forked import Forked

TABLES = ("schemas", "models", "model_versions", "metrics", "aliases", "alias_history")
GONE = ("prod", "gone")
VERSIONS = 5


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    yield stack
    await stack.close()


async def fill(stack: CatalogStack, model: tuple[str, ...]) -> None:
    await stack.create_model(*model)
    for _ in range(VERSIONS):
        await stack.create_version(model, metrics={"accuracy": 0.9})
    await stack.set_aliases(AliasChange("champion", 2), model=model)


async def counts(stack: CatalogStack) -> dict[str, int]:
    async def work(connection: AsyncConnection) -> dict[str, int]:
        found = {}
        for table in TABLES:
            found[table] = (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
        return found

    return await stack.db.read(work)


async def purge(stack: CatalogStack, failpoints: str = "") -> int | None:
    """Purge in a process of its own, and return how it ended."""
    async with asyncio.timeout(120):
        return await Forked(sweep, stack.db.dsn, failpoints=failpoints).wait()


async def test_a_purge_that_dies_is_finished_by_the_next_one(stack: CatalogStack) -> None:
    await fill(stack, IRIS)
    kept = await counts(stack)
    for name in ("a", "b"):
        await fill(stack, (*GONE, name))
    deleted = await stack.deletions.delete(ADA, Schema, Delete(GONE, "", force=True))
    single = await stack.deletions.delete(ADA, ModelVersion, Delete(VersionRef(IRIS, 5), "", force=False))
    stack.shift = timedelta(days=60)  # the time that the purge goes by
    before = await counts(stack)
    assert before["model_versions"] == 3 * VERSIONS
    died = 0
    while await purge(stack, "catalog.purge.part=crash") == CRASH_EXIT_CODE:
        died += 1
        now = await counts(stack)
        # What is left is consistent: foreign keys hold, nothing that is not deleted is touched, and each life gets further.
        assert sum(now.values()) < sum(before.values())
        assert all(now[table] >= kept[table] - 1 for table in ("models", "model_versions"))
        assert [row.number for row in await _versions(stack)] == [4, 3, 2, 1]
        # Half of it is no schema any more: nobody can bring that back.
        with pytest.raises(NotFound):
            await stack.deletions.undelete(ADA, Undelete(ResourceType.SCHEMA, deleted.id))
        before = now
    assert died >= 3, "the schema was removed in several parts"
    after = await counts(stack)
    assert after == {**kept, "model_versions": VERSIONS - 1, "metrics": VERSIONS - 1}
    purged = [name for type_, name, _ in await stack.events() if type_.endswith(".purged")]
    assert sorted(purged) == sorted([deleted.name, single.name]), "each tells of its end once"
    assert (await stack.create_version()).number == VERSIONS + 1


async def _versions(stack: CatalogStack) -> list[ModelVersion]:
    rows, _ = await stack.versions.page(IRIS, Browse(size=100))
    return rows
