"""Rules of deletions: refused while something uses the resource, and undone until its purge time.

Deleting marks one row; what it contains is hidden with it, and comes back with it. What was deleted before on its own stays
deleted then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar, cast

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import claims
from modelyard_catalog.aliases import Gates
from modelyard_catalog.commands import Delete, Undelete, VersionRef
from modelyard_catalog.lifecycle_store import BY_TYPE, CHILDREN, LifecycleStore
from modelyard_catalog.models import (
    AliasMove,
    Catalog,
    Model,
    ModelVersion,
    Resource,
    Schema,
)
from modelyard_catalog.recording import model_turn, record
from modelyard_catalog.store import CatalogStore
from modelyard_catalog.updates import require_etag
from modelyard_kit.access import SYSTEM_ID, Chain
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, Contention, InvalidState, NotFound, PolicyUnmet, ResourceInUse
from modelyard_kit.faults import failpoint
from modelyard_kit.limits import LIMITS

R = TypeVar("R", bound=Resource)

_log = structlog.get_logger()

CLAIM_TIME = timedelta(seconds=120)
"""Longer than a call takes at most; a deployment waits for so long if the catalog dies within a deletion."""
_FORCE = "delete or move that first, or delete with force"
_DEPLOYED = "delete or change the deployments first, which force does not do"
_SHOWN = 20
"""Uses of a kind that a refusal lists; it counts the rest."""
_AT_ONCE = 10_000
"""Versions that the inference service is asked about in one call."""


class Deployments(Protocol):
    """What the rules ask of the inference service."""

    async def running(self, version_ids: Sequence[str]) -> list[str]:
        """Return names of the deployments that run or will run any of at most 10,000 versions. Raises PeerUnavailable."""
        ...

    async def inside(self, schema: str) -> list[str]:
        """Return names of deployments in a schema, called so now. Raises PeerUnavailable."""
        ...


class Deletions:
    """Use cases that take resources away and bring them back.

    Args:
        db: the database.
        store: its tables.
        lifecycle: the same, for changes to whole resources.
        clock: the time.
        deployments: the inference service.
        gates: the governance service.
        retention: how long what is deleted can be undeleted.
        claim_time: after which a deletion that has not asked the inference service yet must be begun again.
    """

    def __init__(
        self,
        db: Database,
        store: CatalogStore,
        lifecycle: LifecycleStore,
        clock: Clock,
        deployments: Deployments,
        gates: Gates,
        *,
        retention: timedelta,
        claim_time: timedelta = CLAIM_TIME,
    ) -> None:
        self._db = db
        self._store = store
        self._lifecycle = lifecycle
        self._clock = clock
        self._deployments = deployments
        self._gates = gates
        self._retention = retention
        self._claim_time = claim_time

    async def delete(self, call: Call, kind: type[R], command: Delete) -> R:
        """Delete a resource with what it contains, and return it with the times that it has then.

        A deployment that is made at the same moment either is seen, or sees that this is being deleted: see claims.py.

        Raises:
            NotFound: it does not exist.
            EtagMismatch: it changed since the caller read it.
            ResourceInUse: it is deployed; or, unless forced, it contains something or is aliased.
            PeerUnavailable: the inference service does not answer.
            Contention: to ask it took so long that others were let use the resource meanwhile.
        """
        seen = await self._db.query(lambda connection: self._find(connection, kind, command))
        call.confirm(_decided_on(seen))

        async def claim(connection: AsyncConnection) -> str:
            return await claims.claim(connection, seen, self._claim_time)

        claim_id = await self._db.in_tx(claim, isolation="READ COMMITTED")
        try:
            await failpoint("catalog.delete.claimed")
            # Before the transaction: what it runs may run twice, and must not wait for another service.
            deployed = await self._deployed(seen)
            await failpoint("catalog.delete.asked")
            return await self._delete(call, kind, command, seen, deployed, claim_id)
        except BaseException:
            await self._give_up(claim_id)
            raise

    async def _delete(
        self, call: Call, kind: type[R], command: Delete, seen: R, deployed: Sequence[str], claim_id: str
    ) -> R:
        """Delete what was claimed, and end the claim, in one transaction."""

        async def work(connection: AsyncConnection) -> R:
            resource = await self._find(connection, kind, command)
            if resource.id != seen.id:  # deleted and made again since: inference was asked about another one
                raise NotFound(resource.kind, resource.name)
            call.confirm(_decided_on(resource))
            uses = deployed if command.force else [*deployed, *await self._uses(connection, resource)]
            if uses:
                way_out = _FORCE if not deployed else _DEPLOYED
                raise ResourceInUse(resource.kind, resource.name, uses, way_out=way_out)
            if not await claims.give_up(connection, claim_id):
                raise Contention(1)
            now = self._clock()
            if isinstance(resource, ModelVersion):
                moves = [AliasMove(alias, resource.number, 0) for alias in resource.aliases]
                await self._move(connection, call, resource, moves, now)
            purge_time = now + self._retention
            await self._lifecycle.change(connection, resource, now, delete_time=now, purge_time=purge_time)
            data = {"force": command.force, "purge_time": purge_time.isoformat()}
            event = f"catalog.{resource.kind}.deleted"
            await record(connection, call, event, resource.link, time=now, data=data)
            return await self._lifecycle.get_any(connection, kind, resource.id) or resource

        target = command.target
        return await self._db.in_tx(
            work, turns=[model_turn(target.model if isinstance(target, VersionRef) else target)]
        )

    async def _give_up(self, claim_id: str) -> None:
        """End a claim after a refusal; if that cannot be, it ends with its time."""
        try:
            await self._db.in_tx(lambda connection: claims.give_up(connection, claim_id))
        except (Contention, SQLAlchemyError, OSError) as error:
            _log.warning("claim_not_given_up", error=str(error))

    async def undelete(self, call: Call, command: Undelete) -> Resource:
        """Bring back what was deleted with everything that went with it.

        A version gets back the aliases it lost, but for those that were given away since, and those that policies now hold back.

        Raises:
            NotFound: it does not exist, or its purge time is over.
            InvalidState: it is not deleted, or something that contains it is.
            AlreadyExists: its name or label was given away since.
            PeerUnavailable: it had aliases, and the governance service does not answer.
        """
        kind = BY_TYPE[command.type]
        permitted = await self._permitted_aliases(command) if kind is ModelVersion else []

        async def work(connection: AsyncConnection) -> Resource:
            deleted = await self._deleted(connection, command)
            call.confirm(deleted.parents)
            now = self._clock()
            if isinstance(deleted, ModelVersion):
                await self._require_free_label(connection, deleted)
            back = await self._lifecycle.change(connection, deleted, now, delete_time=None, purge_time=None)
            if not back:
                raise AlreadyExists(deleted.kind, deleted.name)
            if isinstance(deleted, ModelVersion):
                await self._restore_aliases(connection, call, deleted, permitted, now)
            event = f"catalog.{deleted.kind}.undeleted"
            await record(connection, call, event, deleted.link, time=now, data={})
            return await self._lifecycle.get_any(connection, kind, deleted.id) or deleted

        return await self._db.in_tx(work)

    async def _find(self, connection: AsyncConnection, kind: type[R], command: Delete) -> R:
        target = command.target
        found: Resource | None
        if isinstance(target, VersionRef):
            found = await self._store.version(connection, target)
        else:
            found = await self._store.find(connection, kind, target)
        if found is None:
            raise NotFound(kind.kind, str(target) if isinstance(target, VersionRef) else ".".join(target))
        require_etag(found, command.etag)
        return cast("R", found)

    async def _uses(self, connection: AsyncConnection, resource: Resource) -> list[str]:
        """Return what keeps a resource from being deleted unless that is forced."""
        if isinstance(resource, ModelVersion):
            return _listed([f"alias {alias}" for alias in resource.aliases], len(resource.aliases))
        names, count = await self._lifecycle.children(connection, resource, _SHOWN)
        child = CHILDREN[type(resource)]
        joint = "/" if child is ModelVersion else "."
        label = child.kind.replace("_", " ")
        return _listed([f"{label} {resource.name}{joint}{name}" for name in names], count)

    async def _deployed(self, resource: Resource) -> list[str]:
        """Return the deployments that run anything in a resource, or are in it."""
        found: set[str] = set()
        after: str | None = None
        while True:
            last = after

            async def page(connection: AsyncConnection, last: str | None = last) -> list[str]:
                return await self._lifecycle.ready_versions(connection, resource, after=last, limit=_AT_ONCE)

            ids = await self._db.read(page)
            if ids:
                found |= set(await self._deployments.running(ids))
            if len(ids) < _AT_ONCE:
                break
            after = ids[-1]
        for schema in await self._schemas(resource):
            found |= set(await self._deployments.inside(schema))
        return _listed([f"deployment {name}" for name in sorted(found)], len(found))

    async def _schemas(self, resource: Resource) -> list[str]:
        if isinstance(resource, Catalog):
            catalog = resource
            return await self._db.read(lambda connection: self._lifecycle.live_schemas(connection, catalog))
        return [resource.name] if isinstance(resource, Schema) else []

    async def _deleted(self, connection: AsyncConnection, command: Undelete) -> Resource:
        """Return a deleted resource that can come back."""
        found = await self._lifecycle.get_any(connection, BY_TYPE[command.type], command.id)
        if found is None or (found.purge_time is not None and found.purge_time <= self._clock()):
            raise NotFound(command.type, command.id)
        for link in reversed(found.parents):
            if link.id == SYSTEM_ID:
                continue
            container = await self._lifecycle.get_any(connection, BY_TYPE[link.type], link.id)
            if container is None or container.delete_time is not None:
                raise InvalidState(link.type, link.name, state="deleted", wanted="undeleted first")
        if found.delete_time is None:
            raise InvalidState(found.kind, found.name, state="not deleted", wanted="deleted")
        return found

    async def _require_free_label(self, connection: AsyncConnection, version: ModelVersion) -> None:
        if not version.label:
            return
        model = await self._store.get(connection, Model, version.model.id)
        aliased = model is not None and version.label in model.aliases
        if aliased or await self._store.labels(connection, version.model.id, [version.label]):
            raise AlreadyExists(version.kind, f"{version.model.name}@{version.label}")

    async def _permitted_aliases(self, command: Undelete) -> list[str]:
        """Return the aliases that a deleted version lost and that policies let it have again."""

        async def read(connection: AsyncConnection) -> tuple[ModelVersion | None, list[str]]:
            found = await self._lifecycle.get_any(connection, ModelVersion, command.id)
            if found is None or found.delete_time is None:
                return None, []
            return found, await self._lifecycle.aliases_lost(connection, found)

        version, lost = await self._db.read(read)
        permitted: list[str] = []
        if version is None:
            return permitted
        for alias in lost:
            with contextlib.suppress(PolicyUnmet):
                await self._gates.require_alias_move(version, [alias])
                permitted.append(alias)
        return permitted

    async def _restore_aliases(
        self,
        connection: AsyncConnection,
        call: Call,
        version: ModelVersion,
        permitted: Sequence[str],
        now: datetime,
    ) -> None:
        model = await self._store.get(connection, Model, version.model.id)
        if model is None:
            return
        lost = await self._lifecycle.aliases_lost(connection, version)
        labels = await self._store.labels(connection, model.id, lost)
        room = LIMITS["aliases_per_model"].maximum - len(model.aliases)
        free = [a for a in lost if a in permitted and a not in model.aliases and a not in labels]
        moves = [AliasMove(alias, 0, version.number) for alias in free[: max(room, 0)]]
        await self._move(connection, call, version, moves, now)

    async def _move(
        self,
        connection: AsyncConnection,
        call: Call,
        version: ModelVersion,
        moves: Sequence[AliasMove],
        now: datetime,
    ) -> None:
        """Point aliases of a version at it or at nothing, as SetAliases would, with history and events."""
        if not moves:
            return
        await self._store.move_aliases(connection, version.model.id, moves, call, now)
        here = {"version": version.number, "version_id": version.id}
        for move in moves:
            data = {
                "alias": move.alias,
                "before": here if move.before else None,
                "after": here if move.after else None,
            }
            await record(connection, call, "catalog.alias.moved", version.model, time=now, data=data)


def _decided_on(resource: Resource) -> Chain:
    """Return the chain on which the right to delete a resource is decided."""
    return resource.parents if isinstance(resource, ModelVersion) else resource.chain


def _listed(uses: Sequence[str], count: int) -> list[str]:
    """Return the first uses, and how many more there are."""
    more = count - len(uses[:_SHOWN])
    return [*uses[:_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]
