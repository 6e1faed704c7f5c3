"""Blobs in a bucket of an S3 server, through aiobotocore.

Content is received in partials on the local disk (`staging`), verified there, and only then sent to the bucket: an object
under `<prefix>blobs/ab/cd/<sha256>` is therefore always complete and right. Small blobs go in one put, large ones in
parts; S3 shows an object only when the last part is confirmed. Every part carries an MD5 that the server checks, because
every S3 server does, which cannot be said of the newer checksums.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError

from modelyard_artifact.blobs import BlobStore
from modelyard_artifact.blobs.local import DEFAULT_RESERVE
from modelyard_artifact.blobs.partials import Disk, Partials, make_folder
from modelyard_artifact.errors import BlobLost, StorageFull
from modelyard_artifact.models import CHUNK_BYTES
from modelyard_kit.errors import PeerUnavailable
from modelyard_kit.faults import failpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping
    from pathlib import Path

    from modelyard_artifact.blobs import Partial
    from modelyard_artifact.models import Blob

T = TypeVar("T")

_PART_BYTES = 8 << 20
_MAX_PARTS = 10_000
_PARTS_IN_MEMORY = 64 << 20
_SERVER_FAULT = 500
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_NO_ROOM = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}


class S3BlobStore(BlobStore):
    """A prefix of a bucket.

    Credentials and region come the usual AWS way (environment, configuration files, instance roles).

    Args:
        bucket: name of a bucket that exists.
        prefix: put before every key; ends with `/` unless empty.
        staging: local folder for what is arriving; its disk must hold the largest blobs being sent at once.
        endpoint: address of another S3 server than AWS; empty for AWS.
        reserve: bytes of the staging disk that uploads leave free.
        part_bytes: size of a part; grows by itself for blobs of more than 10,000 parts.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        staging: Path,
        endpoint: str = "",
        reserve: int = DEFAULT_RESERVE,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._endpoint = endpoint
        self._part_bytes = part_bytes
        self._disk = Disk()
        self._staging = staging / "partial"
        self._partials = Partials(self._staging, self._disk, self._publish, reserve=reserve)
        self._stack = AsyncExitStack()
        self._s3: Any = None

    async def open(self) -> None:
        """Connects and asks for the bucket, so that a wrong name, key or endpoint is found at the start.

        Raises:
            RuntimeError: the bucket cannot be used; says which setting to look at.
        """
        await self._disk.run(make_folder, self._staging)
        client = get_session().create_client(
            "s3", endpoint_url=self._endpoint or None, region_name=_region(), config=_config(self._endpoint)
        )
        self._s3 = await self._stack.enter_async_context(client)
        try:
            await self._s3.head_bucket(Bucket=self._bucket)
        except (ClientError, BotoCoreError) as error:
            await self.close()
            raise RuntimeError(
                f"bucket {self._bucket!r} at {self._endpoint or 'AWS'} cannot be used: {error}; check MODELYARD_BLOBS,"
                " MODELYARD_S3_ENDPOINT and the AWS credentials in the environment"
            ) from error

    async def close(self) -> None:
        """See BlobStore."""
        await self._stack.aclose()
        self._disk.close()

    async def size(self, sha256: str) -> int | None:
        """See BlobStore."""
        try:
            answer = await _guarded(self._s3.head_object(Bucket=self._bucket, Key=self._key(sha256)))
        except ClientError as error:
            if _code(error) in _ABSENT:
                return None
            raise
        return int(answer["ContentLength"])

    async def received(self, owner: str) -> Mapping[str, int]:
        """See BlobStore."""
        return await self._partials.received(owner)

    async def resume(self, owner: str, blob: Blob) -> Partial:
        """See BlobStore."""
        return await self._partials.resume(owner, blob)

    async def discard(self, owner: str) -> None:
        """See BlobStore."""
        await self._partials.discard(owner)

    async def read(self, blob: Blob, offset: int, length: int) -> AsyncIterator[bytes]:
        """See BlobStore."""
        if length == 0:
            return  # S3 has no empty ranges
        span = f"bytes={offset}-{offset + length - 1}"
        try:
            answer = await _guarded(
                self._s3.get_object(Bucket=self._bucket, Key=self._key(blob.sha256), Range=span)
            )
        except ClientError as error:
            if _code(error) in _ABSENT:
                raise BlobLost(blob.sha256, "is not in the bucket") from error
            raise
        left = length
        async with answer["Body"] as body:
            while left:
                piece = await body.read(min(CHUNK_BYTES, left))
                if not piece:
                    raise BlobLost(blob.sha256, f"ended {left} bytes before the end of {span}")
                left -= len(piece)
                yield piece

    async def delete(self, sha256: str) -> None:
        """See BlobStore."""
        await _guarded(self._s3.delete_object(Bucket=self._bucket, Key=self._key(sha256)))

    def _key(self, sha256: str) -> str:
        return f"{self._prefix}blobs/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    async def _publish(self, source: Path, blob: Blob) -> None:
        if await self.size(blob.sha256) == blob.size:
            return
        await failpoint("artifact.blob.before_put")
        if blob.size <= self._part_bytes:
            body, md5 = await self._disk.run(_part, source, 0, blob.size)
            await _guarded(
                self._s3.put_object(
                    Bucket=self._bucket, Key=self._key(blob.sha256), Body=body, ContentMD5=md5
                )
            )
        else:
            await self._put_parts(source, blob)
        await failpoint("artifact.blob.after_put")

    async def _put_parts(self, source: Path, blob: Blob) -> None:
        where = {"Bucket": self._bucket, "Key": self._key(blob.sha256)}
        upload_id = (await _guarded(self._s3.create_multipart_upload(**where)))["UploadId"]
        where["UploadId"] = upload_id
        part_bytes = max(self._part_bytes, -(-blob.size // _MAX_PARTS))
        room = asyncio.Semaphore(max(1, _PARTS_IN_MEMORY // part_bytes))

        async def send(number: int, start: int) -> dict[str, Any]:
            async with room:
                body, md5 = await self._disk.run(_part, source, start, min(part_bytes, blob.size - start))
                answer = await _guarded(
                    self._s3.upload_part(**where, PartNumber=number, Body=body, ContentMD5=md5)
                )
                return {"PartNumber": number, "ETag": answer["ETag"]}

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(send(number, start))
                    for number, start in enumerate(range(0, blob.size, part_bytes), start=1)
                ]
            await failpoint("artifact.blob.before_complete")
            parts = [task.result() for task in tasks]
            await _guarded(self._s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}))
        except BaseException as error:
            await asyncio.shield(self._abort(where))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from error
            raise

    async def _abort(self, where: Mapping[str, str]) -> None:
        try:
            await self._s3.abort_multipart_upload(**where)
        except (ClientError, BotoCoreError):
            return  # completed after all, or the server is gone: its life-cycle rule for unfinished uploads clears up


async def _guarded(call: Coroutine[Any, Any, T]) -> T:
    """Awaits a call to the bucket and says in the domain's words what the caller can act on.

    Raises:
        StorageFull: the bucket's quota is used up.
        PeerUnavailable: the server cannot be reached, or failed after every retry.
    """
    try:
        return await call
    except ClientError as error:
        if _code(error) in _NO_ROOM:
            raise StorageFull from error
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _SERVER_FAULT:
            raise PeerUnavailable("blob store") from error
        raise
    except (HTTPClientError, UnreachableError) as error:
        raise PeerUnavailable("blob store") from error


def _part(source: Path, start: int, length: int) -> tuple[bytes, str]:
    with source.open("rb") as file:
        file.seek(start)
        body = file.read(length)
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    return body, base64.b64encode(md5).decode()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _config(endpoint: str) -> AioConfig:
    return AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint else "auto"},
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=64,
        # Not every S3 server knows the checksum trailers that newer clients send by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
