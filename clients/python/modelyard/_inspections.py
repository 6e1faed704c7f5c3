"""Inspections: what the artifact service found out about artifacts from their files."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from modelyard import errors
from modelyard._convert import from_proto
from modelyard._namespace import Namespace, resource_name
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.types import Inspection, InspectionState

if TYPE_CHECKING:
    pass

_PAUSE_SECONDS = 0.5


class AsyncInspections(Namespace):
    """`client.inspections`: OCI's introspection tests, formats of files, and harmful content, found by the artifact service."""

    async def get(self, digest: str, *, model: str) -> Inspection:
        """Read the newest inspection of an artifact that was committed for a model."""
        request = pb.GetInspectionRequest(digest=digest, model=resource_name(model, 3, "model"))
        answer = await self._connection.call(self._connection.artifact.GetInspection, request)
        return from_proto(Inspection, answer.inspection)

    async def start(self, digest: str, *, model: str) -> Inspection:
        """Inspect an artifact again, with the scanner of today; `wait` waits for its end."""
        request = pb.InspectArtifactRequest(digest=digest, model=resource_name(model, 3, "model"))
        answer = await self._connection.call(self._connection.artifact.InspectArtifact, request)
        return from_proto(Inspection, answer.inspection)

    async def wait(self, digest: str, *, model: str, timeout: float = 600.0) -> Inspection:
        """Wait until an artifact is inspected.

        Args:
            digest: Digest of the artifact.
            model: Full name of a model it was committed for.
            timeout: Longest time to wait in seconds.

        Raises:
            DeadlineExceeded: it did not end in that time; it goes on all the same.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    found = await self.get(digest, model=model)
                    if found.state is not InspectionState.PENDING:
                        return found
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            raise errors.DeadlineExceeded(
                f"the inspection of {digest} did not end within {timeout:g} s"
            ) from None
