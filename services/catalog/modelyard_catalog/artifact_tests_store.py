"""The rows of what the artifact service told of introspection tests. Inside a transaction that the rules opened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import ArtifactTestsChange
from modelyard_catalog.tables import artifact_tests, model_versions

_INSERT = insert(artifact_tests)
_NEW = _INSERT.excluded
_WRITE = _INSERT.on_conflict_do_update(
    index_elements=["digest"],
    set_={name: _NEW[name] for name in ("state", "results", "sequence", "update_time")},
    where=artifact_tests.c.sequence <= _NEW.sequence,
)


async def write(connection: AsyncConnection, changes: Sequence[ArtifactTestsChange], now: datetime) -> None:
    """Note how tests ended; what is older than what is known is passed over."""
    rows = [
        {
            "digest": change.digest,
            "state": change.tests.state,
            "results": change.tests.results,
            "sequence": change.sequence,
            "update_time": now,
        }
        for change in sorted(changes, key=lambda change: change.digest)
    ]
    if rows:
        await connection.execute(_WRITE, rows)


async def digests_of(connection: AsyncConnection, version_ids: Sequence[str]) -> list[str]:
    """Return the artifacts of versions that have tests."""
    query = select(artifact_tests.c.digest).distinct()
    query = query.join(model_versions, model_versions.c.artifact_digest == artifact_tests.c.digest)
    return list((await connection.execute(query.where(model_versions.c.id.in_(version_ids)))).scalars())


async def forget(connection: AsyncConnection, digests: Sequence[str], before: datetime) -> None:
    """Remove what was told of artifacts before a moment, if no version has them any more.

    What was told later stays: the artifact service tells it when a version is about to have the artifact.
    """
    used = exists().where(model_versions.c.artifact_digest == artifact_tests.c.digest)
    gone = delete(artifact_tests).where(artifact_tests.c.digest.in_(digests), ~used)
    await connection.execute(gone.where(artifact_tests.c.update_time < before))
