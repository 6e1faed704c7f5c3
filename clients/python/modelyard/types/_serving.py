"""Deployments and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from modelyard.types._catalog import TensorSpec
from modelyard.types._environments import Environment

if TYPE_CHECKING:
    import numpy as np


class DeploymentState(StrEnum):
    """Where a deployment is in its life."""

    CREATING = "CREATING"
    ACTIVE = "ACTIVE"
    UPDATING = "UPDATING"
    FAILED = "FAILED"
    INACTIVE = "INACTIVE"
    DELETING = "DELETING"


class ReplicaState(StrEnum):
    """What a replica is doing."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    CRASH_LOOP = "CRASH_LOOP"


class SignatureState(StrEnum):
    """What a replica found about the signatures of its artifact when it loaded it."""

    UNSIGNED = "UNSIGNED"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    TRUSTED = "TRUSTED"


@dataclass(frozen=True)
class TrafficTarget:
    """Sends a share of the predictions to a version; a reference with an alias follows the alias.

    With `shadow_percent` it answers nobody: it gets a copy of that percentage of the predictions, and answers are compared.
    """

    model_version: str
    weight: int = 1
    shadow_percent: int = 0


@dataclass(frozen=True, kw_only=True)
class LoggingPolicy:
    """What replicas write down about predictions: a line for each, and the tensors of a percentage of them, if wanted with values.

    It goes to the installation's OpenTelemetry collector and into its Parquet files too, if wanted.
    """

    access_log: bool = False
    predict_log_percent: int = 0
    include_payload: bool = False
    otlp: bool = False
    parquet: bool = False


@dataclass(frozen=True, kw_only=True)
class ShadowCounts:
    """What came of comparing a shadow with what answers; each of `mirrored` becomes `compared`, `failed` or `lost`."""

    mirrored: int = 0
    compared: int = 0
    different: int = 0
    failed: int = 0
    lost: int = 0


@dataclass(frozen=True, kw_only=True)
class TargetStatus:
    """What a target is doing: `model_version` answers now, `next_model_version` is being rolled out."""

    reference: str
    model_version: str = ""
    artifact_digest: str = ""
    weight: int = 0
    ready_replicas: int = 0
    next_model_version: str = ""
    signature_state: SignatureState | None = None
    signer: str = ""
    shadow_counts: ShadowCounts | None = None


class ConditionStatus(StrEnum):
    """Whether a condition of a deployment holds."""

    TRUE = "TRUE"
    FALSE = "FALSE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, kw_only=True)
class DeploymentCondition:
    """One thing that has to hold before a deployment answers with what was asked for: as `ReplicasReady`."""

    type: str
    status: ConditionStatus | None = None
    reason: str = ""
    message: str = ""
    change_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RolloutPolicy:
    """How a new version takes the traffic over: in steps, judged by errors and latency; without steps all at once.

    Args:
        steps: Shares of the new in percent, `(5, 25, 50, 100)`.
        pause: Shortest time of each step.
        min_requests: Predictions that the new must have taken in a step before it is judged; 0 means 100.
        max_error_percent: Largest share of them that may fail; 0 means 1, 100 no bound.
        max_error_rise: Percentage points by which that may be above the old's; 0 means 1, 100 no bound.
        max_latency: Longest 95th percentile of their time; None for no bound.
        max_latency_ratio: Largest ratio of that to the old's; 0 for no bound.
    """

    steps: tuple[int, ...] = ()
    pause: timedelta | None = None
    min_requests: int = 0
    max_error_percent: float = 0.0
    max_error_rise: float = 0.0
    max_latency: timedelta | None = None
    max_latency_ratio: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrafficLimits:
    """What callers may ask of a deployment through each gateway; 0 for no limit.

    Args:
        requests_per_second: Predictions per second; what is more is refused (`RateLimited`).
        bandwidth_mbps: Megabits per second of requests and answers; what is more waits.
        concurrent_per_replica: Predictions that each replica may have at once; what is more is refused (`Overloaded`).
    """

    requests_per_second: int = 0
    bandwidth_mbps: int = 0
    concurrent_per_replica: int = 0


@dataclass(frozen=True, kw_only=True)
class RolloutStatus:
    """Where a rollout in steps stands; `step` counts from 1."""

    step: int = 0
    steps: int = 0
    percent: int = 0
    step_time: datetime | None = None
    paused: bool = False


class RolloutVerb(StrEnum):
    """What to do with a rollout that is under way."""

    PAUSE = "PAUSE"
    RESUME = "RESUME"
    PROMOTE = "PROMOTE"
    ABORT = "ABORT"


@dataclass(frozen=True, kw_only=True)
class Resources:
    """How large each replica is.

    Args:
        cpus: Cores it may use; 0 for any.
        memory_bytes: Memory it may use; 0 for no bound.
        instances: Copies of the model in it, which predict at the same time; 0 for two for each of `cpus`, or one.
    """

    cpus: int = 0
    memory_bytes: int = 0
    instances: int = 0


class UpdateStrategy(StrEnum):
    """What a change that makes new replicas may cost while it lasts: more processes, or one replica that does not answer."""

    AVAILABILITY_PRESERVING = "AVAILABILITY_PRESERVING"
    RESOURCE_PRESERVING = "RESOURCE_PRESERVING"


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How each replica gathers predictions into runs of its model.

    Args:
        max_batch_rows: Most rows of one run; 0 means 1,024, 1 that no prediction shares a run.
        max_delay: Longest time that an idle replica waits for company for a prediction; None for none.
        max_queue_rows: Rows that may wait in a replica; 0 means 10,000.
    """

    max_batch_rows: int = 0
    max_delay: timedelta | None = None
    max_queue_rows: int = 0


@dataclass(frozen=True, kw_only=True)
class Autoscaling:
    """How the number of replicas follows the predictions in flight; with `max_replicas` 0 it stays.

    Args:
        min_replicas: Fewest per target; 0 means 1.
        max_replicas: Most per target.
        target_in_flight: Predictions in flight for each replica that are aimed at; 0 means 2.
        scale_down_delay: How long fewer have to suffice before there are fewer; None means 60 s.
        scale_to_zero: Whether there may be none at all while nothing is in flight; instead of `min_replicas`.
    """

    min_replicas: int = 0
    max_replicas: int = 0
    target_in_flight: float = 0.0
    scale_down_delay: timedelta | None = None
    scale_to_zero: bool = False


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
    require_signature: bool = False
    conditions: tuple[DeploymentCondition, ...] = ()
    revision: int = 0
    sticky_header: str = ""
    rollout_policy: RolloutPolicy = RolloutPolicy()
    logging: LoggingPolicy = LoggingPolicy()
    rollout: RolloutStatus | None = None
    resources: Resources = Resources()
    autoscaling: Autoscaling = Autoscaling()
    traffic_limits: TrafficLimits = TrafficLimits()
    private: bool = False
    batching: Batching = Batching()
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)
    update_strategy: UpdateStrategy | None = None


class DeploymentChange(StrEnum):
    """What a caller did to a deployment."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    ROLLED_BACK = "ROLLED_BACK"
    ACTIVATED = "ACTIVATED"
    DEACTIVATED = "DEACTIVATED"


@dataclass(frozen=True, kw_only=True)
class DeploymentRevision:
    """A deployment as one change left it.

    Attributes:
        model_versions: What the targets of `settings` meant then.
        changed_fields: Fields of `settings` that have other values than before the change.
    """

    revision: int
    change: DeploymentChange | None = None
    actor_id: str = ""
    actor_name: str = ""
    reason: str = ""
    create_time: datetime | None = None
    rolled_back_to: int = 0
    active: bool = True
    settings: Deployment
    model_versions: tuple[str, ...] = ()
    changed_fields: tuple[str, ...] = ()


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
    signature_state: SignatureState | None = None
    signer: str = ""
    trust_root: str = ""
    failures: int = 0
    next_start_time: datetime | None = None


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


@dataclass(frozen=True, kw_only=True)
class EndpointStatistics:
    """What a replica counted since its process began; durations are those of predictions that were answered, added up."""

    name: str
    version: str = ""
    last_inference: datetime | None = None
    inference_count: int = 0
    execution_count: int = 0
    success_count: int = 0
    failure_count: int = 0
    request_ns: int = 0
    queue_ns: int = 0
    compute_input_ns: int = 0
    compute_infer_ns: int = 0
    compute_output_ns: int = 0


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
