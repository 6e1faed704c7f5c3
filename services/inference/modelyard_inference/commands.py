"""What callers ask for, once its shape has been checked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from modelyard_inference import log_files
from modelyard_inference.batching_policy import USUAL, Batching
from modelyard_inference.canary import AT_ONCE, RolloutPolicy
from modelyard_inference.environment_policy import OF_ARTIFACT, Environment
from modelyard_inference.log_files import Wanted
from modelyard_inference.log_policy import SILENT, LogPolicy
from modelyard_inference.models import TargetSpec
from modelyard_inference.resources import UNBOUNDED, Resources
from modelyard_inference.scaling import FIXED, Autoscaling
from modelyard_inference.strategies import UpdateStrategy
from modelyard_inference.traffic_limits import UNLIMITED, TrafficLimits
from modelyard_inference.variables import Variables
from modelyard_kit.filters import Asked


@dataclass(frozen=True)
class CreateDeployment:
    """Make an endpoint."""

    name: str
    description: str
    targets: tuple[TargetSpec, ...]
    replicas: int
    max_request_bytes: int
    timeout_ms: int
    require_signature: bool
    request_id: str
    fingerprint: str
    reason: str = ""
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

    @property
    def schema(self) -> str:
        """Return the full name of the schema it goes into."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class UpdateDeployment:
    """Change an endpoint; what is None stays."""

    name: str
    etag: str
    description: str | None = None
    targets: tuple[TargetSpec, ...] | None = None
    replicas: int | None = None
    max_request_bytes: int | None = None
    timeout_ms: int | None = None
    require_signature: bool | None = None
    sticky_header: str | None = None
    rollout_policy: RolloutPolicy | None = None
    resources: Resources | None = None
    autoscaling: Autoscaling | None = None
    traffic_limits: TrafficLimits | None = None
    private: bool | None = None
    log_policy: LogPolicy | None = None
    batching: Batching | None = None
    environment_variables: Variables | None = None
    environment: Environment | None = None
    update_strategy: UpdateStrategy | None = None
    owner_id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class RollbackDeployment:
    """Bring the settings of an earlier revision back."""

    name: str
    etag: str = ""
    revision: int = 0
    """0 means the newest with other settings than those of now."""
    pin_versions: bool = False
    reason: str = ""


@dataclass(frozen=True)
class SetActive:
    """Let an endpoint answer or rest."""

    name: str
    etag: str = ""
    reason: str = ""


class RolloutVerb(StrEnum):
    """What to do with a rollout; the names are those of the contract."""

    PAUSE = "PAUSE"
    RESUME = "RESUME"
    PROMOTE = "PROMOTE"
    ABORT = "ABORT"


@dataclass(frozen=True)
class ControlRollout:
    """Steer a rollout that is under way."""

    name: str
    verb: RolloutVerb
    etag: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ListDeployments:
    """Read a page of endpoints."""

    schema: str
    """Full name; empty means all."""
    asked: Asked


@dataclass(frozen=True)
class ListReplicas:
    """Read a page of the replicas of an endpoint."""

    deployment: str
    asked: Asked


@dataclass(frozen=True)
class ReadLogs:
    """Read the logs of the replicas of an endpoint."""

    deployment: str
    replica: str
    """Id of the only one; empty means all."""
    wanted: Wanted
    log: str = log_files.REPLICA
    """Name of the log."""
    follow: bool = False
    """Whether to go on with what is written from then on."""


@dataclass(frozen=True)
class ListRevisions:
    """Read a page of the history of an endpoint."""

    deployment: str
    asked: Asked
