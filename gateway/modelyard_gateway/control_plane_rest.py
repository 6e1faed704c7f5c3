"""The REST form of the control plane: every method as `POST /v1/SERVICE/Method` with JSON, those that read also as GET.

The contracts carry no HTTP annotations; the rules are added here to copies of the descriptors that only Envoy sees. JSON is that of
protobuf, with the field names of the contracts. A method that streams requests has no such form.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto

from modelyard.api.artifact.v1 import artifact_service_pb2
from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.api.governance.v1 import governance_service_pb2
from modelyard.api.inference.v1 import inference_service_pb2
from modelyard_gateway.descriptors import add_with_imports

PREFIX = "/v1/"
SERVICES = {
    "catalog": catalog_service_pb2.DESCRIPTOR,
    "artifact": artifact_service_pb2.DESCRIPTOR,
    "governance": governance_service_pb2.DESCRIPTOR,
    "inference": inference_service_pb2.DESCRIPTOR,
}
_READING = ("Get", "List", "Find", "Search", "Resolve", "Watch")


def path(service: str, method: str) -> str:
    """Return the path of a method, `/v1/catalog/GetModel`."""
    return f"{PREFIX}{service}/{method}"


def add_files(files: FileDescriptorSet) -> None:
    """Add the contracts of the control plane and what they import, with their rules."""
    for service, descriptor in SERVICES.items():
        add_with_imports(descriptor, files)
        file = next(found for found in files.file if found.name == descriptor.name)
        if annotations_pb2.DESCRIPTOR.name not in file.dependency:
            file.dependency.append(annotations_pb2.DESCRIPTOR.name)
        for full_name, method in _methods(file):
            if not method.client_streaming:
                method.options.Extensions[annotations_pb2.http].CopyFrom(
                    _rule(service, full_name, method.name)
                )


def _methods(file: FileDescriptorProto) -> Iterator[tuple[str, MethodDescriptorProto]]:
    for service in file.service:
        for method in service.method:
            yield f"/{file.package}.{service.name}/{method.name}", method


def _rule(service: str, full_name: str, method: str) -> HttpRule:
    short = path(service, method)
    others = [HttpRule(post=full_name, body="*")]
    if method.startswith(_READING):
        others.append(HttpRule(get=short))
    return HttpRule(post=short, body="*", additional_bindings=others)
