"""The REST forms of predictions, the Open Inference Protocol's and those of other servers, as HTTP rules for Envoy's transcoder.

The contracts carry no HTTP annotations; they are added here to a copy of the descriptors that only Envoy sees. Bodies
pass through as bytes (`google.api.HttpBody`), because the protocol's JSON is not the JSON of protobuf.
"""

from __future__ import annotations

from functools import cache

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from modelyard_gateway import control_plane_rest
from modelyard_gateway.descriptors import rest_file, with_imports

ENDPOINTS, SERVING_ENDPOINTS = "/endpoints/", "/serving-endpoints/"
PREFIXES = ("/v2/models/", ENDPOINTS, SERVING_ENDPOINTS)
"""Of predictions: the protocol's own, and where clients of MLflow, SageMaker, OCI and Databricks look for an endpoint."""
SERVER_PATHS = {
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
    "/v2": {"name": "modelyard", "version": "2", "extensions": ["statistics"]},
}
"""Answers about the server itself, which Envoy gives alone."""

_INVOCATION = "{model_name}/{form=invocations}"
_MODEL = "/v2/models/{model_name}"
_VERSION = _MODEL + "/versions/{model_version}"

RULES: dict[str, HttpRule] = {
    "Infer": HttpRule(
        post=f"{_MODEL}/infer",
        body="body",
        response_body="body",
        additional_bindings=[HttpRule(post=f"{_VERSION}/infer", body="body", response_body="body")],
    ),
    "Invoke": HttpRule(
        post=f"{ENDPOINTS}{_INVOCATION}",
        body="body",
        response_body="body",
        additional_bindings=[
            HttpRule(post=f"{ENDPOINTS}{{model_name}}/{{form=predict}}", body="body", response_body="body"),
            HttpRule(post=f"{SERVING_ENDPOINTS}{_INVOCATION}", body="body", response_body="body"),
        ],
    ),
    "Describe": HttpRule(
        get=_MODEL, response_body="body", additional_bindings=[HttpRule(get=_VERSION, response_body="body")]
    ),
    "Ready": HttpRule(
        get=f"{_MODEL}/ready",
        response_body="body",
        additional_bindings=[HttpRule(get=f"{_VERSION}/ready", response_body="body")],
    ),
    "Statistics": HttpRule(
        get=f"{_MODEL}/stats",
        response_body="body",
        additional_bindings=[HttpRule(get=f"{_VERSION}/stats", response_body="body")],
    ),
}
"""HTTP rule of each method of RestInferenceService."""


@cache
def descriptor_set() -> bytes:
    """Return the serialized descriptors of predictions, gRPC and REST, with the rules as annotations.

    Raises:
        ValueError: as `_predictions`.
    """
    return _predictions().SerializeToString(deterministic=True)


@cache
def transcoded_set() -> bytes:
    """Return the serialized descriptors of everything that has a REST form, with the rules as annotations.

    Raises:
        ValueError: as `_predictions`.
    """
    files = _predictions()
    control_plane_rest.add_files(files)
    return files.SerializeToString(deterministic=True)


def _predictions() -> FileDescriptorSet:
    """Return the protocol under both names with its REST form.

    Raises:
        ValueError: the service has a method without a rule, or a rule has no method.
    """
    file = rest_file()
    methods = {method.name: method for method in file.service[0].method}
    if methods.keys() != RULES.keys():
        raise ValueError(f"HTTP rules and methods differ: {sorted(methods.keys() ^ RULES.keys())}")
    for name, rule in RULES.items():
        methods[name].options.Extensions[annotations_pb2.http].CopyFrom(rule)
    file.dependency.append(annotations_pb2.DESCRIPTOR.name)
    return with_imports(file)
