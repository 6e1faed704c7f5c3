"""Blobs straight to and from the object store, by addresses that the service signs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from modelyard import errors
from modelyard._http import ObjectStore, Refused, Unreachable
from modelyard._tasks import together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._manifest import LocalFile
    from modelyard.types import BlobUrls, MissingBlob, PartUrl

PARTS = 8
"""Parts on their way at once."""
_BLOBS = 4
_ROUNDS = 5
"""Times that addresses are asked for without a part getting through in between."""
_FINISH_SECONDS = 3600.0
"""The service reads a large blob once more to prove its hash."""


class DirectSender:
    """Sends blobs in parts, several parts at once; memory does not grow with their size."""

    def __init__(
        self, artifacts: AsyncArtifacts, files: Mapping[str, LocalFile], tell: Callable[[int], None]
    ) -> None:
        self._artifacts = artifacts
        self._files = files
        self._tell = tell

    async def send(self, upload_id: str, blobs: Sequence[MissingBlob]) -> list[MissingBlob]:
        """Send blobs; returns those that have to go through the service instead.

        Raises:
            DigestMismatch: a file is not any more what was announced.
        """
        store = ObjectStore()
        pool = ThreadPoolExecutor(PARTS, thread_name_prefix="modelyard-send")
        slots = asyncio.Semaphore(_BLOBS)

        async def one(blob: MissingBlob) -> bool:
            async with slots:
                return await self._blob(upload_id, blob, store, pool)

        try:
            sent = await together(one(blob) for blob in blobs)
        finally:
            store.stop()
            pool.shutdown(wait=False, cancel_futures=True)
        return [blob for blob, done in zip(blobs, sent, strict=True) if not done]

    async def _blob(
        self, upload_id: str, blob: MissingBlob, store: ObjectStore, pool: ThreadPoolExecutor
    ) -> bool:
        """Send one blob; false if it cannot be done this way."""
        left = blob.size
        attempts = 0
        while attempts < _ROUNDS:
            try:
                signed = await self._artifacts.sign_upload_urls(upload_id, [blob.sha256])
                if not signed:
                    self._tell(left)
                    return True  # somebody else was faster
                urls = signed[0]
                now = sum(part.length for part in urls.parts)
                if left == blob.size:
                    self._tell(left - now)  # sent by an earlier program
                attempts = 0 if now < left else attempts + 1
                left = now
                await self._parts(urls, store, pool)
                left = 0
                await self._artifacts.finish_blob(upload_id, blob.sha256, timeout=_FINISH_SECONDS)
            except (Refused, errors.UploadIncomplete):
                continue  # addresses that ran out, or parts that the store lost: ask what is missing
            except (Unreachable, errors.DirectTransferUnavailable):
                return False
            except errors.InvalidState:
                return True  # another program of ours ended this upload; the next round sees it
            else:
                return True
        return False

    async def _parts(self, urls: BlobUrls, store: ObjectStore, pool: ThreadPoolExecutor) -> None:
        local = self._files[urls.sha256]
        loop = asyncio.get_running_loop()

        def tell(size: int) -> None:
            loop.call_soon_threadsafe(self._tell, size)

        failed = threading.Event()

        def put(part: PartUrl) -> None:
            if failed.is_set():
                raise Refused("a part before it failed")
            try:
                store.put(part.request, local.source, local.offset + part.offset, part.length, tell)
            except BaseException:
                failed.set()
                raise

        # All of them end before somebody asks what is missing: what is on its way would be sent twice.
        ends = await asyncio.gather(
            *(loop.run_in_executor(pool, put, part) for part in urls.parts), return_exceptions=True
        )
        for kind in (Unreachable, BaseException):  # the one that says most
            for end in ends:
                if isinstance(end, kind):
                    raise end
