"""Calls that end in a way that gRPC does not tell of as it should."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard.api.artifact.v1.artifact_service_pb2 import UploadBlobsRequest

from .fake import Fake


class Ending:
    """A call that ends as `end` says."""

    def __init__(self, end: Callable[[], Any]) -> None:
        self._end = end

    def add_done_callback(self, _: Any) -> None:
        """Never called."""

    def __await__(self) -> Any:
        return self._run().__await__()

    async def _run(self) -> Any:
        return await self._end()


async def nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def send(client: AsyncClient, end: Callable[[], Any]) -> Any:
    return await client._connection.send(
        lambda *_, **__: Ending(end),  # type: ignore[arg-type,return-value]
        UploadBlobsRequest,
        nothing,  # type: ignore[arg-type]
        timeout=9.0,
    )


async def test_a_call_that_nobody_cancelled_was_cut_off(fake: Fake) -> None:
    async def cut() -> None:
        raise asyncio.CancelledError

    async with AsyncClient(fake.target, token="secret") as client:
        with pytest.raises(errors.Unavailable, match="cut while requests were being sent"):
            await send(client, cut)


async def test_a_caller_who_cancels_is_cancelled(fake: Fake) -> None:
    async with AsyncClient(fake.target, token="secret") as client:
        begun = asyncio.Event()

        async def wait() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(send(client, wait))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
