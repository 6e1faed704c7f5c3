"""How many replicas the groups that are wanted may have at the moment."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard_inference.models import Group, GroupKey, Replica, ReplicaState
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.observed import Observed
from modelyard_inference.planner.scale import first_count


def places(state: Plan) -> Mapping[GroupKey, int]:
    """Return how many replicas each group that is wanted may have at the moment: all, or those for which a place is free."""
    observed, found = state.observed, {}
    room = free(state)
    for key in state.desired:
        group = state.current.get(key)
        there = len(standing(observed, group)) if group else 0
        wanted = observed.count(group) if group else first_count(observed)
        if observed.deployment.preserves_resources:
            more = min(max(0, wanted - there), room)
            room -= more
            wanted = min(wanted, there + more)
        found[key] = wanted
    return found


def free(state: Plan) -> int:
    """Return how many replicas may be made while resources are preserved: a place is taken until its process is gone."""
    return max(0, state.observed.deployment.replicas * len(state.desired) - len(state.observed.replicas))


def standing(observed: Observed, group: Group) -> list[Replica]:
    """Return the replicas of a group that are not on their way out, oldest first."""
    return [r for r in observed.replicas_of(group) if r.state is not ReplicaState.DRAINING]
