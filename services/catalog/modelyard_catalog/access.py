"""Who may call what: each RPC, the privilege it needs, and on which resource of the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from modelyard_catalog import names
from modelyard_catalog.commands import ById, VersionRef
from modelyard_catalog.lifecycle_store import BY_TYPE, LifecycleStore
from modelyard_catalog.models import CONTAINERS, ModelVersion, Path, Resource, container_kind
from modelyard_catalog.store import CatalogStore
from modelyard_kit.access import SYSTEM, Chain, Privilege, ResourceType
from modelyard_kit.authorization import (
    AUTHENTICATED,
    AUTHENTICATED_WATCH,
    SERVICES,
    AccessTable,
    Found,
    Missing,
    Requires,
)
from modelyard_kit.batching import Batches
from modelyard_kit.db import Database
from modelyard_kit.errors import NotFound

Resolver = Callable[[Any], Awaitable[Chain | Found]]


class Resolvers:
    """Finds the resource that a request is about, with its containers."""

    def __init__(self, db: Database, store: CatalogStore) -> None:
        self._db = db
        self._store = store
        self._lifecycle = LifecycleStore()
        self._containers = {kind: Batches(partial(self._find, kind)) for kind in CONTAINERS}
        self._versions = Batches(self._find_versions)

    async def path(self, path: Path) -> Chain:
        """Return the chain of a catalog, schema or model; of no parts, the system.

        Raises:
            Missing: it, or one of its containers, does not exist.
        """
        return (await self.container(path)).chain if path else (SYSTEM,)

    async def container(self, path: Path) -> Resource:
        """Return a catalog, schema or model.

        Raises:
            Missing: it does not exist; or, told instead, one of its containers does not.
        """
        kind = container_kind(path)
        found = await self._containers[kind].do(path)
        if found is None:
            raise Missing(NotFound(kind.kind, ".".join(path)), await self.path(path[:-1]))
        return found

    async def version(self, ref: VersionRef) -> Chain:
        """Return the chain of a version.

        Raises:
            Missing: it, its model, or one of the containers does not exist.
        """
        return (await self.whole_version(ref)).chain

    async def whole_version(self, ref: VersionRef) -> ModelVersion:
        """Return a version.

        Raises:
            Missing: it, its model, or one of the containers does not exist.
        """
        found = await self._versions.do(ref)
        if found is None:
            model = await self.path(ref.model)
            raise Missing(NotFound(ResourceType.MODEL_VERSION, str(ref)), model)
        return found

    async def container_of(self, kind: ResourceType, resource_id: str) -> Chain:
        """Return the chain of what contains a resource, deleted or not, by its id.

        Raises:
            Missing: there is no such resource.
        """
        found = await self.by_id(kind, resource_id)
        return found.parents

    async def by_id(self, kind: ResourceType, resource_id: str) -> Resource:
        """Return a resource, deleted or not, by its id.

        Raises:
            Missing: there is no such resource.
        """
        found = await self._db.query(
            lambda connection: self._lifecycle.get_any(connection, BY_TYPE[kind], resource_id)
        )
        if found is None:
            raise Missing(NotFound(kind, resource_id), (SYSTEM,))
        return found

    async def _find(self, kind: type[Resource], paths: Sequence[Path]) -> Sequence[Resource | None]:
        return await self._db.query(lambda connection: self._store.find_each(connection, kind, paths))

    async def _find_versions(self, refs: Sequence[VersionRef]) -> Sequence[ModelVersion | None]:
        return await self._db.query(lambda connection: self._store.versions(connection, refs))


def access_table(resolvers: Resolvers) -> AccessTable:
    """Return the rule of every RPC, as the comments of the contract promise it."""

    def container(field: str, nested: str, parts: int) -> Resolver:
        """Resolve the container of what the request wants to make."""

        async def resolve(request: Any) -> Chain:
            name = getattr(request, nested).name
            return await resolvers.path(names.path(field, name, parts)[:-1])

        return resolve

    def named(field: str, parts: int) -> Resolver:
        """Resolve the catalog, schema or model that a field names."""

        async def resolve(request: Any) -> Found:
            found = await resolvers.container(names.path(field, getattr(request, field), parts))
            return Found(found.chain, found)

        return resolve

    def listed(field: str, parts: int) -> Resolver:
        return partial(_listed, resolvers, field, parts)

    async def version(request: Any) -> Found:
        """Resolve a version; rights on it are decided on its model."""
        found = await resolvers.whole_version(names.version("name", request.name))
        return Found(found.parents, found)

    async def model_of_version(request: Any) -> Chain:
        return await resolvers.path(names.version("name", request.name).model)

    async def source(request: Any) -> Chain:
        return await resolvers.path(names.version("source", request.source).model)

    async def undeleted(request: Any) -> Chain:
        kind = names.resource_type("type", request.type)
        return await resolvers.container_of(kind, names.identifier("id", request.id))

    async def tagged(request: Any) -> Chain:
        target = names.target("resource_type", request.resource_type, request.name)
        if isinstance(target, VersionRef):
            return await resolvers.version(target)
        return await resolvers.path(target)

    return {
        "CreateCatalog": Requires(Privilege.CREATE_CATALOG, container("catalog.name", "catalog", 1)),
        "GetCatalog": Requires(Privilege.USE_CATALOG, named("name", 1)),
        "ListCatalogs": AUTHENTICATED,  # the query shows what the caller may see
        "CreateSchema": Requires(Privilege.CREATE_SCHEMA, container("schema.name", "schema", 2)),
        "GetSchema": Requires(Privilege.USE_SCHEMA, named("name", 2)),
        "ListSchemas": Requires(Privilege.USE_CATALOG, listed("catalog", 1)),
        "CreateModel": Requires(Privilege.CREATE_MODEL, container("model.name", "model", 3)),
        "GetModel": Requires(Privilege.READ_METADATA, named("name", 3)),
        "ListModels": Requires(Privilege.USE_SCHEMA, listed("schema", 2)),
        "CreateModelVersion": Requires(Privilege.CREATE_VERSION, named("model", 3)),
        "FinalizeModelVersion": Requires(Privilege.CREATE_VERSION, model_of_version),
        "FailModelVersion": Requires(Privilege.CREATE_VERSION, model_of_version),
        "GetModelVersion": Requires(Privilege.READ_METADATA, version),
        "ListModelVersions": Requires(Privilege.READ_METADATA, listed("model", 3)),
        "SetAliases": Requires(Privilege.EDIT, named("model", 3)),
        "SetTags": Requires(Privilege.APPLY_TAG, tagged),
        "SetMetrics": Requires(Privilege.EDIT, model_of_version),
        # A change of owner and a move need more, which the rules ask for.
        "UpdateCatalog": Requires(Privilege.EDIT, named("name", 1)),
        "UpdateSchema": Requires(Privilege.EDIT, named("name", 2)),
        "UpdateModel": Requires(Privilege.EDIT, named("name", 3)),
        "UpdateModelVersion": Requires(Privilege.EDIT, model_of_version),
        "DeleteCatalog": Requires(Privilege.EDIT, named("name", 1)),
        "DeleteSchema": Requires(Privilege.EDIT, named("name", 2)),
        "DeleteModel": Requires(Privilege.EDIT, named("name", 3)),
        "DeleteModelVersion": Requires(Privilege.EDIT, model_of_version),
        "UndeleteResource": Requires(Privilege.EDIT, undeleted),
        # The rules ask for CREATE_VERSION on the other model.
        "CopyModelVersion": Requires(Privilege.READ_ARTIFACT, source),
        "SetApprovalStates": SERVICES,
        "SetArtifactTests": SERVICES,
        "ListAliasHistory": Requires(Privilege.READ_METADATA, named("model", 3)),
        "GetAliasAt": Requires(Privilege.READ_METADATA, named("model", 3)),
        "RollbackAlias": Requires(Privilege.EDIT, named("model", 3)),
        "RecordLineage": AUTHENTICATED,  # the rules check what every edge is about
        "DeleteLineage": AUTHENTICATED,  # likewise
        "RecordDeployment": SERVICES,
        "QueryLineage": AUTHENTICATED,  # the rules check the node; what the caller may not see has no name
        "GetLimits": AUTHENTICATED,
        # The rules check the resource, the query shows what the caller may see.
        "WatchEvents": AUTHENTICATED_WATCH,
        "FindArtifactUses": SERVICES,
        "ResolveResource": SERVICES,
    }


async def _listed(resolvers: Resolvers, field: str, parts: int, request: Any) -> Found:
    """Resolve the catalog, schema or model whose rows are listed, which may be deleted if it is given by its id."""
    container = names.container(request, field, parts)
    if isinstance(container, ById):
        found = await resolvers.by_id(CONTAINERS[parts - 1].kind, container.id)
    else:
        found = await resolvers.container(container)
    return Found(found.chain, found)
