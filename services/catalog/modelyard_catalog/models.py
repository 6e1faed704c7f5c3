"""What the catalog keeps: catalogs, schemas, models and versions, as frozen values, and the states of a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from modelyard_kit.access import Chain, Link, ResourceType

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""Any JSON value."""

Path = tuple[str, ...]
"""Parts of a dotted name, outermost first: `("prod", "ml_team", "iris")`."""


class VersionState(StrEnum):
    """Where a version is in its life."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"


class ApprovalState(StrEnum):
    """Where a version stands with the reviewers of governance, as far as the catalog was told."""

    NONE = "NONE"
    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


class Transition(StrEnum):
    """What can be asked of a version's state."""

    FINALIZE = "FINALIZE"
    FAIL = "FAIL"


TRANSITIONS: Mapping[VersionState, Mapping[Transition, VersionState]] = {
    VersionState.PENDING: {Transition.FINALIZE: VersionState.READY, Transition.FAIL: VersionState.FAILED},
    VersionState.READY: {},
    VersionState.FAILED: {},
}
"""The only changes of state there are. READY and FAILED are final."""

RESULTS: Mapping[Transition, VersionState] = {
    Transition.FINALIZE: VersionState.READY,
    Transition.FAIL: VersionState.FAILED,
}
"""The state that each transition leads to; a version already there has been through it."""


class ComputedAlias(StrEnum):
    """Aliases that nobody sets: they are worked out among the READY versions whenever they are read."""

    DEFAULT = "default"
    FIRST = "first"
    LAST = "last"


class InputLayout(StrEnum):
    """How a method takes its inputs in Python."""

    TENSORS = "TENSORS"
    COLUMNS = "COLUMNS"


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output; -1 in the shape is a dimension of any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class MethodSignature:
    """One callable of a model."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_layout: InputLayout = InputLayout.TENSORS


@dataclass(frozen=True)
class Signature:
    """The methods of a version; the first is the one a plain prediction calls."""

    methods: tuple[MethodSignature, ...]


@dataclass(frozen=True)
class DatasetReference:
    """A state of a data set, and what it was for."""

    name: str
    version: str = ""
    digest: str = ""
    role: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where a version came from."""

    git_repository: str = ""
    git_branch: str = ""
    git_commit: str = ""
    git_dirty: bool = False
    source: str = ""
    python_version: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[DatasetReference, ...] = ()


class MetadataCategory(StrEnum):
    """What a custom fact is about, as in the OCI model catalog."""

    PERFORMANCE = "PERFORMANCE"
    TRAINING_PROFILE = "TRAINING_PROFILE"
    TRAINING_AND_VALIDATION_DATASETS = "TRAINING_AND_VALIDATION_DATASETS"
    TRAINING_ENVIRONMENT = "TRAINING_ENVIRONMENT"
    OTHER = "OTHER"


@dataclass(frozen=True)
class CustomMetadata:
    """One fact under a name of the user's own."""

    key: str
    value: str = ""
    category: MetadataCategory = MetadataCategory.OTHER
    description: str = ""


@dataclass(frozen=True)
class ModelMetadata:
    """What a version is for and how it was made, in the words of the OCI model catalog.

    Attributes:
        use_case: in the spelling of the list of OCI's, or empty.
        framework: likewise.
    """

    use_case: str = ""
    framework: str = ""
    framework_version: str = ""
    algorithm: str = ""
    hyperparameters: Mapping[str, Json] = field(default_factory=dict)
    test_results: Mapping[str, Json] = field(default_factory=dict)
    custom: tuple[CustomMetadata, ...] = ()


class ArtifactTestsState(StrEnum):
    """How the introspection tests of an artifact ended."""

    PASSED = "PASSED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class ArtifactTests:
    """What the artifact service told of the introspection tests of an artifact; `results` by the ids of the tests."""

    state: ArtifactTestsState
    results: Mapping[str, Json]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What catalogs, schemas, models and versions have in common.

    Attributes:
        name: full name, as people type it.
        owner_id: principal that owns it; empty for versions, which belong to the owner of their model.
        revision: grows with every change; the `etag`.
        delete_time: when it was deleted; None while it is not.
        purge_time: until when it can be undeleted.
        parents: containers, innermost first, ending with the system.
    """

    kind: ClassVar[ResourceType]

    id: str
    name: str
    description: str
    owner_id: str
    tags: Mapping[str, str]
    revision: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None = None
    purge_time: datetime | None = None
    parents: Chain

    @property
    def etag(self) -> str:
        """What a caller sends back to make a change conditional."""
        return str(self.revision)

    @property
    def link(self) -> Link:
        """The resource as grants, events and chains refer to it."""
        return Link(self.kind, self.id, self.name, self.owner_id)

    @property
    def chain(self) -> Chain:
        """The resource followed by its containers."""
        return (self.link, *self.parents)


@dataclass(frozen=True, kw_only=True)
class Catalog(Resource):
    """The outermost namespace."""

    kind = ResourceType.CATALOG


@dataclass(frozen=True, kw_only=True)
class Schema(Resource):
    """A namespace inside a catalog."""

    kind = ResourceType.SCHEMA


@dataclass(frozen=True, kw_only=True)
class Model(Resource):
    """A registered model.

    Attributes:
        aliases: alias to version number.
        latest_version: highest number given out; 0 when there is none.
    """

    kind = ResourceType.MODEL

    aliases: Mapping[str, int]
    latest_version: int


@dataclass(frozen=True, kw_only=True)
class ModelVersion(Resource):
    """One trained model: content that never changes, with descriptions that may.

    Attributes:
        number: from 1, never reused within the model.
        artifact_digest: empty unless READY.
        label: second name, unique in the model; empty if it has none.
        copied_from: what the version that this one is a copy of was called then; empty if it is none.
        metrics: name to JSON value.
        aliases: those that point here, sorted.
        author_name: what the author was called at the time.
        artifact_tests: of its artifact; None while there are none.
    """

    kind = ResourceType.MODEL_VERSION

    number: int
    state: VersionState
    state_message: str
    artifact_digest: str
    runtime: str
    signature: Signature | None
    metrics: Mapping[str, Json]
    provenance: Provenance | None
    metadata: ModelMetadata | None = None
    aliases: tuple[str, ...]
    author_id: str
    author_name: str
    label: str = ""
    copied_from: str = ""
    copied_from_id: str = ""
    approval_state: ApprovalState = ApprovalState.NONE
    artifact_tests: ArtifactTests | None = None

    @property
    def model(self) -> Link:
        """The model it belongs to."""
        return self.parents[0]


@dataclass(frozen=True)
class AliasMove:
    """One alias that was pointed elsewhere; 0 stands for nowhere."""

    alias: str
    before: int
    after: int


@dataclass(frozen=True)
class RecordedMove:
    """One move of an alias as its history keeps it; `sequence` grows with every move."""

    sequence: int
    alias: str
    before: int
    after: int
    actor_name: str
    time: datetime


CONTAINERS: tuple[type[Resource], ...] = (Catalog, Schema, Model)
"""What a dotted name of one, two or three parts names."""


def container_kind(path: Path) -> type[Resource]:
    """Return what a dotted name names: a catalog, schema or model."""
    return CONTAINERS[len(path) - 1]
