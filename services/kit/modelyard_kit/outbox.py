"""The transactional outbox: a change and the event that tells of it commit together.

The relay delivers every event at least once, in the order of their positions; consumers drop ids they have seen. A NOTIFY soon
after the commit wakes it, polling guarantees.

A service whose outbox is also read by watchers needs more than positions. They are given out when a row is inserted, so a
slow transaction may commit a lower position after a reader has passed it, and a reader that remembers "I am at position 7"
would never see it. Such an outbox has a `sequence` (`add_sequence` in a migration), which the `Sequencer` gives to rows *after*
they are committed: it locks the one row of `outbox_head`, then, with a snapshot taken under that lock, numbers every row it sees
that has no number, in the order of positions. So

- numbers become visible in their order: a transaction that numbers commits before the next one may begin to;
- nothing is skipped: a row that commits late simply gets a later number;
- what happened to one resource keeps its order: a change that waited for an earlier one to the same row was begun again after
  that was committed, or (at READ COMMITTED) wrote its event after it, so it has a higher position, and whoever sees it also
  sees the earlier one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any

import structlog
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    Update,
    and_,
    any_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit.access import Link, ResourceType
from modelyard_kit.auth import Kind, Principal
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database, notify_after_commit
from modelyard_kit.errors import DomainError
from modelyard_kit.ids import new_id
from modelyard_kit.outbox_tables import HEAD, OUTBOX, SEQUENCED
from modelyard_kit.prepared import Prepared
from modelyard_kit.records import insert_records

CHANNEL = "modelyard_outbox"
BATCH = 500
POLL_SECONDS = 1.0
# Between two deliveries. What comes meanwhile travels together: every delivery costs a call, and transactions on both sides. Who is
# busy rests longer, for as many times as long as the last delivery took, so that this stays a fixed share of the work.
REST_SECONDS = 0.05
LONGEST_REST_SECONDS = 0.5
REST_RATIO = 4

_log = structlog.get_logger()


@dataclass(frozen=True)
class Event:
    """Something that was changed: what, by whom, when, with its details as JSON values."""

    type: str
    resource: Link
    actor: Principal
    request_id: str
    data: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=new_id)
    time: datetime = field(default_factory=utc_now)


Sink = Callable[[Sequence[Event]], Awaitable[None]]
"""Takes events for good when it returns; raises DomainError or OSError to be given them again."""


@dataclass(frozen=True)
class Extent:
    """What a sequenced outbox holds: events with numbers over `pruned`, up to `last`.

    The numbers say something only together with `feed_id`, which no other database has.
    """

    feed_id: str
    pruned: int
    last: int


_APPEND = insert(OUTBOX)
_APPEND_SEQUENCED = insert(SEQUENCED)
_COLUMNS = (
    "id", "type", "resource_type", "resource_id", "resource_name", "owner_id", "actor_id", "actor_name", "actor_kind",
    "request_id", "time", "data", "scope",
)  # fmt: skip
_UNDELIVERED = Prepared(
    select(OUTBOX).where(OUTBOX.c.deliver_time.is_(None)).order_by(OUTBOX.c.position).limit(BATCH)
)
# An array, so that PostgreSQL is not sent another statement for every number of events.
_MARK_DELIVERED = Prepared(
    update(OUTBOX)
    .where(OUTBOX.c.position == any_(bindparam("positions", type_=ARRAY(BigInteger))))
    .values(deliver_time=func.now())
)


async def append(
    connection: AsyncConnection, event: Event, *, scope: ColumnElement[Any] | Sequence[str] | None = None
) -> None:
    """Write an event in the transaction of its change.

    Args:
        connection: the transaction.
        event: what changed.
        scope: for a sequenced outbox, ids (or SQL that finds them) of the resource and its containers, innermost first,
            without the system; by them watchers are matched and permitted.
    """
    if scope is None:
        await connection.execute(_APPEND, _row(event))
    elif isinstance(scope, ColumnElement):
        await connection.execute(insert(SEQUENCED).values(_row(event) | {"scope": scope}))
    else:
        await connection.execute(_APPEND_SEQUENCED, _row(event) | {"scope": scope})
    announce(connection)


def appending(parameter: str) -> Insert:
    """Build the insert of events into a sequenced outbox, as a part of the statement that makes the changes.

    Who executes it also calls `announce`.

    Args:
        parameter: name of the parameter with the events, as `records_of` returns them; their positions rise in that order.
    """
    return insert_records(SEQUENCED, _COLUMNS, parameter=parameter)


def records_of(events: Sequence[tuple[Event, Sequence[str]]]) -> list[dict[str, Any]]:
    """Return events, each with its scope, as `appending` takes them."""
    return [_row(event) | {"scope": list(scope), "time": event.time.isoformat()} for event, scope in events]


def announce(connection: AsyncConnection) -> None:
    """Have everybody look for new events once the transaction has committed."""
    notify_after_commit(connection, CHANNEL)


def _row(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "resource_type": event.resource.type,
        "resource_id": event.resource.id,
        "resource_name": event.resource.name,
        "owner_id": event.resource.owner_id,
        "actor_id": event.actor.id,
        "actor_name": event.actor.name,
        "actor_kind": event.actor.kind,
        "request_id": event.request_id,
        "time": event.time,
        "data": dict(event.data),
    }


async def extent(connection: AsyncConnection) -> Extent:
    """Return which numbers a sequenced outbox holds at the moment."""
    row = (await connection.execute(select(HEAD.c.feed_id, HEAD.c.pruned, HEAD.c.sequence))).one()
    return Extent(row.feed_id, row.pruned, row.sequence)


class Sequencer:
    """Numbers the events of a sequenced outbox; see the head of this module. Any number of processes may do it at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def advance(self) -> int:
        """Number every event that was committed before this call, and return the last number given."""
        pending, last = await self._database.query(_look)
        while pending:
            # READ COMMITTED: each statement has a snapshot of its own, so that the one after the lock is as fresh as it.
            pending, last = await self._database.in_tx(_number, isolation="READ COMMITTED")
        return last

    async def prune(self, before: datetime) -> int:
        """Remove the oldest events that are delivered and older than `before`, and return how many.

        Only from the front: everything after the last removed number is still there, so that a reader can tell whether it
        missed something.
        """

        async def work(connection: AsyncConnection) -> int:
            old = and_(SEQUENCED.c.deliver_time.is_not(None), SEQUENCED.c.time < before)
            oldest = (
                select(SEQUENCED.c.sequence, old.label("removable"))
                .where(SEQUENCED.c.sequence.is_not(None))
                .order_by(SEQUENCED.c.sequence)
                .limit(BATCH)
            )
            rows = list(takewhile(lambda row: row.removable, await connection.execute(oldest)))
            if rows:
                last = rows[-1].sequence
                await connection.execute(delete(SEQUENCED).where(SEQUENCED.c.sequence <= last))
                await connection.execute(update(HEAD).values(pruned=func.greatest(HEAD.c.pruned, last)))
            return len(rows)

        removed = total = await self._database.in_tx(work, isolation="READ COMMITTED")
        while removed == BATCH:
            removed = await self._database.in_tx(work, isolation="READ COMMITTED")
            total += removed
        return total


async def _look(connection: AsyncConnection) -> tuple[bool, int]:
    [row] = await _LOOK.execute(connection, {})
    return row.pending, row.sequence


async def _number(connection: AsyncConnection) -> tuple[bool, int]:
    [before] = await _LOCK.execute(connection, {})
    [after] = await _NUMBER.execute(connection, {"last": before.sequence})
    return after.sequence - before.sequence == BATCH, after.sequence


def _numbering() -> Update:
    """Build the statement that numbers what has no number, and notes the last number given."""
    fresh = (
        select(SEQUENCED.c.position, func.row_number().over(order_by=SEQUENCED.c.position).label("rank"))
        .where(SEQUENCED.c.sequence.is_(None))
        .order_by(SEQUENCED.c.position)
        .limit(BATCH)
        .subquery()
    )
    numbered = (
        update(SEQUENCED)
        .where(SEQUENCED.c.position == fresh.c.position)
        .values(sequence=bindparam("last", type_=BigInteger) + fresh.c.rank)
        .returning(SEQUENCED.c.position)
        .cte("numbered")
    )
    count = select(func.count()).select_from(numbered).scalar_subquery()
    return update(HEAD).values(sequence=HEAD.c.sequence + count).returning(HEAD.c.sequence)


_LOOK = Prepared(
    select(
        exists().where(SEQUENCED.c.sequence.is_(None)).select().scalar_subquery().label("pending"),
        HEAD.c.sequence,
    )
)
_LOCK = Prepared(select(HEAD.c.sequence).with_for_update())
_NUMBER = Prepared(_numbering())


class Relay:
    """Hands the events of one outbox to a sink."""

    def __init__(self, database: Database, sink: Sink) -> None:
        self._database = database
        self._sink = sink
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Deliver for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._database.listen(CHANNEL, self._wake))
            tasks.create_task(self._deliver_forever())

    async def _deliver_forever(self) -> None:
        pause = POLL_SECONDS
        while True:
            self._wake.clear()
            began = time.monotonic()
            try:
                delivered = await self.deliver()
                pause = POLL_SECONDS
            except (DomainError, SQLAlchemyError, OSError) as error:
                _log.warning("outbox_delivery_failed", error=str(error), retry_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)
                continue
            if delivered < BATCH:
                await asyncio.sleep(_rest_after(time.monotonic() - began) if delivered else 0)
                await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def deliver(self) -> int:
        """Deliver one batch and return its size."""
        rows = await self._database.query(_undelivered)
        if not rows:
            return 0
        await self._sink([event for _, event in rows])
        positions = [position for position, _ in rows]

        async def mark(connection: AsyncConnection) -> None:
            await _MARK_DELIVERED.execute(connection, {"positions": positions})

        await self._database.in_tx(mark, isolation="READ COMMITTED")
        return len(rows)


def _rest_after(seconds: float) -> float:
    """Return how long to rest after a delivery that took so long."""
    return min(max(REST_SECONDS, REST_RATIO * seconds), LONGEST_REST_SECONDS)


async def _undelivered(connection: AsyncConnection) -> list[tuple[int, Event]]:
    return [(row.position, event_of(row)) for row in await _UNDELIVERED.execute(connection, {})]


def event_of(row: Any) -> Event:
    """Return the event in a row of the outbox."""
    kind: Kind = row.actor_kind
    return Event(
        type=row.type,
        resource=Link(ResourceType(row.resource_type), row.resource_id, row.resource_name, row.owner_id),
        actor=Principal(row.actor_id, row.actor_name, kind),
        request_id=row.request_id,
        data=row.data,
        id=row.id,
        time=row.time,
    )
