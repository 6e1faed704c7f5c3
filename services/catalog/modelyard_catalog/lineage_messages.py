"""Lineage in requests and answers: every shape check, and the way back."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import lineage_pb2
from modelyard_catalog import names, values
from modelyard_catalog.commands import (
    DeleteLineage,
    DeploymentRef,
    GivenEdge,
    GivenNode,
    QueryLineage,
    RecordDeployment,
    RecordLineage,
)
from modelyard_catalog.graph import Deployment, Edge, Lineage, Node, NodeKind, Position, named_node
from modelyard_catalog.models import Path
from modelyard_kit import limits, paging
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import link_from_proto, moment, timestamp

MAX_EDGES = limits.LIMITS["lineage_edges_per_answer"].maximum
MAX_DEPTH = limits.LIMITS["lineage_depth"].maximum

_KINDS = {
    lineage_pb2.LineageNode.KIND_DATASET: NodeKind.DATASET,
    lineage_pb2.LineageNode.KIND_RUN: NodeKind.RUN,
    lineage_pb2.LineageNode.KIND_MODEL_VERSION: NodeKind.MODEL_VERSION,
    lineage_pb2.LineageNode.KIND_DEPLOYMENT: NodeKind.DEPLOYMENT,
    lineage_pb2.LineageNode.KIND_BATCH_JOB: NodeKind.BATCH_JOB,
}
_TO_PROTO = {kind: number for number, kind in _KINDS.items()}
# What is known by more than its name; a version's digest is only ever sent by the service.
_VERSIONED = (NodeKind.DATASET, NodeKind.BATCH_JOB)
_DIRECTIONS = {
    service.LINEAGE_DIRECTION_UNSPECIFIED: (True, True),
    service.LINEAGE_DIRECTION_UPSTREAM: (True, False),
    service.LINEAGE_DIRECTION_DOWNSTREAM: (False, True),
    service.LINEAGE_DIRECTION_BOTH: (True, True),
}


def parse_record_lineage(request: service.RecordLineageRequest) -> RecordLineage:
    """Check the shape of a request to add edges."""
    return RecordLineage(_edges(request.edges), _anchor(request.anchor))


def parse_delete_lineage(request: service.DeleteLineageRequest) -> DeleteLineage:
    """Check the shape of a request to remove edges."""
    return DeleteLineage(_edges(request.edges))


def parse_record_deployment(request: service.RecordDeploymentRequest) -> RecordDeployment:
    """Check the shape of what a service tells of a deployment."""
    if not request.HasField("deployment"):
        raise InvalidField("deployment", "is required")
    link = link_from_proto(request.deployment, "deployment")
    if link.type is not ResourceType.DEPLOYMENT:
        raise InvalidField("deployment.type", "must be DEPLOYMENT")
    limits.check("lineage_edges_per_call", len(request.model_version_ids))
    deployment = Deployment(
        id=names.identifier("deployment.id", link.id),
        name=".".join(names.path("deployment.name", link.name, 3)),
        owner_id=link.owner_id,
        schema_id=names.identifier("schema_id", request.schema_id),
        delete_time=moment(request.delete_time) if request.HasField("delete_time") else None,
    )
    versions = (
        names.identifier(f"model_version_ids[{position}]", given)
        for position, given in enumerate(request.model_version_ids)
    )
    return RecordDeployment(deployment, tuple(versions))


def parse_query_lineage(request: service.QueryLineageRequest) -> QueryLineage:
    """Check the shape of a request to walk the graph."""
    if not request.HasField("node"):
        raise InvalidField("node", "is required")
    if request.direction not in _DIRECTIONS:
        raise InvalidField("direction", f"{request.direction} is none of UPSTREAM, DOWNSTREAM, BOTH")
    if request.depth < 0:
        raise InvalidField("depth", f"{request.depth} is negative; write 1 to {MAX_DEPTH}")
    upstream, downstream = _DIRECTIONS[request.direction]
    return QueryLineage(
        node=_node("node", request.node),
        upstream=upstream,
        downstream=downstream,
        depth=min(request.depth or 1, MAX_DEPTH),
        size=paging.page_size(request.page_size, default=MAX_EDGES, maximum=MAX_EDGES),
        after=_position(request.page_token),
    )


def render_lineage(lineage: Lineage) -> service.QueryLineageResponse:
    """Return the message of a part of the graph."""
    return service.QueryLineageResponse(
        edges=map(_edge_to_proto, lineage.edges),
        truncated=lineage.truncated,
        node=_node_to_proto(lineage.node),
        next_page_token=paging.encode_token(lineage.next) if lineage.next else "",
    )


def _edges(messages: Sequence[lineage_pb2.LineageEdge]) -> tuple[GivenEdge, ...]:
    if not messages:
        raise InvalidField("edges", "needs at least one edge")
    limits.check("lineage_edges_per_call", len(messages))
    return tuple(_edge(f"edges[{position}]", edge) for position, edge in enumerate(messages))


def _anchor(name: str) -> Path:
    """Return the schema or model that an anchor names, or no parts for none."""
    return names.path("anchor", name, 3 if name.count(".") > 1 else 2) if name else ()


def _position(token: str) -> Position | None:
    key = paging.decode_token(token, int, str, str, str)
    if key is None:
        return None
    step, near, far, relation = key
    _, _ = names.identifier("page_token", str(near)), names.identifier("page_token", str(far))
    return int(step), str(near), str(far), str(relation)


def _edge(field: str, message: lineage_pb2.LineageEdge) -> GivenEdge:
    for end in ("source", "target"):
        if not message.HasField(end):
            raise InvalidField(f"{field}.{end}", "is required")
    return GivenEdge(
        source=_node(f"{field}.source", message.source),
        target=_node(f"{field}.target", message.target),
        relation=values.text(f"{field}.relation", message.relation, "lineage_relation_length"),
    )


def _node(field: str, message: lineage_pb2.LineageNode) -> GivenNode:
    """Return a node as callers name it; `id`, but of deployments, is only ever sent by the service."""
    if message.kind not in _KINDS:
        raise InvalidField(f"{field}.kind", f"must be {', '.join(_KINDS.values())}")
    kind = _KINDS[message.kind]
    by_id = kind is NodeKind.DEPLOYMENT and message.id
    if not message.name and not by_id:
        raise InvalidField(f"{field}.name", "is required")
    if kind not in _VERSIONED and message.version:
        raise InvalidField(
            f"{field}.version", "only data sets and batch jobs have one; write it into the name"
        )
    if kind is NodeKind.MODEL_VERSION:
        return names.version(f"{field}.name", message.name)
    if kind not in _VERSIONED and message.digest:
        raise InvalidField(f"{field}.digest", "only data sets, batch jobs and versions of models have one")
    if kind is NodeKind.DEPLOYMENT:
        return _deployment(field, message)
    return named_node(
        kind,
        values.address(f"{field}.name", message.name, "lineage_name_length"),
        values.text(f"{field}.version", message.version, "lineage_name_length"),
        values.text(f"{field}.digest", message.digest, "lineage_name_length"),
    )


def _deployment(field: str, message: lineage_pb2.LineageNode) -> DeploymentRef:
    if message.id:
        return DeploymentRef("", names.identifier(f"{field}.id", message.id))
    return DeploymentRef(".".join(names.path(f"{field}.name", message.name, 3)))


def _edge_to_proto(edge: Edge) -> lineage_pb2.LineageEdge:
    return lineage_pb2.LineageEdge(
        source=_node_to_proto(edge.source),
        target=_node_to_proto(edge.target),
        relation=edge.relation,
        recorded_by=edge.recorded_by,
        create_time=timestamp(edge.time),
    )


def _node_to_proto(node: Node) -> lineage_pb2.LineageNode:
    return lineage_pb2.LineageNode(
        kind=_TO_PROTO[node.kind],
        id=node.id,
        name=node.name,
        version=node.version,
        digest=node.digest,
        delete_time=timestamp(node.delete_time),
    )
