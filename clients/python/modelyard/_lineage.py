"""Lineage: what was made from what."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from modelyard._convert import from_proto, parse_enum, rows, to_proto
from modelyard._namespace import Namespace, resource_name, version_reference
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.catalog.v1 import lineage_pb2
from modelyard.errors import InvalidArgument
from modelyard.references import parse_version_reference
from modelyard.types import Dataset, Lineage, LineageDirection, LineageEdge, LineageKind, LineageNode

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH = 20
_PAGE = 1_000

# A user alone is a secret where it may be a token.
_CREDENTIALS = re.compile(r"(?i:https?)://[^/@\s]+@|[A-Za-z][A-Za-z0-9+.-]*://[^/@\s]*:[^/@\s]*@")
# The services say the same of the data sets in a version's provenance, so that no edge is there twice.
_RELATIONS = {"training": "trained_on", "validation": "validated_on", "test": "tested_on"}


class AsyncLineage(Namespace):
    """`client.lineage`: the graph of data sets, runs, versions, deployments and batch jobs."""

    async def record(self, *edges: LineageEdge, anchor: str = "") -> None:
        """Add edges to the graph; one that is there already stays as it is.

        You need EDIT on the model of a version that is a target, DEPLOY on a deployment that is one, and may see the sources.
        Edges to anything else are recorded on behalf of a schema or model.

        Args:
            edges: What was made from what.
            anchor: Full name of a schema (you need CREATE_MODEL on it) or model (EDIT on it) on whose behalf edges are
                recorded that end neither at a version nor at a deployment. By default the model of the first version
                that is a target in this call; without any, each edge needs EDIT on the model of its source.

        Raises:
            LineageCycle: an edge would make something its own origin; nothing was recorded.
        """
        request = pb.RecordLineageRequest(edges=_sent(edges), anchor=anchor or _own_model(edges))
        await self._connection.call(self._connection.catalog.RecordLineage, request)

    async def delete(self, *edges: LineageEdge) -> None:
        """Remove edges that were recorded by mistake, given by source, target and relation; one that is not there is ignored.

        You need what recording them needs. The audit log keeps both.
        """
        request = pb.DeleteLineageRequest(edges=_sent(edges))
        await self._connection.call(self._connection.catalog.DeleteLineage, request)

    async def query(
        self,
        node: LineageNode | str,
        *,
        direction: LineageDirection | str = LineageDirection.BOTH,
        depth: int = 1,
        limit: int = 1_000,
    ) -> Lineage:
        """Walk the graph from a node; versions and deployments that you may not see come without their names.

        Args:
            node: Where to begin: a node, or a version reference.
            direction: UPSTREAM to what it was made from, DOWNSTREAM to what was made from it, or BOTH.
            depth: Edges from the node at most, up to 20.
            limit: Edges at most, the nearest first; asked for in pages of 1,000.
        """
        if limit < 1:
            raise InvalidArgument(f"limit: {limit} is less than 1")
        start = LineageNode.model_version(node) if isinstance(node, str) else node
        way = parse_enum(LineageDirection, direction, "direction")
        request = pb.QueryLineageRequest(
            node=to_proto(lineage_pb2.LineageNode, _node(start, "node")),
            direction=pb.LineageDirection.Value(f"LINEAGE_DIRECTION_{way}"),
            depth=depth,
        )
        edges: list[LineageEdge] = []
        while True:
            request.page_size = min(limit - len(edges), _PAGE)
            answer = await self._connection.call(self._connection.catalog.QueryLineage, request)
            edges += rows(LineageEdge, answer.edges)
            request.page_token = answer.next_page_token
            if not request.page_token or len(edges) >= limit:
                return Lineage(from_proto(LineageNode, answer.node), tuple(edges), answer.truncated)

    async def upstream(
        self, node: LineageNode | str, *, depth: int = MAX_DEPTH, limit: int = 1_000
    ) -> Lineage:
        """All that something was made from; see `query`."""
        return await self.query(node, direction=LineageDirection.UPSTREAM, depth=depth, limit=limit)

    async def downstream(
        self, node: LineageNode | str, *, depth: int = MAX_DEPTH, limit: int = 1_000
    ) -> Lineage:
        """All that was made from something; see `query`."""
        return await self.query(node, direction=LineageDirection.DOWNSTREAM, depth=depth, limit=limit)


def _sent(edges: Sequence[LineageEdge]) -> list[lineage_pb2.LineageEdge]:
    """Edges as they are sent."""
    if not edges:
        raise InvalidArgument("edges: give at least one")
    return [
        to_proto(
            lineage_pb2.LineageEdge,
            LineageEdge(
                source=_node(edge.source, f"edges[{i}].source"),
                target=_node(edge.target, f"edges[{i}].target"),
                relation=edge.relation,
            ),
        )
        for i, edge in enumerate(edges)
    ]


def _own_model(edges: Sequence[LineageEdge]) -> str:
    """Name of the model of the first version that came of something."""
    versions = (edge.target.name for edge in edges if edge.target.kind is LineageKind.MODEL_VERSION)
    return next((parse_version_reference(name).model for name in versions), "")


def input_edges(reference: str, datasets: Sequence[Dataset]) -> list[LineageEdge]:
    """What says in the graph that a version was made from data sets."""
    target = LineageNode.model_version(reference)
    return [
        LineageEdge(
            source=LineageNode.dataset(dataset.name, version=dataset.version, digest=dataset.digest),
            target=target,
            relation=_RELATIONS.get(dataset.role.lower(), dataset.role or "used"),
        )
        for dataset in check_datasets(datasets, "datasets")
    ]


def check_datasets(datasets: Sequence[Dataset], field: str) -> tuple[Dataset, ...]:
    """The data sets, refused here when one has no name, or has a password in it.

    Raises:
        InvalidArgument: one cannot be recorded.
    """
    for i, dataset in enumerate(datasets):
        if not isinstance(dataset, Dataset):
            raise InvalidArgument(f"{field}[{i}]: write modelyard.Dataset(name, version, digest, role)")
        _check_dataset_name(dataset.name, f"{field}[{i}].name")
    return tuple(datasets)


def _node(node: LineageNode, field: str) -> LineageNode:
    """The node as it is sent."""
    if node.kind is None:
        raise InvalidArgument(f"{field}.kind: is missing; write LineageNode.dataset(…), .model_version(…) …")
    if node.kind == LineageKind.MODEL_VERSION:
        return LineageNode(kind=node.kind, name=version_reference(node.name, f"{field}.name"))
    if node.kind == LineageKind.DATASET:
        _check_dataset_name(node.name, f"{field}.name")
    elif node.kind == LineageKind.DEPLOYMENT:
        _check_deployment(node, field)
    elif not node.name:
        raise InvalidArgument(f"{field}.name: is missing")
    return replace(node, delete_time=None)


def _check_deployment(node: LineageNode, field: str) -> None:
    if not node.id:
        resource_name(node.name, 3, f"{field}.name")


def _check_dataset_name(name: str, field: str) -> None:
    if not name:
        raise InvalidArgument(f"{field}: is missing; name the data set or give its address, s3://lake/iris")
    if _CREDENTIALS.match(name):
        raise InvalidArgument(f"{field}: holds credentials, which everybody could read there; leave them out")
