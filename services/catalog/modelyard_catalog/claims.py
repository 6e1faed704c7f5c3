"""Claims of deletions, so that what is deployed is never deleted, without a transaction over two services.

Each side first commits what it is about to do, then looks at what the other side has committed:

- a deletion commits a claim on the resource, then asks the inference service for deployments, and deletes if there are none;
- the inference service commits that a deployment wants a version, then asks here, by ids, whether the version may be used.

Whichever commits second sees the other. Both may: then the deletion is refused, its claim goes, and the deployment, which only
waits while there is a claim, goes on. A claim and its deletion end in one transaction, so nothing can be asked in between. A
deletion that died leaves a claim whose time ends; who asks then takes it away, and a deletion that was merely slow finds that
it lost its claim and deletes nothing.

Every function runs in the caller's transaction and never commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.lifecycle_store import BY_TYPE
from modelyard_catalog.models import Resource
from modelyard_catalog.rows import levels
from modelyard_catalog.tables import deletion_claims
from modelyard_kit.access import SYSTEM_ID, Chain, Link
from modelyard_kit.ids import new_id

# The clock of the database, which all processes of the service share; `now()` would be the begin of the transaction.
_NOW: Any = func.clock_timestamp(type_=deletion_claims.c.until.type)


async def claim(connection: AsyncConnection, resource: Resource, time: timedelta) -> str:
    """Claim a resource for its deletion, for so long at most, and return the id of the claim.

    Its row is written as it was: a transaction that has read it, and goes by what it read (see `stay`), is then repeated.
    """
    await connection.execute(delete(deletion_claims).where(deletion_claims.c.until < _NOW))
    table = levels(type(resource))[0]
    await connection.execute(update(table).where(table.c.id == resource.id).values(revision=table.c.revision))
    made = new_id()
    values = {"id": made, "resource_id": resource.id, "until": _NOW + time}
    await connection.execute(insert(deletion_claims).values(values))
    return made


async def give_up(connection: AsyncConnection, claim_id: str) -> bool:
    """End a claim; False if it has been taken away, because its time was over."""
    ended = delete(deletion_claims).where(deletion_claims.c.id == claim_id).returning(deletion_claims.c.id)
    return (await connection.execute(ended)).one_or_none() is not None


async def claimed(connection: AsyncConnection, chain: Chain) -> list[Link]:
    """Return what of a chain is being deleted; claims whose time is over are taken away."""
    about = deletion_claims.c.resource_id.in_(_ids(chain))
    await connection.execute(delete(deletion_claims).where(about, deletion_claims.c.until < _NOW))
    found = set((await connection.execute(select(deletion_claims.c.resource_id).where(about))).scalars())
    return [link for link in chain if link.id in found]


async def stay(connection: AsyncConnection, chain: Chain) -> list[Link]:
    """Return what of a chain is being deleted; no claim on any of it can be made before this transaction ends.

    For what puts something that may be deployed into another container: a claim made before would not have seen it.
    """
    for link in chain:
        if link.id != SYSTEM_ID:
            table = levels(BY_TYPE[link.type])[0]
            await connection.execute(
                select(table.c.id).where(table.c.id == link.id).with_for_update(read=True)
            )
    return await claimed(connection, chain)


def _ids(chain: Chain) -> Sequence[str]:
    return [link.id for link in chain if link.id != SYSTEM_ID]
