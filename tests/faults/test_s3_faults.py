"""S3 servers that fail, hang and hang up, and processes that die while they talk to one. Invariant: what is under a hash is
complete and right, and when all is settled nothing else is in the bucket.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from botocore.retries.standard import ExponentialBackoff

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact.blobs import s3_calls
from modelyard_artifact.blobs.marks import Mark
from modelyard_artifact.blobs.s3 import S3BlobStore
from modelyard_artifact.errors import BlobLost
from modelyard_artifact.models import CHUNK_BYTES
from modelyard_artifact.uploads import Uploads
from modelyard_kit import faults
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import DomainError, PeerUnavailable
from modelyard_kit.ids import new_id
from tests.conformance.blob_store_suite import content, read, send
from tests.faults.test_artifact_faults import DATA, VERSION, process
from tests.framework import s3
from tests.framework.artifact import ITSELF, ArtifactClient, artifact_service, missing_pieces, sha
from tests.framework.s3_proxy import Fault, S3Proxy, proxy

PART = 5 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[s3.S3Server]:
    with s3.moto() as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    yield
    faults.configure("")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once: how long to wait is botocore's business."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.01)
    monkeypatch.setattr(s3_calls, "_FIRST_PAUSE", 0.001)


@pytest.fixture
def between(server: s3.S3Server) -> Iterator[S3Proxy]:
    with proxy(server.endpoint) as running:
        yield running


@pytest.fixture
def prefix() -> str:
    return new_id()


@pytest.fixture
async def store(between: S3Proxy, prefix: str, tmp_path: Path) -> AsyncIterator[S3BlobStore]:
    made = S3BlobStore(
        s3.BUCKET,
        f"{prefix}/",
        staging=tmp_path,
        endpoint=between.endpoint,
        reserve=0,
        part_bytes=PART,
        timeout=1.0,
    )
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("fault", ["500", "503", "hang", "reset"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_fault_that_passes_is_not_noticed(
    store: S3BlobStore, between: S3Proxy, fault: Fault, method: str
) -> None:
    data, blob = content(2 * PART + 17)
    rule = between.fail(fault, method, times=2)
    await send(store, "u1", blob, data, piece=CHUNK_BYTES)
    assert rule.seen == 2
    assert await read(store, blob) == data


async def test_a_server_that_refuses_conditions_is_marked_without(
    store: S3BlobStore, between: S3Proxy
) -> None:
    rule = between.fail("no conditions", "PUT")
    await store.write_mark(Mark("a", 0, complete=True), first=True)
    assert await store.mark() == Mark("a", 0, complete=True)
    assert rule.seen > 1


@pytest.mark.parametrize("fault", ["503", "reset"])
async def test_a_fault_that_stays_is_said_and_nothing_half_is_shown(
    store: S3BlobStore, between: S3Proxy, fault: Fault, prefix: str, server: s3.S3Server
) -> None:
    data, blob = content(2 * PART)
    between.fail(fault, "PUT")
    with pytest.raises(PeerUnavailable):
        await send(store, "u1", blob, data, piece=CHUNK_BYTES)
    between.rules.clear()
    assert await store.size(blob.sha256) is None
    assert s3.leftovers(server.endpoint, f"{prefix}/") == []
    partial = await store.resume("u1", blob)
    assert partial.offset == blob.size  # nothing has to be sent to the service again
    await partial.finish()
    await partial.close()
    assert await read(store, blob) == data


@pytest.mark.parametrize("fault", ["cut", "503", "reset", "hang"])
async def test_a_cut_read_goes_on_where_it_ended(store: S3BlobStore, between: S3Proxy, fault: Fault) -> None:
    data, blob = content(3 * CHUNK_BYTES + 5)
    await send(store, "u1", blob, data)
    rule = between.fail(fault, "GET", blob.sha256, times=3)
    assert await read(store, blob) == data
    assert await read(store, blob, 5, CHUNK_BYTES) == data[5 : 5 + CHUNK_BYTES]
    assert rule.seen == 3


async def test_a_read_that_never_gets_on_ends(store: S3BlobStore, between: S3Proxy) -> None:
    data, blob = content(CHUNK_BYTES)
    await send(store, "u1", blob, data)
    between.fail("503", "GET", blob.sha256)
    with pytest.raises(PeerUnavailable):
        await read(store, blob)


async def test_an_object_of_another_size_is_damage(
    store: S3BlobStore, server: s3.S3Server, prefix: str
) -> None:
    data, blob = content(1000)
    await send(store, "u1", blob, data)
    await store._s3.put_object(Bucket=s3.BUCKET, Key=store._key(blob.sha256), Body=data[:10])
    with pytest.raises(BlobLost, match="10 bytes instead of 1000"):
        await read(store, blob)


@pytest.mark.parametrize("fault", ["500", "503", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST"])
async def test_finishing_a_direct_transfer_survives_faults(
    store: S3BlobStore, between: S3Proxy, method: str, fault: Fault, server: s3.S3Server, prefix: str
) -> None:
    assert store.direct
    data, blob = content(PART + 5)
    for part in (await store.direct.sign_upload("u1", blob)).parts:
        await _put(part.request.url, data[part.offset : part.offset + part.length])
    between.fail(fault, method, times=2)
    await store.direct.finish("u1", blob)
    between.rules.clear()
    assert await read(store, blob) == data
    assert s3.leftovers(server.endpoint, f"{prefix}/") == []


THROUGH = [
    "artifact.blob.before_put",
    "artifact.blob.before_complete",
    "artifact.blob.after_put",
    "artifact.blob.before_record",
]
DIRECT = [
    "artifact.direct.after_complete",
    "artifact.direct.before_copy",
    "artifact.direct.after_copy",
    "artifact.blob.before_record",
    "artifact.blob.after_record",
    "artifact.commit.after_transaction",
]
LARGE = DATA * 5  # more than one part of 8 MiB


@pytest.fixture
def dsn(fresh_database: Callable[[str], str]) -> str:
    return fresh_database("modelyard_artifact")


@pytest.mark.parametrize("step", THROUGH)
async def test_killed_while_sending_to_the_bucket(
    dsn: str, server: s3.S3Server, prefix: str, tmp_path: Path, step: str
) -> None:
    place, settings = _place(server, prefix, tmp_path)
    data = LARGE if step.endswith("before_complete") else DATA
    async with process(dsn, place, f"{step}=crash", **settings) as (client, child):
        upload = await client.begin({"m": data})
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await client.send(missing_pieces(upload, [data]))
        assert await child.wait() == faults.CRASH_EXIT_CODE
    async with artifact_service(dsn, place, **settings) as service:
        client = service.client()
        await client.resume(upload.id, [data])
        service.catalog.ready(VERSION, (await client.commit(upload.id)).digest)
        assert await client.read(VERSION, "m") == data
        await _settle(service.database, server, prefix, tmp_path)
    assert s3.leftovers(server.endpoint, f"{prefix}/") == []
    assert s3.blobs(server.endpoint, f"{prefix}/") == {sha(data): data}


@pytest.mark.parametrize("step", DIRECT)
async def test_killed_while_finishing_a_direct_transfer(
    dsn: str, server: s3.S3Server, prefix: str, tmp_path: Path, step: str
) -> None:
    place, settings = _place(server, prefix, tmp_path)
    async with process(dsn, place, f"{step}=crash", **settings) as (client, child):
        upload = await client.begin({"m": LARGE})
        with pytest.raises((DomainError, grpc.aio.AioRpcError)):
            await _direct(client, upload.id)
        assert await child.wait() == faults.CRASH_EXIT_CODE
    async with artifact_service(dsn, place, **settings) as service:
        client = service.client()
        digest = await _direct(client, upload.id)
        service.catalog.ready(VERSION, digest)
        assert await client.read(VERSION, "m") == LARGE
        await _settle(service.database, server, prefix, tmp_path)
    assert s3.leftovers(server.endpoint, f"{prefix}/") == []
    assert s3.blobs(server.endpoint, f"{prefix}/") == {sha(LARGE): LARGE}


async def test_an_expired_direct_upload_leaves_nothing(
    dsn: str, server: s3.S3Server, prefix: str, tmp_path: Path
) -> None:
    place, settings = _place(server, prefix, tmp_path)
    async with process(dsn, place, "", **settings) as (client, child):
        upload = await client.begin({"m": LARGE})
        request = pb.SignUploadUrlsRequest(upload_id=upload.id, sha256s=[sha(LARGE)])
        part = (await client.call("SignUploadUrls", request)).blobs[0].parts[0]
        await _put(part.request.url, LARGE[: part.length])
        child.kill()
        await child.wait()
    assert s3.leftovers(server.endpoint, f"{prefix}/")
    async with artifact_service(dsn, place, **settings) as service:
        await _settle(service.database, server, prefix, tmp_path, age=timedelta(0))
    assert s3.leftovers(server.endpoint, f"{prefix}/") == []
    assert s3.blobs(server.endpoint, f"{prefix}/") == {}


async def _direct(client: ArtifactClient, upload_id: str) -> str:
    sign = pb.SignUploadUrlsRequest(upload_id=upload_id, sha256s=[sha(LARGE)])
    if (await client.get(upload_id)).missing:
        for urls in (await client.call("SignUploadUrls", sign)).blobs:
            await asyncio.gather(
                *(_put(part.request.url, LARGE[part.offset :][: part.length]) for part in urls.parts)
            )
        await client.call("FinishBlob", pb.FinishBlobRequest(upload_id=upload_id, sha256=sha(LARGE)))
    return str((await client.commit(upload_id)).digest)


async def _settle(
    database: Any, server: s3.S3Server, prefix: str, staging: Path, age: timedelta = timedelta(hours=1)
) -> None:
    """What the service does by itself every hour."""
    store = S3BlobStore(s3.BUCKET, f"{prefix}/", staging=staging, endpoint=server.endpoint, reserve=0)
    await store.open()
    unused: Any = None
    await Uploads(database, store, unused, unused, utc_now).expire(ITSELF, age)
    await store.close()


def _place(server: s3.S3Server, prefix: str, staging: Path) -> tuple[str, dict[str, Any]]:
    return f"s3://{s3.BUCKET}/{prefix}", {"s3_endpoint": server.endpoint, "staging": str(staging)}


async def _put(url: str, data: bytes) -> None:
    async with aiohttp.ClientSession() as session, session.put(url, data=io.BytesIO(data)) as answer:
        assert answer.status == 200
