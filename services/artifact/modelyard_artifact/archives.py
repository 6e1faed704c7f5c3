"""The rules of archives: all files of a version as one zip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard_artifact import store
from modelyard_artifact.lookup import version_digest
from modelyard_artifact.models import CHUNK_BYTES
from modelyard_artifact.zips import ZipWriter
from modelyard_kit.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.lookup import Catalog
    from modelyard_artifact.models import FileEntry
    from modelyard_kit.db import Database

_FILES_AT_ONCE = 1_000


class Archives:
    """Use cases of archives."""

    def __init__(self, database: Database, blobs: BlobStore, catalog: Catalog) -> None:
        self._database = database
        self._blobs = blobs
        self._catalog = catalog

    async def read(self, version: str) -> AsyncIterator[bytes]:
        """Yields the zip of a version in pieces of at most 1 MiB; of the files only one piece is in memory.

        Raises:
            NotFound: no such version, or its artifact is gone.
            InvalidState: the version has no artifact yet.
        """
        digest = await version_digest(self._catalog, version)
        kept = bytearray()  # headers are small: they travel with what comes next
        async for piece in self._pieces(digest):
            kept += piece
            while len(kept) >= CHUNK_BYTES:
                yield bytes(kept[:CHUNK_BYTES])
                del kept[:CHUNK_BYTES]
        if kept:
            yield bytes(kept)

    async def _pieces(self, digest: str) -> AsyncIterator[bytes]:
        writer = ZipWriter()
        async for file in self._files(digest):
            yield writer.begin(file.path, file.size)
            async for piece in self._blobs.read(file.blob, 0, file.size):
                writer.add(piece)
                yield piece
            yield writer.end()
        yield writer.close()

    async def _files(self, digest: str) -> AsyncIterator[FileEntry]:
        after = ""
        while True:

            async def work(connection: AsyncConnection, after: str = after) -> list[FileEntry]:
                if await store.get_artifact(connection, digest) is None:
                    raise NotFound("artifact", digest)
                return await store.list_files(connection, digest, after, _FILES_AT_ONCE)

            files = await self._database.read(work)
            for file in files:
                yield file
            if len(files) < _FILES_AT_ONCE:
                return
            after = files[-1].path
