"""An exchange of replicas, looked at after every step: never more than there may be, and all but one answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from modelyard_inference import actions as a
from modelyard_inference.canary import Rejection
from modelyard_inference.models import (
    Deployment,
    DeploymentState,
    Group,
    GroupState,
    Replica,
    ReplicaState,
    Target,
)
from modelyard_inference.planner import plan
from modelyard_inference.planner.observed import Gateway, Process
from modelyard_inference.strategies import UpdateStrategy
from tests.unit.inference.test_planner import NOW, READY, deployment, group, observed, replica, target

MANY = 200
ENDED = Process(running=False, ending="it is broken")


@dataclass
class Place:
    """Takes the planner's steps in memory; gateways serve each table one look later."""

    deployment: Deployment
    broken: set[str] = field(default_factory=set)
    """Versions that cannot be loaded."""
    groups: dict[str, Group] = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    origin: tuple[Target, ...] = ()
    table: int = 1
    served: int = 0
    made: int = 0
    now: timedelta = timedelta()
    most: int = 0
    """The most processes that there were at once."""
    least: int = MANY
    """The fewest replicas that got predictions, since the first did."""
    shares: list[float] = field(default_factory=list)
    """Share of the version that is wanted, after each step."""

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Take steps until there is none, or something is so."""
        for _ in range(MANY):
            self.now += timedelta(seconds=61)
            gateways = (
                Gateway(
                    "gw", self.served, frozenset(g.name for g in self.groups.values() if self.healthy(g.id))
                ),
            )
            self.served = self.table
            found = observed(
                self.deployment,
                tuple(self.groups.values()),
                tuple(self.replicas.values()),
                processes=dict(self.processes),
                gateways=gateways,
                now=NOW + self.now,
            )
            taken = plan(found)
            for action in taken:
                self.take(action)
            self.check()
            if until():
                return
            if not taken and gateways[0].version == self.table:
                return
        raise AssertionError(f"no end: {self.groups} {self.replicas}")

    def healthy(self, group_id: str) -> bool:
        """Whether gateways find a group healthy: what holds its predictions is, while it has no replica."""
        routed = [r for r in self.replicas.values() if r.group_id == group_id and r.routed]
        return not routed or any(r.state is ReplicaState.READY for r in routed)

    def check(self) -> None:
        self.most = max(self.most, len(self.processes), len(self.replicas))
        serving = {g.id: g for g in self.groups.values() if g.state is GroupState.SERVING}
        if not serving:
            assert not self.shares, "something answers, or holds predictions, from the first moment on"
            return
        answering = [r for r in self.replicas.values() if r.group_id in serving and r.routed]
        self.least = min(self.least, len(answering))
        wanted = {t.wanted.id for t in self.deployment.targets}
        total = sum(g.weight for g in serving.values())
        self.shares.append(sum(g.weight for g in serving.values() if g.version.id in wanted) / total)

    def take(self, action: a.Action) -> None:
        getattr(self, f"_{type(action).__name__}")(action)

    def want(self, *targets: Target, **changes: object) -> None:
        given = {"state": DeploymentState.UPDATING, "targets": targets, "rejection": None, **changes}
        self.deployment = replace(self.deployment, **given)  # type: ignore[arg-type]
        self.most, self.least, self.shares = 0, MANY, []

    def _AddGroup(self, action: a.AddGroup) -> None:
        self.made += 1
        made = replace(
            group(self.made, GroupState.STARTING, table=0),
            version=action.version,
            name=f"iris-{self.made}",
            batching=action.batching,
        )
        self.groups[made.id] = made
        self._AddReplicas(a.AddReplicas(made.id, action.replicas))

    def _AddReplicas(self, action: a.AddReplicas) -> None:
        for _ in range(action.count):
            self.made += 1
            number = int(action.group_id.removeprefix("g"))
            made = replica(number, ReplicaState.STARTING, ordinal=self.made, process_id=0)
            self.replicas[made.id] = made

    def _Start(self, action: a.Start) -> None:
        version = self.groups[self.replicas[action.replica_id].group_id].version.name
        self.processes[action.replica_id] = ENDED if version in self.broken else READY
        self._change(action.replica_id, start_time=NOW + self.now)

    def _RecordReady(self, action: a.RecordReady) -> None:
        self._change(action.replica_id, state=ReplicaState.READY, message="")

    def _RecordEnd(self, action: a.RecordEnd) -> None:
        del self.processes[action.replica_id]
        self._change(action.replica_id, state=action.state, message=action.message, failures=action.failures)

    def _AdmitGroup(self, action: a.AdmitGroup) -> None:
        self.table += 1
        self._group(action.group_id, state=GroupState.WARM, table_version=self.table)
        self._route(action.replica_ids)

    def _RouteReplicas(self, action: a.RouteReplicas) -> None:
        self.table += 1
        self._route(action.replica_ids)

    def _route(self, replica_ids: tuple[str, ...]) -> None:
        for replica_id in replica_ids:
            self._change(replica_id, routed=True, table_version=self.table)

    def _UnrouteReplicas(self, action: a.UnrouteReplicas) -> None:
        self.table += 1
        for replica_id in action.replica_ids:
            self._change(replica_id, routed=False, state=ReplicaState.DRAINING, table_version=self.table)

    def _Shift(self, action: a.Shift) -> None:
        self.table += 1
        for found in list(self.groups.values()):
            weight = action.weights.get(found.id, 0)
            if weight or found.state is GroupState.SERVING:
                state = GroupState.SERVING if weight else GroupState.DRAINING
                self._group(found.id, state=state, weight=weight, table_version=self.table)
        if action.rollout is None or action.rollout.watching:
            self.origin = self.deployment.targets
        self.deployment = replace(self.deployment, rollout=action.rollout)

    def _TakeBack(self, action: a.TakeBack) -> None:
        rejection = Rejection(action.reason, action.versions)
        self.deployment = replace(self.deployment, targets=self.origin, rollout=None, rejection=rejection)

    def _EndGroup(self, action: a.EndGroup) -> None:
        self.table += 1
        self._group(action.group_id, state=GroupState.STOPPING, weight=0, table_version=self.table)
        for found in list(self.replicas.values()):
            if found.group_id == action.group_id:
                self._change(found.id, routed=False, state=ReplicaState.DRAINING, table_version=self.table)

    def _ReviveGroup(self, action: a.ReviveGroup) -> None:
        self._group(action.group_id, state=GroupState.WARM, weight=0)

    def _RemoveGroup(self, action: a.RemoveGroup) -> None:
        del self.groups[action.group_id]

    def _Stop(self, action: a.Stop) -> None:
        del self.processes[action.replica_id]

    def _RemoveReplica(self, action: a.RemoveReplica) -> None:
        self.processes.pop(action.replica_id, None)  # one that has ended by itself
        del self.replicas[action.replica_id]

    def _Report(self, action: a.Report) -> None:
        self.deployment = replace(
            self.deployment, state=action.state, state_message=action.message, conditions=action.conditions
        )

    def _Fetch(self, action: a.Fetch) -> None:
        raise AssertionError(f"{action.version} is there")

    def _group(self, group_id: str, **values: object) -> None:
        self.groups[group_id] = replace(self.groups[group_id], **values)  # type: ignore[arg-type]

    def _change(self, replica_id: str, **values: object) -> None:
        self.replicas[replica_id] = replace(self.replicas[replica_id], **values)  # type: ignore[arg-type]


def place(count: int, *targets: Target) -> Place:
    """Return a place where a deployment answers with so many replicas of each target."""
    made = deployment(*targets, replicas=count, update_strategy=UpdateStrategy.RESOURCE_PRESERVING)
    found = Place(made)
    found.run()
    assert found.deployment.state is DeploymentState.ACTIVE
    return found


def versions(found: Place) -> list[str]:
    return sorted(found.groups[r.group_id].version.name for r in found.replicas.values() if r.routed)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_goes_then_one_comes(count: int) -> None:
    found = place(count)
    found.want(target(2))
    found.run()
    assert (found.deployment.state, found.deployment.rollout) == (DeploymentState.ACTIVE, None)
    assert versions(found) == ["prod.ml.iris/2"] * count
    assert (found.most, found.least) == (count, count - 1)
    assert found.shares == sorted(found.shares)
    assert len(set(found.shares)) > count  # each gets traffic by its replicas


def test_two_targets_share_the_places() -> None:
    found = place(2, target(1, 9), target(2, 1))
    found.want(target(3, 9), target(4, 1))
    found.run()
    assert versions(found) == ["prod.ml.iris/3"] * 2 + ["prod.ml.iris/4"] * 2
    assert {g.version.number: g.weight for g in found.groups.values()} == {3: 9, 4: 1}
    assert (found.most, found.least) == (4, 3)


def test_another_target_stays_as_it_is() -> None:
    found = place(1, target(1, 9), target(2, 1))
    (kept,) = (r.id for r in found.replicas.values() if r.group_id == "g1")
    found.want(target(1, 9), target(3, 1))
    found.run()
    assert versions(found) == ["prod.ml.iris/1", "prod.ml.iris/3"]
    assert kept in found.replicas
    assert (found.most, found.least) == (2, 1)


def test_more_replicas_and_another_version_at_once() -> None:
    found = place(2)
    found.want(target(2), replicas=4)
    found.run()
    assert versions(found) == ["prod.ml.iris/2"] * 4
    assert (found.most, found.least) == (4, 2)
    found.want(target(1), replicas=2)
    found.run()
    assert versions(found) == ["prod.ml.iris/1"] * 2
    assert found.least >= 1


def test_another_change_in_the_middle_begins_anew() -> None:
    found = place(3)
    found.want(target(2))
    found.run(until=lambda: versions(found).count("prod.ml.iris/2") == 1 and len(versions(found)) == 3)
    found.want(target(3))
    found.run()
    assert versions(found) == ["prod.ml.iris/3"] * 3
    assert (found.most, found.least) == (3, 2)
    assert found.shares == sorted(found.shares)


def test_the_way_back_in_the_middle_starts_only_what_is_missing() -> None:
    found = place(3)
    old = set(found.replicas)
    found.want(target(2))
    found.run(until=lambda: versions(found).count("prod.ml.iris/2") == 1 and len(versions(found)) == 3)
    found.want(target(1))
    found.run()
    assert versions(found) == ["prod.ml.iris/1"] * 3
    assert len(old & set(found.replicas)) == 2
    assert (found.most, found.least) == (3, 2)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_cannot_be_started_goes_back(count: int) -> None:
    found = place(count)
    found.broken = {"prod.ml.iris/2"}
    found.want(target(2))
    found.run()
    assert versions(found) == ["prod.ml.iris/1"] * count
    assert found.deployment.state is DeploymentState.FAILED
    assert (
        "prod.ml.iris/2 was taken back, it could not be started: it is broken"
        in found.deployment.state_message
    )
    assert (found.most, found.least) == (count, count - 1)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_asked_for_in_the_middle_comes_true_within_the_places(seed: int) -> None:
    chance = random.Random(seed)

    def any_targets() -> list[Target]:
        return [
            target(number, chance.randint(1, 9)) for number in chance.sample([1, 2, 3], chance.randint(1, 2))
        ]

    found = place(chance.randint(1, 4), *any_targets())
    for _ in range(chance.randint(2, 5)):
        wanted, count, looks = any_targets(), chance.randint(1, 4), iter(range(chance.randint(1, 40)))
        most = max(len(found.replicas), count * len(wanted))
        found.want(*wanted, replicas=count)
        found.run(until=lambda looks=looks: next(looks, None) is None)  # type: ignore[misc]
        assert found.most <= most
    found.run()
    assert versions(found) == sorted(
        t.wanted.name for t in found.deployment.targets for _ in range(found.deployment.replicas)
    )
    assert (found.deployment.state, found.deployment.rollout) == (DeploymentState.ACTIVE, None)


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_ill_can_be_replaced(count: int) -> None:
    found = place(count)
    found.broken = {"prod.ml.iris/1"}
    found.processes = dict.fromkeys(found.processes, ENDED)
    found.run(until=lambda: {r.state for r in found.replicas.values()} == {ReplicaState.CRASH_LOOP})
    found.want(target(2))
    found.run()
    assert versions(found) == ["prod.ml.iris/2"] * count
    assert found.most == count


def looping(found: Place, count: int) -> set[str]:
    """Let replicas of version 1 end until so many are in a crash loop, and return the ids of all of it."""
    there = [r.id for r in found.replicas.values() if found.groups[r.group_id].version.number == 1]
    found.broken = {"prod.ml.iris/1"}
    found.processes |= dict.fromkeys(there[:count], ENDED)
    found.run(
        until=lambda: all(found.replicas[one].state is ReplicaState.CRASH_LOOP for one in there[:count])
    )
    return set(there)


def exchanged(found: Place) -> bool:
    return found.deployment.rollout is None or found.deployment.rollout.watching


def weights(found: Place) -> dict[int, int]:
    return {g.version.number: g.weight for g in found.groups.values() if g.weight}


@pytest.mark.parametrize("ill", [1, 2])
def test_a_crash_loop_of_a_target_that_stays_holds_up_no_other(ill: int) -> None:
    found = place(2, target(1, 9), target(2, 1))
    staying = looping(found, ill)
    found.want(target(1, 9), target(3, 1))
    found.run(until=lambda: weights(found) == {1: 9, 3: 1} and exchanged(found))
    assert versions(found) == ["prod.ml.iris/1"] * 2 + ["prod.ml.iris/3"] * 2
    assert staying < found.replicas.keys()
    assert found.most == 4


def test_what_loses_its_only_place_is_held_and_not_sent_to_what_is_ill() -> None:
    found = place(1, target(1, 9), target(2, 1))
    looping(found, 1)
    found.want(target(1, 9), target(3, 1))
    seen: list[dict[int, int]] = []

    def noted() -> bool:
        seen.append(weights(found))
        return seen[-1] == {1: 9, 3: 1} and exchanged(found)

    found.run(until=noted)
    assert {1: 9} not in seen


def test_a_replica_that_is_new_and_keeps_ending_holds_up_no_other_target() -> None:
    found = place(1, target(1, 9), target(2, 1))
    found.broken = {"prod.ml.iris/1"}
    found.want(target(1, 9), target(3, 1), replicas=2)
    found.run(until=lambda: weights(found) == {1: 9, 3: 1} and exchanged(found))
    assert versions(found) == ["prod.ml.iris/1"] + ["prod.ml.iris/3"] * 2


def test_a_pause_holds_it() -> None:
    found = place(2)
    found.want(target(2))
    found.run(until=lambda: found.deployment.rollout is not None)
    assert found.deployment.rollout is not None
    found.deployment = replace(found.deployment, rollout=replace(found.deployment.rollout, paused=True))
    found.run()
    assert versions(found) == ["prod.ml.iris/1"] * 2
    assert found.deployment.state_message == "0 of 2 replicas of prod.ml.iris/2 have their place, paused"
    assert found.deployment.rollout is not None
    found.deployment = replace(found.deployment, rollout=replace(found.deployment.rollout, paused=False))
    found.run()
    assert versions(found) == ["prod.ml.iris/2"] * 2


def test_without_the_strategy_there_are_twice_as_many_for_a_while() -> None:
    found = place(2)
    found.want(target(2), update_strategy=UpdateStrategy.AVAILABILITY_PRESERVING)
    found.run()
    assert versions(found) == ["prod.ml.iris/2"] * 2
    assert (found.most, found.least) == (4, 2)
