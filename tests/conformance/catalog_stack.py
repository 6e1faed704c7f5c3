"""The catalog's rules on a real database, with the two services it asks played by plain objects."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import names
from modelyard_catalog.access import Resolvers
from modelyard_catalog.aliases import Aliases
from modelyard_catalog.approval_states import ApprovalStates
from modelyard_catalog.artifact_tests import ToldTests
from modelyard_catalog.authority import Authority
from modelyard_catalog.commands import (
    AliasChange,
    Browse,
    Create,
    CreateVersion,
    Once,
    SetAliases,
)
from modelyard_catalog.copies import Copies
from modelyard_catalog.deletions import Deletions
from modelyard_catalog.feed import Feed, FeedOptions
from modelyard_catalog.lifecycle_store import LifecycleStore
from modelyard_catalog.lineage import LineageGraph
from modelyard_catalog.lineage_rights import Sources
from modelyard_catalog.models import (
    AliasMove,
    Catalog,
    DatasetReference,
    Json,
    Model,
    ModelMetadata,
    ModelVersion,
    Path,
    Provenance,
    Schema,
)
from modelyard_catalog.namespaces import Namespaces
from modelyard_catalog.purge import Purge
from modelyard_catalog.servicer import CatalogServicer
from modelyard_catalog.store import CatalogStore
from modelyard_catalog.updates import Updates
from modelyard_catalog.versions import Versions
from modelyard_kit.access import Chain, Link, ResourceType, Scope
from modelyard_kit.auth import Call, Principal
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, InvalidField, NotFound, PeerUnavailable, PolicyUnmet
from modelyard_kit.grants import Grants

ADA = Call(Principal("0198c0de-0000-7000-8000-00000000ada0", "ada", "user"), "request-of-ada")
BOB = Call(Principal("0198c0de-0000-7000-8000-00000000b0b0", "bob", "user"), "request-of-bob")
PRINCIPALS = {call.principal.name: call.principal.id for call in (ADA, BOB)}
EVERYTHING = Scope(ADA.principal.id, frozenset(), frozenset(), everything=True)
DIGEST = "sha256:" + "a" * 64
IRIS: Path = ("prod", "ml", "iris")


C = TypeVar("C", Catalog, Schema, Model)


@dataclass
class FakeArtifacts:
    """Knows the artifacts in `missing` to be there only for models that copies brought them to, and every other one to be."""

    missing: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    copied: set[tuple[str, str]] = field(default_factory=set)

    async def acquire(self, digest: str, model: Link, version_id: str, *, source_model_id: str = "") -> None:
        self.asked.append((digest, model.name))
        if source_model_id:
            self.copied.add((digest, model.id))
        if digest in self.missing and (digest, model.id) not in self.copied:
            raise InvalidField("artifact_digest", f"no artifact {digest} of {model.name}")


@dataclass
class FakeGates:
    """Holds back the version numbers in `closed`."""

    closed: set[int] = field(default_factory=set)
    asked: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    async def require_alias_move(self, version: ModelVersion, aliases: Sequence[str]) -> None:
        self.asked.append((version.number, tuple(aliases)))
        if version.number in self.closed:
            raise PolicyUnmet("MOVE_ALIAS", version.name, "prod", ["1 approval is missing"])


@dataclass
class FakeDeployments:
    """Knows of deployments by the versions they run and by the schemas they are in."""

    of_versions: dict[str, str] = field(default_factory=dict)
    in_schemas: dict[str, str] = field(default_factory=dict)
    chains: list[Chain] = field(default_factory=list)
    silent: bool = False
    asked: list[list[str]] = field(default_factory=list)

    async def running(self, version_ids: Sequence[str]) -> list[str]:
        self.asked.append(list(version_ids))
        return sorted({name for id_, name in self.of_versions.items() if id_ in version_ids})

    async def inside(self, schema: str) -> list[str]:
        return [self.in_schemas[schema]] if schema in self.in_schemas else []

    async def chain(self, *, name: str = "", deployment_id: str = "") -> Chain:
        if self.silent:
            raise PeerUnavailable("inference")
        for chain in self.chains:
            if name == chain[0].name or deployment_id == chain[0].id:
                return chain
        raise NotFound(ResourceType.DEPLOYMENT, name or deployment_id)


class CatalogStack:
    """The rules, and short verbs for tests."""

    def __init__(self, dsn: str) -> None:
        self.db = Database.connect(dsn)
        self.store = CatalogStore()
        self.artifacts = FakeArtifacts()
        self.gates = FakeGates()
        self.namespaces = Namespaces(self.db, self.store, utc_now, PRINCIPALS.get)
        self.versions = Versions(self.db, self.store, utc_now, self.artifacts)
        self.aliases = Aliases(self.db, self.store, utc_now, self.gates)
        self.approvals = ApprovalStates(self.db, self.store)
        self.tests = ToldTests(self.db, utc_now)
        self.lifecycle = LifecycleStore()
        self.deployments = FakeDeployments()
        self.shift = timedelta()
        self.deletions = Deletions(
            self.db,
            self.store,
            self.lifecycle,
            self.later,
            self.deployments,
            self.gates,
            retention=timedelta(days=30),
        )
        service = Principal("0198c0de-0000-7000-8000-00000000ca7a", "catalog", "service")
        self.purge = Purge(self.db, self.lifecycle, self.later, lambda: service, batch=2)

    def later(self) -> datetime:
        """The time, `shift` from now."""
        return utc_now() + self.shift

    def authority(self, grants: Grants) -> Authority:
        """Who may do what, under these grants."""
        return Authority(grants, Resolvers(self.db, self.store))

    def updates(self, grants: Grants) -> Updates:
        """The rules of updates, under these grants."""
        return Updates(self.db, self.store, self.lifecycle, utc_now, self.authority(grants))

    def copies(self, grants: Grants) -> Copies:
        """The rules of copies, under these grants."""
        return Copies(self.db, self.store, utc_now, self.authority(grants), self.artifacts)

    def servicer(self, grants: Grants, feed: Feed | None = None) -> CatalogServicer:
        """The whole service, under these grants."""
        return CatalogServicer(
            self.namespaces,
            self.versions,
            self.aliases,
            grants,
            feed=feed or self.feed(grants, FeedOptions()),
            lineage=self.lineage(grants),
            updates=self.updates(grants),
            deletions=self.deletions,
            copies=self.copies(grants),
            approvals=self.approvals,
            tests=self.tests,
        )

    def lineage(self, grants: Grants) -> LineageGraph:
        """The rules of lineage, for callers with these grants."""
        return LineageGraph(
            Sources(self.db, grants, Resolvers(self.db, self.store), self.deployments), utc_now
        )

    def feed(self, grants: Grants, options: FeedOptions) -> Feed:
        """A change feed, as one process of the service has it; nobody runs it."""
        return Feed(self.db, grants, Resolvers(self.db, self.store).path, utc_now, options)

    async def close(self) -> None:
        await self.db.close()

    async def create(
        self,
        kind: type[C],
        *path: str,
        by: Call = ADA,
        request_id: str = "",
        tags: dict[str, str] | None = None,
    ) -> C:
        command = Create(path=path, description="", tags=tags or {}, once=Once(request_id, ".".join(path)))
        return await self.namespaces.create(by, kind, command)

    async def create_model(self, *path: str, by: Call = ADA) -> Model:
        """Make a model and what it needs around it."""
        for kind, length in ((Catalog, 1), (Schema, 2)):
            with contextlib.suppress(AlreadyExists):
                await self.create(kind, *path[:length], by=by)
        return await self.create(Model, *path, by=by)

    async def create_version(
        self,
        model: Path = IRIS,
        *,
        digest: str = DIGEST,
        request_id: str = "",
        metrics: dict[str, Json] | None = None,
        metadata: ModelMetadata | None = None,
        datasets: tuple[DatasetReference, ...] = (),
        label: str = "",
        by: Call = ADA,
    ) -> ModelVersion:
        command = CreateVersion(
            model=model,
            artifact_digest=digest,
            description="a version",
            runtime="sklearn",
            signature=None,
            tags={"stage": "tëst"},
            metrics=metrics or {},
            provenance=Provenance(datasets=datasets) if datasets else None,
            metadata=metadata,
            once=Once(request_id, digest),
            label=label,
        )
        return await self.versions.create(by, command)

    async def set_aliases(self, *changes: AliasChange, model: Path = IRIS, by: Call = ADA) -> Model:
        return await self.aliases.set(by, SetAliases(model, changes))

    async def get(self, reference: str) -> ModelVersion:
        return await self.versions.get(names.version("name", reference))

    async def history(self, model: Model) -> list[AliasMove]:
        return await self.db.read(lambda connection: self.store.alias_history(connection, model.id))

    async def names_seen(self, kind: type[C], scope: Scope, *parent: str) -> list[str]:
        """Names of every row that a scope shows, read page by page of two rows."""
        found: list[str] = []
        token = ""
        while True:
            rows, token = await self.namespaces.page(kind, parent, scope, Browse(size=2, page_token=token))
            found += [row.name for row in rows]
            if not token:
                return found

    async def events(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Type, resource name and data of every event, in order."""

        async def work(connection: AsyncConnection) -> list[tuple[str, str, dict[str, Any]]]:
            query = text("SELECT type, resource_name, data FROM outbox ORDER BY position")
            return [(row.type, row.resource_name, row.data) for row in await connection.execute(query)]

        return await self.db.read(work)
