"""Tells the catalog how the introspection tests of artifacts ended, so that versions show it and are found by it.

What is to be told is in the rows of inspections, so it survives every end of this process: it is told at least once, and the
sequence lets the catalog drop what is late. It is told when the tests end, and whenever a version is about to get the artifact.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_artifact import inspection_store
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault, failpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.inspection_models import TestsOutcome
    from modelyard_kit.db import Database

BATCH = 100
_POLL_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0

_log = structlog.get_logger()


class Listener(Protocol):
    """Who is told."""

    async def set_artifact_tests(self, outcomes: Sequence[TestsOutcome]) -> None:
        """Takes at most 100 outcomes. Raises PeerUnavailable."""


class Telling:
    """The background task; any number of processes may run one."""

    def __init__(self, database: Database, catalog: Listener) -> None:
        self._database = database
        self._catalog = catalog
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Tell for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._database.listen(inspection_store.TELL_CHANNEL, self._wake))
            tasks.create_task(self._tell_forever())

    async def _tell_forever(self) -> None:
        pause = _RETRY_SECONDS
        while True:
            self._wake.clear()
            try:
                told = await self.tell()
            except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
                _log.warning("artifact_tests_not_told", error=str(error), retry_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_RETRY_SECONDS)
                continue
            pause = _RETRY_SECONDS
            if not told:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS):
                        await self._wake.wait()

    async def tell(self) -> int:
        """Tells one batch and returns how many there were.

        Raises:
            PeerUnavailable: the catalog does not answer.
        """

        async def find(connection: AsyncConnection) -> list[TestsOutcome]:
            return await inspection_store.to_tell(connection, BATCH)

        outcomes = await self._database.read(find)
        if not outcomes:
            return 0

        async def mark(connection: AsyncConnection) -> None:
            await inspection_store.mark_told(connection, outcomes)

        await self._catalog.set_artifact_tests(outcomes)
        await failpoint("artifact.tests.told")
        await self._database.in_tx(mark, isolation="READ COMMITTED")
        return len(outcomes)
