"""What to do next for one deployment, decided from what is: a pure function without memory.

Every action is one durable step (a transaction) or one repeatable effect (start or stop a process, download). Nothing is
remembered between two calls, so a crash between any two steps is harmless: the next call sees what is and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
    RecordReady,
    RemoveDeployment,
    RemoveGroup,
    RemoveReplica,
    ReviveGroup,
    RouteReplicas,
    Start,
    Stop,
    UnrouteReplicas,
)
from modelyard_inference.models import Group, GroupState, Replica, ReplicaState
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.endings import end_of
from modelyard_inference.planner.observed import ArtifactStatus, EvidenceStatus, Observed, Process
from modelyard_inference.planner.places import places, standing
from modelyard_inference.planner.scale import scale
from modelyard_inference.planner.telling import report
from modelyard_inference.planner.traffic import traffic


def plan(observed: Observed) -> tuple[Action, ...]:
    """Return the next steps for one deployment, in the order to take them; nothing when all is as it should be."""
    state = Plan.of(observed)
    counts = places(state)
    actions: list[Action] = []
    for key, desired in state.desired.items():
        if key in state.current:
            continue
        answer = observed.admitted.get(desired.version.id)
        if answer is not None and answer.allowed:
            actions.append(
                AddGroup(
                    desired.version,
                    key.max_request_bytes,
                    counts[key],
                    key.require_signature,
                    key.shadow,
                    key.resources,
                    key.batching,
                    key.environment_variables,
                    key.environment,
                )
            )
        else:
            actions.append(AskUse(desired.version))
    for group in observed.groups:
        wanted = group in state.wanted_groups or group.id in state.kept
        count = counts.get(group.key, observed.count(group))
        actions.extend(_group_steps(observed, group, count, wanted=wanted))
    actions.extend(traffic(state))
    if observed.deleting and not observed.groups:
        actions.append(RemoveDeployment())
    else:
        actions.extend(report(state))
    return tuple(actions)


# ---- groups -----------------------------------------------------------------------------------------------------------


def _group_steps(observed: Observed, group: Group, count: int, *, wanted: bool) -> Iterator[Action]:
    match group.state:
        case GroupState.STARTING | GroupState.WARM if not wanted:
            yield EndGroup(group.id)
        case GroupState.STARTING:
            yield from _upkeep(observed, group, count)
            yield from _admit(observed, group, count)
        case GroupState.WARM | GroupState.SERVING:
            yield from _upkeep(observed, group, count if wanted else len(standing(observed, group)))
            if wanted:
                yield from scale(observed, group)
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


def _admit(observed: Observed, group: Group, count: int) -> Iterator[Action]:
    replicas = standing(observed, group)
    if replicas and len(replicas) >= count and all(r.state is ReplicaState.READY for r in replicas):
        yield AdmitGroup(group.id, tuple(r.id for r in replicas))


def _upkeep(observed: Observed, group: Group, count: int) -> Iterator[Action]:
    """Keep the replicas of a group running, and their number right."""
    there = standing(observed, group)
    kept, surplus = there[:count], there[count:]
    for replica in observed.replicas_of(group):
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


def _let_go(observed: Observed, replica: Replica) -> Action:
    process = observed.processes.get(replica.id)
    if process is not None and process.running:
        return Stop(replica.id)
    return RemoveReplica(replica.id)
