"""The lineage graph in PostgreSQL. Every function runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import any_, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Uuid

from modelyard_catalog.graph import Edge, EdgeKey, Node, NodeKind
from modelyard_catalog.rows import read_chain, select_chains
from modelyard_catalog.tables import lineage_edges, lineage_nodes, model_versions
from modelyard_kit.access import Chain
from modelyard_kit.auth import Call

_IDS = ARRAY(Uuid(as_uuid=False))


@dataclass(frozen=True)
class StoredEdge:
    """An edge as its row has it."""

    key: EdgeKey
    recorded_by: str
    time: datetime


@dataclass(frozen=True)
class LiveVersion:
    """What the node of a version that is not deleted shows to those who may see it."""

    chain: Chain
    digest: str


async def add(
    connection: AsyncConnection, edges: Sequence[Edge], call: Call, time: datetime
) -> list[EdgeKey]:
    """Add edges and their ends, and return the edges that were not there before."""
    if not edges:
        return []
    nodes = {node.id: node for edge in edges for node in (edge.source, edge.target)}
    # In one order everywhere, so that concurrent writers wait for each other instead of deadlocking.
    rows = [_node_row(nodes[id]) for id in sorted(nodes)]  # noqa: A001 - what it is
    await connection.execute(upsert(lineage_nodes).values(rows).on_conflict_do_nothing())
    keys = sorted({edge.key for edge in edges}, key=lambda key: (key.source_id, key.target_id, key.relation))
    statement = upsert(lineage_edges).values(
        [
            {
                "source_id": key.source_id,
                "target_id": key.target_id,
                "relation": key.relation,
                "actor_id": call.principal.id,
                "actor_name": call.principal.name,
                "create_time": time,
            }
            for key in keys
        ]
    )
    added = statement.on_conflict_do_nothing().returning(
        lineage_edges.c.source_id, lineage_edges.c.target_id, lineage_edges.c.relation
    )
    return [EdgeKey(*row) for row in await connection.execute(added)]


async def ancestry(connection: AsyncConnection, ids: Iterable[str], limit: int) -> list[tuple[str, str]]:
    """Return source and target of the edges upstream of nodes, at any distance, `limit` of them at most."""
    given = func.unnest(cast(sorted(set(ids)), _IDS)).label("id")
    begin = select(given).cte("ancestors", recursive=True)
    step = select(lineage_edges.c.source_id).join(begin, lineage_edges.c.target_id == begin.c.id)
    ancestors = begin.union(step)
    query = (
        select(lineage_edges.c.source_id, lineage_edges.c.target_id)
        .join(ancestors, lineage_edges.c.target_id == ancestors.c.id)
        .limit(limit)
    )
    return [(row.source_id, row.target_id) for row in await connection.execute(query)]


async def next_edges(
    connection: AsyncConnection, ids: Collection[str], *, upstream: bool, limit: int
) -> list[StoredEdge]:
    """Return edges that lead to the nodes (`upstream`) or away from them, in a fixed order."""
    edges = lineage_edges.c
    near, far = (edges.target_id, edges.source_id) if upstream else (edges.source_id, edges.target_id)
    query = (
        select(edges.source_id, edges.target_id, edges.relation, edges.actor_name, edges.create_time)
        .where(near == any_(cast(sorted(ids), _IDS)))
        .order_by(near, far, edges.relation)
        .limit(limit)
    )
    return [
        StoredEdge(EdgeKey(row.source_id, row.target_id, row.relation), row.actor_name, row.create_time)
        for row in await connection.execute(query)
    ]


async def nodes(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Node]:
    """Return nodes by id; those of versions without a name."""
    query = select(
        lineage_nodes.c.kind,
        lineage_nodes.c.id,
        lineage_nodes.c.name,
        lineage_nodes.c.version,
        lineage_nodes.c.digest,
    ).where(lineage_nodes.c.id == any_(cast(sorted(ids), _IDS)))
    found = [
        Node(NodeKind(row.kind), row.id, row.name, row.version, row.digest)
        for row in await connection.execute(query)
    ]
    return {node.id: node for node in found}


async def live_versions(connection: AsyncConnection, ids: Collection[str]) -> dict[str, LiveVersion]:
    """Return those of the versions that are not deleted, by id."""
    query = select_chains().where(model_versions.c.id == any_(cast(sorted(ids), _IDS)))
    rows = await connection.execute(query)
    return {row.id: LiveVersion(read_chain(row), row.artifact_digest) for row in rows}


def _node_row(node: Node) -> dict[str, Any]:
    kept = Node(node.kind, node.id, "") if node.kind is NodeKind.MODEL_VERSION else node
    return {
        "id": kept.id,
        "kind": kept.kind,
        "name": kept.name,
        "version": kept.version,
        "digest": kept.digest,
    }
