"""Reflection, by which clients without contracts (`grpcurl`, `buf curl`) find out what a server serves.

Clients of today ask for `grpc.reflection.v1`, older ones for `v1alpha`. grpcio-reflection knows the older one alone; both have the
same messages on the wire, so its servicer answers under either name, and the contract of v1 is that of v1alpha renamed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

_V1 = "grpc.reflection.v1"
SERVICE_NAMES = (f"{_V1}.ServerReflection", reflection.SERVICE_NAME)
_V1ALPHA: Any = reflection_pb2.DESCRIPTOR
# Beside what a server says by itself: every one of ours has health, and details of errors are to be read too.
_ALWAYS: tuple[Any, ...] = (health_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR, _V1ALPHA)


def add_reflection(
    server: grpc.aio.Server,
    services: Iterable[str],
    files: Iterable[FileDescriptor],
    renamed: Iterable[FileDescriptorProto] = (),
) -> None:
    """Let a server tell of itself.

    Args:
        server: Not started yet.
        services: Full names of what it serves.
        files: Contracts of these services; what they import is found.
        renamed: Contracts that this process has under other names only, made by `under_package`.
    """
    # A pool of its own: in the default one a public name may belong to another package.
    pool = DescriptorPool()
    _add(pool, [*files, *_ALWAYS])
    v1 = under_package(_V1ALPHA, _V1, "grpc/reflection/v1/reflection.proto")
    for file in (v1, *renamed):
        pool.AddSerializedFile(file.SerializeToString())
    servicer = reflection.aio.ReflectionServicer((*services, *SERVICE_NAMES), _WithMethods(pool))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
            for name in SERVICE_NAMES
        )
    )


def under_package(descriptor: FileDescriptor, package: str, name: str) -> FileDescriptorProto:
    """Return a copy of a contract as a file called `name`, with all that it defines in another package."""
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    old, new = f".{file.package}.", f".{package}."
    file.name, file.package = name, package

    def renamed(type_name: str) -> str:
        return new + type_name.removeprefix(old) if type_name.startswith(old) else type_name

    def rename_fields(message: DescriptorProto) -> None:
        for field in message.field:
            if field.type_name:
                field.type_name = renamed(field.type_name)
        for nested in message.nested_type:
            rename_fields(nested)

    for message in file.message_type:
        rename_fields(message)
    for service in file.service:
        for method in service.method:
            method.input_type = renamed(method.input_type)
            method.output_type = renamed(method.output_type)
    return file


class _WithMethods:
    """A pool that finds methods too, which `grpcurl describe` asks for and protobuf's does not know as symbols."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the name is protobuf's
        """Return the file that defines a symbol.

        Raises:
            KeyError: there is none.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found: Any = self._pool.FindServiceByName(service)
            file: FileDescriptor = found.methods_by_name[method].containing_service.file
            return file


def _add(pool: DescriptorPool, files: Iterable[FileDescriptor]) -> None:
    added: set[str] = set()

    def add(descriptor: FileDescriptor) -> None:
        if descriptor.name not in added:
            added.add(descriptor.name)
            for dependency in descriptor.dependencies:
                add(dependency)
            pool.AddSerializedFile(descriptor.serialized_pb)

    for descriptor in files:
        add(descriptor)
