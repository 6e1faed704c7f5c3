"""What every way to move the traffic has in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from modelyard_inference.actions import Action, Shift
from modelyard_inference.models import Group, GroupState
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.endings import LOOP_ENDS
from modelyard_inference.planner.observed import Observed


def when_ready(state: Plan, shift: Shift) -> Iterator[Action]:
    """Move the traffic as soon as every gateway finds each group healthy that gets some."""
    gateways = state.observed.gateways
    ready = all(
        group.state in (GroupState.WARM, GroupState.SERVING) and not gateways.cold(group)
        for group in state.observed.groups
        if group.id in shift.weights
    )
    if ready and gateways.live:
        yield shift


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
