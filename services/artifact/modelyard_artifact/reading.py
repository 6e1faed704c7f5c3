"""The rules of reading: look up an artifact, list and read its files. Nothing here changes anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard_artifact import store
from modelyard_artifact.errors import OffsetMismatch
from modelyard_artifact.lookup import committed, permitted_model, version_digest
from modelyard_artifact.models import CHUNK_BYTES, FilePage
from modelyard_kit.errors import InvalidState, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.blobs import BlobStore
    from modelyard_artifact.lookup import Catalog
    from modelyard_artifact.models import Artifact, FileEntry
    from modelyard_kit.auth import Call
    from modelyard_kit.db import Database
    from modelyard_kit.filters import Asked

_REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True, slots=True)
class ListFiles:
    """A page of the manifest of a version."""

    version: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A range of a file of a version; length 0 means to the end."""

    version: str
    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ReadFiles:
    """Many files of a version, whole."""

    version: str
    paths: tuple[str, ...]


class Reading:
    """Use cases of reading."""

    def __init__(self, database: Database, blobs: BlobStore, catalog: Catalog) -> None:
        self._database = database
        self._blobs = blobs
        self._catalog = catalog

    async def artifact(self, call: Call, digest: str, model_name: str) -> Artifact:
        """Finds an artifact that was committed for a model.

        Raises:
            NotFound: no such model, or nothing with that digest was committed for it.
        """
        model = await permitted_model(self._catalog, call, model_name)

        async def work(connection: AsyncConnection) -> Artifact | None:
            return await store.get_artifact(connection, digest, model_id=model.id)

        artifact = await self._database.read(work)
        if artifact is None:
            raise NotFound("artifact", digest)
        return artifact

    async def list_files(self, command: ListFiles) -> FilePage:
        """Reads a page of the manifest of a version.

        Raises:
            NotFound: no such version, or its artifact is gone.
            InvalidState: the version has no artifact yet.
            InvalidField: filter or order_by has a mistake, or the page token belongs to other ones, or to another version.
            LimitExceeded: filter or order_by is too large.
        """
        digest = await version_digest(self._catalog, command.version)

        async def work(connection: AsyncConnection) -> FilePage:
            await committed(connection, digest)
            return FilePage(digest, *await store.page_of_files(connection, digest, command.asked))

        return await self._database.read(work)

    async def read_file(self, command: ReadFile) -> AsyncIterator[bytes]:
        """Yields a range of a file of a version in pieces of at most 1 MiB.

        Raises:
            NotFound: no such version or file.
            InvalidState: the version has no artifact yet.
            OffsetMismatch: the range begins beyond the end of the file.
        """
        digest = await version_digest(self._catalog, command.version)

        async def work(connection: AsyncConnection) -> FileEntry | None:
            await committed(connection, digest)
            return await store.get_file(connection, digest, command.path)

        file = await self._database.read(work)
        if file is None:
            raise NotFound("file", command.path)
        if command.offset > file.size:
            raise OffsetMismatch(
                f"{command.path!r} has {file.size} bytes: offset {command.offset} is beyond its end",
                expected=file.size,
                actual=command.offset,
            )
        length = file.size - command.offset
        if command.length:
            length = min(length, command.length)
        async for piece in self._blobs.read(file.blob, command.offset, length):
            yield piece

    async def read_files(self, command: ReadFiles) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Yields files of a version one after the other as (place in the paths, bytes), at most 1 MiB at once.

        Raises:
            NotFound: no such version or file.
            InvalidState: the version has no artifact yet.
        """
        digest = await version_digest(self._catalog, command.version)

        async def work(connection: AsyncConnection) -> dict[str, FileEntry]:
            await committed(connection, digest)
            return await store.get_files(connection, digest, command.paths)

        found = await self._database.read(work)
        for path in command.paths:
            if path not in found:
                raise NotFound("file", path)
        async for pieces in self._blobs.read_each([found[path].blob for path in command.paths]):
            yield pieces

    async def sbom(self, reference: str) -> str:
        """Makes the bill of materials of a version, CycloneDX JSON.

        Raises:
            NotFound: no such version, or its artifact is gone.
            InvalidState: the version has no artifact yet.
            PeerUnavailable: the catalog does not answer.
        """
        version = await self._catalog.describe(reference)
        if version.state != "READY" or not version.digest:
            raise InvalidState("model_version", version.name, state=version.state, wanted="READY")

        async def work(connection: AsyncConnection) -> list[FileEntry]:
            artifact = await committed(connection, version.digest)
            return await store.list_files(connection, version.digest, "", artifact.file_count)

        files = await self._database.read(work)
        required = await self._requirements(files)
        from modelyard_artifact import sbom  # writes by a large library, which a service may never need

        return await asyncio.to_thread(sbom.document, version, files, required)

    async def _requirements(self, files: Sequence[FileEntry]) -> list[str]:
        """The lines of the artifact's requirements.txt, if it has one of a sensible size."""
        for file in files:
            if file.path == _REQUIREMENTS and file.size <= CHUNK_BYTES:
                pieces = [piece async for piece in self._blobs.read(file.blob, 0, file.size)]
                return b"".join(pieces).decode(errors="replace").splitlines()
        return []
