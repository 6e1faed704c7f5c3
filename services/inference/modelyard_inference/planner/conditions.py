"""Which of the conditions hold that a deployment has to meet before it answers with what was asked for."""

from __future__ import annotations

from collections.abc import Callable

from modelyard_inference.canary import Rollout
from modelyard_inference.models import Condition, Group, GroupState, ReplicaState, Status
from modelyard_inference.planner import endings
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.exchange import strength
from modelyard_inference.planner.observed import Gateway
from modelyard_inference.planner.scale import first_count

AS_WANTED = "AS_WANTED"

Judgement = tuple[Status, str, str]
"""Status, reason and message of a condition."""

_HOLDS: Judgement = (Status.TRUE, AS_WANTED, "")


def conditions_of(state: Plan) -> tuple[Condition, ...]:
    """Return every condition, in the order in which they come true; without times."""
    judges = _ENDING if state.observed.deployment.leaving else _ANSWERING
    return tuple(Condition(kind, *judge(state)) for kind, judge in judges.items())


def _versions_usable(state: Plan) -> Judgement:
    problems = [target.problem for target in state.observed.deployment.targets if target.problem]
    if problems:
        return Status.FALSE, "REFERENCE_HELD_BACK", problems[0]
    for key, desired in state.desired.items():
        if key in state.current:
            continue
        answer = state.observed.admitted.get(desired.version.id)
        if answer is None or answer.allowed:
            return Status.UNKNOWN, "ASKING", f"asking the catalog for {desired.version.name}"
        return Status.FALSE, "VERSION_GONE" if answer.gone else "VERSION_REFUSED", answer.problem
    return _HOLDS


def _artifacts_present(state: Plan) -> Judgement:
    for desired in state.desired.values():
        status = state.observed.artifacts.get(desired.version.artifact_digest)
        if status and status.present:
            continue
        if status and status.problem:
            return Status.FALSE, "DOWNLOAD_FAILED", f"{desired.version.name}: {status.problem}"
        return Status.FALSE, "DOWNLOADING", f"the artifact of {desired.version.name} is not here yet"
    return _HOLDS


def _replicas_ready(state: Plan) -> Judgement:
    for key, desired in state.desired.items():
        group = state.current.get(key)
        replicas = state.observed.replicas_of(group) if group else []
        waiting = state.observed.waiting(group) if group else []
        ready = sum(r.state is ReplicaState.READY for r in replicas) - len(waiting)
        wanted = state.observed.count(group) if group else first_count(state.observed)
        if ready >= wanted:
            continue
        told = f"{ready} of {wanted} replicas of {desired.version.name} are ready"
        down = [r for r in replicas if r.message and r.state is not ReplicaState.READY]
        if down:
            worst = max(down, key=lambda replica: replica.failures)
            reason = "CRASH_LOOP" if worst.failures >= endings.LOOP_ENDS else "REPLICA_FAILED"
            return Status.FALSE, reason, f"{told}: {endings.told(worst)}"
        if waiting:
            return Status.FALSE, "BACKEND_NOT_READY", f"{told}: {waiting[0]}"
        evidence = state.observed.evidence.get(desired.version.id)
        if evidence and evidence.problem:
            return Status.FALSE, "SIGNATURES_UNKNOWN", f"{told}: {evidence.problem}"
        if build := state.observed.builds.get(group.id if group else ""):
            return Status.FALSE, "BUILDING_ENVIRONMENT", f"{told}: {build}"
        return Status.FALSE, "STARTING", told
    return _HOLDS


def _routes_confirmed(state: Plan) -> Judgement:
    """Judge the newest table that holds anything of the deployment, by the gateways that are heard of."""
    observed = state.observed
    tables = [group.table_version for group in observed.groups]
    tables += [replica.table_version for replica in observed.replicas]
    newest = max(tables, default=0)
    if newest == 0:
        if observed.deployment.leaving:
            return _HOLDS
        return Status.FALSE, "NOT_ROUTED", "nothing is ready to be routed to yet"
    if not observed.gateways.live:
        return Status.UNKNOWN, "NO_GATEWAY", "no gateway is heard of"
    waited = observed.gateways.lagging(newest) or _cold(state)
    if waited:
        problem = f": {waited[0].problem}" if waited[0].problem else ""
        return (
            Status.FALSE,
            "GATEWAY_BEHIND",
            f"gateway {waited[0].id!r} does not serve the newest routes{problem}",
        )
    return _HOLDS


def _cold(state: Plan) -> tuple[Gateway, ...]:
    """Return gateways that do not find a routed group healthy that is wanted."""
    routed = (GroupState.WARM, GroupState.SERVING)
    cold: list[Gateway] = []
    for group in state.wanted_groups:
        cold += state.observed.gateways.cold(group) if group.state in routed else ()
    return tuple(cold)


def _traffic_shifted(state: Plan) -> Judgement:
    rollout = state.observed.deployment.rollout
    if rollout is not None and not rollout.watching:
        return Status.FALSE, "PAUSED" if rollout.paused else "STEP", rollout_text(state)
    if state.served == state.weights:
        return _HOLDS
    answering = [group for group in state.observed.groups if group.state is GroupState.SERVING]
    told = f"answering: {', '.join(map(_share, answering)) or 'nothing'}"
    return Status.FALSE, "WAITING", told


def rollout_text(state: Plan) -> str:
    """Return which step a rollout is in; empty when none is under way."""
    deployment = state.observed.deployment
    if deployment.rollout is None or deployment.rollout.watching:
        return ""
    if deployment.rollout.exchange:
        return _exchange_text(state, deployment.rollout)
    policy, step = deployment.rollout_policy, deployment.rollout.step
    names = ", ".join(sorted({group.version.name for group in state.fresh})) or "the new"
    told = f"step {step + 1} of {len(policy.steps)}: {policy.percent_at(step)} % of the traffic to {names}"
    return f"{told}, paused" if deployment.rollout.paused else told


def _exchange_text(state: Plan, rollout: Rollout) -> str:
    taking_over = [group for group in state.wanted_groups if group.id in rollout.fresh]
    names = ", ".join(sorted({group.version.name for group in taking_over}))
    there = sum(strength(state, group) for group in taking_over)
    told = f"{there} of {sum(map(state.observed.count, taking_over))} replicas of {names} have their place"
    return f"{told}, paused" if rollout.paused else told


def _share(group: Group) -> str:
    share = f"shadow of {group.weight} %" if group.shadow else f"weight {group.weight}"
    return f"{group.version.name} ({share})"


def _replicas_ended(state: Plan) -> Judgement:
    left = len(state.observed.replicas)
    return (Status.FALSE, "DRAINING", f"{left} replicas have yet to end") if left else _HOLDS


_ANSWERING: dict[str, Callable[[Plan], Judgement]] = {
    "VersionsUsable": _versions_usable,
    "ArtifactsPresent": _artifacts_present,
    "ReplicasReady": _replicas_ready,
    "RoutesConfirmed": _routes_confirmed,
    "TrafficShifted": _traffic_shifted,
}
_ENDING: dict[str, Callable[[Plan], Judgement]] = {
    "RoutesConfirmed": _routes_confirmed,
    "ReplicasEnded": _replicas_ended,
}
