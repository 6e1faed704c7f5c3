"""Rules of catalogs, schemas and models, and of what every resource has: tags and a chain of containers."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import claims, search
from modelyard_catalog.commands import (
    Browse,
    ById,
    Container,
    Create,
    Resolve,
    SetTags,
    Target,
    VersionRef,
)
from modelyard_catalog.models import (
    CONTAINERS,
    Catalog,
    Model,
    ModelVersion,
    Path,
    Resource,
    Schema,
    container_kind,
)
from modelyard_catalog.recording import changes, create_once, record
from modelyard_catalog.store import CatalogStore
from modelyard_kit import limits
from modelyard_kit.access import SYSTEM, Chain, Link, ResourceType, Scope
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, InvalidState, NotFound
from modelyard_kit.filters import PrincipalIds, nobody

C = TypeVar("C", Catalog, Schema, Model)
R = TypeVar("R", bound=Resource)

_KINDS: tuple[type[Resource], ...] = (*CONTAINERS, ModelVersion)
_BY_TYPE = {kind.kind: kind for kind in _KINDS}


class Namespaces:
    """Use cases of catalogs, schemas and models."""

    def __init__(
        self, db: Database, store: CatalogStore, clock: Clock, principals: PrincipalIds = nobody
    ) -> None:
        self._db = db
        self._store = store
        self._clock = clock
        self._principals = principals

    async def create(self, call: Call, kind: type[C], command: Create) -> C:
        """Make a catalog, schema or model, owned by the caller.

        Raises:
            NotFound: its container does not exist.
            AlreadyExists: the name is taken.
            RequestIdReused: the request id came before with other content.
        """

        async def work(connection: AsyncConnection) -> C:
            async def create(made: str) -> C:
                await self._insert(connection, call, kind, command, made)
                return await made_before(made)

            async def made_before(made: str) -> C:
                found = await self._store.get(connection, kind, made)
                if found is None:
                    raise NotFound(kind.kind, ".".join(command.path))
                return found

            method = f"create_{kind.kind}"
            return await create_once(connection, call, method, command.once, create, made_before)

        return await self._db.in_tx(work)

    async def get(self, kind: type[C], path: Path) -> C:
        """Return a catalog, schema or model.

        Raises:
            NotFound: it does not exist.
        """
        return await self._db.query(lambda connection: self._require(connection, kind, path))

    async def page(
        self,
        kind: type[C],
        parent: Container,
        scope: Scope,
        asked: Browse,
        *,
        known: Link | None = None,
    ) -> tuple[list[C], str]:
        """Return a page of what `scope` shows, in order of creation if not asked otherwise, and the token of the next one.

        Args:
            kind: what is listed.
            parent: its container, of no parts for catalogs; given by its id it may be deleted, or be in something deleted.
            scope: what the caller may see.
            asked: which rows, in which order.
            known: what the permission layer found to be the container, so that it is not looked up again.

        Raises:
            NotFound: the container does not exist.
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        container = known or await self._located(kind, parent)
        # In a transaction, without which the setting of the planner would not hold: see search.py.
        rows, token = await self._db.read(
            lambda connection: search.page(
                connection,
                kind,
                asked,
                parent_id=None if container == SYSTEM else container.id,
                scope=scope,
                show_hidden=isinstance(parent, ById),
                principals=self._principals,
            )
        )
        if not rows and (await self._located(kind, parent)).id != container.id:
            raise NotFound(container.type, container.name)  # not empty, but gone meanwhile
        return rows, token

    async def set_tags(self, call: Call, command: SetTags) -> dict[str, str]:
        """Write and remove tags of a resource and return all it has then.

        Raises:
            NotFound: the resource does not exist.
            LimitExceeded: it would have too many.
        """

        async def work(connection: AsyncConnection) -> dict[str, str]:
            resource = await self._target(connection, command.target)
            call.confirm(resource.chain)
            before = dict(resource.tags)
            after = {**before, **command.write}
            for key in command.remove:
                after.pop(key, None)
            limits.check("tags_per_resource", len(after))
            if after == before:
                return before
            now = self._clock()
            await self._store.set_tags(connection, resource, after, now)
            event = f"catalog.{resource.kind}.tagged"
            await record(connection, call, event, resource.link, time=now, data=changes(before, after))
            return after

        return await self._db.in_tx(work)

    async def chain(self, command: Resolve) -> Chain:
        """Return a resource, named or given by id, and its containers.

        Raises:
            NotFound: there is none.
            InvalidState: it is wanted for use, and is being deleted.
        """

        async def work(connection: AsyncConnection) -> Chain:
            if command.target is not None:
                return (await self._target(connection, command.target)).chain
            found = await self._store.get(connection, _BY_TYPE[command.type], command.id)
            if found is None:
                raise NotFound(command.type, command.id)
            return found.chain

        async def unclaimed(connection: AsyncConnection) -> Chain:
            chain = await work(connection)
            for link in await claims.claimed(connection, chain):
                raise InvalidState(link.type, link.name, state="being deleted", wanted="not deleted")
            return chain

        return await (self._db.in_tx(unclaimed) if command.for_use else self._db.query(work))

    async def _insert(
        self, connection: AsyncConnection, call: Call, kind: type[C], command: Create, made: str
    ) -> None:
        *containers, own_name = command.path
        parent = await self._parent(connection, tuple(containers))
        call.confirm((SYSTEM,) if parent is None else parent.chain)
        now = self._clock()
        inserted = await self._store.insert(
            connection,
            kind,
            id=made,
            parent_id=None if parent is None else parent.id,
            name=own_name,
            description=command.description,
            tags=command.tags,
            owner_id=call.principal.id,
            time=now,
        )
        name = ".".join(command.path)
        if not inserted:
            raise AlreadyExists(kind.kind, name)
        link = Link(kind.kind, made, name, call.principal.id)
        data = {"after": {"description": command.description, "tags": dict(command.tags)}}
        await record(connection, call, f"catalog.{kind.kind}.created", link, time=now, data=data)

    async def _located(self, kind: type[Resource], parent: Container) -> Link:
        """Return the container whose rows are listed."""
        if not parent:
            return SYSTEM
        container = CONTAINERS[_KINDS.index(kind) - 1]
        found = await self._db.query(lambda connection: self._store.contained(connection, container, parent))
        if found is None:
            raise NotFound(container.kind, parent.id if isinstance(parent, ById) else ".".join(parent))
        return found.link

    async def _parent(self, connection: AsyncConnection, path: Path) -> Resource | None:
        return await self._require(connection, container_kind(path), path) if path else None

    async def _target(self, connection: AsyncConnection, target: Target) -> Resource:
        if not isinstance(target, VersionRef):
            return await self._require(connection, container_kind(target), target)
        version = await self._store.version(connection, target)
        if version is None:
            raise NotFound(ResourceType.MODEL_VERSION, str(target))
        return version

    async def _require(self, connection: AsyncConnection, kind: type[R], path: Path) -> R:
        found = await self._store.find(connection, kind, path)
        if found is None:
            raise NotFound(kind.kind, ".".join(path))
        return found
