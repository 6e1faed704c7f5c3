"""Rules of lineage: who may record and remove which edges, and what of the graph a reader is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import lineage_store
from modelyard_catalog.commands import DeleteLineage, QueryLineage, RecordDeployment, RecordLineage
from modelyard_catalog.graph import (
    Deployment,
    Edge,
    EdgeKey,
    Lineage,
    Node,
    NodeKind,
    deployment_node,
    version_node,
)
from modelyard_catalog.lineage_rights import Claim, Rights, Sources
from modelyard_catalog.lineage_store import StoredEdge
from modelyard_catalog.lineage_walk import walk
from modelyard_catalog.origins import DEPLOYED, add_edges
from modelyard_catalog.recording import record
from modelyard_kit.access import SYSTEM, Chain, Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock

_EDGES_IN_EVENT = 100


class LineageGraph:
    """Use cases of the lineage graph."""

    def __init__(self, sources: Sources, clock: Clock) -> None:
        self._sources = sources
        self._db = sources.db
        self._clock = clock

    async def record(self, call: Call, command: RecordLineage) -> None:
        """Add edges, all or none; an edge that is there stays as it is.

        Raises:
            NotFound: a version, a deployment or the anchor does not exist.
            PermissionDenied: the caller may not see a source, or not change what an edge is about.
            LineageCycle: an edge would make something its own origin.
            LimitExceeded: there is too much upstream of an edge to tell.
            PeerUnavailable: nobody knows a deployment and the inference service does not answer.
        """
        rights = Rights(self._sources, call)
        claims = [await rights.claim(given, command.anchor) for given in command.edges]

        async def work(connection: AsyncConnection) -> None:
            now = self._clock()
            for deployment in _deployments(claims):
                await lineage_store.note_deployment(connection, deployment)
            added = await add_edges(connection, call, [claim.edge for claim in claims], now)
            await _tell(connection, call, "recorded", claims, added, now)

        await self._db.in_tx(work)

    async def delete(self, call: Call, command: DeleteLineage) -> None:
        """Remove edges, all or none; one that is not there is none the less removed.

        Raises:
            NotFound: a version or deployment does not exist.
            PermissionDenied: the caller could not have recorded an edge.
            PeerUnavailable: as `record`.
        """
        rights = Rights(self._sources, call)
        keys = {
            given: EdgeKey((await rights.end(given.source)).node.id, given.target.id, given.relation)
            for given in command.edges
            if isinstance(given.target, Node)
        }
        anchors = await self._db.read(lambda connection: lineage_store.anchors(connection, keys.values()))
        claims = [
            await rights.removal(given, anchors[keys[given]] if given in keys else None)
            for given in command.edges
            if given not in keys
            or keys[given] in anchors  # there is nothing to ask about an edge that is not there
        ]

        async def work(connection: AsyncConnection) -> None:
            now = await lineage_store.anchors(connection, anchors)
            # What was recorded anew since, on behalf of something else, was not asked about and stays.
            other = {key for key, anchor in now.items() if anchor != anchors[key]}
            removed = await lineage_store.remove(connection, {claim.edge.key for claim in claims} - other)
            await _tell(connection, call, "deleted", claims, removed, self._clock())

        await self._db.in_tx(work)

    async def record_deployment(self, call: Call, command: RecordDeployment) -> None:
        """Note what a deployment is, that versions answer for it, or that it was deleted."""
        deployment = command.deployment
        edges = [
            Edge(version_node(version_id, ""), deployment_node(deployment), DEPLOYED)
            for version_id in command.version_ids
        ]

        async def work(connection: AsyncConnection) -> None:
            if deployment.delete_time is not None:
                await lineage_store.end_deployment(connection, deployment.id, deployment.delete_time)
            if not edges:
                return
            await lineage_store.note_deployment(connection, deployment)
            now = self._clock()
            added = await add_edges(connection, call, edges, now)
            chains = await lineage_store.deployments(connection, [deployment.id])
            about = chains.get(deployment.id, (SYSTEM,))
            await _tell(connection, call, "recorded", [Claim(edge, about, ()) for edge in edges], added, now)

        await self._db.in_tx(work)

    async def query(self, call: Call, command: QueryLineage) -> Lineage:
        """Return the edges around a node, the nearest first; what the caller may not see has no name.

        Raises:
            NotFound: the version or deployment does not exist.
            PermissionDenied: the caller may not see it.
            PeerUnavailable: nobody knows the deployment and the inference service does not answer.
        """
        start = await Rights(self._sources, call).end(command.node)

        async def work(connection: AsyncConnection) -> Lineage:
            found = await walk(connection, start.node.id, command)
            ids = {id for edge in found.edges for id in (edge.key.source_id, edge.key.target_id)}  # noqa: A001
            nodes = {start.node.id: start.node} | await lineage_store.nodes(connection, ids)
            shown = await self._shown(connection, call, nodes)
            edges = tuple(_edge(edge, shown) for edge in found.edges)
            return Lineage(shown[start.node.id], edges, found.truncated, found.next)

        return await self._db.read(work)

    async def _shown(
        self, connection: AsyncConnection, call: Call, nodes: Mapping[str, Node]
    ) -> dict[str, Node]:
        """Return nodes as the caller may see them."""
        allowed: dict[str, bool] = {}  # by model or deployment

        def visible(chain: Chain) -> bool:
            if chain[0].id not in allowed:
                decision = self._sources.grants.decide(call.principal.id, Privilege.READ_METADATA, chain)
                allowed[chain[0].id] = decision.allowed
            return allowed[chain[0].id]

        shown = {id_: _nameless(node) for id_, node in nodes.items()}
        versions = await lineage_store.live_versions(connection, _of(NodeKind.MODEL_VERSION, nodes))
        for id_, version in versions.items():
            if visible(version.chain[1:]):
                shown[id_] = replace(shown[id_], name=version.chain[0].name, digest=version.digest)
        deployments = await lineage_store.deployments(connection, _of(NodeKind.DEPLOYMENT, nodes))
        for id_, chain in deployments.items():
            if visible(chain):
                shown[id_] = nodes[id_]
        return shown


def _of(kind: NodeKind, nodes: Mapping[str, Node]) -> list[str]:
    return [node.id for node in nodes.values() if node.kind is kind]


def _nameless(node: Node) -> Node:
    """Return a node without what only those may know who may see it."""
    guarded = node.kind in (NodeKind.MODEL_VERSION, NodeKind.DEPLOYMENT)
    return Node(node.kind, node.id, "") if guarded else node


def _edge(edge: StoredEdge, nodes: Mapping[str, Node]) -> Edge:
    source, target = nodes[edge.key.source_id], nodes[edge.key.target_id]
    return Edge(source, target, edge.key.relation, edge.recorded_by, edge.time)


def _deployments(claims: Iterable[Claim]) -> list[Deployment]:
    """Return the deployments at the ends of edges, in one order everywhere, so that writers wait instead of deadlocking."""
    found = {deployment.id: deployment for claim in claims for deployment in claim.deployments}
    return [found[key] for key in sorted(found)]


async def _tell(
    connection: AsyncConnection,
    call: Call,
    verb: str,
    claims: Sequence[Claim],
    changed: Iterable[EdgeKey],
    now: datetime,
) -> None:
    """Write the events of edges that were added or removed, one for each thing that they are about."""
    about = {claim.edge.key: claim.about for claim in claims}
    keys_changed = frozenset(changed)
    groups: dict[Chain, list[EdgeKey]] = {}
    for key, chain in about.items():  # in the order of the call
        if key in keys_changed:
            groups.setdefault(chain, []).append(key)
    for chain, keys in groups.items():
        edges = [
            {"source_id": key.source_id, "target_id": key.target_id, "relation": key.relation}
            for key in keys[:_EDGES_IN_EVENT]
        ]
        await record(
            connection,
            call,
            f"catalog.lineage.{verb}",
            chain[0],
            time=now,
            data={"count": len(keys), "edges": edges},
            # A deployment is in no table of the catalog where its containers could be looked up.
            chain=chain if chain[0].type is ResourceType.DEPLOYMENT else None,
        )
