"""Finds the signatures of versions and the trust roots that count, for replicas that are about to load.

What was found is kept in the database. A replica that starts asks for the news of the last seconds; when the artifact service or
governance cannot be asked, what was found last counts, so that a replica that ended comes back. A version that was never asked about
waits. A replica that answers already depends on none of this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference.evidence import Evidence
from modelyard_inference.models import Version
from modelyard_inference.planner.observed import EvidenceStatus
from modelyard_inference.ports import Upstream
from modelyard_inference.store import InferenceStore
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault, failpoint

FRESH_SECONDS = 10.0
"""So long replicas are started by one answer."""
AGAIN_SECONDS = 1.0

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Answer:
    evidence: Evidence | None
    problem: str
    time: float


class Signers:
    """Questions about signatures, and the answers of the last seconds.

    Args:
        db: the database.
        store: its tables.
        upstream: the artifact service and governance.
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(
        self,
        db: Database,
        store: InferenceStore,
        upstream: Upstream,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._store = store
        self._upstream = upstream
        self._monotonic = monotonic
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._answers: dict[str, _Answer] = {}

    def status(self, version_id: str) -> EvidenceStatus:
        """Return whether there is a fresh answer about a version, and why the last question had none."""
        answer = self._answers.get(version_id)
        if answer is None:
            return EvidenceStatus(ready=False)
        fresh = answer.evidence is not None and self._monotonic() - answer.time < FRESH_SECONDS
        return EvidenceStatus(ready=fresh, problem=answer.problem)

    def evidence(self, version_id: str) -> Evidence:
        """Return the last answer about a version.

        Raises:
            KeyError: there is none.
        """
        answer = self._answers[version_id]
        if answer.evidence is None:
            raise KeyError(version_id)
        return answer.evidence

    def ask(self, version: Version, done: Callable[[], None]) -> None:
        """Begin to ask about a version unless that goes on, or failed a moment ago; call `done` at the end, good or bad."""
        answer = self._answers.get(version.id)
        failed_now = answer and answer.evidence is None and self._monotonic() - answer.time < AGAIN_SECONDS
        if version.id in self._asking or failed_now:
            return

        def ended(_: asyncio.Task[None]) -> None:
            del self._asking[version.id]
            done()

        task = self._asking[version.id] = asyncio.create_task(self._ask(version))
        task.add_done_callback(ended)

    def forget(self, version_id: str) -> None:
        """Let the next replica of a version ask anew: one has just ended, and what changed since may be why."""
        self._answers.pop(version_id, None)

    def keep(self, version_ids: Collection[str]) -> None:
        """Forget what was answered about versions that nothing runs."""
        self._answers = {known: answer for known, answer in self._answers.items() if known in version_ids}

    async def close(self) -> None:
        """End every question."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, version: Version) -> None:
        evidence, problem = None, ""
        try:
            known = await self._db.read(lambda connection: self._store.evidence(connection, version.id))
            evidence = await self._found(version, known)
        except (DomainError, SQLAlchemyError, OSError, InjectedFault, ValueError) as error:
            problem = f"the signatures of {version.name} cannot be found out yet: {error}"
            _log.warning("signatures_not_found_out", version=version.name, error=str(error))
        self._answers[version.id] = _Answer(evidence, problem, self._monotonic())

    async def _found(self, version: Version, known: Evidence | None) -> Evidence:
        try:
            found = await self._upstream.evidence(version.id, version.artifact_digest)
        except DomainError as error:
            if known is None:
                raise
            _log.warning("signatures_as_last_known", version=version.name, error=str(error))
            return known
        await failpoint("inference.evidence.found")
        if known is not None:
            found = found.remembering(known)
        if found != known:
            await self._db.in_tx(lambda connection: self._store.keep_evidence(connection, version.id, found))
        return found
