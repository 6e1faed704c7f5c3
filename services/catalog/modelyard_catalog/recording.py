"""What every change has in common: it happens once per `request_id`, and it leaves an event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import Once
from modelyard_catalog.models import Json
from modelyard_kit import idempotency, outbox
from modelyard_kit.access import Link
from modelyard_kit.auth import Call

_INLINE_CHARACTERS = 1_000


async def create_once(
    connection: AsyncConnection, call: Call, method: str, once: Once, create: Callable[[], Awaitable[str]]
) -> str:
    """Return the id that `create` returns, or that it returned when this request came before.

    Raises:
        RequestIdReused: the request id came before with other content.
    """
    key = {
        "principal_id": call.principal.id,
        "method": method,
        "request_id": once.request_id,
        "fingerprint": once.fingerprint,
    }
    made = await idempotency.replay(connection, **key)
    if made is None:
        made = await create()
        await idempotency.remember(connection, **key, resource_id=made)
    return made


async def record(
    connection: AsyncConnection,
    call: Call,
    event_type: str,
    resource: Link,
    *,
    time: datetime,
    data: Mapping[str, Any],
) -> None:
    """Write the event of a change into its transaction."""
    event = outbox.Event(
        type=event_type,
        resource=resource,
        actor=call.principal,
        request_id=call.request_id,
        data=data,
        time=time,
    )
    await outbox.append(connection, event)


def compact(value: Json) -> Json:
    """Return a value as events carry it: small scalars as they are, anything else by size and digest.

    An event lives in the audit chain for ever and passes through messages of bounded size and depth, which a matrix of
    thousands of numbers would break.
    """
    small = isinstance(value, str) and len(value) <= _INLINE_CHARACTERS
    if value is None or small or isinstance(value, bool | int | float):
        return value
    content = json.dumps(value, ensure_ascii=False, sort_keys=True).encode()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def changes(before: Mapping[str, Json], after: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
    """Return the entries that differ, as they were and as they are; an absent entry is in one of the two only."""
    names = sorted(
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or before[name] != after[name]
    )
    return {
        "before": {name: compact(before[name]) for name in names if name in before},
        "after": {name: compact(after[name]) for name in names if name in after},
    }
