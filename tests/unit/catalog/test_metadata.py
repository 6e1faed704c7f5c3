"""Metadata in messages: lists of OCI, the rule of 32,000 bytes, keys, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import metadata_pb2, model_pb2
from modelyard_catalog import messages
from modelyard_catalog.metadata import (
    FRAMEWORKS,
    USE_CASES,
    metadata_fields,
    metadata_from_proto,
    size,
)
from modelyard_catalog.models import CustomMetadata, DatasetReference, MetadataCategory, ModelMetadata
from modelyard_catalog.rows import metadata_from_json, metadata_to_json, provenance_from_json
from modelyard_kit.errors import InvalidField, LimitExceeded

Message = metadata_pb2.ModelMetadata


def parse(message: Message) -> ModelMetadata:
    return metadata_from_proto("metadata", message)


def custom(*items: Any) -> Message:
    return Message(custom=[metadata_pb2.CustomMetadata(**item) for item in items])


FULL = Message(
    use_case="dimensionality_reduction/representation",
    framework="scikit-learn",
    framework_version="1.7",
    algorithm="PCA",
    hyperparameters=Struct(
        fields={
            "n": Value(number_value=3),
            "grid": Value(list_value=ListValue(values=[Value(null_value=0), Value(string_value="ü")])),  # type: ignore[arg-type]
        }
    ),
    test_results=Struct(
        fields={"score_py": Value(struct_value=Struct(fields={"ok": Value(bool_value=True)}))}
    ),
    custom=[
        metadata_pb2.CustomMetadata(
            key="CondaEnvironment",
            value="oci://…",
            category=metadata_pb2.CustomMetadata.CATEGORY_TRAINING_ENVIRONMENT,
            description="where it ran",
        )
    ],
)


@pytest.mark.parametrize("spelling", [str, str.upper, str.title])
@pytest.mark.parametrize("value", USE_CASES)
def test_use_cases_are_stored_in_their_own_spelling(value: str, spelling: Any) -> None:
    assert parse(Message(use_case=spelling(value))).use_case == value


@pytest.mark.parametrize("spelling", [str, str.upper, str.title])
@pytest.mark.parametrize("value", FRAMEWORKS)
def test_frameworks_are_stored_in_their_own_spelling(value: str, spelling: Any) -> None:
    assert parse(Message(framework=spelling(value))).framework == value


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("metadata.use_case", Message(use_case="regressions")),
        ("metadata.use_case", Message(use_case=" regression")),
        ("metadata.framework", Message(framework="sklearn")),
        ("metadata.framework_version", Message(framework_version="\0")),
        ("metadata.algorithm", Message(algorithm="\0")),
        ("metadata.hyperparameters.a", Message(hyperparameters=Struct(fields={"a": Value()}))),
        (
            "metadata.hyperparameters.a",
            Message(hyperparameters=Struct(fields={"a": Value(number_value=float("nan"))})),
        ),
        ("metadata.test_results", Message(test_results=Struct(fields={"\0": Value(bool_value=True)}))),
        ("metadata.custom[0].key", custom({})),
        ("metadata.custom[1].key", custom({"key": "a"}, {"key": "a"})),
        ("metadata.custom[0].value", custom({"key": "a", "value": "\0"})),
        ("metadata.custom[0].category", custom({"key": "a", "category": 77})),
        ("metadata.custom[0].description", custom({"key": "a", "description": "\0"})),
    ],
)
def test_refusal_names_its_field(field: str, message: Message) -> None:
    with pytest.raises(InvalidField) as caught:
        parse(message)
    assert caught.value.metadata == {"field": field}


def test_refused_value_is_told_what_there_is() -> None:
    with pytest.raises(InvalidField, match="'sklearn' is none of scikit-learn, xgboost, .*, other"):
        parse(Message(framework="sklearn"))


def test_bytes_are_counted_over_all_of_it() -> None:
    parts = [{"key": f"k{number}", "value": "x" * 16_000} for number in range(2)]
    with pytest.raises(LimitExceeded) as caught:
        parse(custom(*parts))
    assert caught.value.metadata["limit"] == "metadata_bytes"
    results = Struct(fields={"log": Value(string_value="é" * 8_000)})
    parse(Message(hyperparameters=results))
    with pytest.raises(LimitExceeded):
        parse(Message(hyperparameters=results, test_results=results))
    assert size(parse(Message(algorithm="é"))) == len('{"algorithm":"é"}'.encode())


def test_there_and_back() -> None:
    found = parse(FULL)
    assert Message(**metadata_fields(found)) == FULL
    assert metadata_from_json(metadata_to_json(found)) == found
    assert Message(**metadata_fields(parse(Message()))) == Message()
    assert metadata_to_json(ModelMetadata()) == {}
    assert metadata_to_json(None) is None
    assert parse(custom({"key": "a"})).custom == (CustomMetadata("a", category=MetadataCategory.OTHER),)


def test_version_carries_metadata_and_data_sets() -> None:
    datasets = [
        model_pb2.DatasetReference(name="s3://lake/iris", version="7", digest="sha256:aa", role="training")
    ]
    command = messages.parse_create_version(
        service.CreateModelVersionRequest(
            model="prod.ml.iris", metadata=FULL, provenance=model_pb2.Provenance(datasets=datasets)
        )
    )
    assert command.metadata == parse(FULL)
    assert command.provenance is not None
    assert command.provenance.datasets == (DatasetReference("s3://lake/iris", "7", "sha256:aa", "training"),)


@pytest.mark.parametrize(
    ("field", "dataset"),
    [
        ("name", model_pb2.DatasetReference()),
        ("name", model_pb2.DatasetReference(name="https://user:password@lake/iris")),
        ("name", model_pb2.DatasetReference(name="\0")),
        ("version", model_pb2.DatasetReference(name="a", version="\0")),
        ("digest", model_pb2.DatasetReference(name="a", digest="\0")),
        ("role", model_pb2.DatasetReference(name="a", role="\0")),
    ],
)
def test_refused_data_set_names_its_field(field: str, dataset: model_pb2.DatasetReference) -> None:
    request = service.CreateModelVersionRequest(
        model="prod.ml.iris", provenance=model_pb2.Provenance(datasets=[dataset])
    )
    with pytest.raises(InvalidField) as caught:
        messages.parse_create_version(request)
    assert caught.value.metadata == {"field": f"provenance.datasets[0].{field}"}


def test_provenance_stored_before_there_were_data_sets_is_read() -> None:
    found = provenance_from_json({"git_commit": "abc"})
    assert found is not None
    assert (found.git_commit, found.datasets) == ("abc", ())
