"""The rule of references: a version that has an artifact, or is about to get one, keeps its bytes.

The catalog acquires the reference before the transaction that makes the version. If that transaction fails, the reference
stays behind for nothing and the collector drops it later; the other way round, a version could lose its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard_artifact import inspection_store, life_store, store
from modelyard_kit.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.models import Artifact
    from modelyard_kit.clock import Clock
    from modelyard_kit.db import Database


@dataclass(frozen=True, slots=True)
class Acquire:
    """A version of a model is about to get an artifact; `source_model_id` is where a copy comes from."""

    digest: str
    model_id: str
    model_version_id: str
    source_model_id: str


class References:
    """The use case of references."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def acquire(self, command: Acquire) -> Artifact:
        """Keeps an artifact for a version; of a copy, the artifact belongs to both models from now on.

        Raises:
            NotFound: it was not committed for the model, or for the source of the copy.
        """
        models = [command.model_id, *filter(None, [command.source_model_id])]

        async def work(connection: AsyncConnection) -> Artifact | None:
            if not await life_store.hold(connection, command.digest, models):
                return None
            now = self._clock()
            await life_store.add_reference(connection, command.digest, command.model_version_id, now)
            # The catalog may have forgotten them with the last version that had the artifact.
            await inspection_store.tell_again(connection, command.digest)
            if command.source_model_id:
                await store.add_artifact_model(connection, command.digest, command.model_id, now)
            return await store.get_artifact(connection, command.digest)

        # The row of the artifact is locked by `hold`: nothing else is read that could have changed.
        artifact = await self._database.in_tx(work, isolation="READ COMMITTED")
        if artifact is None:
            raise NotFound("artifact", command.digest)
        return artifact
