"""How many replicas each group should have at the moment, and when to decide anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from modelyard_inference.actions import Action, ScaleGroup
from modelyard_inference.models import Group, GroupState
from modelyard_inference.planner.observed import Observed
from modelyard_inference.scaling import Scale, rescale


def first_count(observed: Observed) -> int:
    """Return how many replicas a new group gets: as many as what answers has, because it may take over all of its traffic."""
    deployment = observed.deployment
    serving = [g for g in observed.groups if g.state is GroupState.SERVING and not g.shadow]
    if not deployment.autoscaling.on or not serving:
        return deployment.autoscaling.within(deployment.replicas)
    return max(
        1, *(observed.count(group) for group in serving)
    )  # one at least has to show that it can be loaded


def scale(observed: Observed, group: Group) -> Iterator[Action]:
    """Decide anew how many replicas a group should have, if it gets predictions and the number is not fixed."""
    deployment, policy = observed.deployment, observed.deployment.autoscaling
    if not policy.on:
        if group.scale is not None:
            yield ScaleGroup(group.id, None)
        return
    before = group.scale or Scale(observed.count(group))
    answering = sum(replica.routed for replica in observed.replicas_of(group))
    after = rescale(policy, before, observed.gateways.in_flight(group), answering=answering, now=observed.now)
    moving = deployment.rollout is not None and not deployment.rollout.watching
    if moving and after.replicas < before.replicas:
        # What a rollout goes back to has to bear all the traffic at once.
        after = Scale(policy.within(before.replicas))
    if group.shadow:
        after = replace(after, replicas=max(1, after.replicas))  # nobody holds what a shadow misses
    if after != group.scale:
        yield ScaleGroup(group.id, after)
