"""Uploads of the artifact service, over real gRPC on real PostgreSQL and a real disk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.artifact.v1.artifact_pb2 import FileEntry, Upload
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.catalog_peer import CatalogPeer
from modelyard_artifact.errors import DigestMismatch, OffsetMismatch, UploadIncomplete
from modelyard_artifact.manifest import build
from modelyard_artifact.models import FileEntry as File
from modelyard_artifact.uploads import Uploads
from modelyard_kit.access import Effect, Privilege, ResourceGrant
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import (
    InvalidField,
    InvalidState,
    LimitExceeded,
    NotFound,
    PeerUnavailable,
    PermissionDenied,
    RequestIdReused,
)
from modelyard_kit.limits import LIMITS
from tests.framework.artifact import (
    ADA,
    BOB,
    ITSELF,
    MODEL,
    NOBODY_KNOWN,
    OTHER_MODEL,
    ArtifactService,
    artifact_service,
    chunks,
    entries,
    header,
    missing_pieces,
    sha,
)

VERSION = f"{MODEL}/1"
FILES = {"model.bin": random.Random(1).randbytes(3 << 20), "conf/a.json": b"{}", "empty": b"", "copy": b"{}"}


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
async def service(fresh_database: Callable[[str], str], blobs: Path) -> AsyncIterator[ArtifactService]:
    async with artifact_service(fresh_database("modelyard_artifact"), blobs) as running:
        yield running


async def test_upload_commit_list_read(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin(FILES)
    expected = build(File(path, len(data), sha(data)) for path, data in FILES.items())
    assert upload.artifact_digest == expected.digest
    assert upload.state == Upload.STATE_OPEN
    assert upload.model == MODEL
    assert {blob.sha256 for blob in upload.missing} == {sha(data) for data in FILES.values()}
    assert await client.send(missing_pieces(upload, FILES.values())) == 3
    assert not (await client.get(upload.id)).missing
    artifact = await client.commit(upload.id)
    assert (artifact.digest, artifact.file_count) == (expected.digest, 4)
    assert artifact.size == sum(map(len, FILES.values()))
    service.catalog.ready(VERSION, artifact.digest)
    page = await client.call("ListFiles", pb.ListFilesRequest(model_version=VERSION))
    assert page.artifact_digest == artifact.digest
    assert [file.path for file in page.files] == ["conf/a.json", "copy", "empty", "model.bin"]
    for path, data in FILES.items():
        assert await client.read(VERSION, path) == data


async def test_commit_is_idempotent_and_told_once(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin(FILES)
    await client.send(missing_pieces(upload, FILES.values()))
    first = await client.commit(upload.id)
    assert await client.commit(upload.id) == first
    again = await client.get(upload.id)
    assert again.state == Upload.STATE_COMMITTED
    assert not again.missing
    begun, committed = await service.events()
    assert (begun.type, begun.resource_id, begun.actor) == ("artifact.upload.begun", upload.id, "ada")
    about = {"model": MODEL, "model_id": "id-iris", "file_count": len(FILES), "size": first.size}
    assert begun.data == {**about, "artifact_digest": first.digest}
    assert (committed.type, committed.resource_id, committed.actor) == (
        "artifact.artifact.committed",
        first.digest,
        "ada",
    )
    assert committed.data == {**about, "upload_id": upload.id}


async def test_incomplete_commit(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin(FILES)
    with pytest.raises(UploadIncomplete) as error:
        await client.commit(upload.id)
    assert error.value.metadata == {"upload_id": upload.id, "missing": "3"}


async def test_stored_blobs_are_not_asked_for_again(service: ArtifactService) -> None:
    client = service.client()
    await client.upload(FILES)
    upload = await client.begin(FILES | {"conf/a.json": b"[1]"})
    assert [blob.sha256 for blob in upload.missing] == [sha(b"[1]")]
    same = await client.begin(FILES, model=OTHER_MODEL)
    assert not same.missing
    await client.commit(same.id)


async def test_request_id(service: ArtifactService) -> None:
    client = service.client()
    first = await client.begin(FILES, request_id="r1")
    assert (await client.begin(dict(reversed(FILES.items())), request_id="r1")).id == first.id
    assert len(await service.events("artifact.upload.begun")) == 1
    assert (await client.begin(FILES)).id != first.id
    with pytest.raises(RequestIdReused):
        await client.begin({"x": b"x"}, request_id="r1")
    assert (await service.client(BOB).begin(FILES, request_id="r1")).id != first.id


async def test_cut_upload_resumes(service: ArtifactService) -> None:
    client = service.client()
    data = FILES["model.bin"]
    upload = await client.begin({"m": data})
    stream = client.stub.UploadBlobs(metadata=client.metadata)
    await stream.write(header(upload.id, data))
    for piece in list(chunks(data))[:5]:
        await stream.write(piece)
    # What the server took is seen by asking; then the client goes away in the middle of the blob.
    acknowledged = await client.acknowledged(upload.id)
    stream.cancel()
    assert (await client.get(upload.id)).missing[0].offset >= acknowledged
    await client.resume(upload.id, [data])
    digest = (await client.commit(upload.id)).digest
    service.catalog.ready(VERSION, digest)
    assert await client.read(VERSION, "m") == data


async def test_a_stream_may_end_in_the_middle(service: ArtifactService) -> None:
    client = service.client()
    data = FILES["model.bin"]
    upload = await client.begin({"m": data})
    assert await client.send([header(upload.id, data), *list(chunks(data))[:3]]) == 0
    offset = (await client.get(upload.id)).missing[0].offset
    assert offset == 3 << 16
    assert await client.send([header(upload.id, data, offset), *chunks(data[offset:])]) == 1


async def test_offset_mismatch_names_the_offset(service: ArtifactService) -> None:
    client = service.client()
    data = FILES["model.bin"]
    upload = await client.begin({"m": data})
    await client.send([header(upload.id, data), *list(chunks(data))[:1]])
    with pytest.raises(OffsetMismatch) as error:
        await client.send([header(upload.id, data), *chunks(data)])
    assert error.value.metadata == {"expected": str(1 << 16), "actual": "0"}


@pytest.mark.parametrize("sent", [b"wrong content", b"", b"right content and more"])
async def test_wrong_bytes_are_thrown_away(service: ArtifactService, sent: bytes) -> None:
    client = service.client()
    data = b"right content"
    upload = await client.begin({"m": data})
    if sent:
        with pytest.raises(DigestMismatch):
            await client.send([header(upload.id, data), *chunks(sent)])
    else:
        assert await client.send([header(upload.id, data)]) == 0
    assert (await client.get(upload.id)).missing[0].offset == 0
    assert await client.send([header(upload.id, data), *chunks(data)]) == 1


async def test_a_chunk_too_many(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin({"m": b"abc"})
    with pytest.raises(DigestMismatch):
        await client.send([header(upload.id, b"abc"), *chunks(b"abc"), *chunks(b"d")])


async def test_wrong_announced_size_can_never_be_committed(service: ArtifactService) -> None:
    client = service.client()
    await client.upload({"m": b"abc"})
    files = [FileEntry(path="m", size=4, sha256=sha(b"abc"))]
    upload = (await client.call("BeginUpload", pb.BeginUploadRequest(model=MODEL, files=files))).upload
    assert len(upload.missing) == 1
    with pytest.raises(DigestMismatch):
        await client.send([header(upload.id, b"abc"), *chunks(b"abcd")])
    with pytest.raises(UploadIncomplete):
        await client.commit(upload.id)


async def test_two_uploads_of_the_same_blob_at_once(service: ArtifactService) -> None:
    ada, bob = service.client(), service.client(BOB)
    data = FILES["model.bin"]
    uploads = [await client.begin({"m": data}) for client in (ada, bob)]
    sent = await asyncio.gather(
        ada.send(missing_pieces(uploads[0], [data])), bob.send(missing_pieces(uploads[1], [data]))
    )
    assert sent == [1, 1]
    digests = {(await ada.commit(uploads[0].id)).digest, (await bob.commit(uploads[1].id)).digest}
    assert len(digests) == 1


async def test_the_slower_of_two_uploads_is_let_go_by(service: ArtifactService, blobs: Path) -> None:
    ada, bob = service.client(), service.client(BOB)
    data = FILES["model.bin"]
    slow = await bob.begin({"m": data})
    await ada.upload({"m": data})
    assert await bob.send(missing_pieces(slow, [data])) == 1
    await bob.commit(slow.id)
    assert [path for path in (blobs / "partial").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("pieces", "field"),
    [
        (lambda upload: [*chunks(b"x")], "header"),
        (lambda upload: [header(upload.id, b"not announced")], "header.sha256"),
        (lambda upload: [pb.UploadBlobsRequest()], "piece"),
        (lambda upload: [header(upload.id, b"abc"), *chunks(bytes((1 << 20) + 1), 2 << 20)], "chunk"),
    ],
)
async def test_streams_refused(service: ArtifactService, pieces: Any, field: str) -> None:
    client = service.client()
    upload = await client.begin({"m": b"abc"})
    with pytest.raises(InvalidField) as error:
        await client.send(pieces(upload))
    assert error.value.metadata == {"field": field}


async def test_a_committed_upload_takes_nothing(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin({"m": b"abc"})
    await client.send(missing_pieces(upload, [b"abc"]))
    await client.commit(upload.id)
    with pytest.raises(InvalidState) as error:
        await client.send([header(upload.id, b"abc"), *chunks(b"abc")])
    assert error.value.metadata["state"] == "COMMITTED"


async def test_uploads_belong_to_their_principal(service: ArtifactService) -> None:
    upload = await service.client().begin({"m": b"abc"})
    bob = service.client(BOB)
    for attempt in (bob.get(upload.id), bob.commit(upload.id), bob.send([header(upload.id, b"abc")])):
        with pytest.raises(NotFound) as error:
            await attempt
        assert error.value.metadata == {"resource_type": "upload", "name": upload.id}
    with pytest.raises(NotFound):
        await bob.get("../../etc/passwd")


async def test_open_uploads_are_limited(service: ArtifactService, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = LIMITS["open_uploads_per_principal"]
    monkeypatch.setitem(LIMITS, limit.name, type(limit)(limit.name, 2, limit.unit, limit.description))
    client = service.client()
    first = await client.begin({"m": b"1"})
    await client.begin({"m": b"2"})
    with pytest.raises(LimitExceeded) as error:
        await client.begin({"m": b"3"})
    assert error.value.metadata["limit"] == "open_uploads_per_principal"
    await client.send(missing_pieces(first, [b"1"]))
    await client.commit(first.id)
    await client.begin({"m": b"3"})


async def test_bad_paths_are_refused_and_touch_nothing(service: ArtifactService, blobs: Path) -> None:
    before = sorted(blobs.rglob("*"))
    for path in ("../evil", "/etc/passwd", "a/../../b", "a\\b", "nul\x00"):
        with pytest.raises(InvalidField) as error:
            await service.client().begin({path: b"x"})
        assert error.value.metadata == {"field": "files[0].path"}
    assert sorted(blobs.rglob("*")) == before


async def test_rights(service: ArtifactService) -> None:
    service.catalog.ready(VERSION, await service.client().upload({"m": b"abc"}))
    bob, eve = service.client(BOB), service.client(NOBODY_KNOWN)
    with pytest.raises(PermissionDenied) as denied:
        await bob.read(VERSION, "m")
    assert denied.value.metadata["privilege"] == "READ_ARTIFACT"
    with pytest.raises(PermissionDenied):
        await bob.call("ListFiles", pb.ListFilesRequest(model_version=VERSION))
    with pytest.raises(PermissionDenied):
        await eve.begin({"m": b"abc"})
    given = [
        *service.grants.principals()[BOB.id][1],
        ResourceGrant("id-iris", Privilege.READ_ARTIFACT, Effect.ALLOW),
    ]
    service.grants.replace(BOB.id, BOB.name, given)
    assert await bob.read(VERSION, "m") == b"abc"


async def test_without_catalog(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin({"m": b"abc"})
    service.catalog.reachable = False
    with pytest.raises(PeerUnavailable):
        await client.begin({"m": b"abc"})
    assert await client.send(missing_pieces(upload, [b"abc"])) == 1
    assert (await client.commit(upload.id)).size == 3


async def test_abandoned_uploads_expire(service: ArtifactService, blobs: Path) -> None:
    client = service.client()
    data = FILES["model.bin"]
    old = await client.begin({"m": data}, request_id="r1")
    await client.send([header(old.id, data), *list(chunks(data))[:2]])
    store = LocalBlobStore(blobs)
    unused: Any = None
    uploads = Uploads(service.database, store, CatalogPeer(unused), unused, utc_now)
    assert await uploads.expire(ITSELF, timedelta(hours=1)) == 0
    assert await uploads.expire(ITSELF, timedelta(0)) == 1
    await store.close()
    [told] = await service.events("artifact.upload.expired")
    assert (told.resource_id, told.actor) == (old.id, "artifact")
    assert (told.data["model"], told.data["principal_id"]) == (MODEL, ADA.id)
    assert datetime.fromisoformat(told.data["last_used"]) >= old.create_time.ToDatetime(UTC)
    with pytest.raises(NotFound):
        await client.get(old.id)
    assert [path for path in (blobs / "partial").rglob("*") if path.is_file()] == []
    again = await client.begin({"m": data}, request_id="r1")
    assert again.id != old.id
    assert (await client.begin({"m": data}, request_id="r1")).id == again.id


async def test_a_cancelled_upload_is_gone(service: ArtifactService, blobs: Path) -> None:
    client = service.client()
    data = FILES["model.bin"]
    upload = await client.begin({"m": data})
    await client.send([header(upload.id, data), *list(chunks(data))[:2]])
    cancel = pb.CancelUploadRequest(upload_id=upload.id)
    with pytest.raises(NotFound):
        await service.client(BOB).call("CancelUpload", cancel)
    await client.call("CancelUpload", cancel)
    [told] = await service.events("artifact.upload.cancelled")
    assert (told.resource_id, told.actor, told.data["model"]) == (upload.id, "ada", MODEL)
    assert list((blobs / "partial").rglob("*")) == []
    for again in (client.get(upload.id), client.call("CancelUpload", cancel), client.commit(upload.id)):
        with pytest.raises(NotFound):
            await again
    with pytest.raises(NotFound):
        await client.send([header(upload.id, data)])
    done = await client.begin({"m": b"abc"})
    await client.send(missing_pieces(done, [b"abc"]))
    await client.commit(done.id)
    with pytest.raises(InvalidState):
        await client.call("CancelUpload", pb.CancelUploadRequest(upload_id=done.id))


async def test_an_upload_tells_when_it_expires(service: ArtifactService) -> None:
    client = service.client()
    upload = await client.begin({"m": b"abc"})
    assert upload.expire_time.ToDatetime() - upload.create_time.ToDatetime() == timedelta(days=7)
    await client.send([header(upload.id, b"abc")])
    assert (await client.get(upload.id)).expire_time.ToNanoseconds() > upload.expire_time.ToNanoseconds()
    await client.send(missing_pieces(upload, [b"abc"]))
    await client.commit(upload.id)
    assert not (await client.get(upload.id)).HasField("expire_time")


async def test_many_files(service: ArtifactService) -> None:
    client = service.client()
    files = {f"d{number % 7}/f{number}": str(number % 50).encode() for number in range(2_000)}
    request = pb.BeginUploadRequest(model=MODEL, files=entries(files))
    upload = (await client.call("BeginUpload", request)).upload
    assert len(upload.missing) == 50
    assert await client.send(missing_pieces(upload, files.values())) == 50
    assert (await client.commit(upload.id)).file_count == 2_000
