"""What the planner decides from: rows, processes, caches and gateways as they were found at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from modelyard_inference.canary import Figures
from modelyard_inference.evidence import Verdict
from modelyard_inference.models import Deployment, DeploymentState, Group, Replica, ReplicaState


@dataclass(frozen=True)
class Process:
    """A replica's process as it was found."""

    running: bool
    ready: bool = False
    ending: str = ""
    """How it ended, with the end of its log."""
    verdict: Verdict | None = None
    """What it found about the signatures of its artifact."""
    problem: str = ""
    """Why it does not answer for now, though it runs and was ready."""


@dataclass(frozen=True)
class ArtifactStatus:
    """Whether the files of an artifact are in the cache."""

    present: bool
    problem: str = ""
    """Why the last download failed."""


@dataclass(frozen=True)
class Build:
    """An environment that is being built, or waits for the one before."""

    wish: str
    """What is asked for, in a word: equal for versions that share it."""
    began: datetime

    def __str__(self) -> str:
        """Return which, and since when, for people."""
        return f"environment {self.wish[:12]} is being built since {self.began.astimezone(UTC):%H:%M:%S} UTC"


@dataclass(frozen=True)
class EvidenceStatus:
    """Whether it was just found out which signatures a version has and whose count."""

    ready: bool
    problem: str = ""
    """Why the last question had no answer."""


@dataclass(frozen=True)
class Admitted:
    """What the catalog says about the use of a version: allowed; or why not, and whether it is gone or only not to be had now."""

    allowed: bool
    gone: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Gateway:
    """What a live gateway confirmed last."""

    id: str
    version: int
    healthy: frozenset[str]
    problem: str = ""
    figures: Mapping[str, Figures] = field(default_factory=dict)
    """What it counted about groups, by their name, since it began."""
    in_flight: Mapping[str, float] = field(default_factory=dict)
    """Predictions in flight of groups, by their name, averaged over some seconds."""


@dataclass(frozen=True)
class Gateways:
    """All gateways that are waited for."""

    live: tuple[Gateway, ...]
    settled: bool
    """Whether this process watches long enough that a gateway which is alive would have been heard."""

    def lagging(self, version: int) -> tuple[Gateway, ...]:
        """Return those that have not confirmed this version of the route table."""
        return tuple(gateway for gateway in self.live if gateway.version < version)

    def in_flight(self, group: Group) -> float | None:
        """Return the predictions in flight of a group; None unless every gateway tells."""
        told = [gateway.in_flight[group.name] for gateway in self.live if group.name in gateway.in_flight]
        return sum(told) if told and len(told) == len(self.live) else None

    def cold(self, group: Group) -> tuple[Gateway, ...]:
        """Return those that do not yet find the group healthy in a table that holds it as it is."""
        return tuple(
            gateway
            for gateway in self.live
            if gateway.version < group.table_version or group.name not in gateway.healthy
        )


@dataclass(frozen=True)
class Observed:
    """Everything that a decision is made from."""

    deployment: Deployment
    groups: tuple[Group, ...]
    replicas: tuple[Replica, ...]
    processes: Mapping[str, Process]
    """By replica id; absent when none was started."""
    artifacts: Mapping[str, ArtifactStatus]
    """By digest."""
    evidence: Mapping[str, EvidenceStatus]
    """By id of version."""
    gateways: Gateways
    now: datetime
    start_timeout: timedelta
    admitted: Mapping[str, Admitted] = field(default_factory=dict)
    """By id of version; only those that the catalog has just answered about."""
    builds: Mapping[str, Build] = field(default_factory=dict)
    """Environments that are being built, by id of the group that runs in one."""

    def group(self, group_id: str) -> Group:
        """Return the group with this id."""
        return next(group for group in self.groups if group.id == group_id)

    def replica(self, replica_id: str) -> Replica:
        """Return the replica with this id."""
        return next(replica for replica in self.replicas if replica.id == replica_id)

    def replicas_of(self, group: Group) -> list[Replica]:
        """Return the replicas of a group, oldest first."""
        return sorted((r for r in self.replicas if r.group_id == group.id), key=lambda r: r.ordinal)

    def waiting(self, group: Group) -> list[str]:
        """Return why replicas of a group that were ready do not answer for now."""
        processes = [
            self.processes.get(r.id) for r in self.replicas_of(group) if r.state is ReplicaState.READY
        ]
        return [process.problem for process in processes if process and process.problem]

    def count(self, group: Group) -> int:
        """Return how many replicas a group should have."""
        decided = group.scale.replicas if group.scale else self.deployment.replicas
        return (
            self.deployment.autoscaling.within(decided)
            if self.deployment.autoscaling.on
            else self.deployment.replicas
        )

    @property
    def deleting(self) -> bool:
        """Return whether the deployment is on its way out."""
        return self.deployment.state is DeploymentState.DELETING

    def confirmed(self, version: int) -> bool:
        """Return whether nothing follows an older table than `version`."""
        if version == 0:
            return True
        if not self.gateways.live:
            # An endpoint that is being removed or deactivated has nothing to keep answering for; any other change waits.
            return self.deployment.leaving and self.gateways.settled
        return not self.gateways.lagging(version)
