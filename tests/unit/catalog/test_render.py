"""What comes back is what was sent: every field of a version survives request, storage form and response."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf import json_format

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import model_pb2
from modelyard_catalog import messages, render
from modelyard_catalog.models import (
    ApprovalState,
    ArtifactTests,
    ArtifactTestsState,
    ModelVersion,
    VersionState,
)
from modelyard_catalog.rows import signature_from_json, signature_to_json
from modelyard_kit.access import SYSTEM, Link, ResourceType

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
SENT = {
    "description": "Größe 🚀",
    "runtime": "sklearn",
    "signature": {
        "methods": [
            {
                "name": "predict",
                "inputs": [{"name": "x", "datatype": "FP64", "shape": ["-1"]}],
                "outputs": [{"name": "y", "datatype": "INT64", "shape": ["-1", "3"]}],
                "inputLayout": "INPUT_LAYOUT_COLUMNS",
            }
        ]
    },
    "tags": {"a": "b"},
    "metrics": {"m": {"list": [1.0, None, True, "x", {}], "empty": []}, "null": None, "n": 0.5},
    "provenance": {
        "gitRepository": "r",
        "gitBranch": "b",
        "gitCommit": "c",
        "gitDirty": True,
        "source": "s",
        "pythonVersion": "3.11.7",
        "packages": {"numpy": "2"},
        "datasets": [{"name": "s3://lake/iris", "version": "7", "digest": "sha256:aa", "role": "test"}],
    },
    "metadata": {
        "useCase": "regression",
        "hyperparameters": {"n": 3.0},
        "testResults": {"t": {"success": False}},
    },
    "label": "1.4.0",
}


def test_version_comes_back_as_sent() -> None:
    request = json_format.ParseDict({"model": "prod.ml.iris", **SENT}, service.CreateModelVersionRequest())
    command = messages.parse_create_version(request)
    stored = ModelVersion(
        id="id",
        name="prod.ml.iris/2",
        description=command.description,
        owner_id="",
        tags=command.tags,
        revision=7,
        create_time=NOW,
        update_time=NOW,
        parents=(Link(ResourceType.MODEL, "model", "prod.ml.iris"), SYSTEM),
        number=2,
        state=VersionState.FAILED,
        state_message="why",
        artifact_digest="d",
        runtime=command.runtime,
        signature=signature_from_json(signature_to_json(command.signature)),
        metrics=command.metrics,
        provenance=command.provenance,
        metadata=command.metadata,
        aliases=("a", "b"),
        label=command.label,
        copied_from="prod.ml.iris/1",
        copied_from_id="1",
        delete_time=NOW,
        purge_time=NOW,
        author_id="1",
        author_name="ada",
        artifact_tests=ArtifactTests(ArtifactTestsState.FAILED, {"t": {"success": False}}),
    )
    answer = model_pb2.ModelVersion(**render.version(stored))
    shown = json_format.MessageToDict(answer)
    assert {name: shown[name] for name in SENT} == SENT
    assert (shown["model"], shown["modelId"], shown["number"], shown["etag"]) == (
        "prod.ml.iris",
        "model",
        "2",
        "7",
    )
    assert shown["createTime"] == "2026-01-02T03:04:05.678Z"
    assert (answer.state, answer.state_message) == (model_pb2.ModelVersion.STATE_FAILED, "why")
    unset = {field.name for field in answer.DESCRIPTOR.fields} - {
        field.name for field, _ in answer.ListFields()
    }
    assert unset == set()


def test_every_approval_state_has_its_message() -> None:
    states = model_pb2.ModelVersion.ApprovalState
    assert {f"APPROVAL_STATE_{state}" for state in ApprovalState} == set(states.keys()[1:])


def test_every_end_of_tests_has_its_message() -> None:
    states = model_pb2.ModelVersion.ArtifactTests
    assert {f"ARTIFACT_TESTS_{state}" for state in ArtifactTestsState} == set(states.keys()[1:])


def test_every_state_has_its_message() -> None:
    assert {model_pb2.ModelVersion.State.Value(f"STATE_{state}") for state in VersionState} == {1, 2, 3}
