from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pool

from modelyard import types
from modelyard._convert import ENUMS, MESSAGES, from_proto, json_values, parse_enum, to_proto
from modelyard.api.artifact.v1 import artifact_service_pb2
from modelyard.api.catalog.v1 import model_pb2, signature_pb2
from modelyard.api.governance.v1 import approval_pb2
from modelyard.api.inference.v1 import deployment_pb2
from modelyard.errors import InvalidArgument

pool = descriptor_pool.Default()


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_field_of_a_message_is_a_field_of_its_class(name: str) -> None:
    in_class = {f.name for f in fields(MESSAGES[name])}
    in_message = {f.name for f in pool.FindMessageTypeByName(name).fields}
    assert in_class == in_message


@pytest.mark.parametrize("name", sorted(ENUMS))
def test_every_value_of_an_enum_is_a_member_of_its_class(name: str) -> None:
    values = pool.FindEnumTypeByName(name).values
    prefix = values[0].name.removesuffix("UNSPECIFIED")
    assert {value.name.removeprefix(prefix) for value in values[1:]} == set(ENUMS[name])


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_an_empty_message_converts(name: str) -> None:
    message = pool.FindMessageTypeByName(name)._concrete_class()
    assert isinstance(from_proto(MESSAGES[name], message), MESSAGES[name])


def test_a_version_goes_there_and_back() -> None:
    tensor = types.TensorSpec("input", "FP64", (-1, 30))
    method = types.MethodSignature("predict", (tensor,), (types.TensorSpec("output", "INT64", (-1,)),))
    signature = types.Signature((method,))
    assert from_proto(types.Signature, to_proto(signature_pb2.Signature, signature)) == signature

    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    message = model_pb2.ModelVersion(name="a.b.c/1", number=1, state=model_pb2.ModelVersion.STATE_READY)
    message.create_time.FromDatetime(when)
    message.metrics["accuracy"].number_value = 0.5
    message.tags["team"] = "ml"
    version = from_proto(types.ModelVersion, message)
    assert version.create_time == when
    assert version.update_time is None
    assert version.state is types.VersionState.READY
    assert version.metrics == {"accuracy": 0.5}
    assert version.tags == {"team": "ml"}


def test_durations_and_targets_go_out() -> None:
    deployment = types.Deployment(
        name="a.b.c", targets=(types.TrafficTarget("a.b.c/1", 2),), timeout=timedelta(milliseconds=1500)
    )
    message = to_proto(deployment_pb2.Deployment, deployment)
    assert message.timeout.ToMilliseconds() == 1500
    assert [(t.model_version, t.weight) for t in message.targets] == [("a.b.c/1", 2)]
    assert from_proto(types.Deployment, message) == deployment


def test_a_state_from_the_future_is_none() -> None:
    assert from_proto(types.ModelVersion, model_pb2.ModelVersion(state=99)).state is None  # type: ignore[arg-type]


def test_metrics_are_any_json_and_numpy_scalars() -> None:
    values = json_values(
        {"a": np.float32(0.5), "b": np.array([1, 2]), "c": {"d": [None, True, "x"]}}, "metrics"
    )
    assert values["a"].number_value == 0.5
    assert [v.number_value for v in values["b"].list_value.values] == [1, 2]
    assert values["c"].struct_value["d"][1] is True


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf"), object(), {"deep": [float("-inf")]}])
def test_metrics_that_json_cannot_hold_are_named(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"metrics\['loss'\]"):
        json_values({"loss": value}, "metrics")


def test_enums_are_given_in_any_case() -> None:
    assert parse_enum(types.PrincipalKind, "service-account", "kind") is types.PrincipalKind.SERVICE_ACCOUNT
    with pytest.raises(InvalidArgument, match="kind: 'robot' is none of USER"):
        parse_enum(types.PrincipalKind, "robot", "kind")


def test_what_a_message_does_not_hold_is_none() -> None:
    """Where a dataclass says that there may be nothing; elsewhere it is empty."""
    found = from_proto(types.GateExplanation, approval_pb2.GateExplanation(allowed=True))
    assert (found.override, found.policy) == (None, None)
    given = approval_pb2.GateExplanation(override=approval_pb2.GateOverride(reason="outage"))
    assert from_proto(types.GateExplanation, given).override == types.GateOverride(reason="outage")
    assert from_proto(types.ApprovalPolicy, approval_pb2.ApprovalPolicy()).resource == types.Resource()


def test_a_verification_tells_what_is_damaged() -> None:
    damaged = artifact_service_pb2.DamagedBlob(sha256="ab", size=3, problem="lost", artifact_digests=["cd"])
    told = from_proto(
        types.VerifyProgress, artifact_service_pb2.VerifyBlobsResponse(total_count=1, damaged=[damaged])
    )
    (found,) = told.damaged
    assert found == types.DamagedBlob(sha256="ab", size=3, problem="lost", artifact_digests=("cd",))
