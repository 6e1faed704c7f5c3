"""Content without protobuf is the bytes that protobuf reads and writes."""

from __future__ import annotations

import pytest

from modelyard._chunks import upload_blobs
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact import framing
from modelyard_artifact.models import MAX_WHOLE_BLOBS
from modelyard_artifact.transfers import WholeBlobs


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 1 << 20])
def test_the_same_as_protobuf(size: int) -> None:
    data = bytes(size)
    assert pb.ReadFileResponse.FromString(framing.chunk(data)).chunk == data
    assert pb.ReadArchiveResponse.FromString(framing.chunk(data)).chunk == data
    piece = framing.piece(pb.UploadBlobsRequest(chunk=data).SerializeToString())
    assert isinstance(piece, memoryview)
    assert piece == data


@pytest.mark.parametrize("sizes", [[0], [1, 0, 127, 128], [16_384] * 60, [], [0] * MAX_WHOLE_BLOBS])
def test_whole_blobs_are_the_same_as_protobuf(sizes: list[int]) -> None:
    contents = [bytes(size) for size in sizes]
    request = pb.UploadBlobsRequest(blobs=pb.WholeBlobs(upload_id="0198-u", contents=contents))
    message = upload_blobs("0198-u", contents)
    assert message == request.SerializeToString()
    piece = framing.piece(message)
    assert isinstance(piece, WholeBlobs)
    assert (piece.upload_id, piece.contents) == ("0198-u", contents)


@pytest.mark.parametrize(
    "blobs",
    [
        pb.WholeBlobs(),
        pb.WholeBlobs(contents=[b"x"]),
        pb.WholeBlobs(upload_id="ü", contents=[b"x"]),
        pb.WholeBlobs(upload_id="u", contents=[b""] * (MAX_WHOLE_BLOBS + 1)),
    ],
    ids=["empty", "no id", "odd id", "many"],
)
def test_odd_whole_blobs_go_to_protobuf(blobs: pb.WholeBlobs) -> None:
    request = pb.UploadBlobsRequest(blobs=blobs)
    assert framing.piece(request.SerializeToString()) == request


def test_what_is_no_single_chunk_goes_to_protobuf() -> None:
    header = pb.UploadBlobsRequest(header=pb.BlobHeader(upload_id="u"))
    assert framing.piece(header.SerializeToString()) == header
    assert framing.piece(b"") == pb.UploadBlobsRequest()
    one = pb.UploadBlobsRequest(chunk=b"first").SerializeToString()
    last = framing.piece(one + pb.UploadBlobsRequest(chunk=b"last").SerializeToString())
    assert last == pb.UploadBlobsRequest(chunk=b"last")


@pytest.mark.parametrize(
    "message",
    [
        *(b"\x12", b"\x12\x05abc", b"\x12" + b"\xff" * 11),
        *(b"\x1a", b"\x1a\x05\x0a\x01u", b"\x1a\x04\x0a\x09ab", b"\x1a\x06\x0a\x01u\x12\x02a"),
    ],
)
def test_a_cut_message_is_refused(message: bytes) -> None:
    with pytest.raises(Exception, match="pars"):
        framing.piece(message)
