"""Rules of the change feed: every event at least once, those of one resource in order, to whoever may see them.

Each watcher reads its own bounded windows of the numbered events, filtered and permitted inside the query with the grants of
that moment, so that a grant or a revocation counts from the next event on. One task per process numbers new events and says
how far they go; watchers that are up to date wait for it and cost nothing in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import events
from modelyard_catalog.commands import Watch
from modelyard_catalog.models import Path
from modelyard_kit import outbox
from modelyard_kit.access import Chain, Privilege
from modelyard_kit.auth import Call
from modelyard_kit.authorization import Requires, authorize
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import Contention, InvalidField, PeerUnavailable
from modelyard_kit.grants import Grants
from modelyard_kit.outbox import Event, Extent, Sequencer
from modelyard_kit.watches import Watches

POLL_SECONDS = 1.0
PRUNE_SECONDS = 600.0
# Numbers that one query looks at, events and bytes of data that it returns: bounds of time and of memory.
WINDOW = 5_000
ROWS = 200
BYTES = 2**19
# Connections of the pool that watchers may hold together; the rest is for everybody else.
READERS = 4
# A watcher that is up to date rests for this long for each watcher there is, before it reads what is new: however many there
# are, they ask the database about 500 times a second together, and find the more at a time.
REST_SECONDS = 0.002

_RIGHTS = {1: Privilege.USE_CATALOG, 2: Privilege.USE_SCHEMA, 3: Privilege.READ_METADATA}

_log = structlog.get_logger()


@dataclass(frozen=True)
class FeedOptions:
    """How the feed behaves.

    Attributes:
        heartbeat: seconds of silence after which a watcher is sent a step without events.
        longest: seconds after which a watch ends, so that its caller comes back with a token that was checked again.
        retention: how long delivered events are kept.
    """

    heartbeat: float = 5.0
    longest: float = 900.0
    retention: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class Step:
    """Events in their order, and the number of the last event dealt with, in the feed with this id."""

    events: tuple[Event, ...]
    position: int
    feed_id: str = ""


class Feed:
    """Use cases of the change feed.

    Args:
        db: the catalog's database.
        grants: what watchers are permitted by.
        resolve: finds a catalog, schema or model with its containers, as `Requires` needs it.
        clock: tells which events are old.
        options: how the feed behaves.
        monotonic: a clock that never jumps, in seconds.
    """

    def __init__(
        self,
        db: Database,
        grants: Grants,
        resolve: Callable[[Path], Awaitable[Chain]],
        clock: Clock,
        options: FeedOptions,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._grants = grants
        self._resolve = resolve
        self._clock = clock
        self._options = options
        self._monotonic = monotonic
        self._sequencer = Sequencer(db)
        self._last = 0
        self._watches = Watches()
        self._wake = asyncio.Event()
        self._watched = asyncio.Event()  # set while there are watches
        self._moved = asyncio.Condition()
        self._readers = asyncio.Semaphore(READERS)

    async def run(self) -> None:
        """Number new events, tell watchers, and remove old events, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._db.listen(outbox.CHANNEL, self._wake))
            tasks.create_task(self._follow())
            tasks.create_task(self._prune())

    async def watch(self, call: Call, watch: Watch) -> AsyncIterator[Step]:
        """Yield what happens from the wanted place on, a first step at once, until the longest time is over.

        Raises:
            NotFound: the resource does not exist.
            PermissionDenied: the caller may not see it.
            InvalidField: the place is not one of this feed, or its events are no longer kept.
            TooManyWatches: of the caller or in all.
            PermissionsStale: governance has not confirmed the grants for too long.
            PeerUnavailable: the database cannot be reached.
        """
        with self._counted(call.principal.id), _database_lost():
            resource_id = await self._resource(call, watch.resource)
            feed_id, after = await self._begin(watch)
            yield Step((), after, feed_id)
            ends = self._monotonic() + self._options.longest
            quiet_since = self._monotonic()
            while self._monotonic() < ends:
                found: tuple[Event, ...] = ()
                if await self._is_news(after):
                    found, after = await self._read(call, watch, resource_id, after)
                if found or self._monotonic() - quiet_since >= self._options.heartbeat:
                    # Nothing is held while the caller takes its time: no connection, no snapshot, and no event but these.
                    yield Step(found, after, feed_id)
                    quiet_since = self._monotonic()

    @contextlib.contextmanager
    def _counted(self, principal_id: str) -> Iterator[None]:
        """Count a watch while it runs, and let numbers be given at once while there is any.

        Raises:
            TooManyWatches: there is no room for it.
        """
        try:
            with self._watches.counted(principal_id):
                self._watched.set()
                yield
        finally:
            if not self._watches.total:
                self._watched.clear()

    async def advance(self) -> int:
        """Number what was committed before this call, tell watchers, and return the last number."""
        last = await self._sequencer.advance()
        if last > self._last:
            async with self._moved:
                self._last = max(last, self._last)
                self._moved.notify_all()
        return last

    async def _resource(self, call: Call, path: Path) -> str | None:
        if not path:
            return None
        rule = Requires(_RIGHTS[len(path)], self._resolve)
        await authorize(rule, call.principal, self._grants, path)
        return (await self._resolve(path))[0].id

    async def _begin(self, watch: Watch) -> tuple[str, int]:
        """Return the id of the feed, and the number after which a watch begins."""
        last = await self.advance()
        extent = await self._db.read(outbox.extent)
        if watch.position is None:
            return extent.feed_id, extent.pruned if watch.from_beginning else last
        if watch.feed_id != extent.feed_id:
            raise InvalidField(
                "resume_token",
                "is of another installation, or of a database that was replaced; read the state anew, then watch"
                " without a token",
            )
        _require_kept(watch.position, extent)
        return extent.feed_id, watch.position

    async def _is_news(self, after: int) -> bool:
        """Return whether there are numbers over `after`; waits for them until a heartbeat is due."""
        if self._last > after:
            return True
        try:
            async with asyncio.timeout(self._options.heartbeat), self._moved:
                await self._moved.wait_for(lambda: self._last > after)
        except TimeoutError:
            return False
        await asyncio.sleep(REST_SECONDS * self._watches.total)
        return True

    async def _read(
        self, call: Call, watch: Watch, resource_id: str | None, after: int
    ) -> tuple[tuple[Event, ...], int]:
        scopes = self._scopes(call.principal.id)

        async def work(connection: AsyncConnection) -> tuple[tuple[Event, ...], int]:
            extent = await outbox.extent(connection)
            _require_kept(after, extent)
            upto = min(after + WINDOW, extent.last)
            found = await events.window(
                connection, watch, resource_id, scopes, after=after, upto=upto, rows=ROWS, size=BYTES
            )
            # What was found may have been cut by a bound; an empty answer says that there is nothing in the window.
            return tuple(event for _, event in found), found[-1][0] if found else upto

        async with self._readers:
            return await self._db.read(work)

    def _scopes(self, principal_id: str) -> events.Scopes:
        return events.Scopes(
            catalogs=self._grants.scope(principal_id, Privilege.USE_CATALOG),
            schemas=self._grants.scope(principal_id, Privilege.USE_SCHEMA),
            models=self._grants.scope(principal_id, Privilege.READ_METADATA),
        )

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.advance()
            except (Contention, SQLAlchemyError, OSError) as error:
                _log.warning("feed_numbering_failed", error=str(error))
                await asyncio.sleep(POLL_SECONDS)
            # While nobody watches nobody needs the numbers at once: whoever begins to has them given first.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
                    await self._watched.wait()

    async def _prune(self) -> None:
        while True:
            try:
                removed = await self._sequencer.prune(self._clock() - self._options.retention)
                if removed:
                    _log.info("feed_pruned", events=removed)
            except (Contention, SQLAlchemyError, OSError) as error:
                _log.warning("feed_pruning_failed", error=str(error))
            await asyncio.sleep(PRUNE_SECONDS)


@contextlib.contextmanager
def _database_lost() -> Iterator[None]:
    """Say of a lost database that it is away for now: whoever watches comes back, and goes on with its token."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        _log.warning("feed_watch_lost_database", error=str(error))
        raise PeerUnavailable("database") from error


def _require_kept(position: int, extent: Extent) -> None:
    if position < extent.pruned:
        raise InvalidField(
            "resume_token",
            "events after it are no longer kept, so some would be missed; read the state anew, then watch"
            " without a token, or from_beginning for what is kept",
        )
    if position > extent.last:
        raise InvalidField(
            "resume_token",
            "is ahead of every event there is, as after a backup was restored; read the state anew, then watch"
            " without a token",
        )
