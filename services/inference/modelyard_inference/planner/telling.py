"""What to tell callers about a deployment: its state, why, and which conditions hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from modelyard_inference.actions import Action, Report
from modelyard_inference.models import DeploymentState, Group, GroupState, ReplicaState
from modelyard_inference.planner import endings
from modelyard_inference.planner.conditions import conditions_of, rollout_text
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.observed import Admitted, Observed


def report(state: Plan) -> Iterator[Action]:
    """Yield what to tell callers, if that is new."""
    deployment = state.observed.deployment
    if state.observed.deleting:
        found, message = DeploymentState.DELETING, _leaving(state.observed)
    elif not deployment.active:
        found = DeploymentState.UPDATING if state.observed.groups else DeploymentState.INACTIVE
        message = _leaving(state.observed)
    else:
        found, message = _state(state)
    problems = [
        target.problem for target in deployment.targets if target.problem and not state.observed.deleting
    ]
    message = "; ".join(filter(None, [message, *problems]))
    conditions = conditions_of(state)
    known = tuple(replace(condition, change_time=None) for condition in deployment.conditions)
    if (found, message, conditions) != (deployment.state, deployment.state_message, known):
        yield Report(found, message, conditions)


def _state(state: Plan) -> tuple[DeploymentState, str]:
    failure = _failure(state)
    if failure:
        return DeploymentState.FAILED, failure
    before = DeploymentState.UPDATING if state.served else DeploymentState.CREATING
    rollout = state.observed.deployment.rollout
    waiting = rollout_text(state) if rollout and rollout.paused else _waiting(state)
    if waiting:
        return before, waiting
    told, rejected = state.observed.deployment.state, state.observed.deployment.rejection is not None
    settled = told is DeploymentState.ACTIVE or (told is DeploymentState.FAILED and rejected)
    if not settled and (unconfirmed := _unconfirmed(state)):
        first = told is DeploymentState.CREATING
        return (DeploymentState.CREATING if first else DeploymentState.UPDATING), unconfirmed
    if state.observed.deployment.rejection:
        return DeploymentState.FAILED, state.observed.deployment.rejection.reason
    return DeploymentState.ACTIVE, _weakness(state)


def _unconfirmed(state: Plan) -> str:
    """Return which gateway does not yet serve what was decided last; empty when all do."""
    groups = {group.id: group.table_version for group in state.wanted_groups}
    replicas = (r.table_version for r in state.observed.replicas if r.group_id in groups)
    return _waiting_for(state.observed, "to apply the routes", max([*groups.values(), *replicas], default=0))


def _failure(state: Plan) -> str:
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
            return f"{group.version.name} could not be started: {endings.told(down[0])}"
        if down and _ready(state.observed, group) == 0 and down[0].failures > 1:
            return f"every replica of {group.version.name} keeps ending: {endings.told(down[0])}"
    return ""


def _refusals(state: Plan) -> list[Admitted]:
    """Return what the catalog says against versions that are wanted and have no group."""
    missing = [wanted.version.id for key, wanted in state.desired.items() if key not in state.current]
    answers = (state.observed.admitted.get(version_id) for version_id in missing)
    return [answer for answer in answers if answer is not None and answer.problem]


def _waiting(state: Plan) -> str:
    """Return what a change waits for; empty when the traffic is as it should be."""
    observed = state.observed
    if len(state.wanted_groups) < len(state.desired):
        return next((answer.problem for answer in _refusals(state)), "starting")
    for group in state.wanted_groups:
        if group.state is GroupState.STARTING:
            return _starting(observed, group)
    for group in state.wanted_groups:
        if group.state is GroupState.WARM and (observed.gateways.cold(group) or not observed.gateways.live):
            return _waiting_for(observed, f"to find {group.version.name} healthy", group.table_version, group)
    if told := rollout_text(state):
        return told
    if state.served != state.weights:
        return "shifting the traffic"
    for group in state.wanted_groups:
        routed = sum(r.routed for r in observed.replicas_of(group))
        fresh = observed.deployment.state is not DeploymentState.ACTIVE
        if fresh and routed != observed.count(group):
            return f"scaling {group.version.name}: {routed} of {observed.count(group)} replicas routed"
    return ""


def _starting(observed: Observed, group: Group) -> str:
    status = observed.artifacts.get(group.version.artifact_digest)
    if not (status and status.present):
        return f"downloading {group.version.name}"
    unknown = observed.evidence.get(group.version.id)
    if unknown and unknown.problem:
        return unknown.problem
    if build := observed.builds.get(group.id):
        return f"starting {group.version.name}: {build}"
    return (
        f"starting {group.version.name}: {_ready(observed, group)} of {observed.count(group)} replicas ready"
    )


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


def _weakness(state: Plan) -> str:
    for group in state.wanted_groups:
        waiting = state.observed.waiting(group)
        replicas = state.observed.replicas_of(group)
        down = [endings.told(r) for r in replicas if r.message and r.state is not ReplicaState.READY]
        if problems := [*down, *waiting]:
            ready, all_of = _ready(state.observed, group) - len(waiting), state.observed.count(group)
            return f"{ready} of {all_of} replicas of {group.version.name} answer: {problems[0]}"
    return ""


def _ready(observed: Observed, group: Group) -> int:
    return sum(r.state is ReplicaState.READY for r in observed.replicas_of(group))
