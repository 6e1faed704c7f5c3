"""A client that knows no contract, only an address: it does what grpcurl does, with either version of reflection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import status_pb2
from grpc_reflection.v1alpha import reflection_pb2

VERSIONS = ("v1", "v1alpha")


class Reflected:
    """Lists, describes and calls, as `grpcurl list`, `grpcurl describe` and `grpcurl -d JSON` do.

    Args:
        channel: To the server.
        metadata: Sent with every call, those of reflection too.
        version: Of the reflection protocol, whose messages are the same in both on the wire.
    """

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str]], version: str = "v1"
    ) -> None:
        self._channel, self._metadata = channel, metadata
        self._reflect: Any = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self._files: dict[str, FileDescriptorProto] = {}
        self._pool = DescriptorPool()
        self._added: set[str] = set()

    async def services(self) -> set[str]:
        """Names of all that is served."""
        answer = await self._ask(list_services="*")
        return {service.name for service in answer.list_services_response.service}

    async def describe(self, service: str) -> Any:
        """The descriptor of a service; all types of its methods are known from then on."""
        await self._add(await self.file_of(service))
        return self._pool.FindServiceByName(service)

    async def file_of(self, symbol: str) -> str:
        """Name of the file that defines a type, a service, a method."""
        return (await self._fetch(file_containing_symbol=symbol))[0]

    async def call(self, path: str, request: dict[str, Any]) -> Any:
        """Call `package.Service/Method` with JSON; returns the answer as JSON.

        Raises:
            grpc.aio.AioRpcError: it is refused.
        """
        service, _, name = path.partition("/")
        method = (await self.describe(service)).methods_by_name[name]
        asked, answered = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
        call: Any = self._channel.unary_unary(
            f"/{path}", request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
        )
        message = json_format.ParseDict(request, asked(), descriptor_pool=self._pool)
        return self._json(await call(message, metadata=self._metadata, timeout=60))

    async def details(self, error: grpc.aio.AioRpcError) -> Any:
        """What an error says beside its text, as JSON, with types that reflection tells."""
        trailer = next(v for k, v in error.trailing_metadata() or () if k == "grpc-status-details-bin")
        assert isinstance(trailer, bytes)
        details = status_pb2.Status.FromString(trailer).details
        for detail in details:
            await self._add(await self.file_of(detail.TypeName()))
        return [self._json(detail) for detail in details]

    def _json(self, message: Any) -> Any:
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=self._pool
        )

    async def _add(self, name: str) -> None:
        """Make a file usable, after all that it imports."""
        if name in self._added:
            return
        self._added.add(name)
        if name not in self._files:
            await self._fetch(file_by_filename=name)
        for dependency in self._files[name].dependency:
            await self._add(dependency)
        self._pool.AddSerializedFile(self._files[name].SerializeToString())

    async def _fetch(self, **wanted: Any) -> list[str]:
        """Ask for a file; returns the names of the files that came, itself first."""
        answer = await self._ask(**wanted)
        contents = answer.file_descriptor_response.file_descriptor_proto
        files = list(map(FileDescriptorProto.FromString, contents))
        for file in files:
            self._files.setdefault(file.name, file)
        return [file.name for file in files]

    async def _ask(self, **wanted: Any) -> reflection_pb2.ServerReflectionResponse:
        requests = iter([reflection_pb2.ServerReflectionRequest(**wanted)])
        call = self._reflect(requests, metadata=self._metadata, timeout=60)
        (answer,) = [answer async for answer in call]
        assert not answer.HasField("error_response"), (wanted, answer.error_response)
        return answer  # type: ignore[no-any-return]
