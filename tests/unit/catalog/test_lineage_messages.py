"""Lineage and the past of aliases in messages: shapes, defaults, refusals."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import lineage_pb2
from modelyard.api.common.v1 import resource_pb2
from modelyard_catalog.alias_messages import parse_alias_at, parse_alias_history, parse_rollback
from modelyard_catalog.commands import (
    AliasAt,
    AliasHistory,
    DeploymentRef,
    QueryLineage,
    RecordDeployment,
    Rollback,
    VersionRef,
)
from modelyard_catalog.graph import Deployment, Edge, Lineage, Node, NodeKind, named_node
from modelyard_catalog.lineage_messages import (
    parse_delete_lineage,
    parse_query_lineage,
    parse_record_deployment,
    parse_record_lineage,
    render_lineage,
)
from modelyard_catalog.models import Path
from modelyard_kit.errors import InvalidField
from modelyard_kit.filters import Asked
from modelyard_kit.limits import LIMITS
from modelyard_kit.paging import encode_token

IRIS: Path = ("prod", "ml", "iris")
NAME = "prod.ml.iris"
ID = "0198c0de-0000-7000-8000-000000000001"
Kind = lineage_pb2.LineageNode


def node(kind: int = Kind.KIND_DATASET, name: str = "d", **fields: Any) -> lineage_pb2.LineageNode:
    return lineage_pb2.LineageNode(kind=kind, name=name, **fields)  # type: ignore[arg-type]


def record(source: Any = None, target: Any = None, **fields: Any) -> service.RecordLineageRequest:
    edge = lineage_pb2.LineageEdge(source=source or node(), target=target or node(name="e"), **fields)
    return service.RecordLineageRequest(edges=[edge])


def query(**fields: Any) -> service.QueryLineageRequest:
    return service.QueryLineageRequest(**({"node": node()} | fields))


def delete(**fields: Any) -> service.DeleteLineageRequest:
    return service.DeleteLineageRequest(edges=record(**fields).edges)


def anchored(anchor: str) -> service.RecordLineageRequest:
    return service.RecordLineageRequest(edges=record().edges, anchor=anchor)


def told(
    type: resource_pb2.ResourceType.ValueType = resource_pb2.RESOURCE_TYPE_DEPLOYMENT,  # noqa: A002
    id: str = ID,  # noqa: A002 - what it is
    name: str = NAME,
    **fields: Any,
) -> service.RecordDeploymentRequest:
    deployment = resource_pb2.Resource(type=type, id=id, name=name, owner_id="o")
    return service.RecordDeploymentRequest(**({"deployment": deployment, "schema_id": ID} | fields))


def history(**fields: Any) -> service.ListAliasHistoryRequest:
    return service.ListAliasHistoryRequest(**({"model": NAME} | fields))


def at(**fields: Any) -> service.GetAliasAtRequest:
    given: dict[str, Any] = {"model": NAME, "alias": "champion", "time": Timestamp()} | fields
    return service.GetAliasAtRequest(**given)


def rollback(**fields: Any) -> service.RollbackAliasRequest:
    return service.RollbackAliasRequest(**({"model": NAME, "alias": "champion"} | fields))


REFUSED: list[tuple[str, Callable[[Any], object], Any]] = [
    ("edges", parse_record_lineage, service.RecordLineageRequest()),
    (
        "edges[0].source",
        parse_record_lineage,
        service.RecordLineageRequest(edges=[lineage_pb2.LineageEdge(target=node())]),
    ),
    (
        "edges[0].target",
        parse_record_lineage,
        service.RecordLineageRequest(edges=[lineage_pb2.LineageEdge(source=node())]),
    ),
    ("edges[0].source.kind", parse_record_lineage, record(node(Kind.KIND_UNSPECIFIED))),
    ("edges[0].source.kind", parse_record_lineage, record(node(77))),
    ("edges[0].source.name", parse_record_lineage, record(node(Kind.KIND_DEPLOYMENT, "iris"))),
    ("edges[0].source.name", parse_record_lineage, record(node(Kind.KIND_DEPLOYMENT, ""))),
    ("edges[0].source.id", parse_record_lineage, record(node(Kind.KIND_DEPLOYMENT, NAME, id="7"))),
    ("edges[0].source.version", parse_record_lineage, record(node(Kind.KIND_DEPLOYMENT, NAME, version="1"))),
    ("edges[0].source.digest", parse_record_lineage, record(node(Kind.KIND_DEPLOYMENT, NAME, digest="1"))),
    ("edges[0].source.name", parse_record_lineage, record(node(name=""))),
    ("edges[0].source.name", parse_record_lineage, record(node(name="\0"))),
    ("edges[0].source.name", parse_record_lineage, record(node(name="https://token@lake/iris"))),
    ("edges[0].source.name", parse_record_lineage, record(node(Kind.KIND_MODEL_VERSION, "iris"))),
    ("edges[0].source.version", parse_record_lineage, record(node(version="\0"))),
    ("edges[0].source.version", parse_record_lineage, record(node(Kind.KIND_RUN, version="1"))),
    (
        "edges[0].source.version",
        parse_record_lineage,
        record(node(Kind.KIND_MODEL_VERSION, NAME, version="1")),
    ),
    ("edges[0].source.digest", parse_record_lineage, record(node(Kind.KIND_RUN, digest="1"))),
    ("edges[0].source.digest", parse_record_lineage, record(node(Kind.KIND_BATCH_JOB, digest="\0"))),
    ("edges[0].target.digest", parse_record_lineage, record(target=node(digest="\0"))),
    ("edges[0].relation", parse_record_lineage, record(relation="\0")),
    ("anchor", parse_record_lineage, anchored("prod")),
    ("anchor", parse_record_lineage, anchored(f"{NAME}/1")),
    ("anchor", parse_record_lineage, anchored("prod.ml.iris.x")),
    ("edges", parse_delete_lineage, service.DeleteLineageRequest()),
    ("edges[0].target.kind", parse_delete_lineage, delete(target=node(Kind.KIND_UNSPECIFIED))),
    ("page_size", parse_query_lineage, query(page_size=-1)),
    ("page_token", parse_query_lineage, query(page_token="x")),
    ("page_token", parse_query_lineage, query(page_token=encode_token([1, ID, ID]))),
    ("page_token", parse_query_lineage, query(page_token=encode_token([1, ID, "x", "r"]))),
    ("deployment", parse_record_deployment, service.RecordDeploymentRequest()),
    ("deployment.type", parse_record_deployment, told(type=resource_pb2.RESOURCE_TYPE_MODEL)),
    ("deployment.id", parse_record_deployment, told(id="7")),
    ("deployment.name", parse_record_deployment, told(name="prod.ml")),
    ("schema_id", parse_record_deployment, told(schema_id="")),
    ("model_version_ids[1]", parse_record_deployment, told(model_version_ids=[ID, "v"])),
    ("node", parse_query_lineage, service.QueryLineageRequest()),
    ("node.name", parse_query_lineage, query(node=node(name=""))),
    ("direction", parse_query_lineage, query(direction=77)),
    ("depth", parse_query_lineage, query(depth=-1)),
    ("model", parse_alias_history, history(model="iris")),
    ("alias", parse_alias_history, history(alias="default")),
    ("alias", parse_alias_history, history(alias="a b")),
    ("page_size", parse_alias_history, history(page_size=-1)),
    ("model", parse_alias_at, at(model="")),
    ("alias", parse_alias_at, at(alias="")),
    ("alias", parse_alias_at, at(alias="first")),
    ("time", parse_alias_at, service.GetAliasAtRequest(model=NAME, alias="champion")),
    ("time", parse_alias_at, at(time=Timestamp(seconds=2**60))),
    ("time", parse_alias_at, at(time=Timestamp(nanos=-1))),
    ("model", parse_rollback, rollback(model=f"{NAME}/1")),
    ("alias", parse_rollback, rollback(alias="latest")),
    ("expected_version", parse_rollback, rollback(expected_version=-1)),
]


@pytest.mark.parametrize(("field", "parse", "request_"), REFUSED)
def test_refusal_names_its_field(field: str, parse: Callable[[Any], object], request_: Any) -> None:
    with pytest.raises(InvalidField) as caught:
        parse(request_)
    assert caught.value.metadata == {"field": field}


def test_edges_are_parsed() -> None:
    version = node(Kind.KIND_MODEL_VERSION, f"models:/{NAME}@champion", digest="sha256:aa", id="x")
    edge = parse_record_lineage(record(node(version="1", digest="2"), version, relation="trained_on")).edges[
        0
    ]
    assert edge.source == named_node(NodeKind.DATASET, "d", "1", "2")
    assert edge.target == VersionRef(IRIS, alias="champion")
    assert edge.relation == "trained_on"


def test_jobs_and_deployments_are_parsed() -> None:
    job = node(Kind.KIND_BATCH_JOB, "airflow://scoring", version="7", digest="sha256:aa")
    given = record(node(Kind.KIND_DEPLOYMENT, NAME), job)
    edge = parse_delete_lineage(service.DeleteLineageRequest(edges=given.edges)).edges[0]
    assert edge.source == DeploymentRef(NAME)
    assert edge.target == named_node(NodeKind.BATCH_JOB, "airflow://scoring", "7", "sha256:aa")
    by_id = query(node=node(Kind.KIND_DEPLOYMENT, NAME, id=ID.upper()))
    assert parse_query_lineage(by_id).node == DeploymentRef("", ID)
    for anchor in ("prod.ml", NAME):
        assert parse_record_lineage(anchored(anchor)).anchor == tuple(anchor.split("."))


def test_what_inference_tells_is_parsed() -> None:
    deployment = Deployment(ID, NAME, "o", ID)
    assert parse_record_deployment(told(model_version_ids=[ID])) == RecordDeployment(deployment, (ID,))
    gone = parse_record_deployment(told(delete_time=Timestamp(seconds=1)))
    assert (gone.version_ids, gone.deployment.delete_time) == ((), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))


def test_question_has_defaults_and_a_bound() -> None:
    start = named_node(NodeKind.DATASET, "d")
    assert parse_query_lineage(query()) == QueryLineage(start, upstream=True, downstream=True, depth=1)
    up = parse_query_lineage(query(direction=service.LINEAGE_DIRECTION_UPSTREAM, depth=2**31 - 1))
    assert (up.upstream, up.downstream, up.depth) == (True, False, LIMITS["lineage_depth"].maximum)
    down = parse_query_lineage(query(direction=service.LINEAGE_DIRECTION_DOWNSTREAM))
    assert (down.upstream, down.downstream) == (False, True)
    paged = parse_query_lineage(query(page_size=5_000, page_token=encode_token([3, ID, ID, "r"])))
    assert (paged.size, paged.after) == (1_000, (3, ID, ID, "r"))


def test_ids_of_named_nodes_are_uuids_that_differ_with_every_part() -> None:
    parts = [("a", "", ""), ("", "a", ""), ("", "", "a"), ("a", "b", ""), ("a", "", "b"), ("ab", "", "")]
    ids = {named_node(kind, *part).id for kind in (NodeKind.DATASET, NodeKind.RUN) for part in parts}
    assert len(ids) == 12
    assert {UUID(id).version for id in ids} == {8}  # noqa: A001 - what it is
    assert named_node(NodeKind.RUN, "a") == named_node(NodeKind.RUN, "a")


def test_graph_is_rendered() -> None:
    time = datetime(2026, 1, 2, tzinfo=UTC)
    target = Node(NodeKind.DEPLOYMENT, "1", "prod.ml.iris", delete_time=time)
    edge = Edge(named_node(NodeKind.RUN, "r"), target, "deployed_as", "ada", time)
    answer = render_lineage(Lineage(edge.source, (edge,), truncated=True, next=(1, ID, ID, "r")))
    assert (answer.truncated, answer.edges[0].recorded_by) == (True, "ada")
    assert answer.edges[0].target == node(Kind.KIND_DEPLOYMENT, NAME, id="1", delete_time=time)
    assert answer.node == answer.edges[0].source
    assert answer.next_page_token == encode_token([1, ID, ID, "r"])
    assert not render_lineage(Lineage(edge.source, (), truncated=False)).next_page_token
    assert answer.edges[0].create_time.ToDatetime(tzinfo=UTC) == time


def test_past_of_aliases_is_parsed() -> None:
    assert parse_alias_history(history()) == AliasHistory(IRIS, "", Asked(size=50))
    asked = history(alias="a", page_size=5_000, page_token="t", filter="version = 3")
    assert parse_alias_history(asked) == AliasHistory(
        IRIS, "a", Asked(size=1_000, page_token="t", filter="version = 3")
    )
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    time = Timestamp()
    time.FromDatetime(moment)
    assert parse_alias_at(at(time=time)) == AliasAt(IRIS, "champion", moment)
    assert parse_rollback(rollback()) == Rollback(IRIS, "champion", None)
    assert parse_rollback(rollback(expected_version=0)) == Rollback(IRIS, "champion", 0)
