"""Steps that the reconciler can take; see `planner` for when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from modelyard_inference.batching_policy import USUAL, Batching
from modelyard_inference.canary import Rollout
from modelyard_inference.environment_policy import OF_ARTIFACT, Environment
from modelyard_inference.evidence import Verdict
from modelyard_inference.models import Condition, DeploymentState, ReplicaState, Version
from modelyard_inference.resources import UNBOUNDED, Resources
from modelyard_inference.scaling import Scale
from modelyard_inference.variables import Variables


@dataclass(frozen=True)
class AskUse:
    """Ask the catalog whether a version that is wanted, and has no group yet, may be used."""

    version: Version


@dataclass(frozen=True)
class AddGroup:
    """Make a group and its replicas, not yet started."""

    version: Version
    max_request_bytes: int
    replicas: int
    require_signature: bool = False
    shadow: bool = False
    resources: Resources = UNBOUNDED
    batching: Batching = USUAL
    environment_variables: Variables = ()
    environment: Environment = OF_ARTIFACT


@dataclass(frozen=True)
class AddReplicas:
    """Make more replicas in a group, not yet started."""

    group_id: str
    count: int


@dataclass(frozen=True)
class ScaleGroup:
    """Note how many replicas a group should have; None for as many as the deployment says."""

    group_id: str
    scale: Scale | None


@dataclass(frozen=True)
class Fetch:
    """Download the artifact of a version into the cache."""

    version: Version


@dataclass(frozen=True)
class AskEvidence:
    """Ask for the signatures of a version and the trust roots that count, before a replica starts."""

    version: Version


@dataclass(frozen=True)
class Start:
    """Start the process of a replica, or find the one that runs already."""

    replica_id: str


@dataclass(frozen=True)
class RecordReady:
    """Note that a replica answers, and what it found about signatures."""

    replica_id: str
    verdict: Verdict | None = None


@dataclass(frozen=True)
class RecordEnd:
    """Note that the process of a replica is gone, and when to start it again."""

    replica_id: str
    message: str
    failures: int
    not_before: datetime
    state: ReplicaState = ReplicaState.STOPPED


@dataclass(frozen=True)
class Abort:
    """End a process that does not get ready, then note its end."""

    replica_id: str
    end: RecordEnd


@dataclass(frozen=True)
class AdmitGroup:
    """Put a group whose replicas are ready into the route table with weight 0 (STARTING -> WARM)."""

    group_id: str
    replica_ids: tuple[str, ...]


@dataclass(frozen=True)
class ReviveGroup:
    """Want a group again that still is in the route table (DRAINING -> WARM)."""

    group_id: str


@dataclass(frozen=True)
class EndGroup:
    """Take a group without traffic out of the route table (-> STOPPING)."""

    group_id: str


@dataclass(frozen=True)
class RemoveGroup:
    """Forget a group that has no replica left."""

    group_id: str


@dataclass(frozen=True)
class RouteReplicas:
    """Let the gateways know more replicas of a group."""

    group_id: str
    replica_ids: tuple[str, ...]


@dataclass(frozen=True)
class UnrouteReplicas:
    """Take replicas of a group out of the route table; they drain."""

    group_id: str
    replica_ids: tuple[str, ...]


@dataclass(frozen=True)
class Stop:
    """Let the process of a replica finish what it has, and end."""

    replica_id: str


@dataclass(frozen=True)
class RemoveReplica:
    """Forget a replica whose process is gone."""

    replica_id: str


@dataclass(frozen=True)
class Shift:
    """Give all traffic to these groups by weight; every other serving group drains, but for those a rollout keeps."""

    weights: Mapping[str, int]
    rollout: Rollout | None = None
    """The rollout from then on; None when this is all of it."""


@dataclass(frozen=True)
class TakeBack:
    """Want again what answered before a rollout."""

    reason: str
    versions: frozenset[str]
    """Ids of the versions that have to go."""
    watched: bool = False
    """Whether they have taken over already, so that what answered before them is meant."""


@dataclass(frozen=True)
class Report:
    """Tell callers the state of the deployment."""

    state: DeploymentState
    message: str
    conditions: tuple[Condition, ...] = ()
    """Without the times of their last change, which are known where the ones before are."""


@dataclass(frozen=True)
class RemoveDeployment:
    """Forget a deployment of which nothing runs any more."""


Action = (
    AskUse
    | AddGroup
    | AddReplicas
    | ScaleGroup
    | Fetch
    | AskEvidence
    | Start
    | RecordReady
    | RecordEnd
    | Abort
    | AdmitGroup
    | ReviveGroup
    | EndGroup
    | RemoveGroup
    | RouteReplicas
    | UnrouteReplicas
    | Stop
    | RemoveReplica
    | Shift
    | TakeBack
    | Report
    | RemoveDeployment
)
