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
        """Return the weight that each group should have."""
        return {key: wanted.weight for key, wanted in self.desired.items()}


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
        target.wanted.id, deployment.max_request_bytes, deployment.require_signature, target.spec.shadow
    )
