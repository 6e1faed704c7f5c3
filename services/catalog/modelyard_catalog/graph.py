"""The lineage graph as frozen values: nodes are known by what they stand for, edges go from what was used to what came of it."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from modelyard_kit.access import Link


class NodeKind(StrEnum):
    """What a node stands for; the names are those of `catalog/v1/lineage.proto`."""

    DATASET = "DATASET"
    RUN = "RUN"
    MODEL_VERSION = "MODEL_VERSION"
    DEPLOYMENT = "DEPLOYMENT"
    BATCH_JOB = "BATCH_JOB"


@dataclass(frozen=True)
class Node:
    """Something that models are made from, or that is made from models.

    Attributes:
        id: of a version or deployment its own; of anything else it follows from the rest.
        name: empty where the reader may not know it.
        delete_time: when the deployment was deleted.
    """

    kind: NodeKind
    id: str
    name: str
    version: str = ""
    digest: str = ""
    delete_time: datetime | None = None


@dataclass(frozen=True)
class Deployment:
    """A deployment as the graph keeps it: as the inference service last told of it."""

    id: str
    name: str
    owner_id: str
    schema_id: str
    delete_time: datetime | None = None


@dataclass(frozen=True)
class EdgeKey:
    """What there is once: two ids of nodes, and how the second came of the first."""

    source_id: str
    target_id: str
    relation: str


@dataclass(frozen=True)
class Edge:
    """One edge of the graph, with both ends.

    Attributes:
        anchor: schema or model on whose behalf it is recorded, if neither end says who may.
    """

    source: Node
    target: Node
    relation: str
    recorded_by: str = ""
    time: datetime | None = None
    anchor: Link | None = None

    @property
    def key(self) -> EdgeKey:
        """What there is once."""
        return EdgeKey(self.source.id, self.target.id, self.relation)


Position = tuple[int, str, str, str]
"""Place of an edge in a walk: the step that found it, the id it was found from, the other id, and its relation."""


@dataclass(frozen=True)
class Lineage:
    """A part of the graph.

    Attributes:
        node: where the walk began.
        edges: the nearest first.
        truncated: whether there are more edges.
        next: where the next page begins; None if there is none.
    """

    node: Node
    edges: tuple[Edge, ...]
    truncated: bool
    next: Position | None = None


def named_node(kind: NodeKind, name: str, version: str = "", digest: str = "") -> Node:
    """Return the node of what is known by name, version and digest: the same ones give the same id everywhere."""
    identity = json.dumps([kind, name, version, digest], ensure_ascii=False).encode()
    content = bytearray(hashlib.sha256(identity).digest()[:16])
    content[6] = content[6] & 0x0F | 0x80  # UUID version 8: made by a rule of one's own (RFC 9562)
    content[8] = content[8] & 0x3F | 0x80
    return Node(kind, str(uuid.UUID(bytes=bytes(content))), name, version, digest)


def version_node(version_id: str, name: str) -> Node:
    """Return the node of a version, which is known by its id whatever it is called."""
    return Node(NodeKind.MODEL_VERSION, version_id, name)


def deployment_node(deployment: Deployment) -> Node:
    """Return the node of a deployment, which is known by its id whatever it is called."""
    return Node(NodeKind.DEPLOYMENT, deployment.id, deployment.name, delete_time=deployment.delete_time)
