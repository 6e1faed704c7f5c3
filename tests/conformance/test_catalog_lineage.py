"""Lineage and metadata on real PostgreSQL: identity of nodes, circles, permissions, walks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import lineage_store, origins
from modelyard_catalog.access import Resolvers
from modelyard_catalog.authority import Authority
from modelyard_catalog.commands import (
    CopyVersion,
    GivenEdge,
    GivenNode,
    Once,
    QueryLineage,
    RecordLineage,
    UpdateVersion,
    VersionRef,
)
from modelyard_catalog.copies import Copies
from modelyard_catalog.errors import LineageCycle
from modelyard_catalog.graph import Lineage, Node, NodeKind, named_node
from modelyard_catalog.lifecycle_store import LifecycleStore
from modelyard_catalog.lineage import LineageGraph
from modelyard_catalog.lineage_walk import MAX_EDGES
from modelyard_catalog.models import (
    CustomMetadata,
    DatasetReference,
    MetadataCategory,
    Model,
    ModelMetadata,
    Provenance,
)
from modelyard_catalog.updates import Updates
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant
from modelyard_kit.auth import Call
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import Contention, LimitExceeded, NotFound, PermissionDenied
from modelyard_kit.grants import Grants
from modelyard_kit.limits import LIMITS, Limit
from tests.conformance.catalog_stack import ADA, BOB, IRIS, CatalogStack

OTHER = ("prod", "ml", "other")
LAKE = DatasetReference("s3://lake/iris", "7", "sha256:aa", "training")
CLEAN = named_node(NodeKind.DATASET, "s3://lake/clean")
RAW = named_node(NodeKind.DATASET, "s3://lake/raw", "1")
RUN = named_node(NodeKind.RUN, "train-42")


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    yield stack
    await stack.close()


@pytest.fixture
async def iris(stack: CatalogStack) -> Model:
    return await stack.create_model(*IRIS)


@pytest.fixture
async def grants() -> Grants:
    """Ada owns the system, Bob has nothing."""
    grants = Grants()
    grants.replace(ADA.principal.id, "ada", [ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)])
    await grants.mark_fresh(1)
    return grants


@pytest.fixture
def graph(stack: CatalogStack, grants: Grants) -> LineageGraph:
    return stack.lineage(grants)


def version(number: int, model: tuple[str, ...] = IRIS) -> VersionRef:
    return VersionRef(model, number)


async def record(
    graph: LineageGraph, *edges: tuple[GivenNode, GivenNode], relation: str = "produced", by: Call = ADA
) -> None:
    given = tuple(GivenEdge(source, target, relation) for source, target in edges)
    await graph.record(by, RecordLineage(given))


async def query(
    graph: LineageGraph,
    node: GivenNode,
    depth: int = 20,
    *,
    upstream: bool = True,
    downstream: bool = True,
    by: Call = ADA,
) -> Lineage:
    return await graph.query(by, QueryLineage(node, upstream, downstream, depth))


def pairs(lineage: Lineage) -> list[tuple[str, str]]:
    return [(edge.source.name, edge.target.name) for edge in lineage.edges]


def dataset(number: int) -> Node:
    return named_node(NodeKind.DATASET, f"d{number}")


# Recording.


async def test_edges_are_there_both_ways_and_once(
    stack: CatalogStack, iris: Model, graph: LineageGraph
) -> None:
    await stack.create_version()
    await record(graph, (RAW, CLEAN), (CLEAN, RUN), (RUN, version(1)))
    await record(graph, (RUN, version(1)))
    await record(graph, (RUN, version(1)), relation="tested_on")
    found = await query(graph, version(1))
    assert pairs(found) == [
        ("train-42", "prod.ml.iris/1"),
        ("train-42", "prod.ml.iris/1"),
        ("s3://lake/clean", "train-42"),
        ("s3://lake/raw", "s3://lake/clean"),
    ]
    assert {edge.relation for edge in found.edges[:2]} == {"produced", "tested_on"}
    assert (found.edges[0].recorded_by, found.truncated) == ("ada", False)
    assert found.edges[-1].source == RAW
    assert found.edges[0].target.digest.startswith("sha256:")
    assert pairs(await query(graph, RAW, 2)) == [
        ("s3://lake/raw", "s3://lake/clean"),
        ("s3://lake/clean", "train-42"),
    ]
    assert pairs(await query(graph, CLEAN, 1, upstream=False)) == [("s3://lake/clean", "train-42")]
    assert pairs(await query(graph, CLEAN, 1, downstream=False)) == [("s3://lake/raw", "s3://lake/clean")]
    assert (await query(graph, dataset(9))).edges == ()


async def test_every_new_edge_leaves_an_event_about_its_version(
    stack: CatalogStack, iris: Model, graph: LineageGraph
) -> None:
    await stack.create_version()
    await record(graph, (RAW, CLEAN), (RUN, version(1)), (CLEAN, version(1)))
    await record(graph, (RAW, CLEAN))
    events = [event for event in await stack.events() if event[0] == "catalog.lineage.recorded"]
    assert sorted((name, data["count"]) for _, name, data in events) == [("", 1), ("prod.ml.iris/1", 2)]


async def test_data_sets_are_known_by_name_version_and_digest(
    stack: CatalogStack, iris: Model, graph: LineageGraph
) -> None:
    await stack.create_version(datasets=(LAKE,))
    same = named_node(NodeKind.DATASET, LAKE.name, LAKE.version, LAKE.digest)
    assert [edge.relation for edge in (await query(graph, same)).edges] == ["trained_on"]
    others = (
        named_node(NodeKind.DATASET, LAKE.name, LAKE.version),
        named_node(NodeKind.DATASET, LAKE.name, LAKE.digest, LAKE.version),
        named_node(NodeKind.RUN, LAKE.name, LAKE.version, LAKE.digest),
    )
    for other in others:
        assert (await query(graph, other)).edges == ()


async def test_versions_are_known_by_id_whatever_they_are_called(
    stack: CatalogStack, iris: Model, graph: LineageGraph
) -> None:
    await stack.create_version()
    await record(graph, (RUN, version(1)))

    async def rename(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE models SET name = 'iris2'"))

    async def delete(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE models SET delete_time = now()"))

    await stack.db.in_tx(rename)
    assert pairs(await query(graph, RUN)) == [("train-42", "prod.ml.iris2/1")]
    await stack.create_model(*IRIS)
    await stack.create_version()
    assert (await query(graph, version(1))).edges == ()
    await stack.db.in_tx(delete)
    edge = (await query(graph, RUN)).edges[0]
    assert (edge.target.name, edge.target.digest, bool(edge.target.id)) == ("", "", True)


async def test_version_that_does_not_exist_is_refused_and_nothing_recorded(
    stack: CatalogStack, iris: Model, graph: LineageGraph
) -> None:
    await stack.create_version()
    with pytest.raises(NotFound):
        await record(graph, (RUN, version(1)), (RUN, version(2)))
    with pytest.raises(NotFound):
        await query(graph, version(2))
    assert (await query(graph, RUN)).edges == ()


# What the service records itself.


async def test_data_sets_of_provenance_and_copies_are_edges(
    stack: CatalogStack, iris: Model, graph: LineageGraph
) -> None:
    roles = ("training", "Validation", "test", "calibration", "")
    given = tuple(DatasetReference(f"d{number}", role=role) for number, role in enumerate(roles))
    made = await stack.create_version(datasets=given)
    assert made.provenance is not None
    assert made.provenance.datasets == given
    found = {edge.source.name: edge.relation for edge in (await query(graph, version(1))).edges}
    assert found == {
        "d0": "trained_on",
        "d1": "validated_on",
        "d2": "tested_on",
        "d3": "calibration",
        "d4": "used",
    }
    again = (DatasetReference("d0", role="training"), DatasetReference("d0", role="training"))
    await stack.create_version(datasets=again)
    assert pairs(await query(graph, version(2))) == [("d0", "prod.ml.iris/2")]


async def test_copy_comes_of_its_source_and_of_its_data(
    stack: CatalogStack, iris: Model, graph: LineageGraph, grants: Grants
) -> None:
    await stack.create_model(*OTHER)
    await stack.create_version(datasets=(LAKE,))
    authority = Authority(grants, Resolvers(stack.db, stack.store))
    copies = Copies(stack.db, stack.store, utc_now, authority, stack.artifacts)
    await copies.copy(ADA, CopyVersion(version(1), OTHER, "", Once("", "")))
    found = await query(graph, version(1, OTHER), 1)
    assert sorted((edge.source.name, edge.relation) for edge in found.edges) == [
        ("prod.ml.iris/1", "copied_to"),
        ("s3://lake/iris", "trained_on"),
    ]


async def test_new_data_sets_of_an_old_version_are_edges_unless_they_came_of_it(
    stack: CatalogStack, iris: Model, graph: LineageGraph, grants: Grants
) -> None:
    await stack.create_version()
    authority = Authority(grants, Resolvers(stack.db, stack.store))
    updates = Updates(stack.db, stack.store, LifecycleStore(), utc_now, authority)

    def change(*datasets: DatasetReference) -> UpdateVersion:
        return UpdateVersion(version(1), "", {"datasets": datasets})

    updated = await updates.update_version(ADA, change(LAKE))
    assert updated.provenance == Provenance(datasets=(LAKE,))
    assert pairs(await query(graph, version(1))) == [("s3://lake/iris", "prod.ml.iris/1")]
    await record(graph, (version(1), CLEAN))
    with pytest.raises(LineageCycle):
        await updates.update_version(ADA, change(DatasetReference(CLEAN.name)))
    assert (await stack.get("prod.ml.iris/1")).provenance == Provenance(datasets=(LAKE,))


async def test_version_repeated_by_request_id_is_recorded_once(
    stack: CatalogStack, iris: Model, graph: LineageGraph
) -> None:
    for _ in range(2):
        await stack.create_version(request_id="1", datasets=(LAKE,))
    assert len((await query(graph, version(1))).edges) == 1


async def test_many_versions_of_one_data_set_at_once_lose_nothing(
    stack: CatalogStack, iris: Model, graph: LineageGraph
) -> None:
    await asyncio.gather(*(stack.create_version(datasets=(LAKE,)) for _ in range(8)))
    same = named_node(NodeKind.DATASET, LAKE.name, LAKE.version, LAKE.digest)
    assert len((await query(graph, same)).edges) == 8


# Circles.


async def test_circles_are_refused_whole(stack: CatalogStack, iris: Model, graph: LineageGraph) -> None:
    for _ in range(2):
        await stack.create_version()
    await record(graph, (version(1), CLEAN), (CLEAN, version(2)))
    with pytest.raises(LineageCycle) as caught:
        await record(graph, (RUN, version(1)), (version(2), version(1)))
    assert caught.value.metadata == {"source": "prod.ml.iris/2", "target": "prod.ml.iris/1"}
    with pytest.raises(LineageCycle):
        await record(graph, (version(1), version(1)))
    with pytest.raises(LineageCycle):
        await record(graph, (RUN, RAW), (RAW, RUN))
    assert (await query(graph, RUN)).edges == ()
    await record(graph, (version(1), version(2)))  # a second way to the same is no circle


async def test_circle_through_a_thousand_nodes_is_found(graph: LineageGraph) -> None:
    chain = [(dataset(number), dataset(number + 1)) for number in range(999)]
    await record(graph, *chain)
    with pytest.raises(LineageCycle):
        await record(graph, (dataset(999), dataset(0)))


@pytest.mark.parametrize("length", [2, 5])
async def test_writers_at_once_close_no_circle(
    graph: LineageGraph, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    await record(graph, *((RAW, dataset(number)) for number in range(length)))
    together = asyncio.Barrier(length)
    met: set[asyncio.Task[object] | None] = set()

    async def ancestry(*arguments: Any) -> list[tuple[str, str]]:
        """Look for circles, the first time so that nobody commits before everybody has written and looked."""
        found = await lineage_store.ancestry(*arguments)
        task = asyncio.current_task()
        if task not in met:
            met.add(task)
            await together.wait()
        return found

    async def attempt(number: int) -> bool:
        try:
            await record(graph, (dataset(number), dataset((number + 1) % length)))
        except (LineageCycle, Contention):
            return False
        return True

    with monkeypatch.context() as patch:
        patch.setattr(origins, "lineage_store", SimpleNamespace(add=lineage_store.add, ancestry=ancestry))
        results = await asyncio.gather(*(attempt(number) for number in range(length)))
    assert not all(results)
    for number in range(
        length
    ):  # what was refused for contention is recorded now, but for the last edge of the circle
        await attempt(number)
    found = {pair for number in range(length) for pair in pairs(await query(graph, dataset(number)))}
    assert len({pair for pair in found if pair[0] != RAW.name}) == length - 1


async def test_ancestry_is_bounded(graph: LineageGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "lineage_ancestry_edges", Limit("lineage_ancestry_edges", 3, "edges", ""))
    await record(graph, *((dataset(number), dataset(number + 1)) for number in range(4)))
    with pytest.raises(LimitExceeded):
        await record(graph, (dataset(4), dataset(5)))
    assert len((await query(graph, dataset(0))).edges) == 4


# Walks.


async def test_depth_is_respected_and_a_node_is_visited_once(graph: LineageGraph) -> None:
    # Ten diamonds in a row: 1,024 ways from one end to the other, 40 edges.
    edges = []
    for number in range(0, 30, 3):
        top, left, right, bottom = (dataset(number + step) for step in range(4))
        edges += [(top, left), (top, right), (left, bottom), (right, bottom)]
    await record(graph, *edges)
    for depth in (1, 2, 3, 20):
        found = await query(graph, dataset(0), depth)
        assert (len(found.edges), found.truncated) == (2 * depth, False)
    assert len((await query(graph, dataset(3), 2)).edges) == 8


async def test_answers_end_at_a_thousand_edges_with_the_nearest(
    graph: LineageGraph,
) -> None:
    hub = named_node(NodeKind.DATASET, "hub")
    await record(graph, *((hub, dataset(number)) for number in range(MAX_EDGES - 1)))
    await record(graph, (RAW, hub))
    whole = await query(graph, hub)
    assert (len(whole.edges), whole.truncated) == (MAX_EDGES, False)
    await record(graph, (dataset(0), CLEAN))
    cut = await query(graph, hub, 2)
    assert (len(cut.edges), cut.truncated) == (MAX_EDGES, True)
    assert "s3://lake/clean" not in {edge.target.name for edge in cut.edges}
    assert not (await query(graph, hub, 1)).truncated


# Permissions.


def allow(grants: Grants, *held: tuple[str, Privilege]) -> None:
    given = [ResourceGrant(resource_id, privilege, Effect.ALLOW) for resource_id, privilege in held]
    grants.replace(BOB.principal.id, "bob", given)


async def test_recording_needs_edit_on_targets_and_sight_of_sources(
    stack: CatalogStack, iris: Model, graph: LineageGraph, grants: Grants
) -> None:
    other = await stack.create_model(*OTHER)
    await stack.create_version()
    await stack.create_version(OTHER)
    schema, catalog = iris.parents[0].id, iris.parents[1].id
    reach = ((catalog, Privilege.USE_CATALOG), (schema, Privilege.USE_SCHEMA))
    edge = (version(1, OTHER), version(1))
    allow(grants, *reach, (iris.id, Privilege.EDIT))
    with pytest.raises(PermissionDenied) as caught:
        await record(graph, edge, by=BOB)
    assert caught.value.metadata["privilege"] == "READ_METADATA"
    allow(grants, *reach, (other.id, Privilege.READ_METADATA), (iris.id, Privilege.READ_METADATA))
    with pytest.raises(PermissionDenied) as caught:
        await record(graph, edge, by=BOB)
    assert (caught.value.metadata["privilege"], caught.value.metadata["name"]) == ("EDIT", "prod.ml.iris")
    with pytest.raises(PermissionDenied):  # as if it existed
        await record(graph, (RUN, version(9)), by=BOB)
    assert (await query(graph, version(1))).edges == ()
    allow(grants, *reach, (other.id, Privilege.READ_METADATA), (iris.id, Privilege.EDIT))
    await record(graph, edge, by=BOB)
    assert (await query(graph, version(1))).edges[0].recorded_by == "bob"


async def test_versions_out_of_sight_have_no_name(
    stack: CatalogStack, iris: Model, graph: LineageGraph, grants: Grants
) -> None:
    await stack.create_model(*OTHER)
    await stack.create_version()
    hidden = await stack.create_version(OTHER)
    await record(graph, (version(1, OTHER), version(1)), (RAW, version(1, OTHER)))
    with pytest.raises(PermissionDenied):
        await query(graph, version(1), by=BOB)
    schema, catalog = iris.parents[0].id, iris.parents[1].id
    see = (iris.id, Privilege.READ_METADATA)
    allow(grants, (catalog, Privilege.USE_CATALOG), (schema, Privilege.USE_SCHEMA), see)
    found = await query(graph, version(1), by=BOB)
    assert pairs(found) == [("", "prod.ml.iris/1"), ("s3://lake/raw", "")]
    assert found.edges[0].source == Node(NodeKind.MODEL_VERSION, hidden.id, "")
    allow(grants, see)  # without the way through the containers nothing is seen
    assert pairs(await query(graph, RAW, by=BOB)) == [("s3://lake/raw", ""), ("", "")]
    for missing in (version(9), version(1, OTHER), version(1, ("no", "ml", "iris"))):
        with pytest.raises(PermissionDenied):
            await query(graph, missing, by=BOB)


# Metadata.


async def test_metadata_come_back_as_they_were_stored(stack: CatalogStack, iris: Model) -> None:
    metadata = ModelMetadata(
        use_case="regression",
        framework="xgboost",
        hyperparameters={"depth": 3.0, "huge": 1e300, "nested": {"list": [1.0, None, "ü", True]}},
        test_results={"score_py": {"success": True}},
        custom=(CustomMetadata("k", "v", MetadataCategory.PERFORMANCE, "d"), CustomMetadata("l")),
    )
    made = await stack.create_version(metadata=metadata)
    assert made.metadata == metadata
    assert all(isinstance(made.metadata.hyperparameters[name], float) for name in ("depth", "huge"))
    assert (await stack.create_version(metadata=ModelMetadata())).metadata == ModelMetadata()
    assert (await stack.create_version()).metadata is None
