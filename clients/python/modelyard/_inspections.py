"""Inspections: what the artifact service found out about artifacts from their files."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from modelyard import errors
from modelyard._convert import from_proto
from modelyard._namespace import Namespace, resource_name
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.references import parse_version_reference
from modelyard.types import Inspection, InspectionState, VersionState

if TYPE_CHECKING:
    from modelyard._connection import Connection
    from modelyard.types import ModelVersion

_PAUSE_SECONDS = 0.5
_TEST_RESULTS_SECONDS = 3.0
_REMEMBERED = 1_000


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


async def with_test_results(connection: Connection, version: ModelVersion) -> ModelVersion:
    """The version with what OCI calls `ArtifactTestResults` in its metadata, as the artifact service found them.

    They belong to the artifact and not to the version, so the catalog does not keep them. Where they cannot be had the version
    is as the catalog tells it.
    """
    digest = version.artifact_digest
    if version.state is not VersionState.READY or not digest:
        return version
    known = connection.test_results
    if digest not in known:
        model = parse_version_reference(version.name).model
        request = pb.GetInspectionRequest(digest=digest, model=model)
        method = connection.artifact.GetInspection
        try:
            answer = await connection.call(method, request, timeout=_TEST_RESULTS_SECONDS)
        except (
            errors.Unavailable,
            errors.DeadlineExceeded,
            errors.NotFound,
            errors.PermissionDenied,
            errors.Unimplemented,
        ):
            return version
        found = from_proto(Inspection, answer.inspection)
        if found.state is not InspectionState.DONE:
            return version
        if len(known) >= _REMEMBERED:
            known.clear()
        # The tests depend on the files alone: they never change.
        known[digest] = json.loads(found.tests_json) if found.oci else {}
    if not known[digest]:
        return version
    return replace(version, metadata=replace(version.metadata, test_results=known[digest]))
