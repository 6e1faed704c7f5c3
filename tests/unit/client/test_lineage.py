from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from modelyard import Client, Dataset, LineageEdge, LineageNode, errors
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.catalog.v1 import lineage_pb2
from modelyard.types import LineageDirection, LineageKind

from .fake import Fake, Refusal

VERSION = "prod.ml.iris/1"


def test_inputs_are_edges_from_data_sets_to_the_version(fake: Fake, client: Client) -> None:
    client.log_input(
        f"models:/{VERSION}",
        Dataset("s3://lake/iris", "2026-01", "sha256:ab", "training"),
        Dataset("held out", role="test"),
        Dataset("other", role="Validation"),
        Dataset("plain"),
    )
    (sent,) = fake.requests("RecordLineage")
    first = sent.edges[0]
    assert (first.source.kind, first.source.name) == (lineage_pb2.LineageNode.KIND_DATASET, "s3://lake/iris")
    assert (first.source.version, first.source.digest) == ("2026-01", "sha256:ab")
    assert {(edge.target.kind, edge.target.name) for edge in sent.edges} == {
        (lineage_pb2.LineageNode.KIND_MODEL_VERSION, VERSION)
    }
    relations = [edge.relation for edge in sent.edges]
    assert relations == ["trained_on", "tested_on", "validated_on", "used"]


def test_edges_of_every_kind_are_recorded(fake: Fake, client: Client) -> None:
    version = LineageNode.model_version("prod.ml.iris@champion")
    client.lineage.record(
        LineageEdge(source=LineageNode.run("run-7"), target=version, relation="produced"),
        LineageEdge(source=version, target=LineageNode.deployment("prod.ml.iris"), relation="deployed_as"),
        LineageEdge(source=version, target=LineageNode.batch_job("nightly")),
    )
    edges = fake.requests("RecordLineage")[0].edges
    assert [(e.source.kind, e.target.kind, e.relation) for e in edges] == [
        (2, 3, "produced"),
        (3, 4, "deployed_as"),
        (3, 5, ""),
    ]
    assert not edges[0].HasField("create_time")
    assert fake.requests("RecordLineage")[0].anchor == "prod.ml.iris"


def test_edges_between_other_things_have_an_anchor(fake: Fake, client: Client) -> None:
    edge = LineageEdge(source=LineageNode.dataset("raw"), target=LineageNode.dataset("clean"))
    client.lineage.record(edge)
    client.lineage.record(edge, anchor="prod.ml")
    assert [request.anchor for request in fake.requests("RecordLineage")] == ["", "prod.ml"]


def test_edges_of_an_answer_can_be_removed_and_asked_from(fake: Fake, client: Client) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    gone = LineageNode(kind=LineageKind.DEPLOYMENT, id="d1", name="prod.ml.iris", delete_time=when)
    job = LineageNode.batch_job("airflow://scoring", run="7", digest="sha256:aa")
    edge = LineageEdge(source=gone, target=job, relation="scored_by", recorded_by="ada", create_time=when)
    client.lineage.delete(edge)
    (sent,) = fake.requests("DeleteLineage")[0].edges
    assert (sent.source.id, sent.target.version, sent.target.digest) == ("d1", "7", "sha256:aa")
    assert (sent.relation, sent.recorded_by, sent.HasField("create_time")) == ("scored_by", "", False)
    client.lineage.downstream(gone)
    assert fake.requests("QueryLineage")[0].node.id == "d1"


def test_pages_are_followed_up_to_the_limit(fake: Fake, client: Client) -> None:
    def answer(request: pb.QueryLineageRequest) -> pb.QueryLineageResponse:
        edges = [{"relation": f"{request.page_token}{number}"} for number in range(request.page_size)]
        token = f"{request.page_token}x"
        return pb.QueryLineageResponse(edges=edges, truncated=True, next_page_token=token)  # type: ignore[arg-type]

    fake.answers["QueryLineage"] = answer
    found = client.lineage.upstream(VERSION, limit=2_500)
    assert (len(found.edges), found.truncated, found.edges[-1].relation) == (2_500, True, "xx499")
    asked = [(request.page_size, request.depth) for request in fake.requests("QueryLineage")]
    assert asked == [(1_000, 20), (1_000, 20), (500, 20)]


def test_the_graph_is_walked_from_a_reference_or_a_node(fake: Fake, client: Client) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    edge = {
        "source": {"kind": "KIND_DATASET", "name": "iris", "id": "d1"},
        "target": {"kind": "KIND_MODEL_VERSION", "name": VERSION, "id": "v1"},
        "relation": "trained_on",
        "recorded_by": "ada",
        "create_time": when,
    }
    fake.answers["QueryLineage"] = lambda _: pb.QueryLineageResponse(edges=[edge], truncated=True)
    found = client.lineage.query(VERSION, direction="upstream", depth=3)
    assert found.truncated
    assert found.edges == (
        LineageEdge(
            source=LineageNode(kind=LineageKind.DATASET, id="d1", name="iris"),
            target=LineageNode(kind=LineageKind.MODEL_VERSION, id="v1", name=VERSION),
            relation="trained_on",
            recorded_by="ada",
            create_time=when,
        ),
    )
    client.lineage.query(LineageNode.dataset("iris", version="1"), direction=LineageDirection.DOWNSTREAM)
    up, down = fake.requests("QueryLineage")
    assert (up.node.kind, up.node.name, up.direction, up.depth) == (3, VERSION, 1, 3)
    assert (down.node.kind, down.node.version, down.direction, down.depth) == (1, "1", 2, 1)


def test_a_cycle_has_its_own_class(fake: Fake, client: Client) -> None:
    def refuse(_: object) -> None:
        metadata = {"source": VERSION, "target": VERSION}
        raise Refusal("FAILED_PRECONDITION", "LINEAGE_CYCLE", metadata=metadata)

    fake.answers["RecordLineage"] = refuse
    node = LineageNode.model_version(VERSION)
    with pytest.raises(errors.LineageCycle) as caught:
        client.lineage.record(LineageEdge(source=node, target=node))
    assert caught.value.metadata == {"source": VERSION, "target": VERSION}


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda c: c.lineage.record(), "edges: give at least one"),
        (lambda c: c.log_input(VERSION), "edges: give at least one"),
        (lambda c: c.log_input(VERSION, "iris"), r"datasets\[0\]: write modelyard.Dataset"),
        (lambda c: c.log_input(VERSION, Dataset("a"), Dataset("")), r"datasets\[1\].name: is missing"),
        (lambda c: c.log_input(VERSION, Dataset("https://u:pw@host/x")), "holds credentials"),
        (lambda c: c.log_input("iris", Dataset("a")), r"edges\[0\].target.name: "),
        (lambda c: c.lineage.query("iris"), "node.name: 'iris' has 1 parts"),
        (lambda c: c.lineage.query(LineageNode(name="a")), "node.kind: is missing"),
        (lambda c: c.lineage.query(LineageNode.run("")), "node.name: is missing"),
        (lambda c: c.lineage.query(VERSION, limit=0), "limit: 0 is less than 1"),
        (lambda c: c.lineage.delete(), "edges: give at least one"),
        (lambda c: c.lineage.query(LineageNode.deployment("iris")), "node.name: 'iris' has 1 parts"),
        (lambda c: c.lineage.query(VERSION, direction="up"), "direction: 'up' is none of UPSTREAM"),
    ],
)
def test_what_cannot_be_recorded_is_refused_here(
    fake: Fake, client: Client, call: Callable[[Client], Any], problem: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=problem):
        call(client)
    assert not fake.calls


def test_an_address_may_name_its_user(fake: Fake, client: Client) -> None:
    client.log_input(VERSION, Dataset("ssh://git@host/data:1"), Dataset("C:\\data"), Dataset("a:b"))
    assert len(fake.requests("RecordLineage")[0].edges) == 3
