"""The lineage graph in PostgreSQL. Every function runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    any_,
    cast,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Uuid

from modelyard_catalog.graph import Deployment, Edge, EdgeKey, Node, NodeKind
from modelyard_catalog.models import Model, Schema
from modelyard_catalog.rows import levels, read_chain, read_row, select_chains, select_live
from modelyard_catalog.tables import lineage_edges, lineage_nodes, model_versions
from modelyard_kit.access import Chain, Link, ResourceType
from modelyard_kit.auth import Call

_ID = Uuid(as_uuid=False)
_IDS = ARRAY(_ID)
_ANCHORS: dict[ResourceType, type[Schema | Model]] = {kind.kind: kind for kind in (Schema, Model)}

Anchor = tuple[ResourceType, str]
"""Type and id of a schema or model on whose behalf an edge was recorded."""


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
    given = {edge.key: edge for edge in edges}
    keys = sorted(given, key=lambda key: (key.source_id, key.target_id, key.relation))
    statement = upsert(lineage_edges).values([_edge_row(given[key], call, time) for key in keys])
    added = statement.on_conflict_do_nothing().returning(
        lineage_edges.c.source_id, lineage_edges.c.target_id, lineage_edges.c.relation
    )
    return [EdgeKey(*row) for row in await connection.execute(added)]


async def ancestry(connection: AsyncConnection, ids: Iterable[str], limit: int) -> list[tuple[str, str]]:
    """Return source and target of the edges upstream of nodes, at any distance, `limit` of them at most.

    What is upstream of a deployment counts as nothing of what is made of its answers.
    """
    followed = lineage_edges.c.target_kind != NodeKind.DEPLOYMENT
    given = func.unnest(cast(sorted(set(ids)), _IDS)).label("id")
    begin = select(given).cte("ancestors", recursive=True)
    step = (
        select(lineage_edges.c.source_id).join(begin, lineage_edges.c.target_id == begin.c.id).where(followed)
    )
    ancestors = begin.union(step)
    query = (
        select(lineage_edges.c.source_id, lineage_edges.c.target_id)
        .join(ancestors, lineage_edges.c.target_id == ancestors.c.id)
        .where(followed)
        .limit(limit)
    )
    return [(row.source_id, row.target_id) for row in await connection.execute(query)]


async def next_edges(
    connection: AsyncConnection,
    ids: Collection[str],
    *,
    upstream: bool,
    limit: int,
    after: tuple[str, str, str] | None = None,
) -> list[StoredEdge]:
    """Return edges that lead to the nodes (`upstream`) or away from them, in a fixed order.

    Args:
        connection: the transaction.
        ids: of the nodes.
        upstream: which way.
        limit: edges to return at most.
        after: only edges behind this one: the id among `ids`, the other id, and the relation.
    """
    edges = lineage_edges.c
    near, far = (edges.target_id, edges.source_id) if upstream else (edges.source_id, edges.target_id)
    relation = edges.relation.collate("C")  # the order of Python, in which positions are compared
    query = (
        select(edges.source_id, edges.target_id, edges.relation, edges.actor_name, edges.create_time)
        .where(near == any_(cast(sorted(ids), _IDS)))
        .order_by(near, far, relation)
        .limit(limit)
    )
    if after is not None:
        begin = (literal(after[0], _ID), literal(after[1], _ID), literal(after[2]))
        query = query.where(tuple_(near, far, relation) > tuple_(*begin))
    return [
        StoredEdge(EdgeKey(row.source_id, row.target_id, row.relation), row.actor_name, row.create_time)
        for row in await connection.execute(query)
    ]


async def anchors(connection: AsyncConnection, keys: Iterable[EdgeKey]) -> dict[EdgeKey, Anchor | None]:
    """Return those of the edges that are there, with what each was recorded on behalf of."""
    edges = lineage_edges.c
    columns = (edges.source_id, edges.target_id, edges.relation, edges.anchor_type, edges.anchor_id)
    return {
        EdgeKey(row.source_id, row.target_id, row.relation): (
            (ResourceType(row.anchor_type), row.anchor_id) if row.anchor_id else None
        )
        for row in await connection.execute(select(*columns).where(_are(keys)))
    }


async def anchor_chain(connection: AsyncConnection, anchor: Anchor) -> Chain | None:
    """Return the schema or model with its containers; None if one of them is deleted."""
    kind = _ANCHORS[anchor[0]]
    query = select_live(kind).where(levels(kind)[0].c.id == anchor[1])
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else read_row(kind, row).chain


async def remove(connection: AsyncConnection, edges: Iterable[EdgeKey]) -> list[EdgeKey]:
    """Remove edges, and return those that were there."""
    columns = (lineage_edges.c.source_id, lineage_edges.c.target_id, lineage_edges.c.relation)
    statement = delete(lineage_edges).where(_are(edges)).returning(*columns)
    return [EdgeKey(*row) for row in await connection.execute(statement)]


async def note_deployment(connection: AsyncConnection, deployment: Deployment) -> None:
    """Write what a deployment is; one that was deleted stays so."""
    nodes = lineage_nodes.c
    told = {"name": deployment.name, "owner_id": deployment.owner_id, "schema_id": deployment.schema_id}
    rest = {"version": "", "digest": "", "delete_time": deployment.delete_time}
    statement = upsert(lineage_nodes).values(id=deployment.id, kind=NodeKind.DEPLOYMENT, **told, **rest)
    new = statement.excluded
    differs = or_(
        *(nodes[name].is_distinct_from(new[name]) for name in told),
        and_(nodes.delete_time.is_(None), new.delete_time.is_not(None)),
    )
    deleted = func.coalesce(nodes.delete_time, new.delete_time)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[nodes.id],
            set_={name: new[name] for name in told} | {"delete_time": deleted},
            where=and_(nodes.kind == NodeKind.DEPLOYMENT, differs),
        )
    )


async def end_deployment(connection: AsyncConnection, deployment_id: str, time: datetime) -> None:
    """Note when a deployment was deleted, if the graph has it."""
    nodes = lineage_nodes.c
    live = (nodes.id == deployment_id, nodes.kind == NodeKind.DEPLOYMENT, nodes.delete_time.is_(None))
    await connection.execute(update(lineage_nodes).where(*live).values(delete_time=time))


async def deployment(connection: AsyncConnection, deployment_id: str) -> Deployment | None:
    """Return a deployment that the graph has, deleted or not, by its id."""
    query = _deployments().where(lineage_nodes.c.id == deployment_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _deployment(row)


async def deployment_named(connection: AsyncConnection, name: str) -> Deployment | None:
    """Return the deployment that was last known by a name and not to be deleted."""
    nodes = lineage_nodes.c
    query = _deployments().where(nodes.name == name, nodes.delete_time.is_(None))
    row = (await connection.execute(query.order_by(nodes.id.desc()).limit(1))).one_or_none()
    return None if row is None else _deployment(row)


async def deployments(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Chain]:
    """Return the chains of those of the deployments whose schema is not deleted, by id."""
    query = _deployments().where(lineage_nodes.c.id == any_(cast(sorted(ids), _IDS)))
    found = [_deployment(row) for row in await connection.execute(query)]
    schemas = await schema_chains(connection, {one.schema_id for one in found})
    return {
        one.id: (deployment_link(one), *schemas[one.schema_id]) for one in found if one.schema_id in schemas
    }


async def schema_chains(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Chain]:
    """Return the chains of those of the schemas that are not deleted, by id."""
    query = select_live(Schema).where(levels(Schema)[0].c.id == any_(cast(sorted(ids), _IDS)))
    found = [read_row(Schema, row) for row in await connection.execute(query)]
    return {schema.id: schema.chain for schema in found}


async def nodes(connection: AsyncConnection, ids: Collection[str]) -> dict[str, Node]:
    """Return nodes by id, as they are stored: those of versions without a name."""
    query = select(
        lineage_nodes.c.kind,
        lineage_nodes.c.id,
        lineage_nodes.c.name,
        lineage_nodes.c.version,
        lineage_nodes.c.digest,
        lineage_nodes.c.delete_time,
    ).where(lineage_nodes.c.id == any_(cast(sorted(ids), _IDS)))
    found = [
        Node(NodeKind(row.kind), row.id, row.name, row.version, row.digest, row.delete_time)
        for row in await connection.execute(query)
    ]
    return {node.id: node for node in found}


async def live_versions(connection: AsyncConnection, ids: Collection[str]) -> dict[str, LiveVersion]:
    """Return those of the versions that are not deleted, by id."""
    query = select_chains().where(model_versions.c.id == any_(cast(sorted(ids), _IDS)))
    rows = await connection.execute(query)
    return {row.id: LiveVersion(read_chain(row), row.artifact_digest) for row in rows}


def deployment_link(deployment: Deployment) -> Link:
    """Return the innermost link of a deployment's chain."""
    return Link(ResourceType.DEPLOYMENT, deployment.id, deployment.name, deployment.owner_id)


def _deployments() -> Select[Any]:
    nodes = lineage_nodes.c
    columns = (nodes.id, nodes.name, nodes.owner_id, nodes.schema_id, nodes.delete_time)
    return select(*columns).where(nodes.kind == NodeKind.DEPLOYMENT)


def _deployment(row: Row[Any]) -> Deployment:
    return Deployment(row.id, row.name, row.owner_id, row.schema_id, row.delete_time)


def _are(keys: Iterable[EdgeKey]) -> ColumnElement[bool]:
    edges = lineage_edges.c
    return tuple_(edges.source_id, edges.target_id, edges.relation).in_(
        sorted((key.source_id, key.target_id, key.relation) for key in keys)
    )


def _edge_row(edge: Edge, call: Call, time: datetime) -> dict[str, Any]:
    return {
        "source_id": edge.source.id,
        "target_id": edge.target.id,
        "relation": edge.relation,
        "target_kind": edge.target.kind,
        "anchor_type": edge.anchor.type if edge.anchor else None,
        "anchor_id": edge.anchor.id if edge.anchor else None,
        "actor_id": call.principal.id,
        "actor_name": call.principal.name,
        "create_time": time,
    }


def _node_row(node: Node) -> dict[str, Any]:
    kept = Node(node.kind, node.id, "") if node.kind is NodeKind.MODEL_VERSION else node
    return {
        "id": kept.id,
        "kind": kept.kind,
        "name": kept.name,
        "version": kept.version,
        "digest": kept.digest,
    }
