"""Descriptors that Envoy and reflection need, made from the contracts.

The Open Inference Protocol travels under its public name `inference.GRPCInferenceService`, while its messages live in
`modelyard.api.oip.v2` (see the contract for the reason). So its file is copied under the public package name.
"""

from __future__ import annotations

from google.api import annotations_pb2, httpbody_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

from modelyard.api.oip.v2 import grpc_inference_pb2, rest_inference_pb2
from modelyard_kit.reflection import under_package

PUBLIC_PACKAGE = "inference"
OWN_PACKAGE = "modelyard.api.oip.v2"
OIP_SERVICES = (f"{PUBLIC_PACKAGE}.GRPCInferenceService", f"{OWN_PACKAGE}.GRPCInferenceService")
REST_SERVICE = f"{OWN_PACKAGE}.RestInferenceService"


def public_oip() -> FileDescriptorProto:
    """Return the protocol's file under its public package name."""
    return under_package(grpc_inference_pb2.DESCRIPTOR, PUBLIC_PACKAGE, "inference/grpc_inference.proto")


def with_imports(rest: FileDescriptorProto) -> FileDescriptorSet:
    """Return a complete set: the protocol under both names, `rest` for its REST form, and what they import."""
    files = FileDescriptorSet()
    for module in (annotations_pb2, status_pb2, error_details_pb2, httpbody_pb2, grpc_inference_pb2):
        add_with_imports(module.DESCRIPTOR, files)
    files.file.extend((public_oip(), rest))
    return files


def add_with_imports(descriptor: FileDescriptor, files: FileDescriptorSet) -> None:
    """Add a file to a set, after everything it imports, each once."""
    if any(file.name == descriptor.name for file in files.file):
        return
    for dependency in descriptor.dependencies:
        add_with_imports(dependency, files)
    descriptor.CopyToProto(files.file.add())


def rest_file() -> FileDescriptorProto:
    """Return a copy of the file of the REST service, to be annotated."""
    file = FileDescriptorProto()
    rest_inference_pb2.DESCRIPTOR.CopyToProto(file)
    return file
