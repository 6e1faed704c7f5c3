"""Rules of lineage: who may record which edges, and what of the graph a reader is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import lineage_store
from modelyard_catalog.commands import QueryLineage, RecordLineage, VersionRef
from modelyard_catalog.graph import Edge, EdgeKey, Lineage, Node, NodeKind, version_node
from modelyard_catalog.lineage_store import LiveVersion, StoredEdge
from modelyard_catalog.origins import add_edges
from modelyard_catalog.recording import record
from modelyard_kit.access import SYSTEM, Chain, Grants, Link, Privilege, Requires, ResourceType, authorize
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.limits import LIMITS

MAX_EDGES = LIMITS["lineage_edges_per_answer"].maximum
_EDGES_IN_EVENT = 100


class Chains(Protocol):
    """Finds the containers of what a request names."""

    async def version(self, ref: VersionRef) -> Chain:
        """Return the chain of a version.

        Raises:
            Missing: it, its model, or one of the containers does not exist.
        """
        ...


class LineageGraph:
    """Use cases of the lineage graph."""

    def __init__(self, db: Database, clock: Clock, grants: Grants, chains: Chains) -> None:
        self._db = db
        self._clock = clock
        self._grants = grants
        self._chains = chains

    async def record(self, call: Call, command: RecordLineage) -> None:
        """Add edges, all or none; an edge that is there stays as it is.

        Raises:
            NotFound: a version does not exist.
            PermissionDenied: the caller may not edit the model of a target, or not see the model of a source.
            LineageCycle: an edge would make something its own origin.
            LimitExceeded: there is too much upstream of an edge to tell.
        """
        located = _Located(self, call)
        edges = [
            Edge(
                await located.node(given.source, Privilege.READ_METADATA),
                await located.node(given.target, Privilege.EDIT),
                given.relation,
            )
            for given in command.edges
        ]

        async def work(connection: AsyncConnection) -> None:
            now = self._clock()
            added = await add_edges(connection, call, edges, now)
            for resource, keys in _by_resource(edges, added):
                data = {
                    "count": len(keys),
                    "edges": [
                        {"source_id": key.source_id, "target_id": key.target_id, "relation": key.relation}
                        for key in keys[:_EDGES_IN_EVENT]
                    ],
                }
                await record(connection, call, "catalog.lineage.recorded", resource, time=now, data=data)

        await self._db.in_tx(work)

    async def query(self, call: Call, command: QueryLineage) -> Lineage:
        """Return the edges around a node, the nearest first, with versions that the caller may not see nameless.

        Raises:
            NotFound: the version does not exist.
            PermissionDenied: the caller may not see its model.
        """
        start = await _Located(self, call).node(command.node, Privilege.READ_METADATA)

        async def work(connection: AsyncConnection) -> Lineage:
            found, truncated = await _walk(connection, start.id, command)
            ids = {id for edge in found for id in (edge.key.source_id, edge.key.target_id)}  # noqa: A001
            nodes = await lineage_store.nodes(connection, ids)
            versions = [node.id for node in nodes.values() if node.kind is NodeKind.MODEL_VERSION]
            live = await lineage_store.live_versions(connection, versions)
            shown = self._shown(call, nodes, live)
            return Lineage(tuple(_edge(edge, shown) for edge in found), truncated)

        return await self._db.read(work)

    async def locate(self, call: Call, ref: VersionRef, privilege: Privilege) -> Link:
        """Return the version that a reference names, if the caller has a privilege on its model.

        Raises:
            NotFound: there is none.
            PermissionDenied: the caller has not, whether it exists or not.
        """
        found: list[Link] = []

        async def resolve(_request: object) -> Chain:
            chain = await self._chains.version(ref)
            found.append(chain[0])
            return chain[1:]

        await authorize(Requires(privilege, resolve), call.principal, self._grants, None)
        return found[0]

    def _shown(
        self, call: Call, nodes: Mapping[str, Node], live: Mapping[str, LiveVersion]
    ) -> dict[str, Node]:
        """Return nodes as the caller may see them."""
        allowed: dict[str, bool] = {}  # by model

        def visible(chain: Chain) -> bool:
            model = chain[1].id
            if model not in allowed:
                decision = self._grants.decide(call.principal.id, Privilege.READ_METADATA, chain[1:])
                allowed[model] = decision.allowed
            return allowed[model]

        shown = dict(nodes)
        for version_id, version in live.items():
            if visible(version.chain):
                shown[version_id] = replace(
                    nodes[version_id], name=version.chain[0].name, digest=version.digest
                )
        return shown


class _Located:
    """Nodes that a call names, each version looked up and permitted once."""

    def __init__(self, graph: LineageGraph, call: Call) -> None:
        self._graph = graph
        self._call = call
        self._known: dict[tuple[VersionRef, Privilege], Node] = {}

    async def node(self, given: Node | VersionRef, privilege: Privilege) -> Node:
        if isinstance(given, Node):
            return given
        key = (given, privilege)
        if key not in self._known:
            link = await self._graph.locate(self._call, given, privilege)
            self._known[key] = version_node(link.id, link.name)
        return self._known[key]


async def _walk(
    connection: AsyncConnection, start: str, command: QueryLineage
) -> tuple[list[StoredEdge], bool]:
    """Return the edges within reach, level by level, and whether there are more than were taken.

    A query per level (20 at most each way), not one recursive query: so a node is visited once however many ways lead to
    it, the work is bounded by the edges that are returned, and what is left out is what is farthest.
    """
    found: dict[EdgeKey, StoredEdge] = {}
    ways = [way for way, wanted in ((True, command.upstream), (False, command.downstream)) if wanted]
    frontiers = {way: {start} for way in ways}
    seen = {way: {start} for way in ways}
    for _ in range(command.depth):
        for way in ways:
            if not frontiers[way]:
                continue
            limit = MAX_EDGES - len(found) + 1
            edges = await lineage_store.next_edges(connection, frontiers[way], upstream=way, limit=limit)
            if len(edges) == limit:
                found |= {edge.key: edge for edge in edges[:-1]}
                return list(found.values()), True
            found |= {edge.key: edge for edge in edges}
            reached = {edge.key.source_id if way else edge.key.target_id for edge in edges}
            frontiers[way] = reached - seen[way]
            seen[way] |= reached
    return list(found.values()), False


def _edge(edge: StoredEdge, nodes: Mapping[str, Node]) -> Edge:
    source, target = nodes[edge.key.source_id], nodes[edge.key.target_id]
    return Edge(source, target, edge.key.relation, edge.recorded_by, edge.time)


def _by_resource(edges: Sequence[Edge], added: Iterable[EdgeKey]) -> list[tuple[Link, list[EdgeKey]]]:
    """Return the added edges by the version that they are about: their target, or else their source."""
    ends = {edge.key: edge for edge in edges}
    groups: dict[Link, list[EdgeKey]] = {}
    for key in added:
        edge = ends[key]
        versions = [node for node in (edge.target, edge.source) if node.kind is NodeKind.MODEL_VERSION]
        link = Link(ResourceType.MODEL_VERSION, versions[0].id, versions[0].name) if versions else SYSTEM
        groups.setdefault(link, []).append(key)
    return list(groups.items())
