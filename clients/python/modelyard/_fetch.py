"""The part of a download that needs the network: many small files in a call, large ones in parallel ranges.

Ranges come straight from the object store where it gives addresses, else through the service.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from modelyard import errors
from modelyard._chunks import read_chunk
from modelyard._http import ObjectStore, Refused, Unreachable
from modelyard._local import check
from modelyard._manifest import BATCH_BYTES, batches
from modelyard._tasks import together
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._connection import Connection
    from modelyard._local import Tree
    from modelyard._partial import PartialFile
    from modelyard._progress import Advance
    from modelyard.types import FileEntry, FileUrl

T = TypeVar("T")

MAX_ATTEMPTS = 8
"""Calls cut one after the other without a byte getting through, before giving up."""
SMALL_BYTES = 256 * 1024
"""Files up to this size come together."""
DIRECT_BYTES = 8 * 1024 * 1024
"""Smaller files come through the service."""
_SMALL_FILES = 1000
_SMALL_BATCH_BYTES = 16 * 1024 * 1024
_CALLS = 4
"""Calls, or ranges from the object store, at once."""
_FILES = 4
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 8.0
_READ_SECONDS = 3600.0
CUT = (errors.Unavailable, errors.DeadlineExceeded, errors.Cancelled, errors.Unauthenticated)


class Fetch:
    """Brings the files of a version into a tree."""

    def __init__(
        self,
        artifacts: AsyncArtifacts,
        connection: Connection,
        reference: str,
        tree: Tree,
        advance: Advance,
    ) -> None:
        self._artifacts = artifacts
        self._connection = connection
        self._reference = reference
        self._tree = tree
        self._advance = advance
        self._calls = asyncio.Semaphore(_CALLS)
        self._files = asyncio.Semaphore(_FILES)
        self._direct = True
        self._urls: dict[str, asyncio.Task[FileUrl]] = {}
        self._store = ObjectStore()
        self._pool = ThreadPoolExecutor(_CALLS, thread_name_prefix="modelyard-fetch")

    async def run(self) -> None:
        """Fetch everything that is not here.

        Raises:
            DigestMismatch: something came that the manifest does not announce.
        """
        try:
            missing = await self._look_here()
            small = [file for file in missing if file.size <= SMALL_BYTES]
            large = [file for file in missing if file.size > SMALL_BYTES]
            await together(
                [*(self._large(file) for file in large), *(self._small(some) for some in _groups(small))]
            )
            self._tree.fetched.extend(missing)
            await self._thread(self._tree.copy_twins)
            self._advance(sum(file.size for file, _ in self._tree.twins), len(self._tree.twins))
        finally:
            self._store.stop()
            self._pool.shutdown(wait=False, cancel_futures=True)
            for task in self._urls.values():
                task.cancel()

    async def _look_here(self) -> list[FileEntry]:
        missing: list[FileEntry] = []
        for some in batches(self._tree.contents, lambda file: file.size):
            here = await self._thread(self._tree.present, some)
            for file, found in zip(some, here, strict=True):
                if found:
                    self._advance(file.size, 1)
                else:
                    missing.append(file)
        return missing

    async def _small(self, files: Sequence[FileEntry]) -> None:
        """Fetch small files in one call, and in another one those that a cut left."""
        left = list(files)

        async def once() -> bool:
            before = len(left)
            try:
                async with self._calls:
                    await self._read_files(left)
            except CUT:
                if len(left) == before:
                    raise
            return not left

        await _insist(once)

    async def _read_files(self, left: list[FileEntry]) -> None:
        """Fetch files in one call; those that were written disappear from `left`."""
        request = pb.ReadFilesRequest(model_version=self._reference, paths=[file.path for file in left])
        wanted = list(left)
        writer = _Writer(self._thread)
        came: list[tuple[FileEntry, bytes]] = []
        size = index = 0
        data: list[bytes] = []

        async def write() -> None:
            batch = list(came)
            await writer.put(
                lambda: self._tree.write_small(batch),
                lambda: self._written(left, batch),
            )

        try:
            method = self._connection.artifact.ReadFiles
            async with aclosing(self._connection.receive(method, request, timeout=_READ_SECONDS)) as answers:
                async for answer in answers:
                    for piece in answer.pieces:
                        if piece.index != index or index >= len(wanted):
                            short = wanted[min(index, len(wanted) - 1)]
                            check(short, sum(map(len, data)), "of something else")
                        data.append(piece.data)
                        if sum(map(len, data)) >= wanted[index].size:
                            came.append((wanted[index], b"".join(data)))
                            size += wanted[index].size
                            data, index = [], index + 1
                    if size >= BATCH_BYTES:
                        await write()
                        came, size = [], 0
        finally:
            if came:
                await write()
            await writer.close()
        if index < len(wanted):
            check(wanted[index], sum(map(len, data)), "of something shorter")

    def _written(self, left: list[FileEntry], batch: Sequence[tuple[FileEntry, bytes]]) -> None:
        del left[: len(batch)]
        self._advance(sum(file.size for file, _ in batch), len(batch))

    async def _large(self, file: FileEntry) -> None:
        """Fetch one file; once more from the beginning if what an earlier program left of it was wrong."""
        async with self._files:
            partial = await self._thread(self._tree.partial, file)
            try:
                self._advance(partial.done)
                await together(self._segment(partial, number) for number in partial.missing())
                size, sha256 = await self._thread(partial.prove)
            finally:
                await self._thread(partial.close)
        if (size, sha256) != (file.size, file.sha256) and partial.resumed:
            await self._thread(partial.remove)
            self._advance(-size)
            await self._large(file)
            return
        check(file, size, sha256)
        self._advance(0, 1)

    async def _segment(self, partial: PartialFile, number: int) -> None:
        async def once() -> bool:
            before = partial.left(number)[1]
            try:
                ended = await self._read_direct(partial, number) or await self._read_range(partial, number)
            except CUT:
                if partial.left(number)[1] == before:
                    raise
                return False
            # A stream that ends too early is found when the file is proved.
            return ended

        if partial.left(number)[1]:
            async with self._calls:
                await _insist(once)

    async def _read_range(self, partial: PartialFile, number: int) -> bool:
        """Read what a segment lacks through the service."""
        offset, length = partial.left(number)
        request = pb.ReadFileRequest(
            model_version=self._reference, path=partial.entry.path, offset=offset, length=length
        )
        writer = _Writer(self._thread)
        came: list[memoryview] = []
        size = 0

        async def write(pieces: list[memoryview], size: int) -> None:
            await writer.put(lambda: _write(partial, number, pieces), lambda: self._advance(size))

        method = self._connection.raw_artifact.ReadFile
        try:
            async with aclosing(self._connection.receive(method, request, timeout=_READ_SECONDS)) as messages:
                async for message in messages:
                    piece = read_chunk(message)
                    came.append(piece)
                    size += len(piece)
                    if size >= BATCH_BYTES:
                        await write(came, size)
                        came, size = [], 0
        finally:
            if came:
                await write(came, size)
            await writer.close()
        return True

    async def _read_direct(self, partial: PartialFile, number: int) -> bool:
        """Read what a segment lacks from the object store; false if that cannot be done."""
        if not self._direct or partial.entry.size < DIRECT_BYTES:
            return False
        loop = asyncio.get_running_loop()

        def write(data: memoryview) -> None:
            partial.write(number, data)

        def tell(size: int) -> None:
            loop.call_soon_threadsafe(self._advance, size)

        for _ in range(2):  # once more with a new address
            try:
                url = await self._sign(partial.entry.path)
                offset, length = partial.left(number)
                await loop.run_in_executor(
                    self._pool, self._store.get, url.request, offset, length, write, tell
                )
            except Refused:
                self._urls.pop(partial.entry.path, None)
                continue
            except (Unreachable, errors.DirectTransferUnavailable, errors.Unimplemented):
                self._direct = False
                return False
            return True
        self._direct = False
        return False

    async def _sign(self, path: str) -> FileUrl:
        """The address of a file, asked for once while it works."""
        known = self._urls.get(path)
        if known is None:
            known = self._urls[path] = asyncio.create_task(self._ask(path))
        return await asyncio.shield(known)

    async def _ask(self, path: str) -> FileUrl:
        [url] = await self._artifacts.sign_download_urls(self._reference, [path])
        return url

    async def _thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.to_thread(work, *arguments)


class _Writer:
    """Runs pieces of work in threads in their order, one at a time, while the caller prepares the next."""

    def __init__(self, thread: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        self._thread = thread
        self._task: asyncio.Task[None] | None = None

    async def put(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Wait for the piece before, then begin this one."""
        await self.close()
        self._task = asyncio.create_task(self._do(work, then))

    async def close(self) -> None:
        """Wait for the last piece."""
        task, self._task = self._task, None
        if task:
            await task

    async def _do(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        await self._thread(work)
        then()


def _write(partial: PartialFile, number: int, pieces: Sequence[memoryview]) -> None:
    for piece in pieces:
        if partial.write(number, piece) < len(piece):
            check(partial.entry, partial.done + len(piece), "of something longer")


async def _insist(once: Callable[[], Awaitable[bool]]) -> None:
    """Do something until it says that it is done; cuts without progress are counted, with pauses in between."""
    attempts = 0
    while True:
        try:
            if await once():
                return
            attempts = 0
        except CUT:
            attempts += 1
            if attempts >= MAX_ATTEMPTS:
                raise
        await asyncio.sleep(min(_FIRST_PAUSE * 2**attempts, _LONGEST_PAUSE))


def _groups(files: Sequence[FileEntry]) -> list[list[FileEntry]]:
    groups: list[list[FileEntry]] = []
    size = 0
    for file in files:
        if not groups or size + file.size > _SMALL_BATCH_BYTES or len(groups[-1]) == _SMALL_FILES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file.size
    return groups
