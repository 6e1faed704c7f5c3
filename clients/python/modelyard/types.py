"""What calls give and take: frozen dataclasses with the fields of the contracts.

Times are aware datetimes in UTC, durations are timedeltas, sizes are bytes. A time that was never set is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


class ResourceType(StrEnum):
    """Kind of thing a grant, an event or a link is about."""

    SYSTEM = "SYSTEM"
    CATALOG = "CATALOG"
    SCHEMA = "SCHEMA"
    MODEL = "MODEL"
    MODEL_VERSION = "MODEL_VERSION"
    DEPLOYMENT = "DEPLOYMENT"
    ARTIFACT = "ARTIFACT"
    PRINCIPAL = "PRINCIPAL"
    TOKEN = "TOKEN"  # noqa: S105  (a kind of resource, not a secret)
    UPLOAD = "UPLOAD"
    POLICY = "POLICY"


class VersionState(StrEnum):
    """Where a model version is in its life."""

    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"


class UploadState(StrEnum):
    """Where an upload is in its life."""

    OPEN = "OPEN"
    COMMITTED = "COMMITTED"


class InputLayout(StrEnum):
    """How a method takes its inputs in Python: as arrays, or as the columns of one table."""

    TENSORS = "TENSORS"
    COLUMNS = "COLUMNS"


class PrincipalKind(StrEnum):
    """Kind of principal; SERVICE is a service of Modelyard itself."""

    USER = "USER"
    SERVICE_ACCOUNT = "SERVICE_ACCOUNT"
    SERVICE = "SERVICE"


class Privilege(StrEnum):
    """A right on a resource and on everything inside it, now and later."""

    USE_CATALOG = "USE_CATALOG"
    USE_SCHEMA = "USE_SCHEMA"
    CREATE_CATALOG = "CREATE_CATALOG"
    CREATE_SCHEMA = "CREATE_SCHEMA"
    CREATE_MODEL = "CREATE_MODEL"
    CREATE_VERSION = "CREATE_VERSION"
    READ_METADATA = "READ_METADATA"
    READ_ARTIFACT = "READ_ARTIFACT"
    EXECUTE = "EXECUTE"
    APPLY_TAG = "APPLY_TAG"
    EDIT = "EDIT"
    APPROVE = "APPROVE"
    DEPLOY = "DEPLOY"
    MANAGE = "MANAGE"
    OWNERSHIP = "OWNERSHIP"


class Effect(StrEnum):
    """What a grant does; DENY wins over every ALLOW."""

    ALLOW = "ALLOW"
    DENY = "DENY"


class ReviewDecision(StrEnum):
    """What a reviewer says of a version."""

    APPROVE = "APPROVE"
    REJECT = "REJECT"


class ApprovalState(StrEnum):
    """Where the approval of a version stands."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


class DeploymentState(StrEnum):
    """Where a deployment is in its life."""

    CREATING = "CREATING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    FAILED = "FAILED"
    DELETING = "DELETING"


class ReplicaState(StrEnum):
    """What a replica is doing."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Outermost namespace, for example an environment or a business unit."""

    id: str = ""
    name: str
    description: str = ""
    owner_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Namespace inside a catalog, for example a team; `name` is `prod.ml_team`."""

    id: str = ""
    name: str
    description: str = ""
    owner_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A name under which versions gather; `aliases` maps alias to version number."""

    id: str = ""
    name: str
    description: str = ""
    owner_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)
    latest_version: int = 0
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


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


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: relative path with `/`, size in bytes, SHA-256 in hex."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Immutable set of files, named by the digest of its manifest."""

    digest: str
    file_count: int = 0
    size: int = 0
    create_time: datetime | None = None


@dataclass(frozen=True)
class MissingBlob:
    """Content the store does not have yet; `offset` says from where to send it."""

    sha256: str
    size: int
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Upload:
    """An artifact on its way in."""

    id: str
    model: str = ""
    state: UploadState | None = None
    artifact_digest: str = ""
    missing: tuple[MissingBlob, ...] = ()
    create_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Somebody or something that can be allowed to do things."""

    id: str = ""
    name: str
    kind: PrincipalKind | None = None
    display_name: str = ""
    create_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ApiToken:
    """A long-lived secret of a principal, without the secret."""

    id: str
    principal: str = ""
    description: str = ""
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    create_time: datetime | None = None


@dataclass(frozen=True)
class NewToken:
    """An API token just made. `secret` is shown only here; keep it."""

    token: ApiToken
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A public key that verifies the tokens of calls (RFC 7517, EC P-256)."""

    kid: str
    alg: str = ""
    x: str = ""
    y: str = ""


@dataclass(frozen=True)
class SigningKeys:
    """The public keys in use, and the issuer named in every token."""

    issuer: str
    keys: tuple[SigningKey, ...]


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One thing for good: the id never changes, the name is what it was called at the time."""

    type: ResourceType | None = None
    id: str = ""
    name: str = ""
    owner_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Gives or denies a principal a privilege on a resource."""

    id: str = ""
    principal: str
    principal_id: str = ""
    privilege: Privilege | None = None
    effect: Effect | None = None
    resource: Resource = Resource()
    create_time: datetime | None = None


@dataclass(frozen=True)
class PermissionDecision:
    """Whether a principal may, and which grant decided."""

    allowed: bool
    explanation: str

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True, kw_only=True)
class ApprovalPolicy:
    """What a version needs before it may be used; `*` among the aliases means every alias."""

    id: str = ""
    resource: Resource = Resource()
    required_approvals: int = 1
    allow_self_approval: bool = False
    protected_aliases: tuple[str, ...] = ()
    protect_deployments: bool = False
    update_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Review:
    """What one principal said of a version."""

    reviewer: str
    reviewer_id: str = ""
    decision: ReviewDecision | None = None
    comment: str = ""
    create_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Approval:
    """Where a version stands, from its reviews and the policy that applies."""

    model_version: Resource = Resource()
    state: ApprovalState | None = None
    approvals: int = 0
    required_approvals: int = 1
    reviews: tuple[Review, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to what, by whom and when."""

    id: str
    type: str
    resource: Resource = Resource()
    actor_id: str = ""
    actor_name: str = ""
    time: datetime | None = None
    request_id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One link of the audit chain; `hash` covers the event and the entry before."""

    sequence: int
    event: Event
    canonical_event: str = ""
    previous_hash: str = ""
    hash: str = ""


@dataclass(frozen=True, kw_only=True)
class AuditVerification:
    """Whether the audit chain holds; `broken_sequence` is the first entry that does not fit, or 0."""

    valid: bool
    entries: int = 0
    head_hash: str = ""
    broken_sequence: int = 0
    problem: str = ""


@dataclass(frozen=True)
class TrafficTarget:
    """Sends a share of the predictions to a version; a reference with an alias follows the alias."""

    model_version: str
    weight: int = 1


@dataclass(frozen=True, kw_only=True)
class TargetStatus:
    """What a target is doing: `model_version` answers now, `next_model_version` is being rolled out."""

    reference: str
    model_version: str = ""
    artifact_digest: str = ""
    weight: int = 0
    ready_replicas: int = 0
    next_model_version: str = ""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """An endpoint: a name that answers predictions."""

    id: str = ""
    name: str
    description: str = ""
    targets: tuple[TrafficTarget, ...] = ()
    replicas: int = 1
    max_request_bytes: int = 0
    timeout: timedelta | None = None
    state: DeploymentState | None = None
    state_message: str = ""
    target_statuses: tuple[TargetStatus, ...] = ()
    owner_id: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One process that runs one version for one deployment."""

    id: str
    deployment: str = ""
    model_version: str = ""
    state: ReplicaState | None = None
    state_message: str = ""
    address: str = ""
    process_id: int = 0
    restarts: int = 0
    create_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """Name, version and protocol extensions of the model server."""

    name: str
    version: str = ""
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EndpointInfo:
    """What a deployment takes and gives, as it answers now."""

    name: str
    versions: tuple[str, ...] = ()
    platform: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer of a deployment, and what gave it."""

    outputs: Mapping[str, np.ndarray[Any, Any]]
    deployment: str
    model: str
    model_version: int
    artifact_digest: str

    @property
    def output(self) -> np.ndarray[Any, Any]:
        """The only output.

        Raises:
            ValueError: the model has several; take them from `outputs` by name.
        """
        if len(self.outputs) != 1:
            raise ValueError(
                f"the model has {len(self.outputs)} outputs, use .outputs[name]: {', '.join(self.outputs)}"
            )
        return next(iter(self.outputs.values()))
