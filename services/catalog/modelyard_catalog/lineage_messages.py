"""Lineage in requests and answers: every shape check, and the way back."""

from __future__ import annotations

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import lineage_pb2
from modelyard_catalog import names, values
from modelyard_catalog.commands import GivenEdge, QueryLineage, RecordLineage, VersionRef
from modelyard_catalog.graph import Edge, Lineage, Node, NodeKind, named_node
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import timestamp

MAX_DEPTH = limits.LIMITS["lineage_depth"].maximum

_KINDS = {
    lineage_pb2.LineageNode.KIND_DATASET: NodeKind.DATASET,
    lineage_pb2.LineageNode.KIND_RUN: NodeKind.RUN,
    lineage_pb2.LineageNode.KIND_MODEL_VERSION: NodeKind.MODEL_VERSION,
    lineage_pb2.LineageNode.KIND_BATCH_JOB: NodeKind.BATCH_JOB,
}
_TO_PROTO = {kind: number for number, kind in _KINDS.items()} | {
    NodeKind.DEPLOYMENT: lineage_pb2.LineageNode.KIND_DEPLOYMENT
}
_DIRECTIONS = {
    service.LINEAGE_DIRECTION_UNSPECIFIED: (True, True),
    service.LINEAGE_DIRECTION_UPSTREAM: (True, False),
    service.LINEAGE_DIRECTION_DOWNSTREAM: (False, True),
    service.LINEAGE_DIRECTION_BOTH: (True, True),
}


def parse_record_lineage(request: service.RecordLineageRequest) -> RecordLineage:
    """Check the shape of a request to add edges."""
    if not request.edges:
        raise InvalidField("edges", "needs at least one edge")
    limits.check("lineage_edges_per_call", len(request.edges))
    return RecordLineage(
        tuple(_edge(f"edges[{position}]", edge) for position, edge in enumerate(request.edges))
    )


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
    )


def render_lineage(lineage: Lineage) -> service.QueryLineageResponse:
    """Return the message of a part of the graph."""
    return service.QueryLineageResponse(edges=map(_edge_to_proto, lineage.edges), truncated=lineage.truncated)


def _edge(field: str, message: lineage_pb2.LineageEdge) -> GivenEdge:
    for end in ("source", "target"):
        if not message.HasField(end):
            raise InvalidField(f"{field}.{end}", "is required")
    return GivenEdge(
        source=_node(f"{field}.source", message.source),
        target=_node(f"{field}.target", message.target),
        relation=values.text(f"{field}.relation", message.relation, "lineage_relation_length"),
    )


def _node(field: str, message: lineage_pb2.LineageNode) -> Node | VersionRef:
    """Return a node as callers name it; `id`, and the digest of a version, are only ever sent by the service."""
    if message.kind == lineage_pb2.LineageNode.KIND_DEPLOYMENT:
        raise InvalidField(f"{field}.kind", "edges of deployments are not recorded by this catalog")
    if message.kind not in _KINDS:
        raise InvalidField(f"{field}.kind", "must be DATASET, RUN, MODEL_VERSION or BATCH_JOB")
    kind = _KINDS[message.kind]
    if not message.name:
        raise InvalidField(f"{field}.name", "is required")
    if kind is not NodeKind.DATASET and message.version:
        raise InvalidField(f"{field}.version", "only data sets have one; write it into the name")
    if kind is NodeKind.MODEL_VERSION:
        return names.version(f"{field}.name", message.name)
    if kind is not NodeKind.DATASET and message.digest:
        raise InvalidField(f"{field}.digest", "only data sets and versions of models have one")
    return named_node(
        kind,
        values.address(f"{field}.name", message.name, "lineage_name_length"),
        values.text(f"{field}.version", message.version, "lineage_name_length"),
        values.text(f"{field}.digest", message.digest, "lineage_name_length"),
    )


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
    )
