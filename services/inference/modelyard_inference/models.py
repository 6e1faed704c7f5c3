"""What the control plane knows: deployments, their targets, groups of replicas, and the routes that follow from them.

A *group* is all replicas that run one version with one configuration for one deployment. Its name is unique for all time,
so a change never alters a group that answers: it makes a new one and shifts the traffic.

    STARTING -> WARM -> SERVING -> DRAINING -> STOPPING -> gone
        in the route table: WARM and DRAINING with weight 0, SERVING with its weight
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from modelyard_inference.batching_policy import USUAL, Batching
from modelyard_inference.canary import AT_ONCE, Rejection, Rollout, RolloutPolicy
from modelyard_inference.environment_policy import OF_ARTIFACT, Environment
from modelyard_inference.evidence import Verdict
from modelyard_inference.log_policy import SILENT, LogPolicy
from modelyard_inference.resources import UNBOUNDED, Resources
from modelyard_inference.scaling import FIXED, Autoscaling, Scale
from modelyard_inference.shadow_counts import ShadowCounts
from modelyard_inference.strategies import UpdateStrategy
from modelyard_inference.traffic_limits import UNLIMITED, TrafficLimits
from modelyard_inference.variables import Variables
from modelyard_kit.access import SYSTEM, Chain, Link, ResourceType

DEFAULT_MAX_REQUEST_BYTES = 64 * 2**20
DEFAULT_TIMEOUT_MS = 60_000


class DeploymentState(StrEnum):
    """Where a deployment is in its life; the names are those of the contract."""

    CREATING = "CREATING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    FAILED = "FAILED"
    INACTIVE = "INACTIVE"
    DELETING = "DELETING"


class GroupState(StrEnum):
    """Where a group of replicas is in its life."""

    STARTING = "STARTING"
    """Its replicas load; not routed."""
    WARM = "WARM"
    """Routed with weight 0 until every gateway finds it healthy."""
    SERVING = "SERVING"
    """Gets its share of the traffic."""
    DRAINING = "DRAINING"
    """Routed with weight 0 until every gateway has confirmed that nothing new goes there."""
    STOPPING = "STOPPING"
    """No longer routed; its replicas finish what they have and end."""


class Status(StrEnum):
    """Whether a condition holds; the names are those of the contract."""

    TRUE = "TRUE"
    FALSE = "FALSE"
    UNKNOWN = "UNKNOWN"


class Change(StrEnum):
    """What a caller did to a deployment; the names are those of the contract."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    ROLLED_BACK = "ROLLED_BACK"
    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"


ROUTED_STATES = (GroupState.WARM, GroupState.SERVING, GroupState.DRAINING)


class ReplicaState(StrEnum):
    """Where a replica is in its life; the names are those of the contract."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    CRASH_LOOP = "CRASH_LOOP"
    """Stopped, after several ends in a row."""


@dataclass(frozen=True)
class Version:
    """A model version as the catalog resolved it, with all that a replica needs to know."""

    id: str
    name: str
    number: int
    model_id: str
    model: str
    artifact_digest: str
    runtime: str
    signature: Mapping[str, object]
    author_id: str


@dataclass(frozen=True)
class TargetSpec:
    """A target as a caller asked for it."""

    reference: str
    """As it was given, but under the name that its model has now."""
    model: str
    """Full name of the model in it."""
    follows: bool
    """Whether the reference can come to mean another version."""
    weight: int
    """Share of the traffic; 0 for a shadow."""
    shadow_percent: int = 0
    """Percentage of the predictions of which it gets a copy, its answers reaching nobody; 0 for a target that answers."""

    @property
    def shadow(self) -> bool:
        """Return whether it gets copies instead of answering."""
        return self.shadow_percent > 0

    @property
    def share(self) -> int:
        """Return its share of the traffic, or the percentage of copies for a shadow."""
        return self.shadow_percent or self.weight


@dataclass(frozen=True)
class Target:
    """A target of a deployment: what was asked for, what that means now, and what answers."""

    spec: TargetSpec
    wanted: Version
    problem: str = ""
    """Why the version that the reference means now is not wanted."""
    serving: str = ""
    """Name of the version that answers; empty before the first one does."""
    serving_digest: str = ""
    serving_weight: int = 0


@dataclass(frozen=True)
class Condition:
    """One thing that has to hold before a deployment answers with what was asked for."""

    type: str
    status: Status
    reason: str
    message: str = ""
    change_time: datetime | None = None
    """When `status` last changed; None until it is stored."""

    @property
    def holds(self) -> bool:
        """Return whether it does."""
        return self.status is Status.TRUE


@dataclass(frozen=True)
class Deployment:
    """An endpoint, as stored."""

    id: str
    name: str
    schema_id: str
    schema_owner_id: str
    catalog_id: str
    catalog_owner_id: str
    description: str
    replicas: int
    max_request_bytes: int
    timeout_ms: int
    state: DeploymentState
    state_message: str
    owner_id: str
    revision: int
    """Grows with every change by a caller; the etag."""
    create_time: datetime
    update_time: datetime
    targets: tuple[Target, ...] = ()
    ready: Mapping[str, int] = field(default_factory=dict)
    """Ready replicas that answer, by version name."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """What the signatures of what answers are worth, by version name: the least that one of its replicas found."""
    require_signature: bool = False
    """Whether its replicas load only what a trust root vouches for."""
    active: bool = True
    """Whether it should answer; one that should not keeps its settings and runs nothing."""
    sticky_header: str = ""
    log_policy: LogPolicy = SILENT
    """Header of predictions whose value decides the target; empty for none."""
    conditions: tuple[Condition, ...] = ()
    """What has to hold before it answers with what was asked for, as the reconciler found it last."""
    rollout_policy: RolloutPolicy = AT_ONCE
    rollout: Rollout | None = None
    """The rollout in steps that is under way."""
    rejection: Rejection | None = None
    """Why a rollout was taken back, until somebody asks for something else."""
    shadow_counts: ShadowCounts | None = None
    """What came of comparing its shadow; None while it has none, or nothing was copied yet."""
    resources: Resources = UNBOUNDED
    """What each of its replicas may use."""
    batching: Batching = USUAL
    environment_variables: Variables = ()
    environment: Environment = OF_ARTIFACT
    update_strategy: UpdateStrategy = UpdateStrategy.AVAILABILITY_PRESERVING
    autoscaling: Autoscaling = FIXED

    @property
    def preserves_resources(self) -> bool:
        """Return whether a change makes no more replicas than there may be without it."""
        return self.update_strategy is UpdateStrategy.RESOURCE_PRESERVING

    @property
    def measured(self) -> bool:
        """Return whether something is decided by what gateways count about it."""
        watched = self.rollout is not None and self.rollout.watching
        return bool(self.rollout_policy.steps) or self.autoscaling.on or watched

    traffic_limits: TrafficLimits = UNLIMITED
    private: bool = False
    """Whether it answers on the private listener of the gateways alone."""

    @property
    def answers(self) -> bool:
        """Return whether anything answers for it."""
        return any(target.serving for target in self.targets)

    @property
    def leaving(self) -> bool:
        """Return whether all that it runs should end."""
        return self.state is DeploymentState.DELETING or not self.active

    @property
    def etag(self) -> str:
        """Return what a caller sends back to make a change conditional."""
        return str(self.revision)

    @property
    def chain(self) -> Chain:
        """Return the deployment and its containers."""
        catalog, schema, _ = self.name.split(".")
        return (
            Link(ResourceType.DEPLOYMENT, self.id, self.name, self.owner_id),
            Link(ResourceType.SCHEMA, self.schema_id, f"{catalog}.{schema}", self.schema_owner_id),
            Link(ResourceType.CATALOG, self.catalog_id, catalog, self.catalog_owner_id),
            SYSTEM,
        )


@dataclass(frozen=True)
class PastTarget:
    """A target as a revision keeps it: what was asked for, and what it meant then."""

    reference: str
    weight: int
    version_id: str
    model_id: str
    model_version: str
    """What the version was called then."""
    shadow_percent: int = 0


@dataclass(frozen=True)
class Settings:
    """Everything about a deployment that its callers decide."""

    description: str
    replicas: int
    max_request_bytes: int
    timeout_ms: int
    require_signature: bool
    owner_id: str
    active: bool
    targets: tuple[PastTarget, ...]
    sticky_header: str = ""
    rollout_policy: RolloutPolicy = AT_ONCE
    resources: Resources = UNBOUNDED
    autoscaling: Autoscaling = FIXED
    traffic_limits: TrafficLimits = UNLIMITED
    private: bool = False
    log_policy: LogPolicy = SILENT
    batching: Batching = USUAL
    environment_variables: Variables = ()
    environment: Environment = OF_ARTIFACT
    update_strategy: UpdateStrategy = UpdateStrategy.AVAILABILITY_PRESERVING


@dataclass(frozen=True)
class Revision:
    """A deployment as one change by a caller left it."""

    deployment_id: str
    number: int
    change: Change
    actor_id: str
    actor_name: str
    reason: str
    create_time: datetime
    rolled_back_to: int
    settings: Settings
    changed_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupKey:
    """What makes two groups of a deployment the same: a replica cannot change any of it while it runs."""

    version_id: str
    max_request_bytes: int
    require_signature: bool = False
    shadow: bool = False
    resources: Resources = UNBOUNDED
    batching: Batching = USUAL
    environment_variables: Variables = ()
    environment: Environment = OF_ARTIFACT


@dataclass(frozen=True)
class Group:
    """A group of replicas, as stored."""

    id: str
    name: str
    deployment_id: str
    version: Version
    max_request_bytes: int
    state: GroupState
    weight: int
    """Share of the traffic; the percentage of copies for a shadow."""
    table_version: int
    """Route table in which its state, weight or replicas last changed."""
    create_time: datetime
    require_signature: bool = False
    shadow: bool = False
    """Whether it gets copies of predictions and answers nobody."""
    resources: Resources = UNBOUNDED
    scale: Scale | None = None
    """How many replicas it should have, if that was decided by its predictions in flight."""
    batching: Batching = USUAL
    environment_variables: Variables = ()
    environment: Environment = OF_ARTIFACT

    @property
    def key(self) -> GroupKey:
        """Return what distinguishes it from other groups of the deployment."""
        return GroupKey(
            self.version.id,
            self.max_request_bytes,
            self.require_signature,
            self.shadow,
            self.resources,
            self.batching,
            self.environment_variables,
            self.environment,
        )

    @property
    def environment_use(self) -> str:
        """Return what its replicas are called where environments are kept; empty: they need none."""
        return self.environment.use(self.version.artifact_digest)


@dataclass(frozen=True)
class Replica:
    """One process of a group, as stored."""

    id: str
    group_id: str
    deployment_id: str
    ordinal: int
    address: str
    state: ReplicaState
    routed: bool
    """Whether gateways know its address."""
    table_version: int
    """Route table in which `routed` last changed."""
    process_id: int
    process_started: str
    """Identity of the process beside its id, which the system gives out again."""
    restarts: int
    failures: int
    """Ends in a row without a good minute between; they lengthen the pause before the next start."""
    message: str
    """How it ended last, until it is ready again."""
    create_time: datetime
    start_time: datetime | None = None
    ready_time: datetime | None = None
    not_before: datetime | None = None
    """No start before this time."""
    signature_state: str = ""
    """A `SignatureState`, what the check said when it loaded; empty before."""
    signer: str = ""
    trust_root: str = ""
