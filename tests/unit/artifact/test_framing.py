"""Chunks without protobuf are the bytes that protobuf reads and writes."""

from __future__ import annotations

import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact import framing


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 1 << 20])
def test_the_same_as_protobuf(size: int) -> None:
    data = bytes(size)
    assert pb.ReadFileResponse.FromString(framing.chunk(data)).chunk == data
    assert pb.ReadArchiveResponse.FromString(framing.chunk(data)).chunk == data
    piece = framing.piece(pb.UploadBlobsRequest(chunk=data).SerializeToString())
    assert isinstance(piece, memoryview)
    assert piece == data


def test_what_is_no_single_chunk_goes_to_protobuf() -> None:
    header = pb.UploadBlobsRequest(header=pb.BlobHeader(upload_id="u"))
    assert framing.piece(header.SerializeToString()) == header
    assert framing.piece(b"") == pb.UploadBlobsRequest()
    one = pb.UploadBlobsRequest(chunk=b"first").SerializeToString()
    last = framing.piece(one + pb.UploadBlobsRequest(chunk=b"last").SerializeToString())
    assert last == pb.UploadBlobsRequest(chunk=b"last")


@pytest.mark.parametrize("message", [b"\x12", b"\x12\x05abc", b"\x12" + b"\xff" * 11])
def test_a_cut_message_is_refused(message: bytes) -> None:
    with pytest.raises(Exception, match="pars"):
        framing.piece(message)
