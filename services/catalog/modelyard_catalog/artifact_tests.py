"""Rule of artifact tests: the artifact service tells how they ended, versions show it, and nothing is decided by it."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard_catalog import artifact_tests_store
from modelyard_catalog.commands import ArtifactTestsChange
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database


class ToldTests:
    """The use case of noting how tests of artifacts ended."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def set(self, changes: Sequence[ArtifactTestsChange]) -> None:
        """Note them; late and repeated ones change nothing, and no event tells of them: the artifact service recorded the inspection."""
        now = self._clock()
        await self._db.in_tx(
            lambda connection: artifact_tests_store.write(connection, changes, now),
            isolation="READ COMMITTED",
        )
