"""Rows of webhooks and deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.fields import WEBHOOK_DELIVERIES, WEBHOOKS
from modelyard_governance.tables import audit, audit_head, webhook_deliveries, webhooks
from modelyard_governance.webhooks.models import (
    Delivery,
    DeliveryState,
    EarlierSecret,
    Job,
    Outcome,
    Replay,
    State,
    Webhook,
)
from modelyard_kit.filters import Asked, fetch
from modelyard_kit.ids import new_id
from modelyard_kit.prepared import Prepared

_PENDING = webhook_deliveries.c.state == DeliveryState.PENDING


def _busy() -> Select[Any]:
    now = bindparam("now", type_=webhook_deliveries.c.next_time.type)
    due = exists().where(
        webhook_deliveries.c.webhook_id == webhooks.c.id, _PENDING, webhook_deliveries.c.next_time <= now
    )
    reachable = or_(webhooks.c.quiet_until.is_(None), webhooks.c.quiet_until <= now)
    behind = webhooks.c.cursor < select(audit_head.c.sequence).scalar_subquery()
    query = select(webhooks.c.id).where(webhooks.c.state == State.ENABLED, or_(behind, and_(reachable, due)))
    return query.order_by(webhooks.c.id)


_BUSY = Prepared(_busy())


async def add(connection: AsyncConnection, webhook: Webhook, sealed_secret: bytes) -> None:
    """Insert a webhook that is told of what comes after the end of the audit chain."""
    end = select(audit_head.c.sequence).scalar_subquery()
    await connection.execute(
        insert(webhooks).values(
            id=webhook.id,
            name=webhook.name,
            url=webhook.url,
            types=list(webhook.types),
            resource=webhook.resource,
            state=webhook.state,
            pause_reason="",
            failures=0,
            creator=webhook.creator,
            create_time=webhook.create_time,
            cursor=end,
            sealed_secret=sealed_secret,
        )
    )


async def count(connection: AsyncConnection) -> int:
    """Return how many there are."""
    return int((await connection.execute(select(func.count()).select_from(webhooks))).scalar_one())


async def named(connection: AsyncConnection, name: str) -> Webhook | None:
    """Return the webhook of a name."""
    row = (await connection.execute(select(webhooks).where(webhooks.c.name == name))).mappings().one_or_none()
    return _webhook(row) if row else None


async def get(connection: AsyncConnection, webhook_id: str) -> Webhook | None:
    """Return a webhook by its id."""
    row = (
        (await connection.execute(select(webhooks).where(webhooks.c.id == webhook_id)))
        .mappings()
        .one_or_none()
    )
    return _webhook(row) if row else None


async def page(connection: AsyncConnection, asked: Asked) -> tuple[list[Webhook], str]:
    """Return a page of webhooks and the token of the next."""
    rows, token = await fetch(connection, select(webhooks), asked, WEBHOOKS, scope="")
    return [_webhook(row) for row in rows], token


async def page_of_deliveries(
    connection: AsyncConnection, webhook_id: str, asked: Asked
) -> tuple[list[Delivery], str]:
    """Return a page of the log of a webhook and the token of the next."""
    query = select(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id)
    rows, token = await fetch(connection, query, asked, WEBHOOK_DELIVERIES, scope=webhook_id)
    return [_delivery(row) for row in rows], token


async def set_state(connection: AsyncConnection, webhook_id: str, state: State, reason: str = "") -> None:
    """Pause or resume a webhook; one that goes on is tried at once."""
    values: dict[str, Any] = {"state": state, "pause_reason": reason}
    if state is State.ENABLED:
        values |= {"failures": 0, "quiet_until": None}
    await connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(values))


async def change(connection: AsyncConnection, webhook: Webhook, *, elsewhere: bool) -> None:
    """Write what was changed of a webhook; at another address nothing has failed yet."""
    values: dict[str, Any] = {"url": webhook.url, "types": list(webhook.types), "resource": webhook.resource}
    if elsewhere:
        values |= {"failures": 0, "quiet_until": None}
    await connection.execute(update(webhooks).where(webhooks.c.id == webhook.id).values(values))


async def lock_secrets(
    connection: AsyncConnection, webhook_id: str
) -> tuple[bytes, tuple[EarlierSecret, ...]]:
    """Return the sealed secret and those before it, and keep them until the transaction ends."""
    query = select(webhooks.c.sealed_secret, webhooks.c.earlier_secrets).where(webhooks.c.id == webhook_id)
    row = (await connection.execute(query.with_for_update())).one()
    return row.sealed_secret, _earlier(row.earlier_secrets)


async def set_secrets(
    connection: AsyncConnection, webhook_id: str, sealed: bytes, earlier: Iterable[EarlierSecret]
) -> None:
    """Write the sealed secret and those before it."""
    kept = [{"sealed": each.sealed.decode(), "until": each.until.isoformat()} for each in earlier]
    values = {"sealed_secret": sealed, "earlier_secrets": kept}
    await connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(values))


async def remove(connection: AsyncConnection, webhook_id: str) -> None:
    """Delete a webhook with its deliveries."""
    await connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id))
    await connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


async def busy(connection: AsyncConnection, now: datetime) -> list[str]:
    """Return the ids of webhooks with something to do: entries not looked at, or a delivery that is due."""
    return [row.id for row in await _BUSY.execute(connection, {"now": now})]


async def lock(connection: AsyncConnection, webhook_id: str) -> Webhook | None:
    """Return an enabled webhook that nobody else works on, and keep it until the transaction ends."""
    query = select(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.state == State.ENABLED)
    row = (await connection.execute(query.with_for_update(skip_locked=True))).mappings().one_or_none()
    return _webhook(row) if row else None


async def backlog(connection: AsyncConnection, webhook_id: str) -> int:
    """Return how many deliveries are not made yet."""
    query = select(func.count()).where(webhook_deliveries.c.webhook_id == webhook_id, _PENDING)
    return int((await connection.execute(query)).scalar_one())


async def next_events(connection: AsyncConnection, after: int, limit: int) -> list[Any]:
    """Return sequence, event_id, type and resource of the entries of the audit chain after one."""
    columns = (audit.c.sequence, audit.c.event_id, audit.c.type, audit.c.resource)
    query = select(*columns).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(limit)
    return list((await connection.execute(query)).all())


async def enqueue(
    connection: AsyncConnection, webhook: Webhook, events: Iterable[Any], now: datetime
) -> None:
    """Put events in the queue of a webhook."""
    rows = [
        {
            "id": new_id(),
            "webhook_id": webhook.id,
            "sequence": event.sequence,
            "event_id": event.event_id,
            "type": event.type,
            "state": DeliveryState.PENDING,
            "attempts": 0,
            "status_code": 0,
            "error": "",
            "create_time": now,
            "next_time": now,
        }
        for event in events
    ]
    if rows:
        await connection.execute(insert(webhook_deliveries), rows)


async def advance(connection: AsyncConnection, webhook_id: str, cursor: int) -> None:
    """Note that everything up to an entry of the audit chain was looked at."""
    await connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(cursor=cursor))


async def claim(
    connection: AsyncConnection, webhook: Webhook, *, limit: int, now: datetime, lease_until: datetime
) -> list[Job]:
    """Take deliveries that are due, the oldest first; unless settled before, they are due again when the lease ends."""
    due = (
        select(webhook_deliveries.c.id)
        .where(webhook_deliveries.c.webhook_id == webhook.id, _PENDING, webhook_deliveries.c.next_time <= now)
        .order_by(webhook_deliveries.c.sequence)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list((await connection.execute(due)).scalars())
    if not ids:
        return []
    await connection.execute(
        update(webhook_deliveries)
        .where(webhook_deliveries.c.id.in_(ids))
        .values(next_time=lease_until, attempts=webhook_deliveries.c.attempts + 1)
    )
    query = (
        select(
            webhook_deliveries.c.id,
            webhook_deliveries.c.sequence,
            webhook_deliveries.c.attempts,
            webhooks.c.url,
            webhooks.c.sealed_secret,
            webhooks.c.earlier_secrets,
            audit.c.canonical_event,
        )
        .join(webhooks, webhooks.c.id == webhook_deliveries.c.webhook_id)
        .outerjoin(audit, audit.c.sequence == webhook_deliveries.c.sequence)
        .where(webhook_deliveries.c.id.in_(ids))
        .order_by(webhook_deliveries.c.sequence)
    )
    return [
        Job(
            row.id,
            webhook.id,
            row.url,
            row.sealed_secret,
            _earlier(row.earlier_secrets),
            row.sequence,
            row.attempts,
            webhook.failures,
            row.canonical_event,
        )
        for row in await connection.execute(query)
    ]


async def settle(
    connection: AsyncConnection, job: Job, outcome: Outcome, *, now: datetime, retry_at: datetime | None
) -> None:
    """Write down what came of an attempt; without `retry_at` a failure is given up."""
    state = DeliveryState.PENDING if retry_at else DeliveryState.FAILED
    values: dict[str, Any] = {"status_code": outcome.status_code, "error": outcome.error}
    if outcome.delivered:
        values |= {"state": DeliveryState.DELIVERED, "deliver_time": now, "next_time": None}
    else:
        values |= {"state": state, "next_time": retry_at}
    await connection.execute(
        update(webhook_deliveries).where(webhook_deliveries.c.id == job.id).values(values)
    )


async def note_health(
    connection: AsyncConnection, webhook_id: str, failures: int, quiet_until: datetime | None
) -> None:
    """Note how many attempts failed one after the other, and until when the receiver is left alone."""
    await connection.execute(
        update(webhooks).where(webhooks.c.id == webhook_id).values(failures=failures, quiet_until=quiet_until)
    )


async def replay(connection: AsyncConnection, webhook_id: str, wanted: Replay, now: datetime) -> int:
    """Put deliveries that are done or given up in the queue again, and return how many."""
    query = update(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id, ~_PENDING)
    if wanted.delivery_id:
        query = query.where(webhook_deliveries.c.id == wanted.delivery_id)
    elif wanted.since is not None:
        query = query.where(webhook_deliveries.c.create_time >= wanted.since)
    else:
        query = query.where(webhook_deliveries.c.state == DeliveryState.FAILED)
    values = {"state": DeliveryState.PENDING, "attempts": 0, "next_time": now, "deliver_time": None}
    return (await connection.execute(query.values(values))).rowcount


async def forget(connection: AsyncConnection, before: datetime, *, limit: int) -> int:
    """Remove deliveries that are done or given up and older than `before`, and return how many."""
    old = (
        select(webhook_deliveries.c.id)
        .where(~_PENDING, webhook_deliveries.c.create_time < before)
        .limit(limit)
    )
    gone = delete(webhook_deliveries).where(webhook_deliveries.c.id.in_(old))
    return (await connection.execute(gone)).rowcount


def _webhook(row: Mapping[Any, Any]) -> Webhook:
    return Webhook(
        id=row["id"],
        name=row["name"],
        url=row["url"],
        types=tuple(row["types"]),
        resource=row["resource"],
        state=State(row["state"]),
        pause_reason=row["pause_reason"],
        failures=row["failures"],
        quiet_until=row["quiet_until"],
        creator=row["creator"],
        create_time=row["create_time"],
        cursor=row["cursor"],
        earlier_secrets=_earlier(row["earlier_secrets"]),
    )


def _earlier(stored: Iterable[Mapping[str, str]]) -> tuple[EarlierSecret, ...]:
    return tuple(
        EarlierSecret(each["sealed"].encode(), datetime.fromisoformat(each["until"])) for each in stored
    )


def _delivery(row: Mapping[Any, Any]) -> Delivery:
    return Delivery(
        id=row["id"],
        webhook_id=row["webhook_id"],
        sequence=row["sequence"],
        event_id=row["event_id"],
        type=row["type"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        status_code=row["status_code"],
        error=row["error"],
        create_time=row["create_time"],
        next_time=row["next_time"],
        deliver_time=row["deliver_time"],
    )
