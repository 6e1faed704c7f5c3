"""Values to messages, as dictionaries of their fields, which the message of the answer is made of.

A message that is given to another is copied: protobuf writes it out and reads it again. A list whose messages were made of
messages took two and a half times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from google.protobuf.struct_pb2 import NULL_VALUE

from modelyard.api.catalog.v1 import catalog_service_pb2, model_pb2, signature_pb2
from modelyard_catalog.metadata import metadata_fields
from modelyard_catalog.models import (
    ApprovalState,
    ArtifactTestsState,
    Catalog,
    InputLayout,
    Json,
    MethodSignature,
    Model,
    ModelMetadata,
    ModelVersion,
    Provenance,
    RecordedMove,
    Resource,
    Schema,
    Signature,
    TensorSpec,
    VersionState,
)
from modelyard_kit import protos
from modelyard_kit.limits import LIMITS

R = TypeVar("R")

Fields = Any
"""The fields of a message by their names; to the types of the stubs, which do not know that it may stand for the message, anything."""

Names = Callable[[str], str]
"""What principals are called now, by their ids; nothing for those that are gone."""

_STATES = {
    VersionState.PENDING: model_pb2.ModelVersion.STATE_PENDING,
    VersionState.READY: model_pb2.ModelVersion.STATE_READY,
    VersionState.FAILED: model_pb2.ModelVersion.STATE_FAILED,
}
_APPROVALS = {
    state: model_pb2.ModelVersion.ApprovalState.Value(f"APPROVAL_STATE_{state}") for state in ApprovalState
}
_TESTS = {
    None: model_pb2.ModelVersion.ARTIFACT_TESTS_UNSPECIFIED,
    ArtifactTestsState.PASSED: model_pb2.ModelVersion.ARTIFACT_TESTS_PASSED,
    ArtifactTestsState.FAILED: model_pb2.ModelVersion.ARTIFACT_TESTS_FAILED,
}
_LAYOUTS = {
    InputLayout.TENSORS: signature_pb2.INPUT_LAYOUT_TENSORS,
    InputLayout.COLUMNS: signature_pb2.INPUT_LAYOUT_COLUMNS,
}


def catalog(value: Catalog, names: Names) -> Fields:
    """Return the message of a catalog."""
    return _owned(value, names)


def schema(value: Schema, names: Names) -> Fields:
    """Return the message of a schema."""
    return _owned(value, names)


def model(value: Model, names: Names) -> Fields:
    """Return the message of a model."""
    return {**_owned(value, names), "aliases": value.aliases, "latest_version": value.latest_version}


def version(value: ModelVersion) -> Fields:
    """Return the message of a version."""
    return {
        **_common(value),
        "model": value.model.name,
        "model_id": value.model.id,
        "number": value.number,
        "state": _STATES[value.state],
        "state_message": value.state_message,
        "artifact_digest": value.artifact_digest,
        "runtime": value.runtime,
        "signature": None if value.signature is None else _signature(value.signature),
        "metrics": metrics(value.metrics),
        "provenance": None if value.provenance is None else _provenance(value.provenance),
        "metadata": _metadata(value),
        "aliases": value.aliases,
        "author_id": value.author_id,
        "author_name": value.author_name,
        "label": value.label,
        "copied_from": value.copied_from,
        "copied_from_id": value.copied_from_id,
        "approval_state": _APPROVALS[value.approval_state],
        "artifact_tests": _TESTS[value.artifact_tests.state if value.artifact_tests else None],
    }


def _metadata(value: ModelVersion) -> Fields | None:
    metadata = value.metadata
    if value.artifact_tests:
        metadata = replace(metadata or ModelMetadata(), test_results=value.artifact_tests.results)
    return None if metadata is None else metadata_fields(metadata)


def metrics(values: Mapping[str, Json]) -> Fields:
    """Return the entries of a map of metrics."""
    return {name: _value(value) for name, value in values.items()}


def limits() -> list[catalog_service_pb2.Limit]:
    """Return the messages of every published limit, by name."""
    return [
        catalog_service_pb2.Limit(
            name=name, maximum=limit.maximum, unit=limit.unit, description=limit.description
        )
        for name, limit in sorted(LIMITS.items())
    ]


def move(value: RecordedMove) -> catalog_service_pb2.AliasMove:
    """Return the message of a move of an alias."""
    return catalog_service_pb2.AliasMove(
        alias=value.alias,
        previous_version=value.before,
        version=value.after,
        moved_by=value.actor_name,
        move_time=protos.timestamp(value.time),
    )


def _owned(value: Resource, names: Names) -> Fields:
    return {**_common(value), "owner_id": value.owner_id, "owner": names(value.owner_id)}


def _common(value: Resource) -> Fields:
    return {
        "id": value.id,
        "name": value.name,
        "description": value.description,
        "tags": value.tags,
        "create_time": protos.timestamp_fields(value.create_time),
        "update_time": protos.timestamp_fields(value.update_time),
        "etag": value.etag,
        "delete_time": protos.timestamp_fields(value.delete_time),
        "purge_time": protos.timestamp_fields(value.purge_time),
    }


def _signature(value: Signature) -> Fields:
    return {"methods": [_method(method) for method in value.methods]}


def _method(value: MethodSignature) -> Fields:
    return {
        "name": value.name,
        "inputs": [_tensor(tensor) for tensor in value.inputs],
        "outputs": [_tensor(tensor) for tensor in value.outputs],
        "input_layout": _LAYOUTS[value.input_layout],
    }


def _tensor(value: TensorSpec) -> Fields:
    return {"name": value.name, "datatype": value.datatype, "shape": value.shape}


def _provenance(value: Provenance) -> Fields:
    datasets = [
        {"name": item.name, "version": item.version, "digest": item.digest, "role": item.role}
        for item in value.datasets
    ]
    return {
        "git_repository": value.git_repository,
        "git_branch": value.git_branch,
        "git_commit": value.git_commit,
        "git_dirty": value.git_dirty,
        "source": value.source,
        "python_version": value.python_version,
        "packages": value.packages,
        "datasets": datasets,
    }


def _value(value: Json) -> Fields:
    match value:
        case None:
            return {"null_value": NULL_VALUE}
        case bool():
            return {"bool_value": value}
        case int() | float():
            return {"number_value": value}
        case str():
            return {"string_value": value}
        case list():
            return {"list_value": value}  # protobuf itself makes values of what is in it, as of JSON
        case dict():
            return {"struct_value": value}
