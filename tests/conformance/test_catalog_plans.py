"""How PostgreSQL runs what the catalog asks it all day: by indexes, however many versions and events there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import events
from modelyard_catalog.commands import AliasChange, Browse, CreateVersion, Once, VersionRef, Watch
from modelyard_catalog.models import DatasetReference, Model, Path, Provenance
from modelyard_kit import outbox
from modelyard_kit.access import Scope
from modelyard_kit.outbox import Relay, Sequencer
from tests.bench.catalog_rows import BEGIN, CATALOG, SCHEMA, WIDE, Rows, load, short_name
from tests.conformance.catalog_plans import explained, recorded, scanned
from tests.conformance.catalog_stack import ADA, DIGEST, EVERYTHING, CatalogStack

ROWS = Rows(10_000)
MODEL: Path = (CATALOG, SCHEMA, WIDE)
LARGE = {"model_versions", "metrics", "outbox", "requests", "lineage_nodes", "lineage_edges"}
VERBS = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    await load(stack.db.dsn, ROWS, ADA.principal.id)
    yield stack
    await stack.close()


async def scans(stack: CatalogStack, statements: list[tuple[str, Any]]) -> set[str]:
    """Return the large tables that the plan of a statement reads from end to end."""
    assert statements
    found: set[str] = set()
    for statement, parameters in statements:
        found |= set(scanned(await explained(stack, statement, parameters)))
    return found & LARGE


async def test_the_rows_of_the_benchmark_are_versions_like_any_other(stack: CatalogStack) -> None:
    newest = await stack.get(f"{CATALOG}.{SCHEMA}.{WIDE}/{ROWS.wide}")
    assert (newest.number, len(newest.metrics)) == (ROWS.wide, 4)
    last = await stack.versions.get(VersionRef((CATALOG, SCHEMA, short_name(ROWS.models)), 90))
    assert last.number == ROWS.versions_of(ROWS.models) == 90
    made = await stack.create_version(MODEL)
    assert made.number == ROWS.wide + 1
    # It has the number after those of the events that were filled in.
    assert await Sequencer(stack.db).advance() == ROWS.size + 1


@pytest.mark.parametrize(
    "reference",
    [
        VersionRef(MODEL, 700),
        VersionRef(MODEL, None, "champion"),
        VersionRef(MODEL, None, "2.3.0"),
        VersionRef(MODEL, None, "last"),
        VersionRef(MODEL, None, None),
    ],
    ids=str,
)
async def test_one_version_is_looked_up_by_a_plan_for_all_calls(
    stack: CatalogStack, reference: VersionRef
) -> None:
    with recorded(stack, *VERBS) as statements:
        await stack.versions.get(reference)
    assert await scans(stack, statements) == set()
    for _ in range(9):
        await stack.versions.get(reference)
    assert await planned_for_all(stack) == [5]


async def test_a_page_of_versions_is_read_by_a_plan_for_all_calls(stack: CatalogStack) -> None:
    for _ in range(10):
        rows, _token = await stack.versions.page(MODEL, Browse(size=50))
        assert len(rows) == 50
    # The choice of the rows is planned for its values, every time; not so what reads the container and the rows.
    assert await planned_for_all(stack) == [0, 5, 5]


async def planned_for_all(stack: CatalogStack) -> list[int]:
    """Return how often a plan for any values was taken, of every statement that came ten times; the first five it never is."""
    query = text("SELECT generic_plans FROM pg_prepared_statements WHERE custom_plans >= 5 ORDER BY 1")
    counts = await stack.db.query(lambda connection: connection.execute(query))
    return [row[0] for row in counts]


async def test_a_new_version_and_a_moved_alias_are_looked_up(stack: CatalogStack) -> None:
    command = CreateVersion(
        model=MODEL,
        artifact_digest=DIGEST,
        description="a version",
        runtime="sklearn",
        signature=None,
        tags={"team": "churn"},
        metrics={"accuracy": 0.9},
        provenance=Provenance(datasets=(DatasetReference("orders"),)),
        metadata=None,
        once=Once("a-request", "its content"),
        label="9.9.9",
    )
    with recorded(stack, *VERBS) as statements:
        made = await stack.versions.create(ADA, command)
        await stack.set_aliases(AliasChange("champion", made.number), model=MODEL)
    assert await scans(stack, statements) == set()


@pytest.mark.parametrize("everything", [True, False])
async def test_the_feed_reads_its_window_only(stack: CatalogStack, everything: bool) -> None:
    model = await stack.namespaces.get(Model, MODEL)
    some = EVERYTHING if everything else Scope(ADA.principal.id, frozenset({model.id}), frozenset())
    watch = Watch(
        position=None,
        from_beginning=False,
        types=("catalog.alias.moved",),
        prefixes=("catalog.model_version.",),
        resource=MODEL,
    )

    async def window(connection: AsyncConnection) -> int:
        extent = await outbox.extent(connection)
        found = await events.window(
            connection,
            watch,
            model.id,
            events.Scopes(some, some, some),
            after=extent.last - 5_000,
            upto=extent.last,
            rows=200,
            size=2**19,
        )
        return len(found)

    with recorded(stack, *VERBS) as statements:
        assert await stack.db.read(window) == 200
    assert await scans(stack, statements) == set()


async def test_uses_of_artifacts_are_found_by_an_index(stack: CatalogStack) -> None:
    with recorded(stack, *VERBS) as statements:
        assert await stack.versions.uses_of([DIGEST, f"sha256:{'0' * 64}"]) == []
    assert await scans(stack, statements) == set()


async def test_events_are_numbered_delivered_and_removed_by_indexes(stack: CatalogStack) -> None:
    delivered: list[outbox.Event] = []

    async def sink(batch: Any) -> None:
        delivered.extend(batch)

    await stack.create_version(MODEL)
    with recorded(stack, *VERBS) as statements:
        await Sequencer(stack.db).advance()
        assert await Relay(stack.db, sink).deliver() == 1
        assert await Sequencer(stack.db).prune(datetime.fromisoformat(BEGIN) + timedelta(seconds=600)) > 500
    assert len(delivered) == 1
    assert await scans(stack, statements) == set()
