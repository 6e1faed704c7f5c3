"""What callers ask for, once its shape has been checked: the arguments of the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelyard_catalog.graph import Deployment, Node, Position
from modelyard_catalog.models import (
    ApprovalState,
    ArtifactTests,
    Json,
    ModelMetadata,
    Path,
    Provenance,
    Signature,
)
from modelyard_kit.access import ResourceType
from modelyard_kit.filters import Asked


@dataclass(frozen=True)
class Once:
    """What makes the repetition of a create safe; an empty `request_id` means nothing does."""

    request_id: str
    fingerprint: str


@dataclass(frozen=True)
class VersionRef:
    """Which version of which model: by number, by alias or label, or with neither the default one."""

    model: Path
    number: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        """Return the reference as people type it."""
        name = ".".join(self.model)
        if self.number is not None:
            return f"{name}/{self.number}"
        return f"{name}@{self.alias}" if self.alias is not None else name


Target = Path | VersionRef
"""A catalog, schema or model by its name, or a version by a reference."""


@dataclass(frozen=True)
class ById:
    """A catalog, schema or model by its id, deleted or not."""

    id: str


Container = Path | ById
"""What a list is of: a name, which is that of something there, or an id."""


@dataclass(frozen=True, kw_only=True)
class Browse(Asked):
    """Read a page of a list, deleted rows left out or not."""

    show_deleted: bool = False


@dataclass(frozen=True, kw_only=True)
class Create:
    """Make a catalog, schema or model; the length of `path` says which."""

    path: Path
    description: str
    tags: Mapping[str, str]
    once: Once


@dataclass(frozen=True, kw_only=True)
class CreateVersion:
    """Add a version; without a digest it is PENDING."""

    model: Path
    artifact_digest: str
    description: str
    runtime: str
    signature: Signature | None
    tags: Mapping[str, str]
    metrics: Mapping[str, Json]
    provenance: Provenance | None
    metadata: ModelMetadata | None = None
    once: Once
    label: str = ""


@dataclass(frozen=True)
class Finalize:
    """Give a version its artifact."""

    version: VersionRef
    artifact_digest: str


@dataclass(frozen=True)
class Fail:
    """Give a version up."""

    version: VersionRef
    message: str


@dataclass(frozen=True)
class AliasChange:
    """Point an alias at a version number (0 removes it), only while it points at `expected` if that is given."""

    alias: str
    version: int
    expected: int | None = None


@dataclass(frozen=True)
class SetAliases:
    """Change aliases of one model, all or none."""

    model: Path
    changes: tuple[AliasChange, ...]


@dataclass(frozen=True)
class AliasHistory:
    """Read a page of the moves of the aliases of a model, or of one of them."""

    model: Path
    alias: str
    asked: Asked


@dataclass(frozen=True)
class AliasAt:
    """Ask where an alias pointed at a time."""

    model: Path
    alias: str
    time: datetime


@dataclass(frozen=True)
class Rollback:
    """Point an alias where it pointed before, only while it points at `expected` if that is given."""

    model: Path
    alias: str
    expected: int | None = None


@dataclass(frozen=True)
class DeploymentRef:
    """Which deployment: by its id if that is not empty, else by its name."""

    name: str
    id: str = ""


GivenNode = Node | VersionRef | DeploymentRef
"""A node of lineage as callers name it: a version or deployment by a reference, anything else by itself."""


@dataclass(frozen=True)
class GivenEdge:
    """An edge as callers name it."""

    source: GivenNode
    target: GivenNode
    relation: str


@dataclass(frozen=True)
class RecordLineage:
    """Add edges to the lineage graph, if need be on behalf of a schema or model."""

    edges: tuple[GivenEdge, ...]
    anchor: Path = ()


@dataclass(frozen=True)
class DeleteLineage:
    """Remove edges from the lineage graph."""

    edges: tuple[GivenEdge, ...]


@dataclass(frozen=True)
class RecordDeployment:
    """Note what a deployment is, and versions that answer for it."""

    deployment: Deployment
    version_ids: tuple[str, ...]


@dataclass(frozen=True)
class QueryLineage:
    """Walk the lineage graph from a node, `depth` edges at most; a page of `size` edges, after the one at `after`."""

    node: GivenNode
    upstream: bool
    downstream: bool
    depth: int
    size: int = 1_000
    after: Position | None = None


@dataclass(frozen=True)
class ApprovalChange:
    """Where a version stands; only a sequence over the last one counts."""

    version_id: str
    state: ApprovalState
    sequence: int


@dataclass(frozen=True)
class ArtifactTestsChange:
    """How the tests of an artifact ended; a sequence under the last one does not count."""

    digest: str
    tests: ArtifactTests
    sequence: int


@dataclass(frozen=True)
class SetTags:
    """Write and remove tags."""

    target: Target
    write: Mapping[str, str]
    remove: tuple[str, ...]


@dataclass(frozen=True)
class SetMetrics:
    """Write and remove metrics of a version."""

    version: VersionRef
    write: Mapping[str, Json]
    remove: tuple[str, ...]


@dataclass(frozen=True)
class Resolve:
    """Find a resource by name or by id; exactly one of `target` and `id` is given.

    With `for_use` the caller is about to begin to use it, so that it must not be about to be deleted.
    """

    type: ResourceType
    target: Target | None
    id: str
    for_use: bool = False


@dataclass(frozen=True, kw_only=True)
class Update:
    """Change a catalog, schema or model; what is None stays, a new path renames or moves it."""

    path: Path
    etag: str
    new_path: Path | None
    description: str | None
    owner_id: str | None


@dataclass(frozen=True)
class UpdateVersion:
    """Change what is around the content of a version: the fields named in `changes`, to their values there.

    They are `description`, `label`, `metadata`, `signature`, and `datasets` of the provenance.
    """

    version: VersionRef
    etag: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Delete:
    """Delete a resource, only while it has the etag if one is given; forced, what is in its way goes too."""

    target: Target
    etag: str
    force: bool


@dataclass(frozen=True)
class Undelete:
    """Bring back what was deleted."""

    type: ResourceType
    id: str


@dataclass(frozen=True)
class CopyVersion:
    """Add a version to a model that has the content of another one."""

    source: VersionRef
    model: Path
    label: str
    once: Once


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Follow events: after a number, from the oldest, or with neither from now; of these types or prefixes, if any.

    The number counts in the feed `feed_id`.
    """

    position: int | None
    feed_id: str = ""
    from_beginning: bool
    types: tuple[str, ...]
    prefixes: tuple[str, ...]
    resource: Path
