"""The calls that bundles are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard import _upload
from modelyard._artifacts import AsyncArtifacts
from modelyard._cards import AsyncCards
from modelyard._catalog import AsyncModels
from modelyard._labels import AsyncAliases
from modelyard._lineage import AsyncLineage
from modelyard._namespace import Namespace, version_reference
from modelyard._versions import AsyncVersions
from modelyard.api.governance.v1 import governance_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard._connection import Connection
    from modelyard._manifest import LocalFile
    from modelyard._progress import Progress

_LONG_SECONDS = 300.0


class Verbs(Namespace):
    """Verbs of several nouns, on one connection."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.models = AsyncModels(connection)
        self.versions = AsyncVersions(connection)
        self.aliases = AsyncAliases(connection)
        self.artifacts = AsyncArtifacts(connection)
        self.cards = AsyncCards(connection)
        self.lineage = AsyncLineage(connection)

    async def describe(self, reference: str) -> tuple[tuple[str, ...], str]:
        """The lines of the document of a version as it stands in bundles, and what `sign` wants to see of it."""
        request = pb.DescribeVersionForExportRequest(model_version=version_reference(reference))
        method = self._connection.governance.DescribeVersionForExport
        lines: list[str] = []
        seal = ""
        async for answer in self._connection.receive(method, request, timeout=_LONG_SECONDS):
            lines += answer.lines
            seal = answer.seal
        return tuple(lines), seal

    async def sign(self, manifest: str, *, share: str = "") -> tuple[str, str]:
        """Have the manifest of a bundle signed; returns what is signed of it, and the signature."""
        request = pb.SignBundleRequest(manifest=manifest, share=share)
        method = self._connection.governance.SignBundle
        answer = await self._connection.call(method, request, timeout=_LONG_SECONDS)
        return answer.statement, answer.signature

    async def store(self, model: str, files: Sequence[LocalFile], progress: Progress) -> None:
        """Store files that lie in a bundle for a model."""
        await _upload.store(self.artifacts, self._connection, model, files, progress)
