"""What to do next for one deployment, decided from what is: a pure function without memory.

Every action is one durable step (a transaction) or one repeatable effect (start or stop a process, download). Nothing is
remembered between two calls, so a crash between any two steps is harmless: the next call sees what is and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from modelyard_inference.actions import (
    Abort,
    Action,
    AddGroup,
    AddReplicas,
    AdmitGroup,
    AskEvidence,
    AskUse,
    EndGroup,
    Fetch,
    RecordEnd,
    RecordReady,
    RemoveDeployment,
    RemoveGroup,
    RemoveReplica,
    Report,
    ReviveGroup,
    RouteReplicas,
    Shift,
    Start,
    Stop,
    UnrouteReplicas,
)
from modelyard_inference.models import (
    Deployment,
    DeploymentState,
    Group,
    GroupKey,
    GroupState,
    Replica,
    ReplicaState,
    Target,
    Version,
)
from modelyard_inference.planner.observed import (
    Admitted,
    ArtifactStatus,
    EvidenceStatus,
    Observed,
    Process,
)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
GOOD_TIME = timedelta(seconds=60)
"""A replica that was ready this long begins again with the shortest pause."""


@dataclass(frozen=True)
class Desired:
    """A group that the deployment should be served by."""

    version: Version
    weight: int


@dataclass(frozen=True)
class _Plan:
    observed: Observed
    desired: Mapping[GroupKey, Desired]
    current: dict[GroupKey, Group]

    @classmethod
    def of(cls, observed: Observed) -> _Plan:
        current = {group.key: group for group in observed.groups if group.state is not GroupState.STOPPING}
        return cls(observed, desired_groups(observed.deployment), current)

    @property
    def wanted_groups(self) -> list[Group]:
        return [self.current[key] for key in self.desired if key in self.current]

    @property
    def served(self) -> dict[GroupKey, int]:
        return {g.key: g.weight for g in self.observed.groups if g.state is GroupState.SERVING}

    @property
    def weights(self) -> dict[GroupKey, int]:
        return {key: wanted.weight for key, wanted in self.desired.items()}


def desired_groups(deployment: Deployment) -> dict[GroupKey, Desired]:
    """Return the groups that a deployment should be served by; targets that mean one version share one."""
    found: dict[GroupKey, Desired] = {}
    if deployment.leaving:
        return found
    for target in deployment.targets:
        key = key_of(deployment, target)
        before = found[key].weight if key in found else 0
        found[key] = Desired(target.wanted, before + target.spec.weight)
    return found


def key_of(deployment: Deployment, target: Target) -> GroupKey:
    """Return the key of the group that a target of a deployment should be served by."""
    return GroupKey(target.wanted.id, deployment.max_request_bytes, deployment.require_signature)


def plan(observed: Observed) -> tuple[Action, ...]:
    """Return the next steps for one deployment, in the order to take them; nothing when all is as it should be."""
    state = _Plan.of(observed)
    actions: list[Action] = []
    for key, desired in state.desired.items():
        if key in state.current:
            continue
        answer = observed.admitted.get(desired.version.id)
        if answer is not None and answer.allowed:
            replicas = observed.deployment.replicas
            actions.append(AddGroup(desired.version, key.max_request_bytes, replicas, key.require_signature))
        else:
            actions.append(AskUse(desired.version))
    for group in observed.groups:
        wanted = group.key in state.desired and state.current.get(group.key) is group
        actions.extend(_group_steps(observed, group, wanted=wanted))
    actions.extend(_shift(state))
    if observed.deleting and not observed.groups:
        actions.append(RemoveDeployment())
    else:
        actions.extend(_report(state))
    return tuple(actions)


# ---- groups -----------------------------------------------------------------------------------------------------------


def _group_steps(observed: Observed, group: Group, *, wanted: bool) -> Iterator[Action]:
    match group.state:
        case GroupState.STARTING | GroupState.WARM if not wanted:
            yield EndGroup(group.id)
        case GroupState.STARTING:
            yield from _upkeep(observed, group, wanted=True)
            yield from _admit(observed, group)
        case GroupState.WARM | GroupState.SERVING:
            yield from _upkeep(observed, group, wanted=wanted)
        case GroupState.DRAINING if wanted:
            yield ReviveGroup(group.id)
        case GroupState.DRAINING:
            if observed.confirmed(group.table_version):
                yield EndGroup(group.id)
        case GroupState.STOPPING:
            replicas = observed.replicas_of(group)
            if not replicas:
                yield RemoveGroup(group.id)
            elif observed.confirmed(group.table_version):
                for replica in replicas:
                    yield _let_go(observed, replica)


def _admit(observed: Observed, group: Group) -> Iterator[Action]:
    replicas = [r for r in observed.replicas_of(group) if r.state is not ReplicaState.DRAINING]
    if len(replicas) >= observed.deployment.replicas and all(r.state is ReplicaState.READY for r in replicas):
        yield AdmitGroup(group.id, tuple(r.id for r in replicas))


def _upkeep(observed: Observed, group: Group, *, wanted: bool) -> Iterator[Action]:
    """Keep the replicas of a group running, and their number right if the group has a future."""
    replicas = observed.replicas_of(group)
    standing = [r for r in replicas if r.state is not ReplicaState.DRAINING]
    count = observed.deployment.replicas if wanted else len(standing)
    kept, surplus = standing[:count], standing[count:]
    for replica in replicas:
        if replica.state is ReplicaState.DRAINING and observed.confirmed(replica.table_version):
            yield _let_go(observed, replica)
    if len(kept) < count:
        yield AddReplicas(group.id, count - len(kept))
    if surplus and all(r.state is ReplicaState.READY for r in kept):
        yield UnrouteReplicas(group.id, tuple(r.id for r in surplus))
    yield from _keep_running(observed, group, kept)
    joining = tuple(r.id for r in kept if r.state is ReplicaState.READY and not r.routed)
    if joining and group.state is not GroupState.STARTING:
        yield RouteReplicas(group.id, joining)


def _keep_running(observed: Observed, group: Group, replicas: Iterable[Replica]) -> Iterator[Action]:
    present = observed.artifacts.get(group.version.artifact_digest, ArtifactStatus(present=False)).present
    if not present:
        yield Fetch(group.version)
    evidence = observed.evidence.get(group.version.id, EvidenceStatus(ready=False))
    asked = False
    for replica in replicas:
        process = observed.processes.get(replica.id)
        if process is None:
            if not present or (replica.not_before and replica.not_before > observed.now):
                continue
            if evidence.ready:
                yield Start(replica.id)
            elif not asked:
                asked = True
                yield AskEvidence(group.version)
        elif not process.running:
            yield end_of(observed, replica, process.ending)
        elif replica.state is not ReplicaState.READY:
            if process.ready:
                yield RecordReady(replica.id, process.verdict)
            elif replica.start_time and observed.now - replica.start_time > observed.start_timeout:
                yield Abort(replica.id, end_of(observed, replica, _late(observed, process)))


def _late(observed: Observed, process: Process) -> str:
    text = f"not ready within {observed.start_timeout.total_seconds():g} s"
    return f"{text}: {process.ending}" if process.ending else text


def end_of(observed: Observed, replica: Replica, message: str) -> RecordEnd:
    """Return how to note the end of a replica's process: every end in a row lengthens the pause before the next start."""
    if replica.state is ReplicaState.STARTING and _outdated(observed, replica):
        return RecordEnd(replica.id, "", 0, observed.now)
    was_good = replica.ready_time is not None and observed.now - replica.ready_time >= GOOD_TIME
    failures = 0 if was_good else replica.failures
    pause = min(FIRST_PAUSE * 2 ** min(failures, 16), LONGEST_PAUSE)
    return RecordEnd(replica.id, message, failures + 1, observed.now + timedelta(seconds=pause))


def _outdated(observed: Observed, replica: Replica) -> bool:
    """Whether a start says nothing any more: a caller has changed the deployment since, perhaps what was wrong."""
    return replica.start_time is not None and replica.start_time < observed.deployment.update_time


def _let_go(observed: Observed, replica: Replica) -> Action:
    process = observed.processes.get(replica.id)
    if process is not None and process.running:
        return Stop(replica.id)
    return RemoveReplica(replica.id)


# ---- traffic ----------------------------------------------------------------------------------------------------------


def _shift(state: _Plan) -> Iterator[Action]:
    """Move the traffic when everything that should get it can take it, all at once."""
    observed = state.observed
    if observed.deployment.leaving:
        if state.served:
            yield Shift({})
        return
    if state.served == state.weights or len(state.wanted_groups) < len(state.desired):
        return
    ready = all(
        group.state in (GroupState.WARM, GroupState.SERVING) and not observed.gateways.cold(group)
        for group in state.wanted_groups
    )
    if ready and observed.gateways.live:
        yield Shift({group.id: state.weights[group.key] for group in state.wanted_groups})


# ---- what to tell -----------------------------------------------------------------------------------------------------


def _report(state: _Plan) -> Iterator[Action]:
    deployment = state.observed.deployment
    if state.observed.deleting:
        found, message = DeploymentState.DELETING, _leaving(state.observed)
    elif not deployment.active:
        found = DeploymentState.UPDATING if state.observed.groups else DeploymentState.INACTIVE
        message = _leaving(state.observed)
    else:
        found, message = _condition(state)
    problems = [
        target.problem for target in deployment.targets if target.problem and not state.observed.deleting
    ]
    message = "; ".join(filter(None, [message, *problems]))
    if (found, message) != (deployment.state, deployment.state_message):
        yield Report(found, message)


def _condition(state: _Plan) -> tuple[DeploymentState, str]:
    failure = _failure(state)
    if failure:
        return DeploymentState.FAILED, failure
    before = DeploymentState.UPDATING if state.served else DeploymentState.CREATING
    waiting = _waiting(state)
    if waiting:
        return before, waiting
    told = state.observed.deployment.state
    if told is not DeploymentState.ACTIVE and (unconfirmed := _unconfirmed(state)):
        first = told is DeploymentState.CREATING
        return (DeploymentState.CREATING if first else DeploymentState.UPDATING), unconfirmed
    return DeploymentState.ACTIVE, _weakness(state)


def _unconfirmed(state: _Plan) -> str:
    """Return which gateway does not yet serve what was decided last; empty when all do."""
    groups = {group.id: group.table_version for group in state.wanted_groups}
    replicas = (r.table_version for r in state.observed.replicas if r.group_id in groups)
    return _waiting_for(state.observed, "to apply the routes", max([*groups.values(), *replicas], default=0))


def _failure(state: _Plan) -> str:
    """Return why something that is wanted cannot be brought up; empty while there is hope."""
    for answer in _refusals(state):
        if answer.gone:
            return answer.problem
    for group in state.wanted_groups:
        status = state.observed.artifacts.get(group.version.artifact_digest)
        if group.state is not GroupState.SERVING and status and status.problem and not status.present:
            return f"{group.version.name}: {status.problem}"
        down = [
            r for r in state.observed.replicas_of(group) if r.message and r.state is not ReplicaState.READY
        ]
        if group.state is not GroupState.SERVING and down:
            return f"{group.version.name} could not be started: {down[0].message}"
        if down and _ready(state.observed, group) == 0 and down[0].failures > 1:
            return f"every replica of {group.version.name} keeps ending: {down[0].message}"
    return ""


def _refusals(state: _Plan) -> list[Admitted]:
    """Return what the catalog says against versions that are wanted and have no group."""
    missing = [wanted.version.id for key, wanted in state.desired.items() if key not in state.current]
    answers = (state.observed.admitted.get(version_id) for version_id in missing)
    return [answer for answer in answers if answer is not None and answer.problem]


def _waiting(state: _Plan) -> str:
    """Return what a change waits for; empty when the traffic is as it should be."""
    observed = state.observed
    if len(state.wanted_groups) < len(state.desired):
        return next((answer.problem for answer in _refusals(state)), "starting")
    for group in state.wanted_groups:
        if group.state is GroupState.STARTING:
            status = observed.artifacts.get(group.version.artifact_digest)
            if not (status and status.present):
                return f"downloading {group.version.name}"
            unknown = observed.evidence.get(group.version.id)
            if unknown and unknown.problem:
                return unknown.problem
            ready = _ready(observed, group)
            return f"starting {group.version.name}: {ready} of {observed.deployment.replicas} replicas ready"
    for group in state.wanted_groups:
        if group.state is GroupState.WARM and (observed.gateways.cold(group) or not observed.gateways.live):
            return _waiting_for(observed, f"to find {group.version.name} healthy", group.table_version, group)
    if state.served != state.weights:
        return "shifting the traffic"
    for group in state.wanted_groups:
        routed = sum(r.routed for r in observed.replicas_of(group))
        fresh = observed.deployment.state is not DeploymentState.ACTIVE
        if fresh and routed != observed.deployment.replicas:
            return f"scaling {group.version.name}: {routed} of {observed.deployment.replicas} replicas routed"
    return ""


def _waiting_for(observed: Observed, what: str, version: int, group: Group | None = None) -> str:
    if not observed.gateways.live:
        return "waiting for a gateway"
    waited = observed.gateways.cold(group) if group else observed.gateways.lagging(version)
    if not waited:
        return ""
    problem = f" ({waited[0].problem})" if waited[0].problem else ""
    return f"waiting for gateway {waited[0].id!r} {what}{problem}"


def _leaving(observed: Observed) -> str:
    waited = max((group.table_version for group in observed.groups), default=0)
    if not observed.confirmed(waited):
        return _waiting_for(observed, "to drop the routes", waited)
    return f"waiting for {len(observed.replicas)} replicas to end" if observed.replicas else ""


def _weakness(state: _Plan) -> str:
    for group in state.wanted_groups:
        down = [
            r for r in state.observed.replicas_of(group) if r.message and r.state is not ReplicaState.READY
        ]
        if down:
            ready, all_of = _ready(state.observed, group), state.observed.deployment.replicas
            return f"{ready} of {all_of} replicas of {group.version.name} answer: {down[0].message}"
    return ""


def _ready(observed: Observed, group: Group) -> int:
    return sum(r.state is ReplicaState.READY for r in observed.replicas_of(group))
