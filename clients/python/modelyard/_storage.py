"""What is stored in all: counted, verified, and cleared of what nobody uses."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from modelyard._convert import from_proto
from modelyard._namespace import Namespace
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.types import Collected, StorageStatistics, VerifyProgress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_VERIFY_SECONDS = 7 * 86_400.0
_COLLECT_SECONDS = 3_600.0


class AsyncStorage(Namespace):
    """`client.storage`: the store as a whole, for those with MANAGE on the system."""

    async def statistics(self) -> StorageStatistics:
        """Count what is stored, and what sharing saves."""
        method = self._connection.artifact.GetStorageStatistics
        answer = await self._connection.call(method, pb.GetStorageStatisticsRequest(), timeout=60.0)
        return from_proto(StorageStatistics, answer.statistics)

    async def verify(
        self, digest: str = "", *, discard_damaged: bool = False
    ) -> AsyncGenerator[VerifyProgress]:
        """Let the store read and hash all it has; yields progress, each time with what was found damaged since.

        Args:
            digest: Of an artifact, to verify its files only.
            discard_damaged: Throw damaged content away: upload the same files again, and it is sent and stored anew.
        """
        method = self._connection.artifact.VerifyBlobs
        request = pb.VerifyBlobsRequest(digest=digest, discard_damaged=discard_damaged)
        async with aclosing(self._connection.receive(method, request, timeout=_VERIFY_SECONDS)) as answers:
            async for answer in answers:
                yield from_proto(VerifyProgress, answer)

    async def collect_garbage(self, *, dry_run: bool = False) -> Collected:
        """Delete now what no version had for the grace period, as the store does by itself every hour.

        Args:
            dry_run: Only tell what would be deleted.
        """
        method = self._connection.artifact.CollectGarbage
        request = pb.CollectGarbageRequest(dry_run=dry_run)
        answer = await self._connection.call(method, request, timeout=_COLLECT_SECONDS)
        return from_proto(Collected, answer)
