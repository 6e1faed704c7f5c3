"""Tells the catalog's lineage graph which versions answer for which deployments, and which deployments are gone.

It works off notes that rollouts leave in their own transactions: at least once, after any crash, and never while a rollout
waits. As long as the catalog does not answer, notes stay and edges come later.
"""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference import notes
from modelyard_inference.ports import Upstream
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault, failpoint

PERIOD_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_BATCH = 500

_log = structlog.get_logger()


class Lineage:
    """Works off the notes."""

    def __init__(self, db: Database, upstream: Upstream) -> None:
        self._db = db
        self._upstream = upstream

    async def run(self) -> None:
        """Look for notes for ever; a loop of its own, so that a slow catalog delays nothing else."""
        pause = PERIOD_SECONDS
        while True:
            try:
                complete = await self.tell()
            except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
                _log.warning("lineage_not_told", error=str(error))
                complete = False
            pause = PERIOD_SECONDS if complete else min(pause * 2, _LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def tell(self) -> bool:
        """Tell what is pending; return whether everything could be told."""
        complete = True
        for note in await self._db.query(lambda connection: notes.pending(connection, _BATCH)):
            complete &= await self._tell(note)
        return complete

    async def _tell(self, note: notes.Note) -> bool:
        try:
            await self._upstream.record_deployment(note)
        except DomainError as error:  # what is wrong with one deployment must not hold up the others
            _log.warning("lineage_not_told", deployment=note.name, error=str(error))
            return False
        await failpoint("inference.lineage.told")
        await self._db.in_tx(lambda connection: notes.told(connection, note))
        return True
