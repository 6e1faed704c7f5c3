"""Lineage on real PostgreSQL: deployments as nodes, who may record and remove which edges, and pages of walks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from modelyard_catalog.commands import (
    Delete,
    DeleteLineage,
    DeploymentRef,
    GivenEdge,
    GivenNode,
    QueryLineage,
    RecordDeployment,
    RecordLineage,
    VersionRef,
)
from modelyard_catalog.errors import LineageCycle
from modelyard_catalog.graph import Deployment, EdgeKey, Lineage, Node, NodeKind, named_node
from modelyard_catalog.lineage import LineageGraph
from modelyard_catalog.models import Model, ModelVersion, Path, Schema
from modelyard_kit.access import SYSTEM_ID, Effect, Link, Privilege, ResourceGrant, ResourceType
from modelyard_kit.auth import Call, Principal
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import NotFound, PeerUnavailable, PermissionDenied
from modelyard_kit.grants import Grants
from modelyard_kit.limits import LIMITS, Limit
from tests.conformance.catalog_stack import ADA, BOB, IRIS, CatalogStack

INFERENCE = Call(Principal("0198c0de-0000-7000-8000-0000000001fe", "inference", "service"), "")
LIVE = "prod.ml.live"
D1 = "0198c0de-0000-7000-8000-00000000d001"
D2 = "0198c0de-0000-7000-8000-00000000d002"
RAW, CLEAN, LOGS = (named_node(NodeKind.DATASET, name) for name in ("raw", "clean", "logs"))
RUN = named_node(NodeKind.RUN, "train-42")
JOB = named_node(NodeKind.BATCH_JOB, "airflow://scoring", "2026-01-01", "sha256:aa")
NAMED = DeploymentRef(LIVE)


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    yield stack
    await stack.close()


@pytest.fixture
async def iris(stack: CatalogStack) -> Model:
    return await stack.create_model(*IRIS)


@pytest.fixture
async def first(stack: CatalogStack, iris: Model) -> ModelVersion:
    return await stack.create_version()


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


def version(number: int = 1) -> VersionRef:
    return VersionRef(IRIS, number)


def given(source: GivenNode, target: GivenNode) -> GivenEdge:
    return GivenEdge(source, target, "r")


async def record(graph: LineageGraph, *edges: GivenEdge, by: Call = ADA, anchor: Path = ()) -> None:
    await graph.record(by, RecordLineage(edges, anchor))


async def delete(graph: LineageGraph, *edges: GivenEdge, by: Call = ADA) -> None:
    await graph.delete(by, DeleteLineage(edges))


async def around(graph: LineageGraph, node: GivenNode, *, by: Call = ADA) -> Lineage:
    return await graph.query(by, QueryLineage(node, upstream=True, downstream=True, depth=20))


async def names(graph: LineageGraph, node: GivenNode, *, by: Call = ADA) -> list[tuple[str, str]]:
    return [(edge.source.name, edge.target.name) for edge in (await around(graph, node, by=by)).edges]


def live(model: Model, deployment_id: str = D1, owner_id: str = "") -> Deployment:
    return Deployment(deployment_id, LIVE, owner_id, model.parents[0].id)


def known(stack: CatalogStack, model: Model, deployment_id: str = D1) -> None:
    """Let the inference service know a deployment, beside nothing else."""
    link = Link(ResourceType.DEPLOYMENT, deployment_id, LIVE)
    stack.deployments.chains[:] = [(link, *model.parents)]


def allow(grants: Grants, model: Model, *held: tuple[str, Privilege], to: Call = BOB) -> None:
    """Grant Bob these and the way through the containers."""
    schema, catalog = model.parents[0].id, model.parents[1].id
    reach = ((catalog, Privilege.USE_CATALOG), (schema, Privilege.USE_SCHEMA))
    given = [ResourceGrant(id_, privilege, Effect.ALLOW) for id_, privilege in (*reach, *held)]
    grants.replace(to.principal.id, to.principal.name, given)


def denied(caught: pytest.ExceptionInfo[PermissionDenied]) -> tuple[str, str, str]:
    metadata = caught.value.metadata
    return metadata["privilege"], metadata["resource_type"], metadata["name"]


# Deployments as nodes.


async def test_inference_tells_what_answers_once_and_what_is_gone(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph
) -> None:
    second = await stack.create_version()
    told = RecordDeployment(live(iris), (first.id,))
    for _ in range(2):
        await graph.record_deployment(INFERENCE, told)
    await graph.record_deployment(INFERENCE, replace(told, version_ids=(first.id, second.id)))
    edges = (await around(graph, DeploymentRef("", D1))).edges
    assert {(edge.source.name, edge.target.name, edge.relation, edge.recorded_by) for edge in edges} == {
        ("prod.ml.iris/1", LIVE, "deployed_as", "inference"),
        ("prod.ml.iris/2", LIVE, "deployed_as", "inference"),
    }
    events = [event for event in await stack.events() if event[0] == "catalog.lineage.recorded"]
    assert [(name, data["count"]) for _, name, data in events] == [(LIVE, 1), (LIVE, 1)]
    gone = utc_now()
    for _ in range(2):
        end = RecordDeployment(replace(live(iris), delete_time=gone), ())
        await graph.record_deployment(INFERENCE, end)
        gone += timedelta(days=1)
    await graph.record_deployment(INFERENCE, told)  # late, and no resurrection
    (edge,) = (await around(graph, version(2))).edges
    assert (edge.target.name, edge.target.delete_time) == (LIVE, gone - timedelta(days=2))


async def test_an_end_that_comes_with_its_versions_is_kept_and_one_of_nothing_leaves_nothing(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph
) -> None:
    gone = replace(live(iris), delete_time=utc_now())
    await graph.record_deployment(INFERENCE, RecordDeployment(replace(gone, id=D2), ()))
    await graph.record_deployment(INFERENCE, RecordDeployment(gone, (first.id,)))
    (edge,) = (await around(graph, version())).edges
    assert edge.target == Node(NodeKind.DEPLOYMENT, D1, LIVE, delete_time=gone.delete_time)
    with pytest.raises(NotFound):
        await around(graph, DeploymentRef("", D2))


async def test_a_name_means_the_deployment_that_has_it_now(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph
) -> None:
    await graph.record_deployment(INFERENCE, RecordDeployment(live(iris), (first.id,)))
    known(stack, iris, D2)
    found = await around(graph, NAMED)
    assert (found.node.id, found.edges) == (D2, ())
    await record(graph, given(NAMED, LOGS), given(version(), NAMED))
    assert {edge.key.target_id for edge in (await around(graph, version())).edges} == {D1, D2, LOGS.id}
    assert (await around(graph, DeploymentRef("", D2))).node.name == LIVE


async def test_without_inference_the_name_last_recorded_counts(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph
) -> None:
    stack.deployments.silent = True
    with pytest.raises(PeerUnavailable):
        await around(graph, NAMED)
    gone = replace(live(iris, D2), delete_time=utc_now())
    await graph.record_deployment(INFERENCE, RecordDeployment(gone, (first.id,)))
    with pytest.raises(PeerUnavailable):
        await around(graph, NAMED)
    await graph.record_deployment(INFERENCE, RecordDeployment(live(iris), (first.id,)))
    assert (await around(graph, NAMED)).node.id == D1
    assert len((await around(graph, version())).edges) == 2  # inference is not asked at all
    assert (await around(graph, DeploymentRef("", D2))).node.delete_time is not None


async def test_deployments_are_seen_through_their_schema_and_hidden_with_it(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph, grants: Grants
) -> None:
    other = await stack.create_model("prod", "served", "x")
    deployment = replace(live(other), name="prod.served.live")
    await graph.record_deployment(INFERENCE, RecordDeployment(deployment, (first.id,)))
    allow(grants, iris, (iris.parents[1].id, Privilege.READ_METADATA))
    assert await names(graph, version(), by=BOB) == [("prod.ml.iris/1", "")]  # not through its schema
    schema = other.parents[0].id
    allow(grants, iris, (iris.parents[1].id, Privilege.READ_METADATA), (schema, Privilege.USE_SCHEMA))
    assert await names(graph, version(), by=BOB) == [("prod.ml.iris/1", "prod.served.live")]
    await stack.deletions.delete(ADA, Schema, Delete(("prod", "served"), "", force=True))
    assert await names(graph, version()) == [("prod.ml.iris/1", "")]
    with pytest.raises(NotFound):
        await around(graph, DeploymentRef("", D1))


async def test_deployments_out_of_sight_have_no_name(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph, grants: Grants
) -> None:
    told = RecordDeployment(replace(live(iris), delete_time=utc_now()), (first.id,))
    await graph.record_deployment(INFERENCE, told)
    allow(grants, iris, (iris.id, Privilege.READ_METADATA))
    (edge,) = (await around(graph, version(), by=BOB)).edges
    assert edge.target == Node(NodeKind.DEPLOYMENT, D1, "")
    known(stack, iris)
    for ref in (NAMED, DeploymentRef("", D1), DeploymentRef("", D2), DeploymentRef("prod.ml.none")):
        with pytest.raises(PermissionDenied):
            await around(graph, ref, by=BOB)
    allow(grants, iris, (iris.id, Privilege.READ_METADATA), (D1, Privilege.READ_METADATA))
    assert await names(graph, version(), by=BOB) == [("prod.ml.iris/1", LIVE)]
    assert (await around(graph, NAMED, by=BOB)).node.name == LIVE
    with pytest.raises(NotFound):
        await around(graph, DeploymentRef("prod.ml.none"))


async def test_models_may_be_trained_on_what_they_answered(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph
) -> None:
    second = await stack.create_version()
    known(stack, iris)
    await graph.record_deployment(INFERENCE, RecordDeployment(live(iris), (first.id,)))
    await record(graph, given(NAMED, LOGS), given(LOGS, version(2)))
    await graph.record_deployment(INFERENCE, RecordDeployment(live(iris), (second.id,)))
    found = await around(graph, NAMED)
    assert len({edge.key for edge in found.edges}) == len(found.edges) == 4
    with pytest.raises(LineageCycle):  # any other circle is one
        await record(graph, given(version(2), LOGS))
    with pytest.raises(LineageCycle):
        await record(graph, given(NAMED, NAMED))
    await record(graph, given(version(2), RUN), given(RUN, CLEAN))
    with pytest.raises(LineageCycle):
        await record(graph, given(CLEAN, RUN))


# Rights.


async def test_edges_into_deployments_need_deploy_and_out_of_them_sight(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph, grants: Grants
) -> None:
    known(stack, iris)
    into, out_of = given(version(), NAMED), given(NAMED, version())
    allow(grants, iris, (iris.id, Privilege.READ_METADATA), (D1, Privilege.EDIT))
    with pytest.raises(PermissionDenied) as caught:
        await record(graph, into, by=BOB)
    assert denied(caught) == ("DEPLOY", "deployment", LIVE)
    allow(grants, iris, (iris.id, Privilege.EDIT), (D1, Privilege.DEPLOY))
    with pytest.raises(PermissionDenied) as caught:
        await record(graph, out_of, by=BOB)
    assert denied(caught) == ("READ_METADATA", "deployment", LIVE)
    allow(grants, iris, (iris.id, Privilege.READ_METADATA), (D1, Privilege.DEPLOY))
    await record(graph, into, by=BOB)
    assert await names(graph, NAMED) == [("prod.ml.iris/1", LIVE)]
    events = [event for event in await stack.events() if event[0] == "catalog.lineage.recorded"]
    assert [name for _, name, _ in events] == [LIVE]


async def test_edges_of_other_things_need_an_anchor(
    stack: CatalogStack, iris: Model, graph: LineageGraph, grants: Grants
) -> None:
    edge = given(RAW, JOB)
    allow(grants, iris)
    with pytest.raises(PermissionDenied, match="name a schema or model of yours as its anchor") as caught:
        await record(graph, edge, by=BOB)
    assert denied(caught) == ("EDIT", "system", "")
    with pytest.raises(PermissionDenied) as caught:
        await record(graph, edge, by=BOB, anchor=("prod", "ml"))
    assert denied(caught) == ("CREATE_MODEL", "schema", "prod.ml")
    with pytest.raises(PermissionDenied) as caught:
        await record(graph, edge, by=BOB, anchor=IRIS)
    assert denied(caught) == ("EDIT", "model", "prod.ml.iris")
    with pytest.raises(PermissionDenied):  # as if it existed
        await record(graph, edge, by=BOB, anchor=("prod", "ml", "none"))
    with pytest.raises(NotFound):
        await record(graph, edge, anchor=("prod", "ml", "none"))
    assert await names(graph, RAW) == []
    allow(grants, iris, (iris.parents[0].id, Privilege.CREATE_MODEL))
    await record(graph, edge, by=BOB, anchor=("prod", "ml"))
    allow(grants, iris, (iris.id, Privilege.EDIT))
    await record(graph, given(JOB, CLEAN), by=BOB, anchor=IRIS)
    assert await names(graph, RAW) == [("raw", JOB.name), (JOB.name, "clean")]
    events = [event for event in await stack.events() if event[0] == "catalog.lineage.recorded"]
    assert [name for _, name, _ in events] == ["prod.ml", "prod.ml.iris"]
    await record(graph, given(RAW, CLEAN))  # the owner of the system speaks for all of it


async def test_edges_from_versions_and_deployments_to_other_things_need_a_right_there_or_an_anchor(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph, grants: Grants
) -> None:
    known(stack, iris)
    scored, logged = given(version(), JOB), given(NAMED, LOGS)
    read = ((iris.id, Privilege.READ_METADATA), (D1, Privilege.READ_METADATA))
    allow(grants, iris, *read)
    for edge, wanted in ((scored, "EDIT"), (logged, "DEPLOY")):
        with pytest.raises(PermissionDenied) as caught:
            await record(graph, edge, by=BOB)
        assert denied(caught)[0] == wanted
    allow(grants, iris, *read, (iris.parents[0].id, Privilege.CREATE_MODEL))
    await record(graph, scored, by=BOB, anchor=("prod", "ml"))
    allow(grants, iris, *read, (D1, Privilege.DEPLOY))
    await record(graph, logged, by=BOB)
    await delete(graph, logged, by=BOB)
    with pytest.raises(PermissionDenied) as caught:
        await delete(graph, scored, by=BOB)
    assert denied(caught) == ("CREATE_MODEL", "schema", "")
    assert await names(graph, JOB) == [("prod.ml.iris/1", JOB.name)]


# Removing.


async def test_removed_edges_are_gone_with_an_event_and_can_be_removed_again(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph
) -> None:
    edges = (given(RUN, version()), given(RAW, version()), given(CLEAN, RUN))
    await record(graph, *edges)
    for _ in range(2):
        await delete(graph, edges[0], edges[2], replace(edges[1], relation="another"))
    assert await names(graph, version()) == [("raw", "prod.ml.iris/1")]
    events = [event for event in await stack.events() if event[0] == "catalog.lineage.deleted"]
    key = EdgeKey(RUN.id, first.id, "r")
    assert [(name, data["count"]) for _, name, data in events] == [("prod.ml.iris/1", 1), ("", 1)]
    assert events[0][2]["edges"] == [vars(key)]
    await record(graph, given(version(), CLEAN))  # was a circle before
    with pytest.raises(NotFound):
        await delete(graph, given(RUN, version(9)))


async def test_removing_needs_what_recording_needed_and_is_all_or_nothing(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph, grants: Grants
) -> None:
    trained, cleaned = given(RAW, version()), given(RAW, CLEAN)
    await record(graph, trained, cleaned, anchor=IRIS)
    allow(grants, iris, (iris.id, Privilege.READ_METADATA))
    with pytest.raises(PermissionDenied) as caught:
        await delete(graph, trained, by=BOB)
    assert denied(caught) == ("EDIT", "model", "prod.ml.iris")
    with pytest.raises(PermissionDenied) as caught:
        await delete(graph, cleaned, by=BOB)
    assert denied(caught) == ("EDIT", "model", "")
    allow(grants, iris, (iris.parents[0].id, Privilege.CREATE_MODEL))
    with pytest.raises(PermissionDenied):
        await delete(graph, cleaned, by=BOB)  # it was on behalf of the model
    allow(grants, iris, (iris.id, Privilege.EDIT))
    await record(graph, given(RAW, LOGS), anchor=("prod", "ml"))
    with pytest.raises(PermissionDenied):
        await delete(graph, trained, given(RAW, LOGS), by=BOB)
    assert len(await names(graph, RAW)) == 3
    await delete(graph, trained, cleaned, by=BOB)
    await delete(graph, trained, cleaned, by=BOB)
    assert await names(graph, RAW) == [("raw", "logs")]
    await delete(graph, given(CLEAN, RUN), by=BOB)  # nothing of the kind is there


async def test_edges_on_behalf_of_what_is_deleted_are_the_systems(
    stack: CatalogStack, iris: Model, graph: LineageGraph, grants: Grants
) -> None:
    other = await stack.create_model("prod", "ml", "other")
    await record(graph, given(RAW, CLEAN), anchor=("prod", "ml", "other"))
    allow(grants, iris, (other.id, Privilege.EDIT))
    await stack.deletions.delete(ADA, Model, Delete(("prod", "ml", "other"), "", force=True))
    with pytest.raises(PermissionDenied) as caught:
        await delete(graph, given(RAW, CLEAN), by=BOB)
    assert denied(caught) == ("EDIT", "system", "")
    await delete(graph, given(RAW, CLEAN))
    assert await names(graph, RAW) == []


# Pages.


async def pages(graph: LineageGraph, command: QueryLineage) -> list[list[EdgeKey]]:
    """Return the edges of a walk, page by page."""
    found = []
    while True:
        page = await graph.query(ADA, command)
        found.append([edge.key for edge in page.edges])
        assert page.truncated == (page.next is not None)
        if page.next is None:
            return found
        command = replace(command, after=page.next)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize("depth", [1, 2, 3, 20])
async def test_pages_together_are_the_walk(graph: LineageGraph, size: int, depth: int) -> None:
    nodes = [named_node(NodeKind.DATASET, f"d{number}") for number in range(9)]
    links = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6), (6, 7), (6, 8)]
    await record(graph, *(given(nodes[a], nodes[b]) for a, b in links), given(RAW, nodes[3]))
    await graph.record(ADA, RecordLineage((GivenEdge(nodes[2], nodes[3], "Ünlike"),)))
    command = QueryLineage(nodes[3], upstream=True, downstream=True, depth=depth)
    whole = [edge.key for edge in (await graph.query(ADA, command)).edges]
    found = await pages(graph, replace(command, size=size))
    assert [key for page in found for key in page] == whole
    assert all(len(page) == size for page in found[:-1])
    assert len(set(whole)) == len(whole) == {1: 6, 2: 10, 3: 12, 20: 12}[depth]


async def test_pages_of_circles_through_deployments_end(
    stack: CatalogStack, iris: Model, first: ModelVersion, graph: LineageGraph
) -> None:
    known(stack, iris)
    await record(graph, given(NAMED, LOGS), given(LOGS, version()), given(version(), NAMED))
    for depth in range(1, 5):
        command = QueryLineage(version(), upstream=True, downstream=True, depth=depth)
        whole = {edge.key for edge in (await graph.query(ADA, command)).edges}
        found = await pages(graph, replace(command, size=1))
        assert {key for page in found for key in page} == whole


async def test_one_question_reads_a_bounded_number_of_edges(
    graph: LineageGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [named_node(NodeKind.DATASET, f"d{number}") for number in range(9)]
    await record(graph, *(given(RAW, node) for node in nodes), *(given(node, CLEAN) for node in nodes))
    monkeypatch.setitem(LIMITS, "lineage_edges_per_walk", Limit("lineage_edges_per_walk", 12, "edges", ""))
    whole = QueryLineage(RAW, upstream=False, downstream=True, depth=2)
    assert [len(page) for page in await pages(graph, whole)] == [12, 3, 3]
    monkeypatch.setitem(LIMITS, "lineage_edges_per_walk", Limit("lineage_edges_per_walk", 4, "edges", ""))
    cut = await graph.query(ADA, whole)
    assert (len(cut.edges), cut.truncated, cut.next) == (4, True, None)
    near = replace(whole, depth=1, size=4)
    assert [len(page) for page in await pages(graph, near)] == [4, 4, 1]
