"""Blobs in a bucket of an S3 server, through aiobotocore.

An object under `<prefix>blobs/ab/cd/<sha256>` is always complete and right: content that passes the service is received in
partials on the local disk (`staging`), verified there, and only then sent to the bucket; content that clients send to the
bucket themselves waits under another name until it is proved (see `direct`). Small blobs go in one put, large ones in parts;
S3 shows an object only when the last part is confirmed. Every part carries an MD5 that most servers check, which cannot be
said of the newer checksums.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from modelyard_artifact.blobs import BlobStore
from modelyard_artifact.blobs.direct import DirectTransfers
from modelyard_artifact.blobs.local import DEFAULT_RESERVE
from modelyard_artifact.blobs.marks import MARK_NAME, Mark
from modelyard_artifact.blobs.partials import Disk, Partials, make_folder
from modelyard_artifact.blobs.s3_calls import (
    NOT_IMPLEMENTED,
    code,
    config,
    found,
    guarded,
    read_object,
    region,
    unfinished,
)
from modelyard_artifact.models import Blob
from modelyard_kit.clock import Clock, utc_now
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import failpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from modelyard_artifact.blobs import Partial

T = TypeVar("T")

_PART_BYTES = 8 << 20
_MAX_PARTS = 10_000
_PARTS_IN_MEMORY = 64 << 20
_PUTS_AT_ONCE = 16
_ANOTHER_WAS_FIRST = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
DEFAULT_EXPIRY = timedelta(hours=1)
DEFAULT_TIMEOUT = 60.0


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
        direct: whether clients get addresses of the bucket.
        public_endpoint: address at which clients reach the server; empty: the same.
        expiry: how long such an address works.
        timeout: seconds of silence after which a call is tried again.
        clock: the time.
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
        direct: bool = True,
        public_endpoint: str = "",
        expiry: timedelta = DEFAULT_EXPIRY,
        timeout: float = DEFAULT_TIMEOUT,
        clock: Clock = utc_now,
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._endpoint = endpoint
        self._part_bytes = part_bytes
        self._disk = Disk()
        self._staging = staging / "partial"
        self._partials = Partials(self._staging, self._disk, self._publish, reserve=reserve, read_next=True)
        self._stack = AsyncExitStack()
        self._s3: Any = None
        self._wants_direct = direct
        self._public_endpoint = public_endpoint or endpoint
        self._expiry = expiry
        self._timeout = timeout
        self._clock = clock
        self._direct: DirectTransfers | None = None

    async def open(self) -> None:
        """Connects and asks for the bucket, so that a wrong name, key or endpoint is found at the start.

        Raises:
            RuntimeError: the bucket cannot be used; says which setting to look at.
        """
        await self._disk.run(make_folder, self._staging)
        signer = self._s3 = await self._client(self._endpoint)
        if self._public_endpoint != self._endpoint:
            signer = await self._client(self._public_endpoint)
        direct = DirectTransfers(
            self._s3,
            signer,
            self._bucket,
            self._prefix,
            part_bytes=self._part_bytes,
            expiry=self._expiry,
            clock=self._clock,
            final_key=self._key,
        )
        try:
            await self._s3.head_bucket(Bucket=self._bucket)
            if self._wants_direct:
                await direct.probe()
        except (ClientError, BotoCoreError, DomainError) as error:
            await self.close()
            raise RuntimeError(
                f"bucket {self._bucket!r} at {self._endpoint or 'AWS'} cannot be used: {error}; check MODELYARD_BLOBS,"
                " MODELYARD_S3_ENDPOINT and the AWS credentials in the environment"
            ) from error
        # What was sent before the setting changed is still thrown away and finished.
        self._direct = direct

    async def _client(self, endpoint: str) -> Any:
        made = get_session().create_client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=region(),
            config=config(endpoint, self._timeout),
        )
        return await self._stack.enter_async_context(made)

    async def close(self) -> None:
        """See BlobStore."""
        await self._stack.aclose()
        self._disk.close()

    async def mark(self) -> Mark | None:
        """See BlobStore."""
        answer = await found(self._s3.get_object(Bucket=self._bucket, Key=self._mark_key))
        if answer is None:
            return None
        async with answer["Body"] as body:
            return Mark.parse(await guarded(body.read()))

    async def write_mark(self, mark: Mark, *, first: bool) -> None:
        """See BlobStore. A server that knows no conditions, or refuses them, takes the last of two who try at the same moment."""
        where = {"Bucket": self._bucket, "Key": self._mark_key, "Body": mark.content}
        condition = {"IfNoneMatch": "*"} if first else {}
        try:
            await guarded(self._s3.put_object(**where, **condition))
        except ClientError as error:
            if first and code(error) == NOT_IMPLEMENTED:
                await self.write_mark(mark, first=False)
            elif not (first and code(error) in _ANOTHER_WAS_FIRST):
                raise

    async def size(self, sha256: str) -> int | None:
        """See BlobStore."""
        answer = await found(self._s3.head_object(Bucket=self._bucket, Key=self._key(sha256)))
        return None if answer is None else int(answer["ContentLength"])

    async def received(self, owner: str) -> Mapping[str, int]:
        """See BlobStore."""
        return await self._partials.received(owner)

    async def resume(self, owner: str, blob: Blob) -> Partial:
        """See BlobStore."""
        return await self._partials.resume(owner, blob)

    async def discard(self, owner: str) -> None:
        """See BlobStore."""
        await self._partials.discard(owner)
        if self._direct:
            await self._direct.discard(owner)

    async def owners(self) -> Collection[str]:
        """See BlobStore."""
        local = set(await self._partials.owners())
        return local | await self._direct.owners() if self._direct else local

    async def tidy(self, older_than: datetime) -> None:
        """Aborts multipart uploads that a crash left under the names of blobs."""
        for each in await unfinished(self._s3, self._bucket, f"{self._prefix}blobs/"):
            if each["Initiated"] < older_than:
                await self._abort({"Bucket": self._bucket, "Key": each["Key"], "UploadId": each["UploadId"]})

    async def stored(self, older_than: datetime) -> AsyncIterator[Blob]:
        """See BlobStore."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}blobs/"
        )
        async for page in pages:
            for item in page.get("Contents", ()):
                if item["LastModified"] < older_than:
                    yield Blob(item["Key"].rpartition("/")[2], int(item["Size"]))

    async def put_whole(self, owner: str, contents: Mapping[Blob, bytes | memoryview]) -> None:
        """See BlobStore. Straight to the bucket, many at once."""
        del owner  # nothing of it waits anywhere
        room = asyncio.Semaphore(_PUTS_AT_ONCE)

        async def put(blob: Blob, data: bytes | memoryview) -> None:
            async with room:
                body = bytes(data)  # botocore takes no view
                await self._put(blob, body, _md5(body))

        await failpoint("artifact.blob.before_put")
        await _all([put(blob, data) for blob, data in contents.items()])
        await failpoint("artifact.blob.after_put")

    @property
    def direct(self) -> DirectTransfers | None:
        """See BlobStore."""
        return self._direct if self._wants_direct else None

    async def read(self, blob: Blob, offset: int, length: int) -> AsyncIterator[bytes]:
        """See BlobStore."""
        async for piece in read_object(self._s3, self._bucket, self._key(blob.sha256), blob, offset, length):
            yield piece

    async def delete(self, sha256: str) -> None:
        """See BlobStore."""
        await guarded(self._s3.delete_object(Bucket=self._bucket, Key=self._key(sha256)))

    @property
    def _mark_key(self) -> str:
        return f"{self._prefix}{MARK_NAME}"

    def _key(self, sha256: str) -> str:
        return f"{self._prefix}blobs/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    async def _publish(self, source: Path, blob: Blob) -> None:
        if await self.size(blob.sha256) == blob.size:
            return
        await failpoint("artifact.blob.before_put")
        if blob.size <= self._part_bytes:
            await self._put(blob, *await self._disk.run(_part, source, 0, blob.size))
        else:
            await self._put_parts(source, blob)
        await failpoint("artifact.blob.after_put")

    async def _put(self, blob: Blob, body: bytes, md5: str) -> None:
        where = {"Bucket": self._bucket, "Key": self._key(blob.sha256)}
        await guarded(self._s3.put_object(**where, Body=body, ContentMD5=md5))

    async def _put_parts(self, source: Path, blob: Blob) -> None:
        where = {"Bucket": self._bucket, "Key": self._key(blob.sha256)}
        upload_id = (await guarded(self._s3.create_multipart_upload(**where)))["UploadId"]
        where["UploadId"] = upload_id
        part_bytes = max(self._part_bytes, -(-blob.size // _MAX_PARTS))
        room = asyncio.Semaphore(max(1, _PARTS_IN_MEMORY // part_bytes))

        async def send(number: int, start: int) -> dict[str, Any]:
            async with room:
                body, md5 = await self._disk.run(_part, source, start, min(part_bytes, blob.size - start))
                answer = await guarded(
                    self._s3.upload_part(**where, PartNumber=number, Body=body, ContentMD5=md5)
                )
                return {"PartNumber": number, "ETag": answer["ETag"]}

        starts = enumerate(range(0, blob.size, part_bytes), start=1)
        try:
            parts = await _all([send(number, start) for number, start in starts])
            await failpoint("artifact.blob.before_complete")
            await guarded(self._s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}))
        except BaseException:
            await asyncio.shield(self._abort(where))
            raise

    async def _abort(self, where: Mapping[str, str]) -> None:
        try:
            await self._s3.abort_multipart_upload(**where)
        except (ClientError, BotoCoreError):
            return  # completed after all, or the server is gone: `tidy` comes back to it


async def _all(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of calls made at once; the first failure ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


def _part(source: Path, start: int, length: int) -> tuple[bytes, str]:
    with source.open("rb") as file:
        file.seek(start)
        body = file.read(length)
    return body, _md5(body)


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
