"""Tells running replicas what to write down about predictions, when their deployment wants something else than before.

What each process was told is noted; a process that is not noted is told, once more at worst.
"""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference import log_rows
from modelyard_inference.log_rows import Switched
from modelyard_inference.ports import Switch
from modelyard_kit.db import Database

PERIOD_SECONDS = 1.0
_PARALLEL = 32

_log = structlog.get_logger()


class LogSwitching:
    """Looks for replicas to be told.

    Args:
        db: the database.
        switch: tells replicas.
    """

    def __init__(self, db: Database, switch: Switch) -> None:
        self._db = db
        self._switch = switch
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("log_settings_not_told", error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """Tell once whoever is to be told; who does not listen is told again with the next look."""
        waiting = await self._db.query(log_rows.to_be_told)
        took = await asyncio.gather(*map(self._tell, waiting))
        told = [one for one, listened in zip(waiting, took, strict=True) if listened]
        if told:
            await self._db.in_tx(lambda connection: log_rows.note(connection, told))

    async def _tell(self, one: Switched) -> bool:
        async with self._slots:
            return await self._switch.set_logging(one.address, one.policy)
