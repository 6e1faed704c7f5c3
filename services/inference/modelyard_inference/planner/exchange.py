"""Replicas of the new take the places of those of the old, one after the other, so that there are never more than the deployment has.

One of the old is taken out of the routes, drains and ends; one of the new starts in its place; then each group gets traffic by how many
replicas of it answer. The next one follows when every gateway serves the last one, so all but one answer at any time. Where there is
but one, predictions are held, as those of a deployment that sleeps, from the moment it drains until the new one is ready.

A replica in a crash loop of a target that stays is not waited for: it does not answer whatever happens to the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from modelyard_inference.actions import Action, AdmitGroup, Shift, TakeBack, UnrouteReplicas
from modelyard_inference.canary import Rollout
from modelyard_inference.models import Group, GroupState, Replica, ReplicaState
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.places import free, standing
from modelyard_inference.planner.shifts import cannot_start, stays, versions, when_ready
from modelyard_inference.planner.watch import watched


def exchange(state: Plan) -> Iterator[Action]:
    """Go one step on, if the one before has come true."""
    deployment, old = state.observed.deployment, leaving(state)
    if _complete(state):
        yield from when_ready(state, Shift(state.final, watched(state)))
        return
    rollout = _rollout(state)
    fresh = [group for group in _answering(state) if group.id not in rollout.old]
    if not deployment.rejection and (reason := cannot_start(state.observed, fresh)):
        yield TakeBack(reason, versions(fresh))
        return
    shares = _shares(state, rollout, old)
    if rollout != deployment.rollout or shares != state.shares:
        there = sum(strength(state, group) for group in _answering(state))
        yield from when_ready(state, Shift(shares, replace(rollout, step=there, since=state.observed.now)))
    elif old and not (rollout.paused or free(state)) and _settled(state):
        yield from _make_room(state, rollout, old, shares)


def strength(state: Plan, group: Group) -> int:
    """Return how many replicas of a group get predictions."""
    return sum(replica.routed for replica in standing(state.observed, group))


def _ill(state: Plan, group: Group) -> bool:
    """Return whether no replica of a group answers."""
    there = standing(state.observed, group)
    return not any(replica.routed and replica.state is ReplicaState.READY for replica in there)


def leaving(state: Plan) -> list[Group]:
    """Return the groups that answer and are not wanted."""
    wanted = state.wanted_groups
    return [
        g for g in state.observed.groups if g.state is GroupState.SERVING and not g.shadow and g not in wanted
    ]


def _answering(state: Plan) -> list[Group]:
    return [group for group in state.wanted_groups if not group.shadow]


def _complete(state: Plan) -> bool:
    """Return whether every group that is wanted has all its replicas in the routes."""
    observed = state.observed
    return all(
        sum(replica.routed or _looping(state, group, replica) for replica in standing(observed, group))
        >= observed.count(group)
        for group in state.wanted_groups
    )


def _looping(state: Plan, group: Group, replica: Replica) -> bool:
    """Return whether a replica of a group that stays keeps ending."""
    return replica.state is ReplicaState.CRASH_LOOP and stays(state, group)


def _rollout(state: Plan) -> Rollout:
    """Return the exchange that is under way, or the one to begin: with the weights of what answers, at its full number."""
    rollout = state.observed.deployment.rollout
    taking_over = frozenset(group.id for group in _answering(state))
    if rollout is not None and rollout.exchange and rollout.fresh == taking_over:
        return rollout
    given_up = rollout is not None and rollout.exchange
    before = rollout.old if rollout is not None and given_up else {}
    old = {}
    for group in state.observed.groups:
        if group.state is GroupState.SERVING and not group.shadow:
            # In an exchange each has the weight of all its replicas together.
            share = group.weight // max(1, strength(state, group)) if given_up else group.weight
            old[group.id] = before.get(group.id) or max(1, share)
    return Rollout(taking_over, old, 0, state.observed.now, {}, exchange=True)


def _shares(state: Plan, rollout: Rollout, old: Collection[Group]) -> dict[str, int]:
    """Return the weight of each group, by how many replicas of it there are; as it is while none of them answers."""
    routed = [g for g in _answering(state) if g.state in (GroupState.WARM, GroupState.SERVING)]
    shares = {group.id: rollout.old.get(group.id, 1) * strength(state, group) for group in old}
    shares |= {group.id: state.final[group.id] * strength(state, group) for group in routed}
    if all(_ill(state, group) for group in (*old, *routed)):
        return state.shares
    copies = {g.id: g.weight for g in state.wanted_groups if g.shadow and g.state is GroupState.SERVING}
    return {**{group_id: share for group_id, share in shares.items() if share}, **copies}


def _make_room(
    state: Plan, rollout: Rollout, old: Collection[Group], shares: Mapping[str, int]
) -> Iterator[Action]:
    """Let a replica go of the group that has most of them."""
    group = max(old, key=lambda group: (strength(state, group), -rollout.old.get(group.id, 0)))
    routed = [replica for replica in standing(state.observed, group) if replica.routed]
    if len(routed) > 1:
        victim = min(routed, key=lambda replica: (replica.state is ReplicaState.READY, -replica.ordinal))
        yield UnrouteReplicas(group.id, (victim.id,))
        return
    others = {each.id for each in (*old, *_answering(state)) if each is not group and not _ill(state, each)}
    rest = {group_id: share for group_id, share in shares.items() if group_id != group.id}
    if not rest.keys() & others:
        # Nothing else answers: what takes over gets it all, and holds it until a replica is ready.
        rest |= {each.id: state.final[each.id] for each in _answering(state)}
    entering = [each for each in _answering(state) if each.state is GroupState.STARTING and each.id in rest]
    if entering:
        yield from (AdmitGroup(each.id, ()) for each in entering)
    else:
        yield from when_ready(state, Shift(rest, rollout))


def _settled(state: Plan) -> bool:
    """Return whether what was done before has come true: nothing drains or starts, and every gateway serves it."""
    observed = state.observed
    wanted = {group.id: group for group in state.wanted_groups}
    tables = [group.table_version for group in observed.groups]
    tables += [replica.table_version for replica in observed.replicas]
    return (
        all(_rests(state, replica, wanted.get(replica.group_id)) for replica in observed.replicas)
        and not any(g.state in (GroupState.DRAINING, GroupState.STOPPING) for g in observed.groups)
        and not any(
            observed.gateways.cold(g) and not stays(state, g)
            for g in state.wanted_groups
            if g.state is GroupState.SERVING
        )
        and observed.confirmed(max(tables, default=0))
    )


def _rests(state: Plan, replica: Replica, wanted: Group | None) -> bool:
    if replica.state is ReplicaState.DRAINING:
        return False
    if wanted is None or _looping(state, wanted, replica):
        return True
    return replica.state is ReplicaState.READY and replica.routed
