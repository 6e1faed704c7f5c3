"""Carries what replicas wrote down about predictions to where their deployment wants it beside their files.

The files are the queue: bounded, and nothing that a prediction waits for. How far a destination has come is noted when it has taken the
lines, so that they survive this service, and a destination that is away, for as long as the files hold them. Lines are numbered; those that
are missing when their turn comes are counted as dropped.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference import log_marks
from modelyard_inference.launchers import Launcher
from modelyard_inference.log_files import ACCESS, PREDICT, Line, Position
from modelyard_inference.log_marks import Mark, Writer
from modelyard_kit import telemetry
from modelyard_kit.db import Database

PERIOD_SECONDS = 1.0
LAST_CHANCE_SECONDS = 10.0
"""Longest time that what is left is offered, when a replica or this service ends."""
MAX_LINES = 10_000
MAX_CHARACTERS = 2 * 1024 * 1024
"""What is handed over at once has at most so many, and one piece of a file more."""
_PARALLEL = 8
_MAX_DIGITS = 18
_TRACEPARENT = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")

_log = structlog.get_logger()


@dataclass(frozen=True)
class Source:
    """Where lines are from."""

    deployment: str
    model_version: str
    replica: str
    shadow: bool
    """Whether the replica gets copies, and answers nobody."""
    log: str
    """`access` or `predict`."""


class Destination(Protocol):
    """Where lines go."""

    @property
    def name(self) -> str:
        """What policies call it."""

    async def write(self, source: Source, lines: Sequence[Line]) -> None:
        """Take lines. The same ones may come again, with others behind them, if it is not known that they were taken.

        Raises:
            OSError: it does not take them now.
            ValueError, TypeError, OverflowError: they are none of a replica's own.
        """

    async def close(self) -> None:
        """Let go of what is held open."""


@dataclass
class _Batch:
    """Lines that wait for company."""

    position: Position | None
    next_number: int
    lines: list[Line] = field(default_factory=list)
    characters: int = 0
    dropped: int = 0
    since: float = 0.0
    refused: bool = False
    """Whether the destination did not take them already."""

    @property
    def full(self) -> bool:
        return len(self.lines) >= MAX_LINES or self.characters >= MAX_CHARACTERS

    def add(self, lines: Sequence[Line], now: float) -> None:
        if not self.lines:
            self.since = now
        for line in lines:
            number = number_of(line)
            if number and self.next_number:
                self.dropped += max(0, number - self.next_number)
            self.next_number = number + 1 if number else self.next_number
            self.characters += sum(map(len, line.attributes.values()))
            self.lines.append(line)

    def taken(self) -> None:
        """Begin anew behind what was taken."""
        self.lines, self.characters, self.dropped, self.refused = [], 0, 0, False


class LogShipping:
    """Serves one destination.

    Args:
        db: the database.
        launcher: reads the files of replicas.
        destination: takes the lines.
        patience: how long lines wait for company, in seconds.
        monotonic: tells the time.
    """

    def __init__(
        self,
        db: Database,
        launcher: Launcher,
        destination: Destination,
        *,
        patience: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = destination.name
        """Name of the destination."""
        self._db = db
        self._launcher = launcher
        self._destination = destination
        self._patience = patience
        self._monotonic = monotonic
        self._batches: dict[tuple[str, str], _Batch] = {}
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._busy: dict[str, asyncio.Lock] = {}
        self._counted = telemetry.meter().create_counter(
            "modelyard_prediction_log_lines", description="Lines about predictions, by what became of them"
        )

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("prediction_logs_not_looked_at", destination=self.name, error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self, *, everything: bool = False) -> None:
        """Read what was written, and hand over what is enough or has waited; or `everything`.

        Raises:
            SQLAlchemyError: the database cannot be asked.
        """
        name = self.name
        await self._db.in_tx(lambda connection: log_marks.expect_nothing(connection, name))
        writers = await self._db.read(lambda connection: log_marks.writers(connection, name))
        there = {writer.replica_id for writer in writers}
        self._batches = {key: batch for key, batch in self._batches.items() if key[0] in there}
        self._busy = {key: lock for key, lock in self._busy.items() if key in there or lock.locked()}
        await asyncio.gather(*(self._ship(writer, everything=everything) for writer in writers))

    async def flush(self, replica_id: str) -> None:
        """Hand over what is left of a replica that has ended, before its files go.

        Raises:
            SQLAlchemyError: the database cannot be asked; nothing may go then.
        """
        name = self.name
        writers = await self._db.read(lambda connection: log_marks.writers(connection, name, replica_id))
        try:
            async with asyncio.timeout(LAST_CHANCE_SECONDS):
                for writer in writers:
                    await self._ship(writer, everything=True)
        except (SQLAlchemyError, OSError) as error:  # TimeoutError is one
            _log.warning(
                "prediction_logs_not_flushed", destination=name, replica=replica_id, error=str(error)
            )
        for log in (ACCESS, PREDICT):
            batch = self._batches.pop((replica_id, log), None)
            if batch:
                left = batch.dropped + len(batch.lines) + await self._unread(replica_id, log, batch.position)
                self._count("dropped", log, left, replica=replica_id)

    async def close(self) -> None:
        """Hand over what waits for company; what is not taken in time is read again by the next life of this service."""
        try:
            async with asyncio.timeout(LAST_CHANCE_SECONDS):
                await self.look(everything=True)
        except (SQLAlchemyError, OSError) as error:
            _log.warning("prediction_logs_not_flushed", destination=self.name, error=str(error))
        await self._destination.close()

    async def _ship(self, writer: Writer, *, everything: bool) -> None:
        lock = self._busy.setdefault(writer.replica_id, asyncio.Lock())
        async with lock, self._slots:
            for log in (ACCESS, PREDICT):
                await self._ship_log(writer, log, everything=everything)

    async def _ship_log(self, writer: Writer, log: str, *, everything: bool) -> None:
        batch, more = self._batch(writer, log), True
        while more:
            if not batch.full:
                piece = await self._launcher.log_on(writer.replica_id, batch.position, log)
                batch.add(piece.lines, self._monotonic())
                batch.position, more = piece.position, piece.more
            waited = self._monotonic() - batch.since >= self._patience
            due = batch.full or (not more and (everything or waited))
            if batch.lines and due and not await self._hand_over(writer, log, batch):
                return  # what is full is not read on: the file holds the rest

    async def _hand_over(self, writer: Writer, log: str, batch: _Batch) -> bool:
        name = self.name
        source = Source(writer.deployment, writer.model_version, writer.replica_id, writer.shadow, log)
        position = batch.position
        assert position is not None  # noqa: S101  lines come from a file
        try:
            await self._destination.write(source, batch.lines)
        except OSError as error:
            if not batch.refused:  # once, not every second
                _log.warning(
                    "prediction_logs_not_taken",
                    destination=name,
                    deployment=source.deployment,
                    error=str(error),
                )
            batch.refused = True
            return False
        except (ValueError, TypeError, OverflowError) as error:
            # The model of a replica can write into its files whatever it likes; nobody else's lines wait for that.
            _log.warning(
                "prediction_logs_unreadable", destination=name, replica=source.replica, error=str(error)
            )
            batch.dropped += len(batch.lines)
            batch.lines = []
        mark = Mark(position, batch.next_number)
        await self._db.in_tx(
            lambda connection: log_marks.set_mark(connection, writer.replica_id, name, log, mark)
        )
        self._count("shipped", log, len(batch.lines), replica=writer.replica_id)
        self._count("dropped", log, batch.dropped, replica=writer.replica_id)
        batch.taken()
        return True

    async def _unread(self, replica_id: str, log: str, position: Position | None) -> int:
        """Return how many lines of a log are behind a position."""
        lines, more = 0, True
        while more:
            piece = await self._launcher.log_on(replica_id, position, log)
            lines, position, more = lines + len(piece.lines), piece.position, piece.more
        return lines

    def _batch(self, writer: Writer, log: str) -> _Batch:
        batch = self._batches.get((writer.replica_id, log))
        if batch is None:
            mark = writer.marks.get(log)
            batch = _Batch(mark.position, mark.next_number) if mark else _Batch(None, 0)
            self._batches[writer.replica_id, log] = batch
        return batch

    def _count(self, outcome: str, log: str, lines: int, *, replica: str) -> None:
        if not lines:
            return
        self._counted.add(lines, {"destination": self.name, "log": log, "outcome": outcome})
        if outcome == "dropped":
            _log.warning(
                "prediction_logs_dropped", destination=self.name, log=log, lines=lines, replica=replica
            )


def number_of(line: Line) -> int:
    """Return the number of a line in its log; 0 if it has none."""
    number = line.attributes.get("number", "")
    return int(number) if number.isdecimal() and len(number) <= _MAX_DIGITS else 0


def trace_of(line: Line) -> tuple[str, str]:
    """Return trace and span that a prediction was part of, in hexadecimal; empty ones if it was part of none."""
    found = _TRACEPARENT.fullmatch(line.attributes.get("traceparent", ""))
    return (found[1], found[2]) if found else ("", "")
