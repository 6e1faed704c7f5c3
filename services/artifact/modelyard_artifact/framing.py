"""The chunks of transfers without protobuf.

Parsing and building a message whose one field is a chunk copies every byte more often than gRPC does already, and costs more
than hashing the chunk. So for the calls that move content gRPC hands over the bytes of the message and takes them, and these
few functions know the encoding of that one field. A message that looks otherwise goes to protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping

_UPLOAD_CHUNK = 0x12  # UploadBlobsRequest.chunk: field 2, length-delimited
_READ_CHUNK = b"\x0a"  # ReadFileResponse.chunk and ReadArchiveResponse.chunk: field 1, length-delimited


def piece(message: bytes) -> pb.UploadBlobsRequest | memoryview:
    """Reads an UploadBlobsRequest; a chunk as it lies in the message."""
    if message[:1] == bytes((_UPLOAD_CHUNK,)):
        length, start = _varint(message, 1)
        if start + length == len(message):
            return memoryview(message)[start:]
    return pb.UploadBlobsRequest.FromString(message)


def chunk(data: bytes | memoryview) -> bytes:
    """The message ReadFileResponse or ReadArchiveResponse with this chunk."""
    length = bytearray()
    rest = len(data)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return b"".join((_READ_CHUNK, length, data))


class FramedServer:
    """Stands in for a server while the service is added to it, and changes how its chunks are read and written."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Waits for the registered ones, which are the same."""

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Adds the handlers."""
        framed = dict(handlers)
        upload: Any = handlers["UploadBlobs"]
        framed["UploadBlobs"] = grpc.stream_unary_rpc_method_handler(
            upload.stream_unary,
            request_deserializer=piece,
            response_serializer=upload.response_serializer,
        )
        for name in ("ReadFile", "ReadArchive"):
            read: Any = handlers[name]
            framed[name] = grpc.unary_stream_rpc_method_handler(
                read.unary_stream, request_deserializer=read.request_deserializer, response_serializer=chunk
            )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, framed),))
        self._server.add_registered_method_handlers(service, framed)


def _varint(message: bytes, start: int) -> tuple[int, int]:
    """The number and where it ends; a number beyond every length if the message is cut."""
    value = 0
    for index, byte in enumerate(message[start : start + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, start + index + 1
    return len(message) + 1, start
