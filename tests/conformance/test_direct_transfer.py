"""Direct transfer with an object store: addresses, proofs, and nothing left behind; on two servers and one that checks puts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact.blobs import direct
from modelyard_artifact.blobs.direct import DirectTransfers
from modelyard_artifact.blobs.s3 import S3BlobStore
from modelyard_artifact.errors import (
    DigestMismatch,
    DirectTransferUnavailable,
    UploadIncomplete,
)
from modelyard_artifact.models import BlobUrls, SignedUrl
from modelyard_kit.errors import InvalidField, InvalidState, NotFound
from modelyard_kit.ids import new_id
from tests.conformance.blob_store_suite import content, read
from tests.framework import s3
from tests.framework.artifact import BOB, MODEL, ArtifactService, artifact_service, missing_pieces, sha

PART = 5 << 20
VERSION = f"{MODEL}/1"


@pytest.fixture(scope="module")
def moto_server() -> Iterator[s3.S3Server]:
    with s3.moto() as server:
        yield server


@pytest.fixture(scope="module", params=["moto", "rclone", "seaweedfs"])
def endpoint(request: pytest.FixtureRequest, moto_server: s3.S3Server) -> Iterator[str]:
    if request.param == "moto":
        yield moto_server.endpoint
    elif request.param == "rclone":
        with s3.rclone() as server:
            yield server.endpoint
    else:
        with s3.seaweedfs() as server:
            yield server.endpoint


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


class Bucket:
    """A store on a prefix of its own, and what lies there."""

    def __init__(self, endpoint: str, staging: Path) -> None:
        self.endpoint = endpoint
        self.prefix = f"{new_id()}/"
        self.store = S3BlobStore(
            s3.BUCKET, self.prefix, staging=staging, endpoint=endpoint, reserve=0, part_bytes=PART
        )

    @property
    def transfer(self) -> DirectTransfers:
        assert self.store.direct
        return self.store.direct

    def left(self) -> list[str]:
        """Everything that is there beside blobs, also what is not complete."""
        return s3.leftovers(self.endpoint, self.prefix)


@pytest.fixture
async def bucket(endpoint: str, tmp_path: Path) -> AsyncIterator[Bucket]:
    made = Bucket(endpoint, tmp_path)
    await made.store.open()
    yield made
    await made.store.close()


async def put(request: SignedUrl | Any, data: bytes) -> int:
    async with aiohttp.ClientSession() as session:
        headers = dict(request.headers)
        async with session.request(
            request.method, request.url, data=io.BytesIO(data), headers=headers
        ) as answer:
            return answer.status


async def send(urls: BlobUrls | Any, data: bytes) -> None:
    for part in urls.parts:
        assert await put(part.request, data[part.offset : part.offset + part.length]) == 200


@pytest.mark.parametrize("size", [0, 1, PART, 2 * PART + 17])
async def test_a_blob_sent_directly(bucket: Bucket, size: int) -> None:
    data, blob = content(size)
    urls = await bucket.transfer.sign_upload("u1", blob)
    assert sum(part.length for part in urls.parts) == size
    await send(urls, data)
    assert (await bucket.store.size(blob.sha256) is None) or bucket.transfer.checks_puts
    await bucket.transfer.finish("u1", blob)
    assert await read(bucket.store, blob) == data
    assert bucket.left() == []


async def test_which_servers_check_what_is_put(bucket: Bucket, request: pytest.FixtureRequest) -> None:
    """Else every server could be taken for one that does not, and nothing here would see it."""
    assert bucket.transfer.checks_puts is ("seaweedfs" in request.node.callspec.id)


async def test_only_missing_parts_are_asked_for(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "SINGLE_PUT_BYTES", 0)
    data, blob = content(2 * PART + 17)
    urls = await bucket.transfer.sign_upload("u1", blob)
    assert [part.number for part in urls.parts] == [1, 2, 3]
    await put(urls.parts[1].request, data[PART : 2 * PART])
    with pytest.raises(UploadIncomplete):
        await bucket.transfer.finish("u1", blob)
    again = await bucket.transfer.sign_upload("u1", blob)
    assert [(part.number, part.offset) for part in again.parts] == [(1, 0), (3, 2 * PART)]
    await send(again, data)
    assert not (await bucket.transfer.sign_upload("u1", blob)).parts
    await bucket.transfer.finish("u1", blob)
    assert await read(bucket.store, blob) == data


async def test_nothing_sent_is_incomplete(bucket: Bucket) -> None:
    _, blob = content(10)
    with pytest.raises(UploadIncomplete):
        await bucket.transfer.finish("u1", blob)


async def test_wrong_bytes_never_get_the_name(bucket: Bucket) -> None:
    data, blob = content(1000)
    urls = await bucket.transfer.sign_upload("u1", blob)
    wrong = bytes(1000)
    assert wrong != data
    status = await put(urls.parts[0].request, wrong)
    if bucket.transfer.checks_puts:
        assert status == 400
        with pytest.raises(UploadIncomplete):
            await bucket.transfer.finish("u1", blob)
    else:
        assert status == 200
        with pytest.raises(DigestMismatch) as error:
            await bucket.transfer.finish("u1", blob)
        assert error.value.metadata == {"expected": blob.sha256, "actual": sha(wrong)}
    assert await bucket.store.size(blob.sha256) is None
    await send(await bucket.transfer.sign_upload("u1", blob), data)
    await bucket.transfer.finish("u1", blob)
    assert await read(bucket.store, blob) == data


async def test_what_was_proved_cannot_be_exchanged_by_the_old_address(bucket: Bucket) -> None:
    data, blob = content(1000)
    urls = await bucket.transfer.sign_upload("u1", blob)
    await send(urls, data)
    await bucket.transfer.finish("u1", blob)
    assert await put(urls.parts[0].request, bytes(1000)) >= 400
    assert await read(bucket.store, blob) == data


async def test_content_without_a_checksum_is_read_before_it_counts(bucket: Bucket) -> None:
    """It may lie there without a record: sent through the service, which was killed then, or damaged since."""
    data, blob = content(1000)
    await bucket.store.put_whole("u1", {blob: data})
    await send(await bucket.transfer.sign_upload("u1", blob), data)
    await bucket.transfer.finish("u1", blob)
    assert await read(bucket.store, blob) == data


async def test_damaged_content_under_the_name_is_thrown_away(bucket: Bucket) -> None:
    if not bucket.transfer.checks_puts:
        return  # what is sent lies elsewhere until it is proved
    data, blob = content(1000)
    await bucket.store.put_whole("u1", {blob: bytes(1000)})
    assert not (await bucket.transfer.sign_upload("u1", blob)).parts
    with pytest.raises(DigestMismatch):
        await bucket.transfer.finish("u1", blob)
    await send(await bucket.transfer.sign_upload("u1", blob), data)
    await bucket.transfer.finish("u1", blob)
    assert await read(bucket.store, blob) == data


async def test_finishing_twice_at_once(bucket: Bucket) -> None:
    data, blob = content(PART + 1)
    await send(await bucket.transfer.sign_upload("u1", blob), data)
    ends = await asyncio.gather(
        bucket.transfer.finish("u1", blob), bucket.transfer.finish("u1", blob), return_exceptions=True
    )
    assert None in ends
    assert await read(bucket.store, blob) == data


async def test_discard_leaves_nothing(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "SINGLE_PUT_BYTES", 0)
    data, blob = content(2 * PART)
    other_data, other = content(7)
    urls = await bucket.transfer.sign_upload("u1", blob)
    await put(urls.parts[0].request, data[: urls.parts[0].length])
    await send(await bucket.transfer.sign_upload("u1", other), other_data)
    await send(await bucket.transfer.sign_upload("u2", other), other_data)
    assert set(await bucket.store.owners()) == {"u1", "u2"}
    await bucket.store.discard("u1")
    assert set(await bucket.store.owners()) == {"u2"}
    await bucket.transfer.finish("u2", other)
    assert bucket.left() == []


async def test_addresses_are_for_one_thing_and_end(bucket: Bucket) -> None:
    _, blob = content(1000)
    request = (await bucket.transfer.sign_upload("u1", blob)).parts[0].request
    folder = f"blobs/{blob.sha256[:2]}/{blob.sha256[2:4]}" if bucket.transfer.checks_puts else "uploads/u1"
    assert f"{bucket.prefix}{folder}/{blob.sha256}" in urlsplit(request.url).path
    assert s3.SECRET not in request.url
    assert "X-Amz-Expires=3600" in request.url
    assert "content-length" in request.url  # signed: no more and no less bytes


async def test_a_download_address_takes_ranges(bucket: Bucket) -> None:
    data, blob = content(1000)
    await bucket.store.put_whole("u1", {blob: data})
    request, _ = await bucket.transfer.sign_download(blob)
    async with (
        aiohttp.ClientSession() as session,
        session.get(request.url, headers={"Range": "bytes=10-19"}) as answer,
    ):
        assert answer.status in (200, 206)  # rclone sends the range, but not the status that goes with it
        assert await answer.read() == data[10:20]


async def test_a_signed_address_cannot_be_changed(tmp_path: Path) -> None:
    with s3.rclone() as server:  # the one of the test servers that checks signatures
        bucket = Bucket(server.endpoint, tmp_path)
        await bucket.store.open()
        _, blob = content(1000)
        request = (await bucket.transfer.sign_upload("u1", blob)).parts[0].request
        for url in (
            request.url.replace("/u1/", "/u2/"),
            request.url.replace("partNumber=1", "partNumber=2"),
            request.url.replace("Expires=3600", "Expires=9999"),
        ):
            assert url != request.url
            assert await put(SignedUrl(url, "PUT", {}), bytes(1000)) == 403
        assert await put(request, bytes(999)) == 403
        await bucket.store.close()


async def test_large_content_is_copied_in_parts(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "SINGLE_PUT_BYTES", 0)
    monkeypatch.setattr(direct, "_COPY_BYTES", PART)
    monkeypatch.setattr(direct, "_COPY_PART_BYTES", PART)
    data, blob = content(2 * PART + 17)
    await send(await bucket.transfer.sign_upload("u1", blob), data)
    await bucket.transfer.finish("u1", blob)
    assert await read(bucket.store, blob) == data


async def test_an_expired_address_is_refused(tmp_path: Path) -> None:
    with s3.rclone() as server:
        store = S3BlobStore(
            s3.BUCKET, "", staging=tmp_path, endpoint=server.endpoint, expiry=timedelta(seconds=1)
        )
        await store.open()
        assert store.direct
        request = (await store.direct.sign_upload("u1", content(10)[1])).parts[0].request
        while await put(request, content(10)[0]) == 200:
            await asyncio.sleep(0.2)
        await store.close()


class TestOverTheContract:
    @pytest.fixture
    async def service(
        self, fresh_database: Callable[[str], str], moto_server: s3.S3Server, tmp_path: Path
    ) -> AsyncIterator[ArtifactService]:
        self.prefix = new_id()
        self.endpoint = moto_server.endpoint
        async with artifact_service(
            fresh_database("modelyard_artifact"),
            f"s3://{s3.BUCKET}/{self.prefix}",
            s3_endpoint=moto_server.endpoint,
            staging=tmp_path,
        ) as running:
            yield running

    async def test_upload_commit_download(self, service: ArtifactService) -> None:
        client = service.client()
        files = {"large": content(PART + 3)[0], "small": b"abc", "empty": b""}
        upload = await client.begin(files)
        assert upload.direct
        assert upload.expire_time.seconds > upload.create_time.seconds
        by_hash = {sha(data): data for data in files.values()}
        request = pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=by_hash)
        signed = (await client.call("SignUploadUrls", request)).blobs
        assert [each.sha256 for each in signed] == list(by_hash)
        for urls in signed:
            await send(urls, by_hash[urls.sha256])
            for _ in range(2):  # repeating is harmless
                finish = pb.FinishBlobRequest(upload_id=upload.id, sha256=urls.sha256)
                await client.call("FinishBlob", finish)
        assert not (await client.call("SignUploadUrls", request)).blobs
        assert not (await client.get(upload.id)).missing
        service.catalog.ready(VERSION, (await client.commit(upload.id)).digest)
        wanted = pb.SignDownloadUrlsRequest(model_version=VERSION, paths=["small", "large"])
        answer = await client.call("SignDownloadUrls", wanted)
        assert [each.file.path for each in answer.files] == ["small", "large"]
        async with aiohttp.ClientSession() as session, session.get(answer.files[1].request.url) as got:
            assert await got.read() == files["large"]
        assert s3.leftovers(self.endpoint, f"{self.prefix}/") == []

    async def test_refused(self, service: ArtifactService) -> None:
        client = service.client()
        upload = await client.begin({"m": b"abc"})
        other = sha(b"other")
        for rpc, request, field in (
            ("SignUploadUrls", pb.SignUploadUrlsRequest(upload_id=upload.id), "sha256s"),
            ("SignUploadUrls", pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=["x"]), "sha256s[0]"),
            ("SignUploadUrls", pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=[other]), "sha256s[0]"),
            (
                "SignUploadUrls",
                pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=[other] * 101),
                "sha256s",
            ),
            ("FinishBlob", pb.FinishBlobRequest(upload_id=upload.id, sha256=other), "sha256"),
            ("FinishBlob", pb.FinishBlobRequest(upload_id=upload.id), "sha256"),
            ("SignDownloadUrls", pb.SignDownloadUrlsRequest(model_version=VERSION), "paths"),
        ):
            service.catalog.ready(VERSION, "sha256:" + "0" * 64)
            with pytest.raises(InvalidField) as error:
                await client.call(rpc, request)
            assert error.value.metadata == {"field": field}
        mine = pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=[sha(b"abc")])
        with pytest.raises(NotFound):
            await service.client(BOB).call("SignUploadUrls", mine)
        await client.send(missing_pieces(upload, [b"abc"]))
        await client.commit(upload.id)
        with pytest.raises(InvalidState):
            await client.call("SignUploadUrls", mine)

    async def test_a_cancelled_upload_leaves_nothing(self, service: ArtifactService) -> None:
        client = service.client()
        data, blob = content(2 * PART)
        upload = await client.begin({"m": data})
        request = pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=[blob.sha256])
        urls = (await client.call("SignUploadUrls", request)).blobs[0]
        await put(urls.parts[0].request, data[: urls.parts[0].length])
        assert s3.leftovers(self.endpoint, f"{self.prefix}/")
        await client.call("CancelUpload", pb.CancelUploadRequest(upload_id=upload.id))
        assert s3.leftovers(self.endpoint, f"{self.prefix}/") == []
        with pytest.raises(NotFound):
            await client.get(upload.id)

    async def test_two_clients_send_the_same_content_at_once(self, service: ArtifactService) -> None:
        data, blob = content(PART + 1)

        async def one(client: Any) -> str:
            upload = await client.begin({"m": data})
            request = pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=[blob.sha256])
            for urls in (await client.call("SignUploadUrls", request)).blobs:
                await send(urls, data)
                finish = pb.FinishBlobRequest(upload_id=upload.id, sha256=blob.sha256)
                await client.call("FinishBlob", finish)
            return str((await client.commit(upload.id)).digest)

        digests = await asyncio.gather(*(one(service.client(who)) for who in (BOB, BOB)))
        digests += await asyncio.gather(one(service.client()))
        assert len(set(digests)) == 1
        service.catalog.ready(VERSION, digests[0])
        assert await service.client().read(VERSION, "m") == data
        assert s3.leftovers(self.endpoint, f"{self.prefix}/") == []


async def test_without_an_object_store(fresh_database: Callable[[str], str], tmp_path: Path) -> None:
    async with artifact_service(fresh_database("modelyard_artifact"), tmp_path / "blobs") as service:
        client = service.client()
        upload = await client.begin({"m": b"abc"})
        assert not upload.direct
        sign = pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=[sha(b"abc")])
        finish = pb.FinishBlobRequest(upload_id=upload.id, sha256=sha(b"abc"))
        await client.send(missing_pieces(upload, [b"abc"]))
        service.catalog.ready(VERSION, (await client.commit(upload.id)).digest)
        download = pb.SignDownloadUrlsRequest(model_version=VERSION, paths=["m"])
        for rpc, request in (
            ("SignUploadUrls", sign),
            ("FinishBlob", finish),
            ("SignDownloadUrls", download),
        ):
            with pytest.raises(DirectTransferUnavailable):
                await client.call(rpc, request)
