"""The days of Parquet files that there are in a folder or an S3 bucket, and their end.

What is removed is found by how such files are named (`parquet_logs.py`): nothing else below the folder or prefix is touched.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from modelyard_inference.log_files import ACCESS, PREDICT
from modelyard_inference.log_retention import Kept

_LOGS: Final = (ACCESS, PREDICT)
_DEPLOYMENT, _DAY = "deployment=", "day="
_CONNECT_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 20.0


def days_at(address: str, endpoint: str = "") -> Kept:
    """Return the days at an address that `ParquetLogs` takes, of the same S3 server."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return DaysOnDisk(Path(unquote(parts.path)))
    return DaysInBucket(parts.netloc, parts.path.strip("/"), endpoint)


class DaysOnDisk:
    """Days in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def remove_before(self, first: date) -> int:
        """See `Kept.remove_before`."""
        return await asyncio.to_thread(self._remove_before, first)

    def _remove_before(self, first: date) -> int:
        found = [
            day
            for log in _LOGS
            for day in (self._root / log).glob(f"{_DEPLOYMENT}*/{_DAY}*")
            if _day_of(day.name) < first
        ]
        for day in found:
            shutil.rmtree(day)
        return len(found)


class DaysInBucket:
    """Days below a prefix of a bucket.

    Args:
        bucket: its name.
        prefix: what stands before the names of logs, without a slash at its end.
        endpoint: address of the S3 server; empty: AWS. Credentials come the usual AWS way.
    """

    def __init__(self, bucket: str, prefix: str, endpoint: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint

    async def remove_before(self, first: date) -> int:
        """See `Kept.remove_before`."""
        removed = 0
        async with self._client() as s3:
            for log in _LOGS:
                for deployment in await self._below(s3, f"{self._prefix}{log}/", _DEPLOYMENT):
                    for day in await self._below(s3, deployment, _DAY):
                        if _day_of(_name_of(day)) < first:
                            await self._remove(s3, day)
                            removed += 1
        return removed

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        """Give a client; what it fails with comes out as OSError."""
        config = AioConfig(
            signature_version="s3v4", connect_timeout=_CONNECT_SECONDS, read_timeout=_REQUEST_SECONDS
        )
        try:
            async with get_session().create_client(
                "s3", endpoint_url=self._endpoint or None, config=config
            ) as s3:
                yield s3
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from error

    async def _below(self, s3: Any, prefix: str, name: str) -> list[str]:
        """Return the folders right below a prefix whose names begin with a text."""
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix, Delimiter="/"
        )
        found = [each["Prefix"] async for page in pages for each in page.get("CommonPrefixes", ())]
        return [each for each in found if _name_of(each).startswith(name)]

    async def _remove(self, s3: Any, folder: str) -> None:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=folder)
        keys = [each["Key"] async for page in pages for each in page.get("Contents", ())]
        for key in keys:
            await s3.delete_object(Bucket=self._bucket, Key=key)


def _name_of(prefix: str) -> str:
    return prefix.rstrip("/").rpartition("/")[2]


def _day_of(name: str) -> date:
    """Return the day of a folder; one that never comes for what is named otherwise, which is not ours."""
    try:
        return date.fromisoformat(name.removeprefix(_DAY))
    except ValueError:
        return date.max
