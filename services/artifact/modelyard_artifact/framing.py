"""The content in transfers without protobuf.

Parsing and building a message of content copies every byte more often than gRPC does already, and costs more than hashing it.
So for the calls that move content gRPC hands over the bytes of the message and takes them, and these few functions know the
encoding of a chunk and of whole blobs. A message that looks otherwise goes to protobuf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact.models import MAX_WHOLE_BLOBS
from modelyard_artifact.transfers import WholeBlobs

if TYPE_CHECKING:
    from collections.abc import Mapping

_UPLOAD_CHUNK = 0x12  # UploadBlobsRequest.chunk: field 2, length-delimited
_UPLOAD_BLOBS = 0x1A  # UploadBlobsRequest.blobs: field 3
_BLOBS_ID = 0x0A  # WholeBlobs.upload_id: field 1
_BLOBS_CONTENT = 0x12  # WholeBlobs.contents: field 2
_READ_CHUNK = b"\x0a"  # ReadFileResponse.chunk and ReadArchiveResponse.chunk: field 1, length-delimited


def piece(message: bytes) -> pb.UploadBlobsRequest | WholeBlobs | memoryview:
    """Reads an UploadBlobsRequest; a chunk and whole blobs as they lie in the message."""
    found: WholeBlobs | memoryview | None = None
    tag = message[0] if message else None
    if tag in {_UPLOAD_CHUNK, _UPLOAD_BLOBS}:
        length, start = _varint(message, 1)
        if start + length == len(message):
            rest = memoryview(message)[start:]
            found = rest if tag == _UPLOAD_CHUNK else _blobs(rest)
    return pb.UploadBlobsRequest.FromString(message) if found is None else found


def chunk(data: bytes | memoryview) -> bytes:
    """The message ReadFileResponse or ReadArchiveResponse with this chunk."""
    length = bytearray()
    rest = len(data)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return b"".join((_READ_CHUNK, length, data))


def _blobs(message: memoryview) -> WholeBlobs | None:
    """Reads a WholeBlobs: its id, then its contents; None if it is anything else, or more than may come."""
    if not message or message[0] != _BLOBS_ID:
        return None
    length, start = _varint(message, 1)
    end = start + length
    upload_id = bytes(message[start:end])
    contents: list[memoryview] = []
    while end < len(message) and message[end] == _BLOBS_CONTENT and len(contents) < MAX_WHOLE_BLOBS:
        length, start = _varint(message, end + 1)
        end = start + length
        contents.append(message[start:end])
    if end != len(message) or not upload_id.isascii():
        return None
    return WholeBlobs(upload_id.decode("ascii"), contents)


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


def _varint(message: bytes | memoryview, start: int) -> tuple[int, int]:
    """The number and where it ends; a number beyond every length if the message is cut."""
    value = 0
    for index, byte in enumerate(message[start : start + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, start + index + 1
    return len(message) + 1, start
