"""The verbs of the catalog's life cycle on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct

from modelyard import contexts
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.catalog.v1 import lineage_pb2
from modelyard.api.governance.v1.governance_service_pb2 import GetPrincipalResponse
from modelyard.contexts import Context

from .fake import Fake, Refusal
from .test_cli import modelyard

MODEL, VERSION = "prod.ml.iris", "prod.ml.iris/1"
DELETED = {
    "id": "m1",
    "name": MODEL,
    "delete_time": datetime(2026, 1, 1, tzinfo=UTC),
    "purge_time": datetime(2026, 1, 31, tzinfo=UTC),
}


@pytest.fixture
def connected(fake: Fake) -> Fake:
    contexts.save("test", Context(fake.target, "secret"))
    return fake


def test_lists_take_filters_and_show_how_to_undelete(connected: Fake) -> None:
    connected.answers["ListModels"] = lambda _: pb.ListModelsResponse(models=[DELETED])
    options = ["--filter", "name LIKE 'a%'", "--order-by", "name", "--show-deleted"]
    table = modelyard("models", "list", "prod.ml", *options).stdout.splitlines()
    assert table[0].split()[-3:] == ["delete", "time", "id"]
    assert table[1].split()[-3:] == ["2026-01-01", "00:00:00Z", "m1"]
    for nouns, rpc, *names in (
        ("models", "ListModels", "prod.ml"),
        ("catalogs", "ListCatalogs"),
        ("schemas", "ListSchemas", "prod"),
        ("versions", "ListModelVersions", MODEL),
    ):
        assert modelyard(nouns, "list", *names, *options, "-o", "json").exit_code == 0
        sent = connected.requests(rpc)[-1]
        assert (sent.filter, sent.order_by, sent.show_deleted) == ("name LIKE 'a%'", "name", True)
    assert "delete" not in modelyard("models", "list", "prod.ml").stdout


def test_what_is_in_something_deleted_is_listed_by_its_id(connected: Fake) -> None:
    connected.answers["ListModels"] = lambda _: pb.ListModelsResponse(models=[DELETED])
    table = modelyard("models", "list", "--schema-id", "s1").stdout.splitlines()
    assert table[0].split()[-1] == "id"  # to go on inside, and to undelete
    modelyard("schemas", "list", "--catalog-id", "c1")
    modelyard("versions", "list", "--model-id", "m1")
    for rpc, field in (("ListModels", "schema"), ("ListSchemas", "catalog"), ("ListModelVersions", "model")):
        (sent,) = connected.requests(rpc)
        assert (getattr(sent, field), getattr(sent, f"{field}_id")) == ("", f"{field[0]}1")


def test_metrics_are_shown_as_they_are(connected: Fake) -> None:
    stored = Struct()
    stored.update({"ok": True, "none": None, "loss": {"train": 0.5, "test": None}, "note": "good"})
    version = {"name": VERSION, "metrics": stored.fields}
    connected.answers["GetModelVersion"] = lambda _: pb.GetModelVersionResponse(model_version=version)
    lines = [line.split(maxsplit=1) for line in modelyard("metrics", "show", VERSION).stdout.splitlines()]
    assert [[name, value.strip()] for name, value in lines] == [
        ["loss", '{"test": null, "train": 0.5}'],
        ["none", "null"],
        ["note", "good"],
        ["ok", "true"],
    ]
    assert json.loads(modelyard("metrics", "show", VERSION, "-o", "json").stdout)["none"] is None


def test_a_metric_that_was_meant_to_be_json_is_refused(connected: Fake) -> None:
    for text in ("m=[[1,2],[3", "m={a:1}", 'm="x'):
        result = modelyard("metrics", "set", VERSION, text)
        assert result.exit_code == 2
        assert "begins like JSON and is none" in " ".join(result.stderr.replace("│", " ").split())
    assert not connected.requests("SetMetrics")


def test_rename_move_and_update(connected: Fake) -> None:
    for arguments, names in (
        (("models", "rename", MODEL, "lily"), "prod.ml.lily"),
        (("models", "move", MODEL, "live.ai"), "live.ai.iris"),
    ):
        assert modelyard(*arguments, "--etag", "e1").exit_code == 0
        sent = connected.requests("UpdateModel")[-1]
        assert (sent.model.name, sent.model.etag, sent.update_mask.paths) == (names, "e1", ["name"])
    modelyard("catalogs", "rename", "prod", "live")
    assert connected.requests("UpdateCatalog")[0].catalog.name == "live"
    modelyard("schemas", "update", "prod.ml", "-d", "", "--owner-id", "p1")
    assert list(connected.requests("UpdateSchema")[0].update_mask.paths) == ["description", "owner_id"]
    connected.answers["GetPrincipal"] = lambda request: GetPrincipalResponse(
        principal={"id": f"id-of-{request.name}"}
    )
    modelyard("models", "update", "prod.ml.iris", "--owner", "ada")
    assert connected.requests("UpdateModel")[-1].model.owner_id == "id-of-ada"
    refused = modelyard("models", "update", MODEL)
    assert (refused.exit_code, refused.stderr) == (
        1,
        "error: nothing to change: give at least one of description, owner_id\n",
    )


def test_a_watch_ends_with_the_token_to_go_on_with(connected: Fake) -> None:
    def gone(token: str) -> Iterator[pb.WatchEventsResponse]:
        if token:
            yield pb.WatchEventsResponse(resume_token=token)
        raise Refusal("PERMISSION_DENIED", "PERMISSION_DENIED")

    connected.answers["WatchEvents"] = lambda _: gone("later")
    assert "go on with: --resume-token later" in modelyard("events", "watch").stderr
    connected.answers["WatchEvents"] = lambda _: gone("")
    refused = modelyard("events", "watch", "--resume-token", "junk")  # which leads nowhere
    assert (refused.exit_code, "go on with" in refused.stderr) == (1, False)


def test_delete_tells_how_to_undo_it(connected: Fake) -> None:
    connected.answers["DeleteModel"] = lambda _: pb.DeleteModelResponse(model=DELETED)
    result = modelyard("models", "delete", MODEL, "--force")
    assert result.stdout == f"Deleted {MODEL}.\n"
    assert result.stderr == "Bring it back until 2026-01-31 00:00:00Z: modelyard models undelete m1\n"
    assert connected.requests("DeleteModel")[0].force
    assert json.loads(modelyard("models", "delete", MODEL, "-o", "json").stdout)["id"] == "m1"

    back = {"id": "m1", "name": MODEL, "type": "RESOURCE_TYPE_MODEL"}
    connected.answers["UndeleteResource"] = lambda _: pb.UndeleteResourceResponse(resource=back)
    assert MODEL in modelyard("models", "undelete", "m1").stdout
    for nouns, name in (("catalogs", "prod"), ("schemas", "prod.ml"), ("versions", VERSION)):
        assert modelyard(nouns, "delete", name).exit_code == 0
        assert modelyard(nouns, "undelete", "x").exit_code == 0
    assert [request.type for request in connected.requests("UndeleteResource")] == [4, 2, 3, 5]


def test_what_is_in_use_is_not_deleted(connected: Fake) -> None:
    def refuse(_: object) -> None:
        raise Refusal(
            "FAILED_PRECONDITION", "RESOURCE_IN_USE", "it is in use", unmet=["deployment prod.ml.iris"]
        )

    connected.answers["DeleteModelVersion"] = refuse
    result = modelyard("versions", "delete", VERSION)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[:2] == ["error: it is in use", "  in use by: deployment prod.ml.iris"]
    assert "--force" in result.stderr.splitlines()[2]


def test_versions_are_copied_labelled_and_described(connected: Fake) -> None:
    assert modelyard("versions", "copy", VERSION, "live.ml.iris", "--label", "1.0").exit_code == 0
    copied = connected.requests("CopyModelVersion")[0]
    assert (copied.source, copied.model, copied.label) == (VERSION, "live.ml.iris", "1.0")
    modelyard("versions", "label", VERSION, "1.4.0", "--etag", "e")
    modelyard("versions", "label", VERSION)
    modelyard("versions", "describe", VERSION, "better")
    label, none, text = connected.requests("UpdateModelVersion")
    assert (label.model_version.label, label.model_version.etag) == ("1.4.0", "e")
    assert (none.model_version.label, none.update_mask.paths) == ("", ["label"])
    assert (text.model_version.description, text.update_mask.paths) == ("better", ["description"])


def test_the_history_of_aliases(connected: Fake) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    move = {"alias": "champion", "previous_version": 1, "version": 2, "moved_by": "ada", "move_time": when}
    connected.answers["ListAliasHistory"] = lambda _: pb.ListAliasHistoryResponse(moves=[move])
    rows = modelyard("aliases", "history", MODEL, "champion").stdout.splitlines()
    assert rows[1].split() == ["2026-01-02", "03:04:05Z", "champion", "1", "2", "ada"]
    (row,) = json.loads(modelyard("aliases", "history", MODEL, "-o", "json").stdout)
    assert row["move_time"] == "2026-01-02T03:04:05Z"
    assert [request.alias for request in connected.requests("ListAliasHistory")] == ["champion", ""]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-02T03:04:05Z", 1767323045),
        ("2026-01-02T03:04:05", 1767323045),
        ("2026-01-02T04:04:05+01:00", 1767323045),
        ("2026-01-02", 1767312000),
    ],
)
def test_where_an_alias_pointed(connected: Fake, text: str, seconds: int) -> None:
    connected.answers["GetAliasAt"] = lambda _: pb.GetAliasAtResponse(version=7)
    assert modelyard("aliases", "at", MODEL, "champion", text).stdout == f"{MODEL}/7\n"
    assert connected.requests("GetAliasAt")[0].time.seconds == seconds


def test_an_alias_that_did_not_exist_is_exit_code_1(connected: Fake) -> None:
    result = modelyard("aliases", "at", MODEL, "champion", "2026-01-02")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{MODEL}@champion did not exist then\n"
    shown = modelyard("aliases", "at", MODEL, "champion", "2026-01-02", "-o", "json")
    assert json.loads(shown.stdout) == {
        "alias": "champion",
        "time": "2026-01-02T00:00:00Z",
        "version": 0,
    }
    assert modelyard("aliases", "at", MODEL, "champion", "yesterday").exit_code == 2


def test_an_alias_is_rolled_back(connected: Fake) -> None:
    connected.answers["RollbackAlias"] = lambda _: pb.RollbackAliasResponse(
        model={"aliases": {"my_alias": 1}}
    )
    assert modelyard("aliases", "rollback", MODEL, "my_alias", "--expect", "2").stdout.split() == [
        "my_alias",
        "1",
    ]
    assert connected.requests("RollbackAlias")[0].expected_version == 2


def test_limits(connected: Fake) -> None:
    limit = {"name": "tags_per_resource", "maximum": 100, "unit": "tags", "description": "Tags of one."}
    connected.answers["GetLimits"] = lambda _: pb.GetLimitsResponse(limits=[limit])
    assert modelyard("limits").stdout.splitlines()[1].split()[:2] == ["tags_per_resource", "100"]
    assert json.loads(modelyard("limits", "-o", "json").stdout)[0]["unit"] == "tags"


@pytest.fixture
def described(connected: Fake) -> Fake:
    """A version that keeps the metadata it is given."""
    version: dict[str, Any] = {"name": VERSION, "number": 1, "etag": "e1"}
    answer = pb.GetModelVersionResponse(model_version=version)
    metadata = answer.model_version.metadata
    metadata.algorithm = "LogisticRegression"
    metadata.hyperparameters.update({"C": 1, "max_iter": 500})
    metadata.custom.add(key="my_team", value="ml", category="CATEGORY_OTHER", description="who made it")

    def update(request: Any) -> Any:
        return pb.UpdateModelVersionResponse(model_version=request.model_version)

    connected.answers.update(GetModelVersion=lambda _: answer, UpdateModelVersion=update)
    return connected


def test_metadata_are_shown(described: Fake) -> None:
    lines = modelyard("metadata", "show", VERSION).stdout.splitlines()
    assert [line.rstrip().split(maxsplit=1) for line in lines] == [
        ["algorithm", "LogisticRegression"],
        ["hyperparameters.C", "1"],
        ["hyperparameters.max_iter", "500"],
        ["custom.my_team", "ml [OTHER] (who made it)"],
    ]
    shown = json.loads(modelyard("metadata", "show", VERSION, "-o", "json").stdout)
    assert shown["hyperparameters"] == {"C": 1, "max_iter": 500}
    described.answers["GetModelVersion"] = lambda _: pb.GetModelVersionResponse()
    assert modelyard("metadata", "show", VERSION).stderr == "no metadata\n"


def test_metadata_are_changed_one_by_one(described: Fake) -> None:
    changes = ["use_case=regression", "algorithm=", "hyperparameters.C=0.5", "hyperparameters.max_iter="]
    changes += [
        'test_results={"auc": 0.9}',
        "custom.my_team=",
        "custom.data.set=x=y",
        "hyperparameters.k=abc",
    ]
    result = modelyard("metadata", "set", VERSION, *changes, "--category", "performance", "-d", "about")
    assert result.exit_code == 0, result.output
    (sent,) = described.requests("UpdateModelVersion")
    assert (sent.name, sent.model_version.etag, sent.update_mask.paths) == (VERSION, "e1", ["metadata"])
    metadata = sent.model_version.metadata
    assert (metadata.use_case, metadata.algorithm) == ("regression", "")
    assert dict(metadata.hyperparameters) == {"C": 0.5, "k": "abc"}
    assert dict(metadata.test_results) == {"auc": 0.9}
    (fact,) = metadata.custom
    assert (fact.key, fact.value, fact.category, fact.description) == ("data.set", "x=y", 1, "about")


@pytest.mark.parametrize(
    "change",
    ["colour=red", "use_case.x=y", "hyperparameters=1", "hyperparameters.=1", "custom=1", "use_case"],
)
def test_metadata_that_cannot_be_are_wrong_use(described: Fake, change: str) -> None:
    assert modelyard("metadata", "set", VERSION, change).exit_code == 2
    assert not described.calls


def edge(source: tuple[str, str], target: tuple[str, str], relation: str = "") -> dict[str, Any]:
    nodes = [{"kind": f"KIND_{kind}", "name": name, "id": f"id of {name}"} for kind, name in (source, target)]
    return {"source": nodes[0], "target": nodes[1], "relation": relation}


@pytest.fixture
def graph(connected: Fake) -> Fake:
    iris, hidden = ("MODEL_VERSION", VERSION), ("MODEL_VERSION", "")
    edges = [
        edge(("DATASET", "s3://lake/iris"), iris, "trained_on"),
        edge(("RUN", "run-7"), iris, "produced"),
        edge(("DATASET", "raw"), ("DATASET", "s3://lake/iris")),
        edge(("DATASET", "s3://lake/iris"), ("RUN", "run-7")),
        edge(iris, ("DEPLOYMENT", MODEL), "deployed_as"),
        edge(iris, hidden, "copied_to"),
    ]

    def answer(request: pb.QueryLineageRequest) -> pb.QueryLineageResponse:
        name = (
            VERSION if request.node.kind == lineage_pb2.LineageNode.KIND_MODEL_VERSION else request.node.name
        )
        start = lineage_pb2.LineageNode(kind=request.node.kind, name=name, id=f"id of {name}")
        return pb.QueryLineageResponse(edges=edges, node=start)

    connected.answers["QueryLineage"] = answer
    return connected


def test_lineage_is_a_tree(graph: Fake) -> None:
    result = modelyard("lineage", "show", f"{MODEL}@champion", "--depth", "3")
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        f"model version {VERSION}",
        "├── made from",
        "│   ├── dataset s3://lake/iris  trained_on",
        "│   │   └── dataset raw",
        "│   └── run run-7  produced",
        "│       └── dataset s3://lake/iris  (see above)",
        "└── went into",
        f"    ├── deployment {MODEL}  deployed_as",
        "    └── model version (you may not see it)  copied_to",
    ]
    (sent,) = graph.requests("QueryLineage")
    assert (sent.node.name, sent.direction, sent.depth) == (f"{MODEL}@champion", 3, 3)
    for verb in (("show", VERSION, "--direction", "upstream"), ("upstream", VERSION)):
        upstream = modelyard("lineage", *verb).stdout
        assert "made from" in upstream
        assert "went into" not in upstream
    assert "made from" not in modelyard("lineage", "downstream", VERSION, "--depth", "2").stdout
    _, _, up, down = graph.requests("QueryLineage")
    assert ((up.direction, up.depth), (down.direction, down.depth)) == ((1, 20), (2, 2))


def test_lineage_of_other_things_and_as_json(graph: Fake) -> None:
    shown = modelyard("lineage", "show", "s3://lake/iris", "--kind", "dataset", "--direction", "downstream")
    assert [line.strip(" │├└─") for line in shown.stdout.splitlines()][:4] == [
        "dataset s3://lake/iris",
        "went into",
        f"model version {VERSION}  trained_on",
        f"deployment {MODEL}  deployed_as",
    ]
    prefixed = modelyard("lineage", "downstream", "dataset:s3://lake/iris")
    assert prefixed.stdout == shown.stdout
    found = json.loads(modelyard("lineage", "show", VERSION, "-o", "json").stdout)
    assert (len(found["edges"]), found["truncated"], found["node"]["name"]) == (6, False, VERSION)
    assert modelyard("lineage", "show", VERSION, "--kind", "thing").exit_code == 2
    assert modelyard("lineage", "show", VERSION, "--depth", "21").exit_code == 2


def test_lineage_says_when_there_is_none_or_more(graph: Fake) -> None:
    graph.answers["QueryLineage"] = lambda _: pb.QueryLineageResponse(truncated=True)
    result = modelyard("lineage", "show", VERSION)
    assert result.stdout == ""
    assert result.stderr.startswith("nothing is recorded\nthere is more")


def test_nodes_are_typed_by_kind_and_name(connected: Fake) -> None:
    known = "0198c0de-0000-7000-8000-000000000001"
    for text in ("run:train:7", "deployment:prod.ml.iris", f"deployment:{known}", "models:/prod.ml.iris"):
        assert modelyard("lineage", "show", text).exit_code == 0
    job = modelyard("lineage", "show", "job:airflow://scoring", "--version", "7", "--digest", "aa")
    assert job.exit_code == 0
    sent = [request.node for request in connected.requests("QueryLineage")]
    assert [(n.kind, n.name, n.id) for n in sent] == [
        (2, "train:7", ""),
        (4, "prod.ml.iris", ""),
        (4, "", known),
        (3, "prod.ml.iris", ""),
        (5, "airflow://scoring", ""),
    ]
    assert (sent[-1].version, sent[-1].digest) == ("7", "aa")
    refused = modelyard("lineage", "show", VERSION, "--version", "7")
    assert refused.exit_code == 2
    assert "has no version or digest" in " ".join(refused.stderr.split())


def test_a_deleted_deployment_says_so(connected: Fake) -> None:
    gone = {
        "kind": "KIND_DEPLOYMENT",
        "name": MODEL,
        "id": "d",
        "delete_time": datetime(2026, 1, 2, tzinfo=UTC),
    }
    made = edge(("MODEL_VERSION", VERSION), ("RUN", "r")) | {"target": gone}
    start = lineage_pb2.LineageNode(kind=3, name=VERSION, id=f"id of {VERSION}")  # type: ignore[arg-type]
    connected.answers["QueryLineage"] = lambda _: pb.QueryLineageResponse(edges=[made], node=start)
    assert f"deployment {MODEL}  (deleted 2026-01-02)" in modelyard("lineage", "show", VERSION).stdout


def test_edges_are_recorded_and_removed(connected: Fake) -> None:
    nodes = (
        "dataset:s3://lake/iris",
        "job:airflow://scoring",
        "--source-version",
        "2",
        "--target-version",
        "7",
    )
    relation = ("--relation", "scored_by")
    result = modelyard("lineage", "record", *nodes, *relation, "--anchor", "prod.ml")
    said = "dataset s3://lake/iris 2 -> batch job airflow://scoring 7 (scored_by)"
    assert result.stdout == f"Recorded {said}.\n"
    (sent,) = connected.requests("RecordLineage")
    assert (sent.anchor, sent.edges[0].source.version, sent.edges[0].target.version) == ("prod.ml", "2", "7")
    refused = modelyard("lineage", "delete", *nodes, *relation, stdin="n\n")
    assert (refused.exit_code, refused.stdout.strip()) == (1, "n")  # what was typed
    assert f"Remove {said}?" in refused.stderr
    assert not connected.requests("DeleteLineage")
    for agreed in (("--yes",), ()):
        removed = modelyard("lineage", "delete", *nodes, *relation, *agreed, stdin="y\n")
        assert removed.stdout.endswith(f"Removed {said}.\n")
    assert [list(request.edges) for request in connected.requests("DeleteLineage")] == [list(sent.edges)] * 2


def test_inputs_are_recorded(connected: Fake) -> None:
    result = modelyard("lineage", "log-input", VERSION, "iris", "--version", "2", "--role", "test")
    assert result.stdout == f"Recorded iris for {VERSION}.\n"
    sent = connected.requests("RecordLineage")[0].edges[0]
    assert (sent.source.name, sent.source.version, sent.relation) == ("iris", "2", "tested_on")
