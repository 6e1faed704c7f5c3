"""What every change has in common: it happens once per `request_id`, and it leaves an event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Uuid, cast, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import events
from modelyard_catalog.commands import Once
from modelyard_catalog.models import Json, Path
from modelyard_kit import idempotency, outbox
from modelyard_kit.access import Chain, Link
from modelyard_kit.auth import Call
from modelyard_kit.db import Isolation
from modelyard_kit.ids import new_id

R = TypeVar("R")

COUNTING: Isolation = "READ COMMITTED"
"""The isolation of transactions that add versions.

They begin with the rows of the models (`CatalogStore.lock_models`) and hold them to their end. So they come one after the other without
undoing each other, each sees what those before it did, and what they rely on holds until they commit: who deletes, renames or
moves the model, or gives it an alias, writes the same row, and either waits, or began before and runs again. Labels have a unique index
besides.
"""

_INLINE_CHARACTERS = 1_000


async def create_once(
    connection: AsyncConnection,
    call: Call,
    method: str,
    once: Once,
    create: Callable[[str], Awaitable[R]],
    again: Callable[[str], Awaitable[R]],
    *,
    made: str = "",
) -> R:
    """Return what `create` makes under a new id, or, when this request came before, what `again` finds under the id of then.

    Args:
        connection: the transaction.
        call: who asks.
        method: what for.
        once: the request.
        create: makes it under an id.
        again: finds it under the id of then.
        made: the new id, if somebody was told of it already.

    Raises:
        RequestIdReused: the request id came before with other content.
    """
    made = made or new_id()
    before = await idempotency.claim(connection, claim_of(call, method, once, made))
    return await create(made) if before is None else await again(before)


def claim_of(call: Call, method: str, once: Once, made: str) -> idempotency.Claim:
    """Return the claim that a request makes what gets this id."""
    return idempotency.Claim(call.principal.id, method, once.request_id, once.fingerprint, made)


def model_turn(model: Path) -> str:
    """Return the name under which those who change the row of a model take turns, as `Database.in_tx` has it."""
    return f"model {'.'.join(model)}"


async def record(
    connection: AsyncConnection,
    call: Call,
    event_type: str,
    resource: Link,
    *,
    time: datetime,
    data: Mapping[str, Any],
    chain: Chain | None = None,
    also: Sequence[str] = (),
) -> None:
    """Write the event of a change into its transaction.

    Args:
        connection: the transaction.
        call: who changes, and by which request.
        event_type: as `catalog.model.created`.
        resource: what was changed.
        time: when.
        data: what of it, as JSON values.
        chain: the resource and its containers, if the caller knows them; otherwise they are looked up in the tables.
        also: ids of further containers whose watchers want to know, as those that a model was moved out of.
    """
    event = event_of(call, event_type, resource, time=time, data=data)
    # An event of something else, such as a data set, belongs to no container: see `events`.
    scope = events.scope_of(resource) if chain is None else events.scope_of_chain(chain)
    await outbox.append(connection, event, scope=_joined(also, scope))


def event_of(
    call: Call, event_type: str, resource: Link, *, time: datetime, data: Mapping[str, Any]
) -> outbox.Event:
    """Return the event of a change that a call makes; see `record`."""
    return outbox.Event(
        type=event_type,
        resource=resource,
        actor=call.principal,
        request_id=call.request_id,
        data=data,
        time=time,
    )


def _joined(also: Sequence[str], scope: Any) -> Any:
    if scope is None or not also:
        return scope
    return func.array_cat(cast(list(also), ARRAY(Uuid(as_uuid=False))), scope)


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
