"""The transactional outbox: a change and the event that tells of it commit together.

The relay delivers every event at least once, in the order of their positions; consumers drop ids they have seen. NOTIFY wakes
it, polling guarantees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    MetaData,
    Table,
    Text,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit.access import Link, ResourceType
from modelyard_kit.auth import Kind, Principal
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from modelyard_kit.ids import new_id

CHANNEL = "modelyard_outbox"
BATCH = 500
POLL_SECONDS = 1.0

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


def outbox_table(metadata: MetaData) -> Table:
    """Define the outbox in a service's metadata."""
    return Table(
        "outbox",
        metadata,
        Column("position", BigInteger, Identity(always=True), primary_key=True),
        Column("id", Text, nullable=False, unique=True),
        Column("type", Text, nullable=False),
        Column("resource_type", Text, nullable=False),
        Column("resource_id", Text, nullable=False),
        Column("resource_name", Text, nullable=False),
        Column("owner_id", Text, nullable=False),
        Column("actor_id", Text, nullable=False),
        Column("actor_name", Text, nullable=False),
        Column("actor_kind", Text, nullable=False),
        Column("request_id", Text, nullable=False),
        Column("time", DateTime(timezone=True), nullable=False),
        Column("data", JSONB, nullable=False),
        Column("deliver_time", DateTime(timezone=True)),
        Index("outbox_undelivered", "position", postgresql_where=text("deliver_time IS NULL")),
    )


_outbox = outbox_table(MetaData())


def create(operations: Any) -> None:
    """Create the outbox in a service's first migration; `operations` is `alembic.op`."""
    _outbox.create(operations.get_bind())


async def append(connection: AsyncConnection, event: Event) -> None:
    """Write an event in the transaction of its change."""
    await connection.execute(
        insert(_outbox).values(
            id=event.id,
            type=event.type,
            resource_type=event.resource.type,
            resource_id=event.resource.id,
            resource_name=event.resource.name,
            owner_id=event.resource.owner_id,
            actor_id=event.actor.id,
            actor_name=event.actor.name,
            actor_kind=event.actor.kind,
            request_id=event.request_id,
            time=event.time,
            data=dict(event.data),
        )
    )
    await connection.execute(select(func.pg_notify(CHANNEL, "")))


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
            try:
                delivered = await self.deliver()
                pause = POLL_SECONDS
            except (DomainError, SQLAlchemyError, OSError) as error:
                _log.warning("outbox_delivery_failed", error=str(error), retry_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)
                continue
            if delivered < BATCH:
                await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def deliver(self) -> int:
        """Deliver one batch and return its size."""
        rows = await self._database.in_tx(_undelivered, isolation="READ COMMITTED")
        if not rows:
            return 0
        await self._sink([event for _, event in rows])
        positions = [position for position, _ in rows]

        async def mark(connection: AsyncConnection) -> None:
            delivered = (
                update(_outbox).where(_outbox.c.position.in_(positions)).values(deliver_time=func.now())
            )
            await connection.execute(delivered)

        await self._database.in_tx(mark, isolation="READ COMMITTED")
        return len(rows)


async def _undelivered(connection: AsyncConnection) -> list[tuple[int, Event]]:
    query = select(_outbox).where(_outbox.c.deliver_time.is_(None)).order_by(_outbox.c.position).limit(BATCH)
    return [(row.position, _event(row)) for row in await connection.execute(query)]


def _event(row: Any) -> Event:
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
