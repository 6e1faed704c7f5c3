"""Removes Parquet files of predictions that are older than the installation wants to keep."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, timedelta
from typing import Protocol

import structlog

from modelyard_kit.clock import Clock

PERIOD_SECONDS = 3_600.0

_log = structlog.get_logger()


class Kept(Protocol):
    """What is kept by days."""

    async def remove_before(self, first: date) -> int:
        """Remove every day before `first`, and return how many there were.

        Raises:
            OSError: not all could be removed.
        """


class LogRetention:
    """Keeps so many days.

    Args:
        kept: what is kept.
        days: how many whole days (UTC) are kept beside the one that is under way.
        clock: tells the time.
    """

    def __init__(self, kept: Kept, days: int, clock: Clock) -> None:
        self._kept = kept
        self._days = days
        self._clock = clock

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """Remove what is too old; what cannot be removed now is tried again the next time."""
        first = self._clock().astimezone(UTC).date() - timedelta(days=self._days)
        try:
            removed = await self._kept.remove_before(first)
        except OSError as error:
            _log.warning("prediction_logs_not_removed", before=first.isoformat(), error=str(error))
            return
        if removed:
            _log.info("prediction_logs_removed", before=first.isoformat(), days=removed)
