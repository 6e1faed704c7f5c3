"""Lineage: what was made from what."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from modelyard._convert import from_proto, parse_enum, to_proto
from modelyard._namespace import Namespace, version_reference
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.catalog.v1 import lineage_pb2
from modelyard.errors import InvalidArgument
from modelyard.types import Dataset, Lineage, LineageDirection, LineageEdge, LineageKind, LineageNode

if TYPE_CHECKING:
    from collections.abc import Sequence

# A user alone is a secret where it may be a token.
_CREDENTIALS = re.compile(r"(?i:https?)://[^/@\s]+@|[A-Za-z][A-Za-z0-9+.-]*://[^/@\s]*:[^/@\s]*@")
# The services say the same of the data sets in a version's provenance, so that no edge is there twice.
_RELATIONS = {"training": "trained_on", "validation": "validated_on", "test": "tested_on"}


class AsyncLineage(Namespace):
    """`client.lineage`: the graph of data sets, runs, versions, deployments and batch jobs."""

    async def record(self, *edges: LineageEdge) -> None:
        """Add edges to the graph; one that is there already stays as it is.

        Raises:
            LineageCycle: an edge would make something its own origin; nothing was recorded.
        """
        if not edges:
            raise InvalidArgument("edges: give at least one")
        sent = [
            to_proto(
                lineage_pb2.LineageEdge,
                replace(
                    edge,
                    source=_node(edge.source, f"edges[{i}].source"),
                    target=_node(edge.target, f"edges[{i}].target"),
                ),
            )
            for i, edge in enumerate(edges)
        ]
        request = pb.RecordLineageRequest(edges=sent)
        await self._connection.call(self._connection.catalog.RecordLineage, request)

    async def query(
        self,
        node: LineageNode | str,
        *,
        direction: LineageDirection | str = LineageDirection.BOTH,
        depth: int = 1,
    ) -> Lineage:
        """Walk the graph from a node; versions that you may not see come without their names.

        Args:
            node: Where to begin: a node, or a version reference.
            direction: UPSTREAM to what it was made from, DOWNSTREAM to what was made from it, or BOTH.
            depth: Edges from the node at most, up to 20.
        """
        start = LineageNode.model_version(node) if isinstance(node, str) else node
        way = parse_enum(LineageDirection, direction, "direction")
        request = pb.QueryLineageRequest(
            node=to_proto(lineage_pb2.LineageNode, _node(start, "node")),
            direction=pb.LineageDirection.Value(f"LINEAGE_DIRECTION_{way}"),
            depth=depth,
        )
        answer = await self._connection.call(self._connection.catalog.QueryLineage, request)
        return from_proto(Lineage, answer)


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
        return replace(node, name=version_reference(node.name, f"{field}.name"))
    if node.kind == LineageKind.DATASET:
        _check_dataset_name(node.name, f"{field}.name")
    elif not node.name:
        raise InvalidArgument(f"{field}.name: is missing")
    return node


def _check_dataset_name(name: str, field: str) -> None:
    if not name:
        raise InvalidArgument(f"{field}: is missing; name the data set or give its address, s3://lake/iris")
    if _CREDENTIALS.match(name):
        raise InvalidArgument(f"{field}: holds credentials, which everybody could read there; leave them out")
