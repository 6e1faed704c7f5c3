"""Catalogs, schemas, models, versions and their aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from modelyard.types._metadata import Dataset, ModelMetadata


class VersionState(StrEnum):
    """Where a model version is in its life."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"


class VersionApproval(StrEnum):
    """Where a version stood with its reviewers a moment ago; NONE when nobody reviewed it."""

    NONE = "NONE"
    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


class ArtifactTests(StrEnum):
    """How OCI's introspection tests of an artifact ended, as the artifact service told it a moment ago."""

    PASSED = "PASSED"
    FAILED = "FAILED"


class InputLayout(StrEnum):
    """How a method takes its inputs in Python: as arrays, or as the columns of one table."""

    TENSORS = "TENSORS"
    COLUMNS = "COLUMNS"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Outermost namespace, for example an environment or a business unit."""

    id: str = ""
    name: str
    description: str = ""
    owner_id: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""
    delete_time: datetime | None = None
    purge_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Namespace inside a catalog, for example a team; `name` is `prod.ml_team`."""

    id: str = ""
    name: str
    description: str = ""
    owner_id: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""
    delete_time: datetime | None = None
    purge_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A name under which versions gather; `aliases` maps alias to version number."""

    id: str = ""
    name: str
    description: str = ""
    owner_id: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    latest_version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""
    delete_time: datetime | None = None
    purge_time: datetime | None = None


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output: Open Inference Protocol data type, dimensions with -1 for any size, rows first."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MethodSignature:
    """What one callable of a model takes and gives, in order."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_layout: InputLayout = InputLayout.TENSORS


@dataclass(frozen=True)
class Signature:
    """The methods a version offers; the first is the one a plain prediction calls."""

    methods: tuple[MethodSignature, ...] = ()

    def method(self, name: str = "") -> MethodSignature:
        """The method of that name, or the first one.

        Raises:
            KeyError: there is no such method.
        """
        for candidate in self.methods:
            if candidate.name == name or not name:
                return candidate
        raise KeyError(name or "the signature has no methods")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a version came from. Every field may be empty."""

    git_repository: str = ""
    git_branch: str = ""
    git_commit: str = ""
    git_dirty: bool = False
    source: str = ""
    python_version: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One trained model; `name` is its reference, `prod.ml_team.iris/3`."""

    id: str = ""
    name: str
    model: str
    model_id: str = ""
    number: int
    state: VersionState | None = None
    state_message: str = ""
    artifact_digest: str = ""
    description: str = ""
    runtime: str = ""
    signature: Signature = Signature()
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance = Provenance()
    aliases: tuple[str, ...] = ()
    author_id: str = ""
    author_name: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""
    label: str = ""
    metadata: ModelMetadata = field(default_factory=ModelMetadata)
    copied_from: str = ""
    copied_from_id: str = ""
    delete_time: datetime | None = None
    purge_time: datetime | None = None
    approval_state: VersionApproval | None = None
    artifact_tests: ArtifactTests | None = None


@dataclass(frozen=True, kw_only=True)
class AliasMove:
    """One move of an alias; number 0 means that it did not exist before, or does not afterwards."""

    alias: str
    previous_version: int = 0
    version: int = 0
    moved_by: str = ""
    move_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One published limit; `name` is the one that LimitExceeded carries."""

    name: str
    maximum: int = 0
    unit: str = ""
    description: str = ""
