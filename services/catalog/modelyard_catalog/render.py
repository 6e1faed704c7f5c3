"""Values to messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from modelyard.api.catalog.v1 import (
    catalog_service_pb2,
    metadata_pb2,
    model_pb2,
    namespace_pb2,
    signature_pb2,
)
from modelyard_catalog.metadata import metadata_to_proto
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


def catalog(value: Catalog, names: Names) -> namespace_pb2.Catalog:
    """Return the message of a catalog."""
    return namespace_pb2.Catalog(**_owned(value, names))


def schema(value: Schema, names: Names) -> namespace_pb2.Schema:
    """Return the message of a schema."""
    return namespace_pb2.Schema(**_owned(value, names))


def model(value: Model, names: Names) -> model_pb2.Model:
    """Return the message of a model."""
    return model_pb2.Model(aliases=value.aliases, latest_version=value.latest_version, **_owned(value, names))


def version(value: ModelVersion) -> model_pb2.ModelVersion:
    """Return the message of a version."""
    return model_pb2.ModelVersion(
        model=value.model.name,
        model_id=value.model.id,
        number=value.number,
        state=_STATES[value.state],
        state_message=value.state_message,
        artifact_digest=value.artifact_digest,
        runtime=value.runtime,
        signature=None if value.signature is None else _signature(value.signature),
        metrics=metrics(value.metrics),
        provenance=None if value.provenance is None else _provenance(value.provenance),
        metadata=_metadata(value),
        aliases=value.aliases,
        author_id=value.author_id,
        author_name=value.author_name,
        label=value.label,
        copied_from=value.copied_from,
        copied_from_id=value.copied_from_id,
        approval_state=_APPROVALS[value.approval_state],
        artifact_tests=_TESTS[value.artifact_tests.state if value.artifact_tests else None],
        **_common(value),
    )


def _metadata(value: ModelVersion) -> metadata_pb2.ModelMetadata | None:
    metadata = value.metadata
    if value.artifact_tests:
        metadata = replace(metadata or ModelMetadata(), test_results=value.artifact_tests.results)
    return None if metadata is None else metadata_to_proto(metadata)


def metrics(values: Mapping[str, Json]) -> dict[str, Value]:
    """Return the messages of metrics."""
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


def _owned(value: Resource, names: Names) -> dict[str, Any]:
    return {**_common(value), "owner_id": value.owner_id, "owner": names(value.owner_id)}


def _common(value: Resource) -> dict[str, Any]:
    return {
        "id": value.id,
        "name": value.name,
        "description": value.description,
        "tags": value.tags,
        "create_time": protos.timestamp(value.create_time),
        "update_time": protos.timestamp(value.update_time),
        "etag": value.etag,
        "delete_time": protos.timestamp(value.delete_time),
        "purge_time": protos.timestamp(value.purge_time),
    }


def _signature(value: Signature) -> signature_pb2.Signature:
    return signature_pb2.Signature(methods=map(_method, value.methods))


def _method(value: MethodSignature) -> signature_pb2.MethodSignature:
    return signature_pb2.MethodSignature(
        name=value.name,
        inputs=map(_tensor, value.inputs),
        outputs=map(_tensor, value.outputs),
        input_layout=_LAYOUTS[value.input_layout],
    )


def _tensor(value: TensorSpec) -> signature_pb2.TensorSpec:
    return signature_pb2.TensorSpec(name=value.name, datatype=value.datatype, shape=value.shape)


def _provenance(value: Provenance) -> model_pb2.Provenance:
    return model_pb2.Provenance(
        git_repository=value.git_repository,
        git_branch=value.git_branch,
        git_commit=value.git_commit,
        git_dirty=value.git_dirty,
        source=value.source,
        python_version=value.python_version,
        packages=value.packages,
        datasets=[
            model_pb2.DatasetReference(
                name=item.name, version=item.version, digest=item.digest, role=item.role
            )
            for item in value.datasets
        ],
    )


def _value(value: Json) -> Value:
    match value:
        case None:
            return Value(null_value=NULL_VALUE)
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=float(value))
        case str():
            return Value(string_value=value)
        case list():
            return Value(list_value=ListValue(values=map(_value, value)))
        case dict():
            return Value(struct_value=Struct(fields={name: _value(item) for name, item in value.items()}))
