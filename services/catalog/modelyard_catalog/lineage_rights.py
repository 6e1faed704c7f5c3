"""Whom the lineage graph asks: what a call names, looked up, and permitted by what each edge is about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import lineage_store
from modelyard_catalog.commands import DeploymentRef, GivenEdge, GivenNode, VersionRef
from modelyard_catalog.graph import Deployment, Edge, Node, deployment_node, version_node
from modelyard_catalog.lineage_store import Anchor, deployment_link
from modelyard_catalog.models import Path
from modelyard_kit.access import SYSTEM, Chain, Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.authorization import Missing, Requires, authorize
from modelyard_kit.db import Database
from modelyard_kit.errors import NotFound, PeerUnavailable, PermissionDenied
from modelyard_kit.grants import Grants

_BY_PARTS = {
    2: (ResourceType.SCHEMA, Privilege.CREATE_MODEL),
    3: (ResourceType.MODEL, Privilege.EDIT),
}
_BY_ANCHOR = dict(_BY_PARTS.values())
_NO_ANCHOR = (
    "an edge that touches no version and no deployment; name a schema or model of yours as its anchor"
)
_OTHER_ANCHOR = "the edge was recorded on behalf of one on which you lack it"


class Chains(Protocol):
    """Finds the containers of what a request names."""

    async def path(self, path: Path) -> Chain:
        """Return the chain of a catalog, schema or model. Raises Missing."""
        ...

    async def version(self, ref: VersionRef) -> Chain:
        """Return the chain of a version. Raises Missing."""
        ...


class Deployments(Protocol):
    """Knows deployments: the inference service."""

    async def chain(self, *, name: str = "", deployment_id: str = "") -> Chain:
        """Return the chain of a deployment. Raises NotFound or PeerUnavailable."""
        ...


@dataclass(frozen=True)
class Sources:
    """Where to look, and what is granted."""

    db: Database
    grants: Grants
    chains: Chains
    deployments: Deployments


@dataclass(frozen=True)
class End:
    """A node that a call names, and its chain; the chain is empty for what is kept elsewhere.

    Attributes:
        deployment: what is known of it, if it is one.
    """

    node: Node
    chain: Chain = ()
    deployment: Deployment | None = None


@dataclass(frozen=True)
class Claim:
    """An edge that the caller may record or remove, and the chain of what that was decided on."""

    edge: Edge
    about: Chain
    deployments: tuple[Deployment, ...]


class Rights:
    """Looks up and permits what one call names, each thing once."""

    def __init__(self, sources: Sources, call: Call) -> None:
        self._sources = sources
        self._call = call
        self._ends: dict[tuple[GivenNode, Privilege], End] = {}
        self._anchors: dict[Path | Anchor, Chain] = {}

    async def end(self, given: GivenNode, privilege: Privilege = Privilege.READ_METADATA) -> End:
        """Return what a node stands for.

        Args:
            given: the node.
            privilege: what the caller needs on the model of a version, or on a deployment.

        Raises:
            NotFound: there is none.
            PermissionDenied: the caller has not the privilege, whether it exists or not.
            PeerUnavailable: nobody knows the deployment and the inference service does not answer.
        """
        if isinstance(given, Node):
            return End(given)
        key = (given, privilege)
        if key not in self._ends:
            if isinstance(given, VersionRef):
                self._ends[key] = await self._version(given, privilege)
            else:
                self._ends[key] = await self._deployment(given, privilege)
        return self._ends[key]

    async def claim(self, given: GivenEdge, anchor: Path) -> Claim:
        """Return an edge that the caller may record on behalf of `anchor`, where neither end says who may.

        Raises:
            NotFound: an end, or the anchor, does not exist.
            PermissionDenied: the caller may not.
            PeerUnavailable: as `end`.
        """
        source = await self.end(given.source)
        if not isinstance(given.target, Node):
            return await self._claim_at_end(given, source)
        if not anchor:
            return await self._claim_at_source(given, source)
        about = await self._named_anchor(anchor)
        edge = Edge(source.node, given.target, given.relation, anchor=about[0])
        return Claim(edge, about, _deployments(source))

    async def removal(self, given: GivenEdge, anchor: Anchor | None) -> Claim:
        """Return an edge that the caller may remove, which was recorded on behalf of `anchor` if not None.

        Raises:
            NotFound, PermissionDenied, PeerUnavailable: as `claim`.
        """
        if anchor is None or not isinstance(given.target, Node):
            return await self.claim(given, ())
        source = await self.end(given.source)
        about = await self._stored_anchor(anchor)
        return Claim(Edge(source.node, given.target, given.relation), about, ())

    async def _claim_at_end(self, given: GivenEdge, source: End) -> Claim:
        target = await self.end(given.target, _to_change(given.target))
        edge = Edge(source.node, target.node, given.relation)
        return Claim(edge, target.chain, _deployments(source, target))

    async def _claim_at_source(self, given: GivenEdge, source: End) -> Claim:
        edge = Edge(source.node, (await self.end(given.target)).node, given.relation)
        if source.chain:
            await self.end(given.source, _to_change(given.source))
            return Claim(edge, source.chain, _deployments(source))
        self._require(Privilege.EDIT, (SYSTEM,), _NO_ANCHOR)
        return Claim(edge, (SYSTEM,), ())

    async def _version(self, ref: VersionRef, privilege: Privilege) -> End:
        found: list[Chain] = []

        async def resolve(_: Any) -> Chain:
            found.append(await self._sources.chains.version(ref))
            return found[0][1:]

        await self._authorize(privilege, resolve)
        link = found[0][0]
        return End(version_node(link.id, link.name), found[0])

    async def _deployment(self, ref: DeploymentRef, privilege: Privilege) -> End:
        found: list[tuple[Deployment, Chain]] = []

        async def resolve(_: Any) -> Chain:
            found.append(await self._known_deployment(ref))
            return found[0][1]

        await self._authorize(privilege, resolve)
        deployment, chain = found[0]
        return End(deployment_node(deployment), chain, deployment)

    async def _known_deployment(self, ref: DeploymentRef) -> tuple[Deployment, Chain]:
        """Return a deployment and its chain, as the graph has it or the inference service tells.

        Raises:
            Missing: there is none.
            PeerUnavailable: neither tells.
        """
        try:
            deployment = await (self._by_id(ref.id) if ref.id else self._by_name(ref.name))
        except NotFound as error:
            raise Missing(error, await self._nearest(ref)) from error

        async def containers(connection: AsyncConnection) -> dict[str, Chain]:
            return await lineage_store.schema_chains(connection, [deployment.schema_id])

        schemas = await self._sources.db.read(containers)
        if deployment.schema_id not in schemas:  # it went with everything in it
            missing = NotFound(ResourceType.DEPLOYMENT, ref.name or ref.id)
            raise Missing(missing, (SYSTEM,))
        return deployment, (deployment_link(deployment), *schemas[deployment.schema_id])

    async def _by_id(self, deployment_id: str) -> Deployment:
        db, deployments = self._sources.db, self._sources.deployments
        stored = await db.read(lambda connection: lineage_store.deployment(connection, deployment_id))
        return stored or _told(await deployments.chain(deployment_id=deployment_id))

    async def _by_name(self, name: str) -> Deployment:
        db, deployments = self._sources.db, self._sources.deployments
        try:
            return _told(await deployments.chain(name=name))
        except PeerUnavailable:
            stored = await db.read(lambda connection: lineage_store.deployment_named(connection, name))
            if stored is None:
                raise
            return stored

    async def _nearest(self, ref: DeploymentRef) -> Chain:
        if not ref.name:
            return (SYSTEM,)
        try:
            return await self._sources.chains.path(tuple(ref.name.split(".")[:2]))
        except Missing as missing:
            return missing.nearest

    async def _named_anchor(self, path: Path) -> Chain:
        if path not in self._anchors:
            _, privilege = _BY_PARTS[len(path)]
            found: list[Chain] = []

            async def resolve(_: Any) -> Chain:
                found.append(await self._sources.chains.path(path))
                return found[0]

            await self._authorize(privilege, resolve)
            self._anchors[path] = found[0]
        return self._anchors[path]

    async def _stored_anchor(self, anchor: Anchor) -> Chain:
        """Return the chain of what an edge was recorded on behalf of; of what is deleted, the system."""
        if anchor not in self._anchors:
            db = self._sources.db
            chain = await db.read(lambda connection: lineage_store.anchor_chain(connection, anchor))
            if chain is None:
                self._require(Privilege.EDIT, (SYSTEM,), "what it was recorded on behalf of is deleted")
            else:
                # Its name is nothing that who may not see it should learn.
                self._require(_BY_ANCHOR[anchor[0]], chain, _OTHER_ANCHOR, name="")
            self._anchors[anchor] = chain or (SYSTEM,)
        return self._anchors[anchor]

    async def _authorize(self, privilege: Privilege, resolve: Callable[[Any], Awaitable[Chain]]) -> None:
        await authorize(Requires(privilege, resolve), self._call.principal, self._sources.grants, None)

    def _require(self, privilege: Privilege, chain: Chain, why: str, *, name: str | None = None) -> None:
        if not self._sources.grants.decide(self._call.principal.id, privilege, chain).allowed:
            shown = chain[0].name if name is None else name
            raise PermissionDenied(privilege, chain[0].type, shown, why)


def _to_change(given: GivenNode) -> Privilege:
    return Privilege.DEPLOY if isinstance(given, DeploymentRef) else Privilege.EDIT


def _told(chain: Chain) -> Deployment:
    return Deployment(chain[0].id, chain[0].name, chain[0].owner_id, chain[1].id)


def _deployments(*ends: End) -> tuple[Deployment, ...]:
    return tuple(end.deployment for end in ends if end.deployment)
