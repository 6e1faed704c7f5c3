"""Shapes of requests: what passes, what is refused, and that every refusal names its field or limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import model_pb2, signature_pb2
from modelyard.api.common.v1 import resource_pb2
from modelyard_catalog import messages, names
from modelyard_catalog.commands import AliasChange, Browse, VersionRef
from modelyard_catalog.models import InputLayout, MethodSignature, Signature, TensorSpec
from modelyard_catalog.values import METRIC_DEPTH
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import InvalidField, LimitExceeded
from modelyard_kit.limits import LIMITS

NAME = "prod.ml.iris"
DIGEST = "sha256:" + "0f" * 32
MODEL_TYPE = resource_pb2.RESOURCE_TYPE_MODEL


def over(limit: str) -> int:
    return LIMITS[limit].maximum + 1


def version(**fields: Any) -> service.CreateModelVersionRequest:
    return service.CreateModelVersionRequest(model=NAME, **fields)


def change(alias: str = "champion", number: int = 1, **fields: Any) -> service.SetAliasesRequest:
    changes = [service.AliasChange(alias=alias, version=number, **fields)]
    return service.SetAliasesRequest(model=NAME, changes=changes)


def method(name: str = "predict", **fields: Any) -> signature_pb2.MethodSignature:
    tensor = signature_pb2.TensorSpec(name="x", datatype="FP64", shape=[-1])
    return signature_pb2.MethodSignature(name=name, **({"inputs": [tensor], "outputs": [tensor]} | fields))


def signed(*methods: signature_pb2.MethodSignature) -> service.CreateModelVersionRequest:
    return version(signature=signature_pb2.Signature(methods=methods))


def tensor(**fields: Any) -> service.CreateModelVersionRequest:
    spec = signature_pb2.TensorSpec(**({"name": "x", "datatype": "FP64", "shape": [-1]} | fields))
    return signed(method(outputs=[spec]))


def nested(levels: int) -> Value:
    value = Value(number_value=1)
    for level in range(levels):
        value = (
            Value(list_value=ListValue(values=[value]))
            if level % 2
            else Value(struct_value=Struct(fields={"k": value}))
        )
    return value


def metric(value: Value, name: str = "m") -> service.SetMetricsRequest:
    return service.SetMetricsRequest(name=NAME, set={name: value})


def tag(key: str, value: str = "") -> service.SetTagsRequest:
    return service.SetTagsRequest(resource_type=MODEL_TYPE, name=NAME, set={key: value})


REFUSED: list[tuple[str, Callable[[Any], object], Any]] = [
    ("catalog", messages.parse_create_catalog, service.CreateCatalogRequest()),
    ("catalog.name", messages.parse_create_catalog, service.CreateCatalogRequest(catalog={})),
    ("catalog.name", messages.parse_create_catalog, service.CreateCatalogRequest(catalog={"name": "a.b"})),
    ("catalog.name", messages.parse_create_catalog, service.CreateCatalogRequest(catalog={"name": "ä"})),
    ("catalog.name", messages.parse_create_catalog, service.CreateCatalogRequest(catalog={"name": "x" * 64})),
    ("catalog.name", messages.parse_create_catalog, service.CreateCatalogRequest(catalog={"name": "a\n"})),
    ("schema", messages.parse_create_schema, service.CreateSchemaRequest()),
    ("schema.name", messages.parse_create_schema, service.CreateSchemaRequest(schema={"name": "ml"})),
    ("model.name", messages.parse_create_model, service.CreateModelRequest(model={"name": "prod..iris"})),
    ("model.name", messages.parse_create_model, service.CreateModelRequest(model={"name": f"{NAME}/1"})),
    (
        "model.description",
        messages.parse_create_model,
        service.CreateModelRequest(model={"name": NAME, "description": "a\0b"}),
    ),
    (
        "model.tags",
        messages.parse_create_model,
        service.CreateModelRequest(model={"name": NAME, "tags": {"": "x"}}),
    ),
    (
        "model.tags[k]",
        messages.parse_create_model,
        service.CreateModelRequest(model={"name": NAME, "tags": {"k": "\0"}}),
    ),
    (
        "request_id",
        messages.parse_create_model,
        service.CreateModelRequest(model={"name": NAME}, request_id="\0"),
    ),
    ("model", messages.parse_create_version, service.CreateModelVersionRequest()),
    ("model", messages.parse_create_version, service.CreateModelVersionRequest(model=f"{NAME}@a")),
    ("artifact_digest", messages.parse_create_version, version(artifact_digest="abc")),
    ("artifact_digest", messages.parse_create_version, version(artifact_digest=DIGEST.upper())),
    ("description", messages.parse_create_version, version(description="\0")),
    ("runtime", messages.parse_create_version, version(runtime="../sklearn")),
    ("tags", messages.parse_create_version, version(tags={"": ""})),
    ("metrics", messages.parse_create_version, version(metrics={"": Value(bool_value=True)})),
    ("metrics[m]", messages.parse_create_version, version(metrics={"m": Value()})),
    ("signature.methods", messages.parse_create_version, signed()),
    ("signature.methods", messages.parse_create_version, signed(method(), method())),
    ("signature.methods[0].name", messages.parse_create_version, signed(method(""))),
    ("signature.methods[0].name", messages.parse_create_version, signed(method("x" * 251))),
    ("signature.methods[0].name", messages.parse_create_version, signed(method("\0"))),
    ("signature.methods[1].inputs", messages.parse_create_version, signed(method(), method("b", inputs=[]))),
    ("signature.methods[0].outputs", messages.parse_create_version, signed(method(outputs=[]))),
    ("signature.methods[0].input_layout", messages.parse_create_version, signed(method(input_layout=7))),
    ("signature.methods[0].outputs[0].name", messages.parse_create_version, tensor(name="")),
    ("signature.methods[0].outputs[0].datatype", messages.parse_create_version, tensor(datatype="float32")),
    ("signature.methods[0].outputs[0].shape", messages.parse_create_version, tensor(shape=[])),
    ("signature.methods[0].outputs[0].shape", messages.parse_create_version, tensor(shape=[-2])),
    ("signature.methods[0].outputs[0].shape", messages.parse_create_version, tensor(shape=[1] * 33)),
    (
        "signature.methods[0].inputs[0].shape",
        messages.parse_create_version,
        signed(
            method(
                inputs=[signature_pb2.TensorSpec(name="x", datatype="FP64", shape=[-1, 2])],
                input_layout=signature_pb2.INPUT_LAYOUT_COLUMNS,
            )
        ),
    ),
    (
        "provenance.git_repository",
        messages.parse_create_version,
        version(provenance={"git_repository": "https://ada:secret@example.org/iris.git"}),
    ),
    (
        "provenance.git_repository",
        messages.parse_create_version,
        version(provenance={"git_repository": "HTTPS://token@example.org/iris.git"}),
    ),
    ("provenance.source", messages.parse_create_version, version(provenance={"source": "\0"})),
    ("provenance.packages", messages.parse_create_version, version(provenance={"packages": {"": "1"}})),
    ("provenance.packages[a]", messages.parse_create_version, version(provenance={"packages": {"a": "\0"}})),
    ("name", messages.parse_finalize, service.FinalizeModelVersionRequest(artifact_digest=DIGEST)),
    ("name", messages.parse_finalize, service.FinalizeModelVersionRequest(name=NAME, artifact_digest=DIGEST)),
    (
        "name",
        messages.parse_finalize,
        service.FinalizeModelVersionRequest(name=f"{NAME}@a", artifact_digest=DIGEST),
    ),
    (
        "name",
        messages.parse_finalize,
        service.FinalizeModelVersionRequest(name=f"{NAME}/0", artifact_digest=DIGEST),
    ),
    ("artifact_digest", messages.parse_finalize, service.FinalizeModelVersionRequest(name=f"{NAME}/1")),
    ("name", messages.parse_fail, service.FailModelVersionRequest(name=NAME, message="why")),
    ("message", messages.parse_fail, service.FailModelVersionRequest(name=f"{NAME}/1", message=" ")),
    ("message", messages.parse_fail, service.FailModelVersionRequest(name=f"{NAME}/1", message="\0")),
    ("model", messages.parse_set_aliases, service.SetAliasesRequest()),
    ("changes", messages.parse_set_aliases, service.SetAliasesRequest(model=NAME)),
    ("changes[0].alias", messages.parse_set_aliases, change("")),
    ("changes[0].alias", messages.parse_set_aliases, change("1a")),
    ("changes[0].alias", messages.parse_set_aliases, change("x" * 64)),
    ("changes[0].alias", messages.parse_set_aliases, change("default")),
    ("changes[0].alias", messages.parse_set_aliases, change("First")),
    ("changes[0].alias", messages.parse_set_aliases, change("last")),
    ("changes[0].alias", messages.parse_set_aliases, change("latest")),
    ("changes[0].alias", messages.parse_set_aliases, change("v12")),
    ("changes[0].version", messages.parse_set_aliases, change(number=-1)),
    ("changes[0].expected_version", messages.parse_set_aliases, change(expected_version=-1)),
    (
        "changes[1].alias",
        messages.parse_set_aliases,
        service.SetAliasesRequest(model=NAME, changes=[service.AliasChange(alias="a")] * 2),
    ),
    ("resource_type", messages.parse_set_tags, service.SetTagsRequest(name=NAME, set={"a": "b"})),
    ("resource_type", messages.parse_set_tags, service.SetTagsRequest(resource_type=99, name=NAME)),  # type: ignore[arg-type]
    (
        "resource_type",
        messages.parse_set_tags,
        service.SetTagsRequest(resource_type=resource_pb2.RESOURCE_TYPE_DEPLOYMENT, name=NAME),
    ),
    ("name", messages.parse_set_tags, service.SetTagsRequest(resource_type=MODEL_TYPE, name="prod")),
    ("set", messages.parse_set_tags, service.SetTagsRequest(resource_type=MODEL_TYPE, name=NAME)),
    ("set[a]", messages.parse_set_tags, tag("a", "\0")),
    (
        "remove",
        messages.parse_set_tags,
        service.SetTagsRequest(resource_type=MODEL_TYPE, name=NAME, set={"a": ""}, remove=["a"]),
    ),
    (
        "remove",
        messages.parse_set_tags,
        service.SetTagsRequest(resource_type=MODEL_TYPE, name=NAME, remove=[""]),
    ),
    ("name", messages.parse_set_metrics, service.SetMetricsRequest(set={"m": Value(bool_value=True)})),
    ("set", messages.parse_set_metrics, service.SetMetricsRequest(name=NAME)),
    ("set[m]", messages.parse_set_metrics, metric(Value(number_value=math.nan))),
    ("set[m]", messages.parse_set_metrics, metric(Value(number_value=-math.inf))),
    ("set[m]", messages.parse_set_metrics, metric(Value(string_value="\0"))),
    (
        "set[m][1]",
        messages.parse_set_metrics,
        metric(Value(list_value=ListValue(values=[Value(bool_value=True), Value(number_value=math.inf)]))),
    ),
    (
        "set[m].key",
        messages.parse_set_metrics,
        metric(Value(struct_value=Struct(fields={"key": Value(number_value=math.nan)}))),
    ),
    ("type", messages.parse_resolve, service.ResolveResourceRequest(name=NAME)),
    ("name", messages.parse_resolve, service.ResolveResourceRequest(type=MODEL_TYPE)),
    ("name", messages.parse_resolve, service.ResolveResourceRequest(type=MODEL_TYPE, name=NAME, id="1")),
    ("id", messages.parse_resolve, service.ResolveResourceRequest(type=MODEL_TYPE, id="1")),
    ("page_size", messages.parse_browse, service.ListCatalogsRequest(page_size=-1)),
]


@pytest.mark.parametrize(("field", "parse", "request_"), REFUSED)
def test_refusal_names_its_field(field: str, parse: Callable[[Any], object], request_: Any) -> None:
    with pytest.raises(InvalidField) as caught:
        parse(request_)
    assert caught.value.metadata == {"field": field}
    assert [violation.field for violation in caught.value.violations] == [field]


OVER: list[tuple[str, Callable[[Any], object], Any]] = [
    (
        "description_length",
        messages.parse_create_model,
        service.CreateModelRequest(model={"name": NAME, "description": "é" * over("description_length")}),
    ),
    (
        "description_length",
        messages.parse_create_version,
        version(description="x" * over("description_length")),
    ),
    (
        "description_length",
        messages.parse_fail,
        service.FailModelVersionRequest(name=f"{NAME}/1", message="x" * over("description_length")),
    ),
    (
        "request_id_length",
        messages.parse_create_catalog,
        service.CreateCatalogRequest(catalog={"name": "prod"}, request_id="x" * over("request_id_length")),
    ),
    (
        "tags_per_resource",
        messages.parse_create_version,
        version(tags={str(number): "" for number in range(over("tags_per_resource"))}),
    ),
    ("tag_key_length", messages.parse_set_tags, tag("x" * over("tag_key_length"))),
    ("tag_value_length", messages.parse_set_tags, tag("x", "x" * over("tag_value_length"))),
    (
        "metrics_per_version",
        messages.parse_create_version,
        version(
            metrics={str(number): Value(bool_value=True) for number in range(over("metrics_per_version"))}
        ),
    ),
    (
        "metric_name_length",
        messages.parse_set_metrics,
        metric(Value(bool_value=True), "x" * over("metric_name_length")),
    ),
    (
        "metric_value_bytes",
        messages.parse_set_metrics,
        metric(Value(string_value="x" * (LIMITS["metric_value_bytes"].maximum - 1))),
    ),
    (
        "aliases_per_model",
        messages.parse_set_aliases,
        service.SetAliasesRequest(model=NAME, changes=[service.AliasChange()] * over("aliases_per_model")),
    ),
    (
        "signature_methods",
        messages.parse_create_version,
        signed(*(method(f"m{number}") for number in range(over("signature_methods")))),
    ),
    (
        "signature_tensors",
        messages.parse_create_version,
        signed(
            method(
                inputs=[
                    signature_pb2.TensorSpec(name=f"x{number}", datatype="FP64", shape=[-1])
                    for number in range(over("signature_tensors"))
                ]
            )
        ),
    ),
    (
        "provenance_packages",
        messages.parse_create_version,
        version(provenance={"packages": {str(number): "" for number in range(over("provenance_packages"))}}),
    ),
    (
        "provenance_field_length",
        messages.parse_create_version,
        version(provenance={"source": "x" * over("provenance_field_length")}),
    ),
]


@pytest.mark.parametrize(("limit", "parse", "request_"), OVER, ids=[limit for limit, _, _ in OVER])
def test_refusal_names_its_limit(limit: str, parse: Callable[[Any], object], request_: Any) -> None:
    with pytest.raises(LimitExceeded) as caught:
        parse(request_)
    assert caught.value.metadata["limit"] == limit


def test_metric_at_its_limits_passes() -> None:
    longest = "x" * LIMITS["metric_name_length"].maximum
    largest = "x" * (LIMITS["metric_value_bytes"].maximum - 2)
    assert messages.parse_set_metrics(metric(Value(string_value=largest), longest)).write == {
        longest: largest
    }
    messages.parse_set_metrics(metric(nested(METRIC_DEPTH - 1)))
    with pytest.raises(InvalidField, match=f"deeper than {METRIC_DEPTH} levels"):
        messages.parse_set_metrics(metric(nested(METRIC_DEPTH)))


def test_full_version_is_parsed() -> None:
    command = messages.parse_create_version(
        version(
            artifact_digest=DIGEST,
            description="Größe 🚀",
            runtime="sklearn",
            signature=signature_pb2.Signature(
                methods=[method(), method("predict_proba", input_layout=signature_pb2.INPUT_LAYOUT_COLUMNS)]
            ),
            tags={"équipe": ""},
            metrics={"auc": Value(number_value=0.5)},
            provenance=model_pb2.Provenance(git_dirty=True, git_repository="ssh://git@example.org/a.git"),
            request_id="r",
        )
    )
    spec = TensorSpec("x", "FP64", (-1,))
    assert command.model == ("prod", "ml", "iris")
    assert command.signature == Signature(
        (
            MethodSignature("predict", (spec,), (spec,)),
            MethodSignature("predict_proba", (spec,), (spec,), InputLayout.COLUMNS),
        )
    )
    assert command.provenance is not None
    assert command.provenance.git_dirty
    assert command.once.request_id == "r"


def test_absent_messages_stay_absent() -> None:
    command = messages.parse_create_version(version())
    assert (command.signature, command.provenance, command.artifact_digest) == (None, None, "")


def test_fingerprint_is_of_everything_but_the_request_id() -> None:
    def fingerprint(**fields: Any) -> str:
        return messages.parse_create_version(version(**fields)).once.fingerprint

    tags = {str(number): "x" for number in range(20)}
    backwards = dict(reversed(tags.items()))
    assert fingerprint(tags=tags, request_id="1") == fingerprint(tags=backwards, request_id="2")
    assert fingerprint(tags=tags) != fingerprint(tags=tags, runtime="onnx")


def test_expected_version_zero_is_not_absent() -> None:
    assert messages.parse_set_aliases(change()).changes == (AliasChange("champion", 1, None),)
    assert messages.parse_set_aliases(change(expected_version=0)).changes == (AliasChange("champion", 1, 0),)


@pytest.mark.parametrize("alias", ["a", "A-1_b", "version1", "v1a", "latest-one", "x" * 63])
def test_alias_that_may_be_set(alias: str) -> None:
    assert names.settable_alias("alias", alias) == alias


def test_version_references() -> None:
    path = ("prod", "ml", "iris")
    assert names.version("name", NAME) == VersionRef(path)
    assert names.version("name", f"models:/{NAME}/3") == VersionRef(path, 3)
    assert names.version("name", f"{NAME}@first") == VersionRef(path, alias="first")
    assert [str(names.version("name", text)) for text in (NAME, f"models:/{NAME}/3", f"{NAME}@a")] == [
        NAME,
        f"{NAME}/3",
        f"{NAME}@a",
    ]


def test_resolve_takes_a_name_or_an_id() -> None:
    by_name = messages.parse_resolve(service.ResolveResourceRequest(type=MODEL_TYPE, name=NAME))
    assert (by_name.type, by_name.target, by_name.id) == (ResourceType.MODEL, ("prod", "ml", "iris"), "")
    identifier = "0198C0DE-0000-7000-8000-000000000000"
    by_id = messages.parse_resolve(service.ResolveResourceRequest(type=MODEL_TYPE, id=identifier))
    assert (by_id.target, by_id.id) == (None, identifier.lower())


def test_pages() -> None:
    assert messages.parse_browse(service.ListCatalogsRequest()) == Browse(size=50)
    assert messages.parse_browse(service.ListCatalogsRequest(page_size=10**6)) == Browse(size=1_000)
    asked = service.ListModelVersionsRequest(
        page_token="t", filter="number > 3", order_by="label", show_deleted=True
    )
    assert messages.parse_browse(asked) == Browse(
        size=50, page_token="t", filter="number > 3", order_by="label", show_deleted=True
    )


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"artifact_digest": ""}, "changes[0].artifact_digest"),
        ({"artifact_tests": 0}, "changes[0].artifact_tests"),
        ({"artifact_tests": 9}, "changes[0].artifact_tests"),
        ({"sequence": 0}, "changes[0].sequence"),
        ({"test_results": Struct(fields={"\0": Value(bool_value=True)})}, "changes[0].test_results"),
    ],
)
def test_what_is_told_of_artifact_tests_is_checked(wrong: dict[str, Any], field: str) -> None:
    good: dict[str, Any] = {"artifact_digest": DIGEST, "artifact_tests": 1, "sequence": 1}
    one = service.ArtifactTestsChange(**{**good, **wrong})
    with pytest.raises(InvalidField) as caught:
        messages.parse_artifact_tests(service.SetArtifactTestsRequest(changes=[one]))
    assert caught.value.violations[0].field.startswith(field)


def test_what_is_told_of_artifact_tests_is_bounded() -> None:
    one = service.ArtifactTestsChange(artifact_digest=DIGEST, artifact_tests=1, sequence=1)
    for number, match in ((2, "is there twice"), (messages.MAX_TESTS_CHANGES + 1, "are the most at once")):
        with pytest.raises(InvalidField, match=match):
            messages.parse_artifact_tests(service.SetArtifactTestsRequest(changes=[one] * number))
    one.test_results.update({"a": "x" * over("metadata_bytes")})
    with pytest.raises(LimitExceeded):
        messages.parse_artifact_tests(service.SetArtifactTestsRequest(changes=[one]))
