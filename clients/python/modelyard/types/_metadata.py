"""What a version is for, how it was made and from what: metadata, data sets, lineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class MetadataCategory(StrEnum):
    """What a custom fact is about."""

    PERFORMANCE = "PERFORMANCE"
    TRAINING_PROFILE = "TRAINING_PROFILE"
    TRAINING_AND_VALIDATION_DATASETS = "TRAINING_AND_VALIDATION_DATASETS"
    TRAINING_ENVIRONMENT = "TRAINING_ENVIRONMENT"
    OTHER = "OTHER"


class LineageKind(StrEnum):
    """Kind of node in the lineage graph."""

    DATASET = "DATASET"
    RUN = "RUN"
    MODEL_VERSION = "MODEL_VERSION"
    DEPLOYMENT = "DEPLOYMENT"
    BATCH_JOB = "BATCH_JOB"


class LineageDirection(StrEnum):
    """Which way to walk the lineage graph: to what something was made from, or to what was made from it."""

    UPSTREAM = "UPSTREAM"
    DOWNSTREAM = "DOWNSTREAM"
    BOTH = "BOTH"


@dataclass(frozen=True)
class CustomMetadata:
    """One fact under a name of one's own."""

    key: str
    value: str = ""
    category: MetadataCategory | None = None
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What a version is for and how it was made; `use_case` and `framework` are those of OCI, in any letter case."""

    use_case: str = ""
    framework: str = ""
    framework_version: str = ""
    algorithm: str = ""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    test_results: Mapping[str, Any] = field(default_factory=dict)
    custom: tuple[CustomMetadata, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A state of a data set that a version was made from; `role` is `training`, `validation` or `test`."""

    name: str
    version: str = ""
    digest: str = ""
    role: str = ""


@dataclass(frozen=True, kw_only=True)
class LineageNode:
    """Something that models are made from, or that is made from models.

    Attributes:
        id: Told by the service; a deployment may be named by it alone, also when it is deleted.
        name: Empty where you may not see what it is.
        version: Of a data set, or which run of a batch job.
        digest: Of a data set, of what a batch job ran, or of a version's artifact.
        delete_time: When the deployment was deleted.
    """

    kind: LineageKind | None = None
    id: str = ""
    name: str = ""
    version: str = ""
    digest: str = ""
    delete_time: datetime | None = None

    @classmethod
    def dataset(cls, name: str, *, version: str = "", digest: str = "") -> LineageNode:
        """A state of a data set, known by name, version and digest."""
        return cls(kind=LineageKind.DATASET, name=name, version=version, digest=digest)

    @classmethod
    def run(cls, name: str) -> LineageNode:
        """A run of a training program."""
        return cls(kind=LineageKind.RUN, name=name)

    @classmethod
    def model_version(cls, reference: str) -> LineageNode:
        """A version of a model, by its reference."""
        return cls(kind=LineageKind.MODEL_VERSION, name=reference)

    @classmethod
    def deployment(cls, name: str = "", *, id: str = "") -> LineageNode:  # noqa: A002 - what it is
        """A deployment, by its full name or, also when it is deleted, by its id."""
        return cls(kind=LineageKind.DEPLOYMENT, name=name, id=id)

    @classmethod
    def batch_job(cls, name: str, *, run: str = "", digest: str = "") -> LineageNode:
        """A batch job of another system, `airflow://scoring/nightly`, if wanted one run of it, and what that ran."""
        return cls(kind=LineageKind.BATCH_JOB, name=name, version=run, digest=digest)


@dataclass(frozen=True, kw_only=True)
class LineageEdge:
    """Says that the target was made from the source; `relation` says how: `trained_on`, `produced`, `deployed_as`."""

    source: LineageNode
    target: LineageNode
    relation: str = ""
    recorded_by: str = ""
    create_time: datetime | None = None


@dataclass(frozen=True)
class Lineage:
    """A part of the lineage graph.

    Attributes:
        node: Where the walk began, as edges show it.
        edges: The nearest first.
        truncated: Whether there are more edges.
    """

    node: LineageNode
    edges: tuple[LineageEdge, ...]
    truncated: bool = False
