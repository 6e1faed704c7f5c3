"""Calls to an S3 server, and reading an object whatever the network does."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError

from modelyard_artifact.errors import BlobLost, StorageFull
from modelyard_artifact.models import CHUNK_BYTES
from modelyard_kit.errors import PeerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from modelyard_artifact.models import Blob

T = TypeVar("T")

NOT_IMPLEMENTED = "NotImplemented"
"""The code of 501: the server does not know what it is asked for, and never will."""
_SERVER_FAULT = 500
_ABSENT = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_NO_ROOM = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"}
_CUT = (BotoCoreError, aiohttp.ClientError, ConnectionError, asyncio.TimeoutError)
_READ_ATTEMPTS = 6
"""Cuts one after the other without a byte getting through, before giving up."""
_FIRST_PAUSE = 0.1


async def guarded(call: Coroutine[Any, Any, T]) -> T:
    """Awaits a call to the bucket and says in the domain's words what the caller can act on.

    Raises:
        StorageFull: the bucket's quota is used up.
        PeerUnavailable: the server cannot be reached, or failed after every retry.
    """
    try:
        return await call
    except ClientError as error:
        if code(error) in _NO_ROOM:
            raise StorageFull from error
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= _SERVER_FAULT and code(error) != NOT_IMPLEMENTED:
            raise PeerUnavailable("blob store") from error
        raise
    except (HTTPClientError, UnreachableError) as error:
        raise PeerUnavailable("blob store") from error


async def found(call: Coroutine[Any, Any, T]) -> T | None:
    """Awaits a call to the bucket; None when what it asks for is not there. Raises what `guarded` does."""
    try:
        return await guarded(call)
    except ClientError as error:
        if code(error) in _ABSENT:
            return None
        raise


async def unfinished(s3: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """The multipart uploads below a prefix that are not complete, as S3 lists them. Raises what `guarded` does."""

    async def listed() -> list[dict[str, Any]]:
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        # Not every server heeds the prefix.
        return [
            each async for page in pages for each in page.get("Uploads", ()) if each["Key"].startswith(prefix)
        ]

    # A server that says "no such upload" to a question for all of them has none.
    return await found(listed()) or []


async def read_object(
    s3: Any, bucket: str, key: str, blob: Blob, offset: int, length: int
) -> AsyncIterator[bytes]:
    """Yields a range of an object in pieces of at most 1 MiB; what is cut off is asked for again from where it ended.

    Raises:
        BlobLost: the object is not there or too short.
        PeerUnavailable: cut again and again without a byte getting through.
    """
    end, failures = offset + length, 0
    while offset < end:
        try:
            answer = await found(s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={offset}-{end - 1}"))
        except ClientError as error:
            raise BlobLost(blob.sha256, f"cannot be read from byte {offset}: {code(error)}") from error
        if answer is None:
            raise BlobLost(blob.sha256, "is not in the bucket")
        _check_range(answer, blob, offset)
        async with answer["Body"] as body:
            while offset < end:
                piece = await _next_piece(body, end - offset)
                if not piece:
                    break
                failures, offset = 0, offset + len(piece)
                yield piece
        if offset < end:
            failures += 1
            if failures >= _READ_ATTEMPTS:
                raise PeerUnavailable("blob store")
            await asyncio.sleep(_FIRST_PAUSE * 2**failures)


def code(error: ClientError) -> str:
    """The error code that the server gave."""
    return str(error.response.get("Error", {}).get("Code", ""))


def region() -> str:
    """The region, from where every AWS client takes it."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def config(endpoint: str, timeout: float) -> AioConfig:
    """How every call is made; `timeout` in seconds is for one silence of the server."""
    return AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint else "auto"},
        retries={"mode": "standard", "max_attempts": 5},
        connect_timeout=min(5.0, timeout),
        read_timeout=timeout,
        max_pool_connections=64,
        # Not every S3 server knows the checksum trailers that newer clients send by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _check_range(answer: Any, blob: Blob, offset: int) -> None:
    whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
    if whole.isdigit() and int(whole) != blob.size:
        raise BlobLost(blob.sha256, f"has {whole} bytes instead of {blob.size}")
    if offset and not whole:
        raise BlobLost(blob.sha256, "the server ignores ranges")


async def _next_piece(body: Any, wanted: int) -> bytes:
    """The next bytes; none when the answer ended or was cut."""
    try:
        piece: bytes = await body.read(min(CHUNK_BYTES, wanted))
    except _CUT:
        return b""
    return piece
