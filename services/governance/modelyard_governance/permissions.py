"""Every principal's grants in memory, and the stream that keeps all services up to date with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.models import HeldGrants
from modelyard_governance.store import grants as grant_rows
from modelyard_governance.store.identity import CHANNEL
from modelyard_kit.db import Database
from modelyard_kit.grants import Grants

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 1.0
# Without a look at the database for this long there is no heartbeat: the watchers' own bound then fails closed.
FRESH_SECONDS = 2.0
# About 45 bytes each on the wire; a message stays well under every message limit.
GRANTS_PER_STEP = 20_000

_log = structlog.get_logger()


@dataclass(frozen=True)
class PermissionStep:
    """One step of the stream; `complete` when everything up to `revision` has been sent."""

    revision: int
    changed: tuple[HeldGrants, ...]
    complete: bool


class PermissionFeed:
    """Follows the grants in the database, fills this service's own `Grants`, and tells watchers.

    Args:
        database: where the grants are.
        grants: what this service decides from.
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(
        self, database: Database, grants: Grants, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._grants = grants
        self._monotonic = monotonic
        self._held: dict[str, tuple[int, HeldGrants]] = {}
        self._revision = -1
        self._confirmed = float("-inf")
        self._reading = asyncio.Lock()
        self._moved = asyncio.Condition()
        self._wake = asyncio.Event()

    async def refresh(self) -> None:
        """Read what changed; afterwards this service decides by everything that was committed before the call."""
        async with self._reading:
            asked = self._monotonic()
            revision, changed = await self._read()
            for held in changed:
                self._held[held.principal_id] = (revision, held)
                self._grants.replace(
                    held.principal_id,
                    held.principal,
                    held.grants,
                    groups=held.groups,
                    disabled=held.disabled,
                    is_group=held.is_group,
                )
            self._confirmed = asked
            await self._grants.mark_fresh(revision)
            if revision != self._revision:
                async with self._moved:
                    self._revision = revision
                    self._moved.notify_all()

    async def _read(self) -> tuple[int, list[HeldGrants]]:
        # Most looks find nothing new; those cost one statement.
        revision = await self._database.query(grant_rows.revision)
        if revision == self._revision:
            return revision, []
        return await self._database.read(self._changes)

    async def _changes(self, connection: AsyncConnection) -> tuple[int, list[HeldGrants]]:
        revision = await grant_rows.revision(connection)
        return revision, await grant_rows.changed_since(connection, self._revision)

    async def run(self) -> None:
        """Follow for ever: woken by the database, and looking every half second in any case."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._database.listen(CHANNEL, self._wake))
            tasks.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.refresh()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("permissions_refresh_failed", error=str(error))
                await asyncio.sleep(POLL_SECONDS)
            await self._wake_or_poll()

    async def _wake_or_poll(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def watch(self) -> AsyncIterator[PermissionStep]:
        """Yield everything, then each change, and a step without changes every second, for ever.

        Nothing while the database does not answer: what was read before would pass for confirmed, also with a watcher that
        comes back because it heard nothing.
        """
        sent = -1
        while True:
            if self._monotonic() - self._confirmed >= FRESH_SECONDS:
                await asyncio.sleep(POLL_SECONDS)
                continue
            if self._revision != sent:
                revision = self._revision
                changed = [held for at, held in self._held.values() if at > sent]
                for step in _steps(revision, changed):
                    yield step
                sent = revision
            else:
                yield PermissionStep(sent, (), complete=True)
            await self._wait_for_news(sent)

    async def _wait_for_news(self, sent: int) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS), self._moved:
                await self._moved.wait_for(lambda: self._revision != sent)
        except TimeoutError:
            return


def _steps(revision: int, changed: Iterable[HeldGrants]) -> Iterator[PermissionStep]:
    """Cut changes into steps of bounded size; only the last one is complete."""
    part: list[HeldGrants] = []
    size = 0
    for held in changed:
        weight = 1 + len(held.grants) + len(held.groups)
        if part and size + weight > GRANTS_PER_STEP:
            yield PermissionStep(revision, tuple(part), complete=False)
            part, size = [], 0
        part.append(held)
        size += weight
    yield PermissionStep(revision, tuple(part), complete=True)
