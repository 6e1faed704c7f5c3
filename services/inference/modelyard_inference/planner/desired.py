"""What a deployment should be served by, beside what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard_inference.models import Deployment, Group, GroupKey, GroupState, Target, Version
from modelyard_inference.planner.observed import Observed


@dataclass(frozen=True)
class Desired:
    """A group that the deployment should be served by."""

    version: Version
    weight: int
    """Share of the traffic; the percentage of copies for a shadow."""


@dataclass(frozen=True)
class Plan:
    """What is wanted of one deployment beside what is there."""

    observed: Observed
    desired: Mapping[GroupKey, Desired]
    current: dict[GroupKey, Group]

    @classmethod
    def of(cls, observed: Observed) -> Plan:
        """Return the plan for what was found."""
        current = {group.key: group for group in observed.groups if group.state is not GroupState.STOPPING}
        return cls(observed, desired_groups(observed.deployment), current)

    @property
    def wanted_groups(self) -> list[Group]:
        """Return the groups that are there and wanted."""
        return [self.current[key] for key in self.desired if key in self.current]

    @property
    def served(self) -> dict[GroupKey, int]:
        """Return the weight of each group that has traffic."""
        return {g.key: g.weight for g in self.observed.groups if g.state is GroupState.SERVING}

    @property
    def weights(self) -> dict[GroupKey, int]:
        """Return the weight that each group should have in the end."""
        return {key: wanted.weight for key, wanted in self.desired.items()}

    @property
    def shares(self) -> dict[str, int]:
        """Return the weight of each group that has traffic, by id."""
        return {g.id: g.weight for g in self.observed.groups if g.state is GroupState.SERVING}

    @property
    def final(self) -> dict[str, int]:
        """Return the weight that each group should have in the end, by id."""
        return {group.id: self.desired[group.key].weight for group in self.wanted_groups}

    @property
    def old(self) -> Mapping[str, int]:
        """Return the weights of the groups that answered before a rollout that is under way, or answer now, by id."""
        rollout = self.observed.deployment.rollout
        if rollout is not None and not rollout.watching:
            there = {group.id for group in self.observed.groups if group.state is not GroupState.STOPPING}
            return {group_id: weight for group_id, weight in rollout.old.items() if group_id in there}
        serving = (g for g in self.observed.groups if g.state is GroupState.SERVING)
        return {g.id: g.weight for g in serving if not g.shadow}

    @property
    def kept(self) -> frozenset[str]:
        """Return the ids of the groups that stay, though they are not wanted, until a rollout has ended."""
        leaving, rollout = self.observed.deployment.leaving, self.observed.deployment.rollout
        return frozenset() if leaving or rollout is None else rollout.kept

    @property
    def fresh(self) -> list[Group]:
        """Return the groups that take over in steps; none if the deployment changes at once."""
        deployment, old = self.observed.deployment, self.old
        if not deployment.rollout_policy.steps or deployment.rejection or not old:
            return []
        return [group for group in self.wanted_groups if not group.shadow and group.id not in old]


def desired_groups(deployment: Deployment) -> dict[GroupKey, Desired]:
    """Return the groups that a deployment should be served by; targets that mean one version share one."""
    found: dict[GroupKey, Desired] = {}
    if deployment.leaving:
        return found
    for target in deployment.targets:
        key = key_of(deployment, target)
        before = found[key].weight if key in found else 0
        found[key] = Desired(target.wanted, before + target.spec.share)
    return found


def key_of(deployment: Deployment, target: Target) -> GroupKey:
    """Return the key of the group that a target of a deployment should be served by."""
    return GroupKey(
        target.wanted.id,
        deployment.max_request_bytes,
        deployment.require_signature,
        target.spec.shadow,
        deployment.resources,
        deployment.batching,
        deployment.environment_variables,
        deployment.environment,
    )
