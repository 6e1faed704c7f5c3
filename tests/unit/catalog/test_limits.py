"""Every limit of the catalog admits its maximum in a request, and not one more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import lineage_pb2, metadata_pb2, model_pb2, signature_pb2
from modelyard_catalog import lineage_messages, messages
from modelyard_catalog.metadata import metadata_from_proto
from modelyard_kit.errors import InvalidField, LimitExceeded
from modelyard_kit.limits import LIMITS

from ...contract.catalogue import source_files

NAME = "prod.ml.iris"
TRUE = Value(bool_value=True)
Make = Callable[[int], object]


def created(**fields: Any) -> object:
    return messages.parse_create_version(service.CreateModelVersionRequest(model=NAME, **fields))


def tagged(key: str, value: str = "") -> object:
    return created(tags={key: value})


def many(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def spec(name: str = "x", rank: int = 1) -> signature_pb2.TensorSpec:
    return signature_pb2.TensorSpec(name=name, datatype="FP64", shape=[-1] * rank)


def signed(
    methods: list[str], inputs: list[signature_pb2.TensorSpec], outputs: list[signature_pb2.TensorSpec]
) -> object:
    parts = [signature_pb2.MethodSignature(name=name, inputs=inputs, outputs=outputs) for name in methods]
    return created(signature=signature_pb2.Signature(methods=parts))


def nested(levels: int) -> Value:
    value = TRUE
    for _ in range(levels - 1):
        value = Value(list_value=ListValue(values=[value]))
    return value


def described(**fields: Any) -> object:
    return metadata_from_proto("metadata", metadata_pb2.ModelMetadata(**fields))


def custom(**fields: Any) -> object:
    return described(custom=[metadata_pb2.CustomMetadata(**({"key": "k"} | fields))])


def from_data(*datasets: model_pb2.DatasetReference) -> object:
    return created(provenance=model_pb2.Provenance(datasets=datasets))


def recorded(count: int = 1, name: str = "a", relation: str = "") -> object:
    source = lineage_pb2.LineageNode(kind=lineage_pb2.LineageNode.KIND_DATASET, name=name)
    target = lineage_pb2.LineageNode(kind=lineage_pb2.LineageNode.KIND_RUN, name="b")
    edge = lineage_pb2.LineageEdge(source=source, target=target, relation=relation)
    return lineage_messages.parse_record_lineage(service.RecordLineageRequest(edges=[edge] * count))


def aliased(count: int) -> object:
    changes = [service.AliasChange(alias=f"a{number}", version=1) for number in range(count)]
    return messages.parse_set_aliases(service.SetAliasesRequest(model=NAME, changes=changes))


OF_SIZE: dict[str, Make] = {
    "description_length": lambda size: created(description="é" * size),
    "tags_per_resource": lambda size: created(tags=dict.fromkeys(many(size), "")),
    "tag_key_length": lambda size: tagged("é" * size),
    "tag_value_length": lambda size: tagged("k", "é" * size),
    "metrics_per_version": lambda size: created(metrics=dict.fromkeys(many(size), TRUE)),
    "metric_name_length": lambda size: created(metrics={"é" * size: TRUE}),
    "metric_value_bytes": lambda size: created(metrics={"m": Value(string_value="x" * (size - 2))}),
    "metric_depth": lambda size: created(metrics={"m": nested(size)}),
    "aliases_per_model": aliased,
    "signature_methods": lambda size: signed(many(size), [spec()], [spec()]),
    "signature_tensors": lambda size: signed(["m"], [spec(name) for name in many(size)], [spec()]),
    "tensor_name_length": lambda size: signed(["m"], [spec("é" * size)], [spec()]),
    "tensor_rank": lambda size: signed(["m"], [spec(rank=size)], [spec()]),
    "runtime_name_length": lambda size: created(runtime="x" * size),
    "provenance_packages": lambda size: created(provenance={"packages": dict.fromkeys(many(size), "")}),
    "provenance_field_length": lambda size: created(provenance={"source": "é" * size}),
    "request_id_length": lambda size: created(request_id="é" * size),
    "datasets_per_version": lambda size: from_data(*[model_pb2.DatasetReference(name="d")] * size),
    # {"algorithm":"…"} is 16 bytes longer than the text, of which each letter here has two.
    "metadata_bytes": lambda size: described(algorithm="é" * ((size - 16) // 2) + "x" * (size % 2)),
    "metadata_key_length": lambda size: custom(key="é" * size),
    "metadata_value_length": lambda size: custom(value="x" * size),
    "metadata_description_length": lambda size: custom(description="é" * size),
    "lineage_edges_per_call": recorded,
    "lineage_name_length": lambda size: recorded(name="é" * size),
    "lineage_relation_length": lambda size: recorded(relation="é" * size),
}
ELSEWHERE = {
    "watches_per_principal": "tests/conformance/test_catalog_feed.py",
    "watches_per_process": "tests/conformance/test_catalog_feed.py",
    "lineage_ancestry_edges": "tests/conformance/test_catalog_lineage.py",
    "lineage_edges_per_walk": "tests/conformance/test_catalog_lineage.py",
    "lineage_edges_per_answer": "tests/conformance/test_catalog_lineage.py",
    "lineage_depth": "tests/unit/catalog/test_lineage_messages.py",
}


@pytest.mark.parametrize(("limit", "make"), OF_SIZE.items(), ids=list(OF_SIZE))
def test_maximum_passes_and_one_more_is_refused(limit: str, make: Make) -> None:
    maximum = LIMITS[limit].maximum
    make(maximum)
    with pytest.raises((LimitExceeded, InvalidField)) as caught:
        make(maximum + 1)
    if isinstance(caught.value, LimitExceeded):
        assert caught.value.metadata == {
            "limit": limit,
            "maximum": str(maximum),
            "actual": str(maximum + 1),
        }


def test_every_limit_that_the_catalog_names_is_tried() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in source_files("modelyard_catalog"))
    named = {name for name in LIMITS if f'"{name}"' in sources}
    assert named <= OF_SIZE.keys() | ELSEWHERE.keys(), "try it here at its maximum and at one more"


def test_depth_of_hyperparameters_is_that_of_metrics() -> None:
    depth = LIMITS["metric_depth"].maximum
    described(hyperparameters=Struct(fields={"k": nested(depth - 1)}))
    with pytest.raises(InvalidField):
        described(hyperparameters=Struct(fields={"k": nested(depth)}))
