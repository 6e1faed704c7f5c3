"""What every writer of lineage has in common: edges are added in its transaction, and never close a circle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import lineage_store
from modelyard_catalog.errors import LineageCycle
from modelyard_catalog.graph import Edge, EdgeKey, NodeKind, named_node, version_node
from modelyard_catalog.models import DatasetReference
from modelyard_kit import limits
from modelyard_kit.access import Link
from modelyard_kit.auth import Call

COPIED = "copied_to"
DEPLOYED = "deployed_as"
_RELATIONS = {"training": "trained_on", "validation": "validated_on", "test": "tested_on"}


async def add_edges(
    connection: AsyncConnection, call: Call, edges: Sequence[Edge], time: datetime
) -> list[EdgeKey]:
    """Add edges to the graph and return those that were not there before.

    A deployment is no origin of what is made of its answers, nor they of it: versions are trained on what others answered.

    Raises:
        LineageCycle: one would make something its own origin.
        LimitExceeded: there is too much upstream of them to tell.
    """
    for edge in edges:
        if edge.source.id == edge.target.id:
            raise LineageCycle(edge.source.name, edge.target.name)
    added = await lineage_store.add(connection, edges, call, time)
    into_deployments = {edge.key for edge in edges if edge.target.kind is NodeKind.DEPLOYMENT}
    sources = [key.source_id for key in added if key not in into_deployments]
    if sources:
        # Whatever closes a circle is upstream of itself. Another transaction that adds the rest of the circle at the same
        # time conflicts with what is read here, and one of the two is run again.
        maximum = limits.LIMITS["lineage_ancestry_edges"].maximum
        upstream = await lineage_store.ancestry(connection, sources, maximum + 1)
        limits.check("lineage_ancestry_edges", len(upstream))
        _refuse_circles(edges, upstream)
    return added


async def record_datasets(
    connection: AsyncConnection,
    call: Call,
    version: Link,
    datasets: Iterable[DatasetReference],
    time: datetime,
    *,
    is_new: bool,
) -> None:
    """Add the data sets of a version's provenance to the graph; those it had before stay there.

    Args:
        connection: the transaction that writes the provenance.
        call: who writes it.
        version: the version.
        datasets: what it was made from.
        time: when.
        is_new: whether this transaction makes the version; what comes of nothing yet cannot close a circle.

    Raises:
        LineageCycle: a data set came of the version.
    """
    edges = _dataset_edges(version, datasets)
    if is_new:
        await lineage_store.add(connection, edges, call, time)
    else:
        await add_edges(connection, call, edges, time)


async def record_copy(
    connection: AsyncConnection,
    call: Call,
    source: Link,
    copy: Link,
    datasets: Iterable[DatasetReference],
    time: datetime,
) -> None:
    """Add to the graph where a new version comes from that is a copy, in the transaction that makes it."""
    edge = Edge(version_node(source.id, source.name), version_node(copy.id, copy.name), COPIED)
    await lineage_store.add(connection, [edge, *_dataset_edges(copy, datasets)], call, time)


def _dataset_edges(version: Link, datasets: Iterable[DatasetReference]) -> list[Edge]:
    target = version_node(version.id, version.name)
    return [
        Edge(
            named_node(NodeKind.DATASET, item.name, item.version, item.digest),
            target,
            _RELATIONS.get(item.role.lower(), item.role or "used"),
        )
        for item in datasets
    ]


def _refuse_circles(edges: Sequence[Edge], upstream: Iterable[tuple[str, str]]) -> None:
    sources = defaultdict(set)
    for source, target in upstream:
        sources[target].add(source)
    try:
        TopologicalSorter(sources).prepare()
    except CycleError as error:
        circle = set(pairwise(error.args[1]))
        new = next(edge for edge in edges if (edge.source.id, edge.target.id) in circle)
        raise LineageCycle(new.source.name, new.target.name) from error
