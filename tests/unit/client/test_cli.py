from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner, Result

from modelyard import contexts
from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.api.governance.v1 import governance_service_pb2
from modelyard.api.inference.v1 import deployment_pb2, inference_service_pb2, log_pb2
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.cli import _root, app
from modelyard.cli._output import headings
from modelyard.contexts import Context

from .fake import Fake, Refusal
from .test_predict import Endpoint
from .test_transfer import Store

MODEL, VERSION = "prod.ml.iris", "prod.ml.iris/1"


def modelyard(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)


@pytest.fixture
def connected(fake: Fake) -> Fake:
    contexts.save("test", Context(fake.target, "secret"))
    return fake


def model_answer(_: object) -> Any:
    model = {
        "name": MODEL,
        "owner": "ada",
        "latest_version": 2,
        "aliases": {"champion": 1},
        "tags": {"team": "ml"},
    }
    return catalog_service_pb2.ListModelsResponse(models=[model, {"name": "prod.ml.other"}])


def test_a_list_as_a_table_and_as_json(connected: Fake) -> None:
    connected.answers["ListModels"] = model_answer
    table = modelyard("models", "list", "prod.ml")
    assert table.exit_code == 0
    header, first, second = table.stdout.splitlines()
    assert header.split() == ["name", "owner", "latest", "version", "aliases", "tags", "create", "time"]
    assert first.split() == [MODEL, "ada", "2", "champion=1", "team=ml"]
    assert second.split() == ["prod.ml.other", "0"]
    assert "\x1b" not in table.stdout
    rows = json.loads(modelyard("models", "list", "prod.ml", "-o", "json").stdout)
    assert rows[0]["aliases"] == {"champion": 1}
    assert rows[0]["create_time"] is None
    assert len(json.loads(modelyard("models", "list", "prod.ml", "--limit", "1", "-o", "json").stdout)) == 1


def test_columns_that_begin_alike_are_told_apart() -> None:
    assert headings(("sequence", "event.time", "event.actor_name", "event.resource.name")) == [
        "sequence", "time", "actor name", "resource",
    ]  # fmt: skip
    assert headings(("resource.name", "create_time")) == ["resource", "create time"]


def test_an_empty_list_says_so_aside(connected: Fake) -> None:
    result = modelyard("models", "list", "prod.ml")
    assert (result.stdout, result.stderr) == ("", "no models\n")
    assert json.loads(modelyard("models", "list", "prod.ml", "-o", "json").stdout) == []


def test_a_version_is_shown_with_its_signature(connected: Fake) -> None:
    version = {"name": VERSION, "number": 1, "state": "STATE_READY", "metrics": {}}
    answer = catalog_service_pb2.GetModelVersionResponse(model_version=version)
    method = answer.model_version.signature.methods.add(name="predict")
    method.inputs.add(name="input", datatype="FP64", shape=[-1, 30])
    method.outputs.add(name="output", datatype="INT64", shape=[-1])
    answer.model_version.metrics["auc"].number_value = 0.99
    connected.answers["GetModelVersion"] = lambda _: answer
    shown = modelyard("versions", "show", "prod.ml.iris@champion").stdout
    assert "READY" in shown
    assert "predict(input: FP64[-1, 30]) -> output: INT64[-1]" in shown
    assert "auc=0.99" in shown
    assert json.loads(modelyard("versions", "show", VERSION, "-o", "json").stdout)["state"] == "READY"


def test_an_error_is_one_sentence_on_stderr(connected: Fake) -> None:
    def refuse(_: object) -> None:
        raise Refusal("NOT_FOUND", "RESOURCE_NOT_FOUND", "model prod.ml.iris does not exist")

    connected.answers["GetModel"] = refuse
    result = modelyard("models", "show", MODEL)
    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "",
        "error: model prod.ml.iris does not exist\n",
    )


def test_refusals_come_with_a_hint(connected: Fake) -> None:
    def denied(_: object) -> None:
        metadata = {"privilege": "EDIT", "resource_type": "model", "name": MODEL}
        raise Refusal(
            "PERMISSION_DENIED", "PERMISSION_DENIED", "you lack EDIT on model prod.ml.iris", metadata=metadata
        )

    def unmet(_: object) -> None:
        raise Refusal("FAILED_PRECONDITION", "POLICY_UNMET", "held back", unmet=["1 approval is missing"])

    connected.answers["SetAliases"] = denied
    assert (
        "modelyard grants create YOUR_NAME EDIT prod.ml.iris --type model"
        in modelyard("aliases", "set", MODEL, "a=1").stderr
    )
    connected.answers["SetAliases"] = unmet
    assert modelyard("aliases", "set", MODEL, "a=1").stderr.splitlines() == [
        "error: held back",
        "  unmet: 1 approval is missing",
        "hint: see `modelyard policies explain VERSION`, with `--alias` for an alias",
    ]


def test_what_is_unavailable_decides_the_hint(connected: Fake) -> None:
    hints = {
        "": "hint: is it running there? See `modelyard context show` and `modelyard status`",
        "REPLICA_NOT_READY": "hint: `modelyard deployments show NAME` says what is being waited for",
        "PEER_UNAVAILABLE": None,
        "PERMISSIONS_STALE": None,
    }
    for reason, hint in hints.items():

        def away(_: object, reason: str = reason) -> None:
            raise Refusal("UNAVAILABLE", reason, "not now")

        connected.answers["SetAliases"] = away  # which no client repeats by itself
        told = modelyard("aliases", "set", MODEL, "a=1").stderr.splitlines()
        assert told == ["error: not now", *([hint] if hint else [])]


def test_wrong_use_is_exit_code_2(connected: Fake) -> None:
    for arguments in (
        ["aliases", "set", MODEL, "champion"],
        ["aliases", "set", MODEL, "champion=x"],
        ["models", "list"],
    ):
        assert modelyard(*arguments).exit_code == 2
    assert not connected.calls


def test_aliases_tags_and_metrics_are_sent(connected: Fake) -> None:
    assert modelyard("aliases", "set", MODEL, "champion=2", "--expect", "champion=1").exit_code == 0
    change = connected.requests("SetAliases")[0].changes[0]
    assert (change.alias, change.version, change.expected_version) == ("champion", 2, 1)
    modelyard("tags", "set", MODEL, "a=b=c", "--remove", "old")
    tags = connected.requests("SetTags")[0]
    assert (dict(tags.set), list(tags.remove)) == ({"a": "b=c"}, ["old"])
    modelyard("metrics", "set", VERSION, "auc=0.5", "note=good", 'deep={"x": [1]}')
    metrics = connected.requests("SetMetrics")[0].set
    assert metrics["auc"].number_value == 0.5
    assert metrics["note"].string_value == "good"
    assert metrics["deep"].struct_value["x"][0] == 1


def test_login_checks_the_token_and_saves_it(fake: Fake, tmp_path: Path) -> None:
    fake.answers["GetCaller"] = lambda _: governance_service_pb2.GetCallerResponse(principal={"name": "ada"})
    result = modelyard("login", fake.target, "--name", "here", stdin="my-token\n")
    assert result.exit_code == 0
    assert f"You are ada at {fake.target}" in result.stdout
    assert "my-token" not in result.output
    assert contexts.resolve("here").token == "my-token"
    assert fake.requests("ExchangeToken")[0].api_token == "my-token"

    secret = tmp_path / "token"
    secret.write_text("t2")
    secret.chmod(0o644)
    assert "chmod 600" in modelyard("login", fake.target, "--token-file", str(secret)).stderr
    secret.chmod(0o600)
    assert modelyard("login", fake.target, "--token-file", str(secret)).exit_code == 0
    listed = json.loads(modelyard("context", "list", "-o", "json").stdout)
    assert [(row["name"], row["current"]) for row in listed] == [("default", True), ("here", False)]
    assert "t2" not in modelyard("context", "show").output
    assert modelyard("logout", "here").exit_code == 0
    assert "here" not in modelyard("context", "list").stdout


def test_a_refused_login_saves_nothing(fake: Fake) -> None:
    def refuse(_: object) -> None:
        raise Refusal("UNAUTHENTICATED", "TOKEN_INVALID", "the token is not valid")

    fake.answers["ExchangeToken"] = refuse
    result = modelyard("login", fake.target, stdin="wrong\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the token is not valid")
    assert not contexts.read().by_name


def test_the_token_verb_prints_the_token_alone(connected: Fake) -> None:
    assert modelyard("token").stdout == "jwt-of-secret\n"


def test_no_context_says_how_to_begin() -> None:
    result = modelyard("whoami")
    assert result.exit_code == 1
    assert "modelyard up" in result.stderr


def test_context_is_chosen_by_option(connected: Fake) -> None:
    contexts.save("dead", Context("127.0.0.1:1"))
    assert modelyard("--context", "test", "whoami").exit_code == 0
    assert "is not known" in modelyard("--context", "nowhere", "whoami").stderr


@pytest.mark.parametrize(
    ("name", "text", "inputs"),
    [
        ("rows.json", "[[1, 2], [3, 4]]", {}),
        ("rows.json", '{"inputs": {"input": [[1, 2], [3, 4]]}}', {}),
        ("rows.csv", "1,2\n3,4\n", {}),
        ("rows.csv", "a,b\n1,2\n3,4\n", {}),
        ("rows.csv", "b,a\n1,2\n3,4\n", {"a": ("FP64", [-1]), "b": ("FP64", [-1])}),
        ("-", "1,2\n3,4\n", {}),
    ],
)
def test_predictions_from_files(connected: Fake, tmp_path: Path, name: str, text: str, inputs: Any) -> None:
    Endpoint(connected, **inputs)
    path = name if name == "-" else str(tmp_path / name)
    if name != "-":
        Path(path).write_text(text)
    result = modelyard("predict", MODEL, "--input", path, "-o", "json", stdin=text)
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["outputs"] == {"output": [3.0, 7.0]}
    assert (answer["model"], answer["model_version"]) == (MODEL, 3)


def test_a_prediction_as_a_table(connected: Fake, tmp_path: Path) -> None:
    Endpoint(connected)
    (tmp_path / "rows.json").write_text("[[1, 2], [3, 4]]")
    result = modelyard("predict", MODEL, "-i", str(tmp_path / "rows.json"))
    assert result.stdout.split() == ["output", "3.0", "7.0"]
    assert f"{MODEL}/3" in result.stderr


@pytest.mark.parametrize("text", ["", "{", "a,b\n", "1,2\n3\n"])
def test_rows_that_cannot_be_read_are_wrong_use(connected: Fake, text: str) -> None:
    assert modelyard("predict", MODEL, "-i", "-", stdin=text).exit_code == 2


@pytest.mark.parametrize("named", [True, False])
def test_an_example_with_column_names_fits_models_that_know_them_and_others(
    connected: Fake, tmp_path: Path, named: bool
) -> None:
    import pandas as pd
    import skops.io
    from sklearn.linear_model import LinearRegression

    Store(connected)
    connected.answers["CreateModelVersion"] = lambda _: catalog_service_pb2.CreateModelVersionResponse(
        model_version={"name": VERSION, "number": 1}
    )
    table = pd.DataFrame({"a": [1.0, 0.0], "b": [0.0, 1.0]})
    model = LinearRegression().fit(table if named else table.to_numpy(), [1.0, 2.0])
    skops.io.dump(model, tmp_path / "model.skops")
    (tmp_path / "rows.csv").write_text("a,b\n1.5,2\n0.5,3\n")
    result = modelyard("log", str(tmp_path / "model.skops"), MODEL, "--example", str(tmp_path / "rows.csv"))
    assert result.exit_code == 0, result.stderr
    [method] = connected.requests("CreateModelVersion")[0].signature.methods
    assert [(tensor.name, list(tensor.shape)) for tensor in method.inputs] == [("a", [-1]), ("b", [-1])]


def test_log_a_model_on_another_server(connected: Fake) -> None:
    answer = oip.ModelMetadataResponse(name="there")
    answer.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
    answer.outputs.add(name="y", datatype="INT64", shape=[-1])
    asked: list[oip.ModelMetadataRequest] = []

    def metadata(request: oip.ModelMetadataRequest, _: Any) -> oip.ModelMetadataResponse:
        asked.append(request)
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        metadata,
        request_deserializer=oip.ModelMetadataRequest.FromString,
        response_serializer=oip.ModelMetadataResponse.SerializeToString,
    )
    service = grpc.method_handlers_generic_handler(
        "inference.GRPCInferenceService", {"ModelMetadata": handler}
    )
    server = grpc.server(ThreadPoolExecutor(1), handlers=(service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    Store(connected)
    connected.answers["CreateModelVersion"] = lambda _: catalog_service_pb2.CreateModelVersionResponse(
        model_version={"name": VERSION, "number": 1}
    )
    result = modelyard("log", f"grpc://127.0.0.1:{port}", MODEL, "--remote", "there/7")
    server.stop(None)
    assert result.exit_code == 0, result.stderr
    [sent] = connected.requests("CreateModelVersion")
    assert sent.runtime == "remote"
    assert [(t.name, t.datatype, list(t.shape)) for t in sent.signature.methods[0].inputs] == [
        ("x", "FP32", [-1, 4])
    ]
    assert [(request.name, request.version) for request in asked] == [("there", "7")]
    wrong = modelyard("log", "triton:8001", MODEL, "--remote", "there")
    assert (wrong.exit_code != 0, "is not grpc://host:port" in wrong.stderr) == (True, True)


def test_log_and_download(connected: Fake, tmp_path: Path) -> None:
    import numpy as np
    import skops.io
    from sklearn.linear_model import LinearRegression

    Store(connected)
    connected.answers["CreateModelVersion"] = lambda _: catalog_service_pb2.CreateModelVersionResponse(
        model_version={"name": VERSION, "number": 1}
    )
    skops.io.dump(LinearRegression().fit(np.eye(2), [1.0, 2.0]), tmp_path / "model.skops")
    (tmp_path / "rows.csv").write_text("1,2\n")
    arguments = ["--example", str(tmp_path / "rows.csv"), "--metric", "r2=0.5", "--tag", "a=b"]
    arguments += ["--label", "1.0.0", "--use-case", "regression", "--dataset", "s3://lake/x"]
    result = modelyard("log", str(tmp_path / "model.skops"), MODEL, *arguments)
    assert result.exit_code == 0, result.stderr
    sent = connected.requests("CreateModelVersion")[0]
    assert (sent.runtime, dict(sent.tags), sent.metrics["r2"].number_value) == ("sklearn", {"a": "b"}, 0.5)
    assert (sent.label, sent.metadata.use_case, sent.metadata.framework) == (
        "1.0.0",
        "regression",
        "scikit-learn",
    )
    assert [(d.name, d.role) for d in sent.provenance.datasets] == [("s3://lake/x", "training")]
    downloaded = modelyard("artifacts", "download", VERSION, str(tmp_path / "out"))
    assert downloaded.stdout.strip() == str(tmp_path / "out")
    assert (tmp_path / "out/model.skops").read_bytes() == (tmp_path / "model.skops").read_bytes()


def test_autoscaling_is_set(connected: Fake) -> None:
    for given, wanted in (
        ("min=2 max=8 target=1.5 delay=30", (2, 8, 1.5, 30)),
        ("max=4", (0, 4, 0, 0)),
        ("", (0, 0, 0, 0)),
    ):
        assert modelyard("deployments", "update", MODEL, "--autoscaling", given, "--no-wait").exit_code == 0
        sent = connected.requests("UpdateDeployment")[-1]
        assert sent.update_mask.paths == ["autoscaling"]
        scaling = sent.deployment.autoscaling
        seconds = scaling.scale_down_delay.seconds
        assert (scaling.min_replicas, scaling.max_replicas, scaling.target_in_flight, seconds) == wanted
    assert (
        modelyard("deployments", "update", MODEL, "--autoscaling", "min=0 max=2", "--no-wait").exit_code == 0
    )
    assert connected.requests("UpdateDeployment")[-1].deployment.autoscaling.scale_to_zero
    for wrong in ("max=many", "8", "least=1", "delay=1e999"):
        assert (
            modelyard("deployments", "update", MODEL, "--autoscaling", wrong, "--no-wait").exit_code == 2
        ), wrong


@pytest.mark.parametrize(
    ("option", "given", "told"),
    [
        (
            "--autoscaling",
            "least=1",
            "'least=1' is none of min=NUMBER, max=NUMBER, target=NUMBER, delay=SECONDS",
        ),
        ("--autoscaling", "max=2 max=3", "max is given twice"),
        ("--batching", "delay=soon", "'delay=soon' is not delay=SECONDS"),
        ("--limits", "rps", "'rps' is none of rps=NUMBER"),
        ("--limits", "rps=-1", "'rps=-1' is not rps=NUMBER"),
        ("--resources", "memory=1GB", "'memory=1GB' is not memory=SIZE, such as 512MiB"),
        ("--rollout", "5,100 errors=few", "'errors=few' is not errors=NUMBER"),
        ("--logging", "predict=101", "'predict=101' is not predict=PERCENT (0 to 100)"),
        ("--logging", "access=yes", "'access=yes' is none of access, predict=PERCENT"),
    ],
)
def test_what_is_wrong_in_a_setting_is_named(option: str, given: str, told: str, connected: Fake) -> None:
    refused = modelyard("deployments", "update", MODEL, option, given, "--no-wait")
    assert refused.exit_code == 2
    assert told in " ".join(re.sub("[│╭╮╰╯─]", " ", refused.stderr).split())
    assert connected.requests("UpdateDeployment") == []


def test_an_example_is_asked_for_as_the_command_line_takes_it(connected: Fake, tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(b"unread")
    refused = modelyard("log", str(tmp_path / "model.skops"), MODEL)
    assert refused.exit_code == 1
    assert refused.stderr.splitlines() == [
        "error: signature: cannot be told from model.skops alone, without rows as the model takes them",
        "hint: give some in a file, JSON or CSV: --example rows.csv",
    ]


def test_resources_are_written_with_units(connected: Fake) -> None:
    for given, wanted in (
        ("cpus=2 memory=1GiB instances=3", (2, 2**30, 3)),
        ("memory=7000000000", (0, 7 * 10**9, 0)),
        ("", (0, 0, 0)),
    ):
        assert modelyard("deployments", "update", MODEL, "--resources", given, "--no-wait").exit_code == 0
        sent = connected.requests("UpdateDeployment")[-1]
        assert sent.update_mask.paths == ["resources"]
        resources = sent.deployment.resources
        assert (resources.cpus, resources.memory_bytes, resources.instances) == wanted
    for wrong in ("cpus=half", "memory=1GB", "2", "disk=1GiB"):
        assert modelyard("deployments", "update", MODEL, "--resources", wrong, "--no-wait").exit_code == 2, (
            wrong
        )


def test_an_environment_is_chosen(connected: Fake, tmp_path: Path) -> None:
    update = ("deployments", "update", MODEL, "--no-wait", "--environment")
    file = tmp_path / "my requirements.txt"
    file.write_bytes("\ufeff# captured\n\nnumpy==2.1.0\n".encode())
    lines = ["# captured", "", "numpy==2.1.0"]
    source = deployment_pb2.Environment
    for given, wanted in (
        ("default", (source.SOURCE_DEFAULT, [], "")),
        ("artifact", (source.SOURCE_ARTIFACT, [], "")),
        ("", (source.SOURCE_ARTIFACT, [], "")),
        (f"requirements='{file}' python=3.12", (source.SOURCE_REQUIREMENTS, lines, "3.12")),
        ("python=3.12", (source.SOURCE_REQUIREMENTS, [], "3.12")),
    ):
        assert modelyard(*update, given).exit_code == 0, given
        sent = connected.requests("UpdateDeployment")[-1]
        assert sent.update_mask.paths == ["environment"]
        chosen = sent.deployment.environment
        assert (chosen.source, list(chosen.requirements), chosen.python_version) == wanted
    for wrong in ("system", "requirements=", "requirements=missing.txt", "python=", "requirements='a", "a=b"):
        assert modelyard(*update, wrong).exit_code == 2, wrong


def test_batching_and_variables_are_set(connected: Fake) -> None:
    update = ("deployments", "update", MODEL, "--no-wait")
    for given, wanted in (
        ("rows=256 delay=0.002 queue=5000", (256, 2_000_000, 5_000)),
        ("rows=1", (1, 0, 0)),
        ("", (0, 0, 0)),
    ):
        assert modelyard(*update, "--batching", given).exit_code == 0
        sent = connected.requests("UpdateDeployment")[-1]
        assert sent.update_mask.paths == ["batching"]
        batching = sent.deployment.batching
        assert (batching.max_batch_rows, batching.max_delay.nanos, batching.max_queue_rows) == wanted
    for variables, kept in (
        (("LEVEL=3", "URL=a=b"), {"LEVEL": "3", "URL": "a=b"}),
        (("EMPTY=",), {"EMPTY": ""}),
        (("",), {}),
    ):
        assert modelyard(*update, *(word for each in variables for word in ("--env", each))).exit_code == 0
        sent = connected.requests("UpdateDeployment")[-1]
        assert sent.update_mask.paths == ["environment_variables"]
        assert dict(sent.deployment.environment_variables) == kept
    assert modelyard(*update, "--update-strategy", "resource_preserving").exit_code == 0
    sent = connected.requests("UpdateDeployment")[-1]
    assert sent.update_mask.paths == ["update_strategy"]
    assert sent.deployment.update_strategy == deployment_pb2.UPDATE_STRATEGY_RESOURCE_PRESERVING
    for wrong in (
        ("--update-strategy", "cheap"),
        ("--batching", "rows"),
        ("--batching", "batch=1"),
        ("--env", "LEVEL"),
        ("--env", "=x"),
        ("--env", "A=1", "--env", "A=2"),
    ):
        assert modelyard(*update, *wrong).exit_code == 2, wrong


def test_a_table_of_deployments_has_the_first_line_of_what_is_wrong(connected: Fake) -> None:
    failed = deployment_pb2.Deployment(
        id="1", name=MODEL, state_message="its process is gone\ninfo: replica_ready"
    )
    connected.answers["ListDeployments"] = lambda _: inference_service_pb2.ListDeploymentsResponse(
        deployments=[failed]
    )
    assert "gone" in modelyard("deployments", "list").output
    assert "replica_ready" not in modelyard("deployments", "list").output
    assert "replica_ready" in modelyard("deployments", "list", "-o", "json").output


def test_limits_are_set(connected: Fake) -> None:
    for given, limits in (
        ("rps=100 mbps=50 concurrent=16", (100, 50, 16)),
        ("mbps=7", (0, 7, 0)),
        ("", (0, 0, 0)),
    ):
        assert modelyard("deployments", "update", MODEL, "--limits", given, "--no-wait").exit_code == 0
        sent = connected.requests("UpdateDeployment")[-1]
        assert sent.update_mask.paths == ["traffic_limits"]
        found = sent.deployment.traffic_limits
        assert (found.requests_per_second, found.bandwidth_mbps, found.concurrent_per_replica) == limits
    for wrong in ("rps", "rps=many", "rps=0", "qps=1"):
        refused = modelyard("deployments", "update", MODEL, "--limits", wrong, "--no-wait")
        assert refused.exit_code == 2, wrong


def test_the_size_of_requests_is_set_and_forgotten(connected: Fake) -> None:
    for size in (1000, 0):
        told = modelyard("deployments", "update", MODEL, "--max-request-bytes", str(size), "--no-wait")
        assert told.exit_code == 0
        sent = connected.requests("UpdateDeployment")[-1]
        assert (sent.deployment.max_request_bytes, sent.update_mask.paths) == (size, ["max_request_bytes"])


def test_the_listener_is_set(connected: Fake) -> None:
    for option, private in (("--private", True), ("--public", False)):
        assert modelyard("deployments", "update", MODEL, option, "--no-wait").exit_code == 0
        sent = connected.requests("UpdateDeployment")[-1]
        assert (sent.update_mask.paths, sent.deployment.private) == (["private"], private)


def test_rollouts_are_set_and_steered(connected: Fake) -> None:
    for given, steps, pause in (
        ("5,25,100 pause=1.5 errors=2 latency=0.2 requests=7", [5, 25, 100], 1.5),
        ("", [], 0),
    ):
        assert modelyard("deployments", "update", MODEL, "--rollout", given, "--no-wait").exit_code == 0
        sent = connected.requests("UpdateDeployment")[-1]
        assert sent.update_mask.paths == ["rollout_policy"]
        policy = sent.deployment.rollout_policy
        assert (list(policy.steps), policy.pause.ToMilliseconds()) == (steps, pause * 1000)
    for wrong in ("five", "5 pause", "5 speed=2", "5 pause=x", "5 requests=1.5"):
        refused = modelyard("deployments", "update", MODEL, "--rollout", wrong, "--no-wait")
        assert refused.exit_code == 2, wrong
    assert modelyard("deployments", "rollout", MODEL, "abort", "--reason", "worse").exit_code == 0
    steered = connected.requests("ControlRollout")[-1]
    assert (steered.verb, steered.reason) == (4, "worse")
    shadow = modelyard(
        "deployments", "update", MODEL, "-t", "prod.ml.iris/1", "-t", "prod.ml.iris/2=shadow:5", "--no-wait"
    )
    assert shadow.exit_code == 0
    (_, copied) = connected.requests("UpdateDeployment")[-1].deployment.targets
    assert (copied.weight, copied.shadow_percent) == (0, 5)
    assert (
        modelyard("deployments", "update", MODEL, "-t", "prod.ml.iris/2=shadow:0", "--no-wait").exit_code == 2
    )


def test_deployments_take_weights_and_grants_take_kinds(connected: Fake) -> None:
    targets = ["prod.ml.iris/1=90", "prod.ml.iris@next=10"]
    assert modelyard("deployments", "create", MODEL, *targets, "-r", "2", "--no-wait").exit_code == 0
    sent = connected.requests("CreateDeployment")[0].deployment
    assert [(t.model_version, t.weight) for t in sent.targets] == [
        ("prod.ml.iris/1", 90),
        ("prod.ml.iris@next", 10),
    ]
    assert sent.replicas == 2
    back = modelyard(
        "deployments", "rollback", MODEL, "3", "--pin-versions", "--reason", "worse", "--no-wait"
    )
    assert back.exit_code == 0
    (rollback,) = connected.requests("RollbackDeployment")
    assert (rollback.revision, rollback.pin_versions, rollback.reason) == (3, True, "worse")
    changed = modelyard("deployments", "update", MODEL, "--require-signature", "--no-wait")
    assert changed.exit_code == 0
    update = connected.requests("UpdateDeployment")[0]
    assert (list(update.update_mask.paths), update.deployment.require_signature) == (
        ["require_signature"],
        True,
    )
    for verb in ("activate", "deactivate", "delete"):
        assert modelyard("deployments", verb, MODEL, "--etag", "e1", "--no-wait").exit_code == 0
        (sent,) = connected.requests(f"{verb.capitalize()}Deployment")
        assert (sent.name, sent.etag) == (MODEL, "e1")
    modelyard("grants", "create", "ada", "execute", MODEL, "--type", "deployment", "--deny")
    grant = connected.requests("CreateGrant")[0]
    assert (grant.privilege, grant.effect, grant.resource) == (9, 2, MODEL)
    assert "MODEL or a DEPLOYMENT" in modelyard("grants", "create", "ada", "EXECUTE", MODEL).stderr


def test_what_a_deployment_does_not_have_is_not_shown(connected: Fake) -> None:
    statuses = [
        {"reference": "prod.ml.iris/1", "ready_replicas": 2},
        {"reference": "prod.ml.iris/2", "shadow_counts": {"mirrored": 3, "different": 1}},
    ]
    found = deployment_pb2.Deployment(name=MODEL, target_statuses=statuses)
    connected.answers["GetDeployment"] = lambda _: inference_service_pb2.GetDeploymentResponse(
        deployment=found
    )
    told = modelyard("deployments", "show", MODEL).stdout
    assert "reference=prod.ml.iris/1  ready_replicas=2\n" in "".join(
        f"{x.rstrip()}\n" for x in told.splitlines()
    )
    assert "shadow_counts=mirrored=3  different=1" in told
    assert told.count("shadow_counts") == 1


def test_a_deployment_is_watched_line_by_line(connected: Fake) -> None:
    waiting = deployment_pb2.DeploymentCondition(
        type="ReplicasReady",
        status=deployment_pb2.DeploymentCondition.STATUS_FALSE,
        reason="STARTING",
        message="0 of 2 replicas are ready",
    )

    def serve(_: object) -> Iterator[inference_service_pb2.WatchDeploymentResponse]:
        for state, conditions in ((1, [waiting]), (2, [])):
            found = deployment_pb2.Deployment(
                id="1", name=MODEL, state=state, conditions=conditions, revision=7
            )
            yield inference_service_pb2.WatchDeploymentResponse(deployment=found)
        raise Refusal("NOT_FOUND", "RESOURCE_NOT_FOUND")

    connected.answers["WatchDeployment"] = serve
    watched = modelyard("deployments", "watch", MODEL)
    first, second = watched.stdout.splitlines()
    assert first.endswith("CREATING   revision 7  ReplicasReady STARTING: 0 of 2 replicas are ready")
    assert second.endswith("ACTIVE     revision 7")
    assert "is gone" in watched.stderr
    told = modelyard("deployments", "watch", MODEL, "-o", "json").stdout.splitlines()
    assert [json.loads(line)["state"] for line in told] == ["CREATING", "ACTIVE"]


def test_what_is_written_down_is_said_in_words(connected: Fake) -> None:
    for words in ("access predict=5 payload parquet otlp", ""):
        assert modelyard("deployments", "update", MODEL, "--logging", words, "--no-wait").exit_code == 0
    first, second = connected.requests("UpdateDeployment")
    assert [list(r.update_mask.paths) for r in (first, second)] == [["logging"], ["logging"]]
    assert first.deployment.logging == log_pb2.LoggingPolicy(
        access_log=True, predict_log_percent=5, include_payload=True, otlp=True, parquet=True
    )
    assert second.deployment.logging == log_pb2.LoggingPolicy()
    for wrong in ("everything", "predict", "access=1"):
        found = modelyard("deployments", "update", MODEL, "--logging", wrong)
        assert "is none of access" in found.stderr
    modelyard("deployments", "logs", MODEL, "--log", "access")
    assert connected.requests("ReadReplicaLogs")[0].log == log_pb2.REPLICA_LOG_ACCESS


def test_logs_are_read_by_people_and_programs(connected: Fake) -> None:
    replica = "01980000-0000-7000-8000-0123456789ab"
    lines = [
        log_pb2.LogLine(
            replica=replica,
            time=Timestamp(seconds=1767355200, nanos=7_000_000),
            level=log_pb2.LOG_LEVEL_INFO,
            logger="stdout",
            message="row [1]",
            request_ids=["a", "b"],
        ),
        log_pb2.LogLine(message="failed", attributes={"rows": "2", "exception": "Traceback\n  x"}),
    ]
    found = [deployment_pb2.Replica(id=replica), deployment_pb2.Replica(id=f"{replica[:-1]}c")]
    connected.answers["ReadReplicaLogs"] = lambda _: iter(
        [inference_service_pb2.ReadReplicaLogsResponse(lines=lines)]
    )
    connected.answers["ListReplicas"] = lambda _: inference_service_pb2.ListReplicasResponse(replicas=found)
    read = modelyard(
        "deployments", "logs", MODEL, "--replica", "9ab", "-n", "5", "--since", "2026-01-02T13:00:00+01:00"
    )
    assert [text.rstrip() for text in read.stdout.splitlines()] == [
        "2026-01-02 12:00:00.007Z  INFO     0123456789ab  stdout    row [1]  [a b]",
        f"{'':<24}  {'':<7}    {'':<8}  failed rows=2",
        "Traceback",
        "  x",
    ]
    (request,) = connected.requests("ReadReplicaLogs")
    assert (request.replica, request.tail_lines, request.since.seconds) == (replica, 5, 1767355200)
    told = modelyard("deployments", "logs", MODEL, "--level", "error", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["message"] for line in told] == ["row [1]", "failed"]
    assert connected.requests("ReadReplicaLogs")[1].min_level == log_pb2.LOG_LEVEL_ERROR
    modelyard("deployments", "logs", MODEL, "--since", "2h")
    ago = time.time() - connected.requests("ReadReplicaLogs")[2].since.seconds
    assert 7200 <= ago < 7300
    assert "is no time" in modelyard("deployments", "logs", MODEL, "--since", "soon").stderr


def test_history_is_read_by_people_and_programs(connected: Fake) -> None:
    kind = deployment_pb2.DeploymentRevision.Change
    settings = deployment_pb2.Deployment(
        name=MODEL,
        replicas=2,
        targets=[deployment_pb2.TrafficTarget(model_version=f"{MODEL}@next", weight=9)],
    )
    revision = deployment_pb2.DeploymentRevision(
        revision=4, change=kind.CHANGE_ROLLED_BACK, rolled_back_to=1, actor_name="ada", reason="it was worse",
        settings=settings, model_versions=[VERSION], changed_fields=["batching", "of_a_later_release", "replicas", "targets"],
    )  # fmt: skip
    answer = inference_service_pb2.ListDeploymentRevisionsResponse(revisions=[revision])
    connected.answers["ListDeploymentRevisions"] = lambda _: answer
    (_, row, more) = modelyard("deployments", "history", MODEL).stdout.splitlines()
    assert row.split("  ")[0] == "4"
    for told in (
        "ada",
        "ROLLED_BACK to 1",
        f"{MODEL}@next ({VERSION})=9",
        "batching: default",
        "it was worse",
    ):
        assert told in row
    assert more.strip() == "replicas: 2"
    (told,) = json.loads(modelyard("deployments", "history", MODEL, "-o", "json").stdout)
    assert (told["settings"]["replicas"], told["model_versions"]) == (2, [VERSION])


def test_decisions_are_exit_codes(connected: Fake) -> None:
    assert modelyard("grants", "check", "MANAGE").exit_code == 1
    connected.answers["CheckPermission"] = lambda _: governance_service_pb2.CheckPermissionResponse(
        allowed=True
    )
    assert modelyard("grants", "check", "MANAGE").exit_code == 0
    assert modelyard("audit", "verify").exit_code == 1


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    def walk(command: Any, path: list[str]) -> list[list[str]]:
        if not hasattr(command, "commands"):
            return [path]
        return [found for name, child in command.commands.items() for found in walk(child, [*path, name])]

    root = typer.main.get_command(app)  # made once: that takes longer than the help of a verb
    for path in walk(root, []):
        root.main([*path, "--help"], prog_name="modelyard", standalone_mode=False)
        assert len(capsys.readouterr().out.splitlines()) > 5, path
    assert modelyard("--version").exit_code == 0


class EntryPoint:
    def __init__(self, name: str, loaded: Any) -> None:
        self.name, self._loaded = name, loaded

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    found: list[EntryPoint] = []
    monkeypatch.setattr(_root.metadata, "entry_points", lambda **_: found)
    _root.added_commands.cache_clear()
    yield found
    _root.added_commands.cache_clear()


def test_other_packages_add_verbs(entry_points: list[EntryPoint]) -> None:
    import typer

    added = typer.Typer()

    @added.command()
    def up() -> None:
        """Start everything."""
        typer.echo("started")

    @added.command()
    def down() -> None:
        """Stop everything."""

    entry_points.append(EntryPoint("suite", added))
    assert modelyard("up").stdout == "started\n"
    assert "Start everything." in modelyard("--help").stdout


def test_a_package_that_cannot_be_imported_breaks_nothing_else(entry_points: list[EntryPoint]) -> None:
    entry_points.append(EntryPoint("suite", ImportError("No module named 'envoy'")))
    entry_points.append(EntryPoint("other", RuntimeError("broken")))
    assert "models" in modelyard("--help").stdout
    result = modelyard("up", "--any", "option")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: `modelyard up` is not installed (No module named 'envoy'): pip install 'modelyard[suite]'\n"
    )
    assert modelyard("nonsense").exit_code == 2
