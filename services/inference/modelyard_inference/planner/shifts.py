"""What every way to move the traffic has in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from modelyard_inference.actions import Action, Shift
from modelyard_inference.canary import Figures, Rollout
from modelyard_inference.models import Group, GroupState
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.endings import LOOP_ENDS
from modelyard_inference.planner.observed import Observed


def when_ready(state: Plan, shift: Shift) -> Iterator[Action]:
    """Move the traffic as soon as every gateway finds each group healthy that is to get more; what has to go, or stays, may be ill."""
    gateways = state.observed.gateways
    ready = all(
        stays(state, group)
        or (group.state in (GroupState.WARM, GroupState.SERVING) and not gateways.cold(group))
        for group in state.wanted_groups
        if group.id in shift.weights
    )
    if ready and gateways.live:
        yield shift


def stays(state: Plan, group: Group) -> bool:
    """Return whether a group answers and is to get no larger share than before: while it is ill, nothing else has to wait for it."""
    if group.state is not GroupState.SERVING or group.shadow:
        return group.state is GroupState.SERVING
    before, after = state.old, {g.id: state.final[g.id] for g in state.wanted_groups if not g.shadow}
    if group.id not in before or group.id not in after:
        return False
    return after[group.id] * sum(before.values()) <= before[group.id] * sum(after.values())


def cannot_start(observed: Observed, groups: Collection[Group]) -> str:
    """Return why one of the groups has to be taken back, a replica of it failing again and again; empty while there is hope."""
    for group in groups:
        for replica in observed.replicas_of(group):
            if replica.failures >= LOOP_ENDS and replica.message:
                return f"{group.version.name} was taken back, it could not be started: {replica.message}"
    return ""


def versions(groups: Collection[Group]) -> frozenset[str]:
    """Return the ids of the versions of groups."""
    return frozenset(group.version.id for group in groups)


def since_step(observed: Observed, rollout: Rollout, group_ids: Collection[str]) -> Figures:
    """Return what all gateways counted about some groups since the step began."""
    names = [group.name for group in observed.groups if group.id in group_ids]
    total = Figures()
    for gateway in observed.gateways.live:
        before: Mapping[str, Figures] = rollout.baseline.get(gateway.id, {})
        for name in names:
            total += gateway.figures.get(name, Figures()).since(before.get(name, Figures()))
    return total


def counted(observed: Observed) -> dict[str, Mapping[str, Figures]]:
    """Return what each gateway has counted about the groups of a deployment, by id and name."""
    names = {group.name for group in observed.groups}
    return {
        gateway.id: {name: found for name, found in gateway.figures.items() if name in names}
        for gateway in observed.gateways.live
    }
