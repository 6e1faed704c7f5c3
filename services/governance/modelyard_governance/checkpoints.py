"""Signatures of the audit chain, exports that prove themselves, and retention that leaves the rest provable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard import auditing
from modelyard.types import AuditCheckpoint, CheckpointPurpose
from modelyard_governance.audit_key import AuditKey
from modelyard_governance.models import ChainEnds, Entry
from modelyard_governance.store import audit as rows
from modelyard_kit.access import SYSTEM
from modelyard_kit.auth import Principal
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import Contention, DomainError, InvalidField
from modelyard_kit.outbox import Event, append

EXPORT_BATCH = 500
REMOVE_BATCH = 5_000
_RETRY = timedelta(seconds=30)
_GOVERNANCE = Principal("governance", "governance", "service")

_log = structlog.get_logger()


class Checkpoints:
    """Signs where the chain is, again and again and on demand.

    Args:
        database: with the chain.
        key: signs.
        clock: tells the time.
        interval: time between checkpoints while entries come.
        retention: how long entries are kept at least; None keeps them for ever.
    """

    def __init__(
        self,
        *,
        database: Database,
        key: AuditKey,
        clock: Clock,
        interval: timedelta,
        retention: timedelta | None = None,
    ) -> None:
        self._database = database
        self._key = key
        self._clock = clock
        self._interval = interval
        self._retention = retention

    @property
    def keys(self) -> Sequence[str]:
        """The public keys in PEM, the one in use first."""
        return self._key.pems

    async def run(self) -> None:
        """Make checkpoints, and drop what is older than the retention, for ever."""
        while True:
            pause = self._interval
            try:
                await self.make()
                await self.drop_old()
            except (DomainError, SQLAlchemyError, OSError) as error:
                _log.warning("audit_checkpoint_failed", error=str(error))
                pause = min(self._interval, _RETRY)
            await asyncio.sleep(pause.total_seconds())

    async def make(self) -> AuditCheckpoint:
        """Sign where the chain is now; if nothing came since the last checkpoint, return that one."""

        async def work(connection: AsyncConnection) -> tuple[AuditCheckpoint, bool]:
            ends = await rows.ends(connection, lock=True)
            last = await rows.newest_checkpoint(connection)
            if last is not None and last.sequence == ends.head[0]:
                return last, False
            made = self._sign(CheckpointPurpose.CHECKPOINT, ends)
            if made.sequence:
                await rows.add_checkpoint(connection, made)
            return made, bool(made.sequence)

        checkpoint, new = await self._database.in_tx(work, isolation="READ COMMITTED")
        if new:
            # In the log too: what is kept elsewhere cannot be rewritten together with the database.
            _log.info("audit_checkpoint", **auditing.checkpoint_to_json(checkpoint))
        return checkpoint

    async def drop_old(self) -> int:
        """Drop entries that were old before the newest checkpoint of outside the retention; return how many.

        That checkpoint then proves what the first remaining entry continues.
        """
        if self._retention is None:
            return 0
        cutoff = self._clock() - self._retention

        async def move(connection: AsyncConnection) -> None:
            ends = await rows.ends(connection, lock=True)
            checkpoint = await rows.newest_checkpoint(connection, before=cutoff)
            if checkpoint is None or checkpoint.sequence <= ends.anchor[0]:
                return
            await rows.begin_after(connection, checkpoint)
            data = {
                "before": {"anchor_sequence": ends.anchor[0]},
                "after": {"anchor_sequence": checkpoint.sequence},
            }
            await append(connection, Event("governance.audit.dropped", SYSTEM, _GOVERNANCE, "", data))

        await self._database.in_tx(move, isolation="READ COMMITTED")
        removed = total = await self._remove()
        while removed == REMOVE_BATCH:
            removed = await self._remove()
            total += removed
        return total

    async def _remove(self) -> int:
        return await self._database.in_tx(
            lambda connection: rows.remove_dropped(connection, limit=REMOVE_BATCH), isolation="READ COMMITTED"
        )

    async def export(self, after: int) -> AsyncIterator[list[str]]:
        """Yield the lines of an export from the entry after `after` (0: the oldest that is kept), in batches.

        Raises:
            InvalidField: there is no entry `after`, or it was dropped.
            Contention: retention dropped entries meanwhile.
        """
        ends = await self._database.read(lambda connection: self._range(connection, after))
        yield [auditing.begin_line(ends.anchor[0], ends.anchor[1].hex())]
        sequence = ends.anchor[0]
        while sequence < ends.head[0]:
            entries, signed = await self._database.read(
                lambda connection, sequence=sequence: _batch(connection, sequence, ends.head[0])  # type: ignore[misc]
            )
            if not entries or entries[0].sequence != sequence + 1:
                raise Contention(1)
            yield _lines(entries, signed)
            sequence = entries[-1].sequence
        yield [auditing.checkpoint_line(self._sign(CheckpointPurpose.EXPORT, ends))]

    async def _range(self, connection: AsyncConnection, after: int) -> ChainEnds:
        ends = await rows.ends(connection)
        if after in (0, ends.anchor[0]):
            return ends
        if not ends.anchor[0] <= after <= ends.head[0]:
            raise InvalidField(
                "after_sequence",
                f"there are entries {ends.anchor[0] + 1} to {ends.head[0]}; begin after one of these",
            )
        entry = (await rows.entries(connection, after=after - 1, limit=1))[0]
        return ChainEnds((entry.sequence, entry.hash), ends.head)

    def _sign(self, purpose: CheckpointPurpose, ends: ChainEnds) -> AuditCheckpoint:
        return self._key.sign(purpose, ends.anchor, ends.head, now=self._clock())


async def _batch(
    connection: AsyncConnection, after: int, last: int
) -> tuple[list[Entry], list[AuditCheckpoint]]:
    entries = await rows.entries(connection, after=after, limit=min(EXPORT_BATCH, last - after))
    if not entries:
        return [], []
    return entries, await rows.checkpoints(connection, first=after + 1, last=entries[-1].sequence)


def _lines(entries: Sequence[Entry], signed: Sequence[AuditCheckpoint]) -> list[str]:
    attested = {checkpoint.sequence: checkpoint for checkpoint in signed}
    lines = []
    for entry in entries:
        lines.append(auditing.entry_line(entry.sequence, entry.canonical_event, entry.hash.hex()))
        if entry.sequence in attested:
            lines.append(auditing.checkpoint_line(attested[entry.sequence]))
    return lines
