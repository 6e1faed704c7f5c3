"""Brings events to webhooks, at least once.

The audit chain is the queue: each webhook has a cursor in it. In one transaction the next entries become deliveries and the cursor moves
on, so that nothing is lost or doubled by a process that ends. A delivery is claimed by moving its next attempt to the end of a lease: if
the process ends before it writes down what came of it, it is due again.

Each webhook has a few attempts of its own at once and waits for nobody else's. A receiver that cannot be reached is left alone as a
whole for longer and longer, with jitter; a single event that a receiver refuses is tried again without holding up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.webhooks import store
from modelyard_governance.webhooks.models import Job, Outcome, State
from modelyard_governance.webhooks.sender import Sender
from modelyard_kit.access import SYSTEM
from modelyard_kit.auth import Principal
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault, failpoint
from modelyard_kit.limits import LIMITS
from modelyard_kit.outbox import Event, append

AT_ONCE = 4
"""Attempts at one webhook that run at once, in one process."""
BATCH = 200
POLL_SECONDS = 1.0
ATTEMPTS = 16
FIRST_PAUSE = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(hours=1)
KEPT = timedelta(days=30)
_FORGET_EVERY = timedelta(hours=1)
_GOVERNANCE = Principal("governance", "governance", "service")

_log = structlog.get_logger()


def pause_after(failures: int) -> timedelta:
    """Return how long to wait after so many failures: twice as long each time, less up to half of it so that callers spread."""
    doubled = FIRST_PAUSE * (1 << min(failures - 1, 30))
    return min(doubled, LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311 - guards nothing


class Dispatcher:
    """Sends for ever.

    Args:
        database: with webhooks, deliveries and the audit chain.
        sender: makes attempts.
        clock: tells the time.
        lease: how long a claimed delivery is left alone; longer than any attempt.
    """

    def __init__(self, *, database: Database, sender: Sender, clock: Clock, lease: timedelta) -> None:
        self._database = database
        self._sender = sender
        self._clock = clock
        self._lease = lease
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._of_webhook: Counter[str] = Counter()
        self._forget_at = clock()

    def wake(self) -> None:
        """Look soon whether there is something to send."""
        self._wake.set()

    async def run(self) -> None:
        """Send for ever; attempts that run when it is cancelled are cancelled too, and are made again after their lease."""
        try:
            await self._send_forever()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _send_forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                busy = await self.step()
            except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
                _log.warning("webhooks_not_sent", error=str(error))
                busy = False
            if not busy:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()

    async def step(self) -> bool:
        """Queue and begin what can be begun now; return whether there was more to queue than one batch."""
        more = False
        now = self._clock()
        for webhook_id in await self._database.query(lambda connection: store.busy(connection, now)):
            more |= await self._enqueue(webhook_id)
            await self._begin(webhook_id)
        if now >= self._forget_at:
            await self._forget()
        return more

    async def _enqueue(self, webhook_id: str) -> bool:
        """Make deliveries of the next entries; return whether there may be more."""

        async def work(connection: AsyncConnection) -> bool:
            webhook = await store.lock(connection, webhook_id)
            if webhook is None:
                return False
            events = await store.next_events(connection, webhook.cursor, BATCH)
            if not events:
                return False
            if await store.backlog(connection, webhook_id) >= LIMITS["webhook_backlog"].maximum:
                return False  # it stays where it is in the chain, and goes on when there is room
            wanted = [event for event in events if webhook.wants(event.type, event.resource)]
            await store.enqueue(connection, webhook, wanted, self._clock())
            await store.advance(connection, webhook_id, events[-1].sequence)
            return len(events) == BATCH

        return await self._database.in_tx(work, isolation="READ COMMITTED")

    async def _begin(self, webhook_id: str) -> None:
        free = AT_ONCE - self._of_webhook[webhook_id]
        if free <= 0:
            return
        now = self._clock()

        async def work(connection: AsyncConnection) -> list[Job]:
            webhook = await store.lock(connection, webhook_id)
            if webhook is None or (webhook.quiet_until is not None and webhook.quiet_until > now):
                return []
            # One that failed is tried with one event, until that arrives.
            limit = 1 if webhook.failures else free
            if webhook.failures and self._of_webhook[webhook_id]:
                return []
            return await store.claim(connection, webhook, limit=limit, now=now, lease_until=now + self._lease)

        for job in await self._database.in_tx(work, isolation="READ COMMITTED"):
            self._of_webhook[webhook_id] += 1
            task = asyncio.create_task(self._attempt(job))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _attempt(self, job: Job) -> None:
        try:
            await failpoint("governance.webhook.claimed")
            outcome = await self._sender.send(job)
            await failpoint("governance.webhook.sent")
            await self._settle(job, outcome)
        except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
            _log.warning(
                "webhook_attempt_lost", delivery=job.id, error=str(error)
            )  # due again after its lease
        finally:
            self._of_webhook[job.webhook_id] -= 1
            self._wake.set()

    async def _settle(self, job: Job, outcome: Outcome) -> None:
        now = self._clock()
        retry_at = self._retry_at(job, outcome, now)

        async def work(connection: AsyncConnection) -> None:
            await store.settle(connection, job, outcome, now=now, retry_at=retry_at)
            if outcome.unreachable:
                failures = job.failures + 1
                await store.note_health(connection, job.webhook_id, failures, now + pause_after(failures))
            elif job.failures:
                await store.note_health(connection, job.webhook_id, 0, None)
            if outcome.gone:
                reason = "the receiver answered 410: it wants no more"
                await store.set_state(connection, job.webhook_id, State.PAUSED, reason)
                data = {"webhook_id": job.webhook_id, "reason": reason}
                await append(connection, Event("governance.webhook.paused", SYSTEM, _GOVERNANCE, "", data))

        await self._database.in_tx(work, isolation="READ COMMITTED")
        if not outcome.delivered:
            _log.info(
                "webhook_not_delivered",
                delivery=job.id,
                attempt=job.attempts,
                error=outcome.error,
                given_up=retry_at is None,
            )

    def _retry_at(self, job: Job, outcome: Outcome, now: datetime) -> datetime | None:
        """Return when to try again; None when that is of no use, or was enough."""
        if outcome.delivered or job.canonical_event is None:
            return None
        if outcome.gone:
            return now
        return now + pause_after(job.attempts) if job.attempts < ATTEMPTS else None

    async def _forget(self) -> None:
        before = self._clock() - KEPT
        removed = BATCH
        while removed == BATCH:
            removed = await self._database.in_tx(
                lambda connection: store.forget(connection, before, limit=BATCH), isolation="READ COMMITTED"
            )
        self._forget_at = self._clock() + _FORGET_EVERY
