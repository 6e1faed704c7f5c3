"""Refused attempts on their way into the audit chain, so that no flood of them can hurt.

A refusal changes nothing, so it has no transaction that its event could be written in. It is noted in memory and written to the
outbox within a second; the same attempt again within a minute is only counted, and written once when that is over. What one principal
tries beyond a number of different attempts is counted as one, and so is what all try together. So the events of a minute are
bounded whatever is tried; a process that is killed loses at most what it had not written.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit.access import SYSTEM, Link, ResourceType
from modelyard_kit.auth import NOBODY, Call, Principal
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from modelyard_kit.limits import LIMITS
from modelyard_kit.outbox import Event, append

REASONS = frozenset(("PERMISSION_DENIED", "POLICY_UNMET", "SELF_APPROVAL", "TOKEN_INVALID", "TOKEN_MISSING"))
"""Refusals that are remembered. An expired token is none: every client is told so, and takes a new one."""

WRITE_SECONDS = 1.0
REPEAT = timedelta(seconds=60)
_TEXT_LENGTH = 255
_OTHERS = "(others)"

_log = structlog.get_logger()

_Key = tuple[str, str, str, str, str]


@dataclass
class _Attempt:
    """Attempts that are counted as one; `due` is when the next event of them may be written."""

    method: str
    reason: str
    message: str
    resource: Link
    actor: Principal
    request_id: str
    due: datetime
    privilege: str = ""
    count: int = 0


class Denials:
    """Remembers the refusals of one service.

    Args:
        database: of the service, with its outbox.
        service: its name, with which the events begin: `catalog.access.denied`.
        clock: tells the time.
    """

    def __init__(self, database: Database, service: str, clock: Clock) -> None:
        self._database = database
        self._service = service
        self._clock = clock
        self._attempts: dict[_Key, _Attempt] = {}
        self._of_principal: Counter[str] = Counter()

    def note(self, call: Call, method: str, error: DomainError) -> None:
        """Note that a call was refused; other errors than refusals are none of its business."""
        if error.reason not in REASONS:
            return
        rpc, resource = method.rpartition("/")[2], _resource(error)
        key = self._bounded((call.principal.id, rpc, error.reason, resource.type, resource.name))
        attempt = self._attempts.get(key)
        if attempt is None:
            told_apart = key[1] != _OTHERS
            self._of_principal[key[0]] += 1
            attempt = self._attempts[key] = _Attempt(
                method=key[1],
                reason=error.reason,
                message=error.message[:_TEXT_LENGTH] if told_apart else "more than are told apart",
                resource=resource if told_apart else SYSTEM,
                actor=call.principal if key[0] else NOBODY,
                request_id=call.request_id,
                due=self._clock(),
                privilege=error.metadata.get("privilege", "") if told_apart else "",
            )
        attempt.count += 1

    def _bounded(self, key: _Key) -> _Key:
        """Return the key, or that of all attempts that are too many; see the head of this module."""
        if key in self._attempts:
            return key
        if len(self._attempts) >= LIMITS["denials_per_minute"].maximum:
            return ("", _OTHERS, "", "", "")
        if self._of_principal[key[0]] >= LIMITS["denials_per_principal"].maximum:
            return (key[0], _OTHERS, "", "", "")
        return key

    async def run(self) -> None:
        """Write what was noted, for ever."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    async def write(self, *, everything: bool = False) -> None:
        """Write what is due, or with `everything` all there is; if the database is away it stays for the next time."""
        now = self._clock()
        due = [
            attempt
            for attempt in self._attempts.values()
            if attempt.count and (everything or attempt.due <= now)
        ]
        counts = [attempt.count for attempt in due]

        async def work(connection: AsyncConnection) -> None:
            for attempt, count in zip(due, counts, strict=True):
                await append(connection, self._event(attempt, count))

        if due:
            try:
                await self._database.in_tx(work, isolation="READ COMMITTED")
            except (SQLAlchemyError, OSError, DomainError) as error:
                _log.warning("denials_not_written", attempts=len(due), error=str(error))
                return
        for attempt, count in zip(due, counts, strict=True):
            attempt.count -= count
            attempt.due = now + REPEAT
        self._forget(now)

    def _event(self, attempt: _Attempt, count: int) -> Event:
        data = {
            "method": attempt.method,
            "reason": attempt.reason,
            "privilege": attempt.privilege,
            "message": attempt.message,
            "count": count,
        }
        return Event(
            f"{self._service}.access.denied", attempt.resource, attempt.actor, attempt.request_id, data
        )

    def _forget(self, now: datetime) -> None:
        over = [key for key, attempt in self._attempts.items() if not attempt.count and attempt.due <= now]
        for key in over:
            del self._attempts[key]
            self._of_principal[key[0]] -= 1
        self._of_principal += Counter()  # drops those that are zero


def _resource(error: DomainError) -> Link:
    """Return what was refused, as far as the error tells: a name that may exist or not."""
    name = error.metadata.get("name", "")[:_TEXT_LENGTH].replace("\0", "")
    try:
        kind = ResourceType(error.metadata.get("resource_type", "").replace(" ", "_"))
    except ValueError:
        kind = ResourceType.MODEL_VERSION if "/" in name else ResourceType.SYSTEM
    if kind is ResourceType.SYSTEM:
        return SYSTEM
    return Link(kind, error.resource_id, name)
