"""How many replicas there are to be, from what is in flight."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from modelyard_inference import actions as a
from modelyard_inference.actions import Action
from modelyard_inference.canary import Rollout
from modelyard_inference.models import DeploymentState, Group, GroupState, ReplicaState
from modelyard_inference.planner import plan
from modelyard_inference.planner.observed import Gateway
from modelyard_inference.scaling import Autoscaling, Scale, rescale
from tests.unit.inference.test_planner import NOW, deployment, group, observed, replica, target

POLICY = Autoscaling(1, 8, 2.0, 60_000)
LATER = NOW + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("replicas", "in_flight", "wanted"),
    [
        (2, 4.0, 2),
        (2, 4.4, 2),  # within the tolerance
        (2, 4.5, 3),
        (2, 100.0, 4),  # at most twice as many at once
        (6, 100.0, 8),
        (8, 100.0, 8),
        (1, 0.0, 1),
        (12, 4.0, 8),  # the bounds are others now
    ],
)
def test_more_at_once(replicas: int, in_flight: float, wanted: int) -> None:
    after = rescale(POLICY, Scale(replicas), in_flight, answering=replicas, now=NOW)
    assert after.replicas == wanted


def test_no_more_before_those_answer_that_were_decided_before() -> None:
    assert rescale(POLICY, Scale(4), 100.0, answering=3, now=NOW) == Scale(4)
    assert rescale(POLICY, Scale(4), 100.0, answering=4, now=NOW) == Scale(8)


def test_nothing_changes_while_a_gateway_does_not_tell() -> None:
    assert rescale(POLICY, Scale(4, NOW, 1), None, answering=4, now=LATER) == Scale(4)


def test_fewer_when_they_would_have_sufficed_for_a_while() -> None:
    """And then as many as were needed at most in that time."""
    scale = rescale(POLICY, Scale(6), 2.0, answering=6, now=NOW)
    assert scale == Scale(6, NOW, 1)
    scale = rescale(POLICY, scale, 7.0, answering=6, now=NOW + timedelta(seconds=30))
    assert scale == Scale(6, NOW, 4)
    scale = rescale(POLICY, scale, 0.0, answering=6, now=NOW + timedelta(seconds=59))
    assert scale == Scale(6, NOW, 4)
    assert rescale(POLICY, scale, 0.0, answering=6, now=LATER) == Scale(4)


def test_a_peak_begins_the_while_anew() -> None:
    low = Scale(6, NOW, 1)
    assert rescale(POLICY, low, 12.0, answering=6, now=LATER) == Scale(6)


def test_without_delay_fewer_at_once() -> None:
    policy = replace(POLICY, scale_down_delay_ms=0)
    assert rescale(policy, Scale(6), 0.0, answering=6, now=NOW) == Scale(1)


ZERO = replace(POLICY, min_replicas=0)


def test_none_only_when_nothing_is_in_flight_and_one_again_at_once() -> None:
    assert rescale(ZERO, Scale(1, NOW, 0), 0.1, answering=1, now=LATER) == Scale(1)
    assert rescale(ZERO, Scale(1, NOW, 0), 0.0, answering=1, now=LATER) == Scale(0)
    assert rescale(ZERO, Scale(0), 0.0, answering=0, now=NOW) == Scale(0)
    assert rescale(ZERO, Scale(0), 0.2, answering=0, now=NOW) == Scale(1)
    assert rescale(ZERO, Scale(0), None, answering=0, now=NOW) == Scale(0)


def test_what_was_decided_is_kept() -> None:
    for scale in (Scale(3), Scale(3, NOW, 2)):
        assert Scale.from_json(scale.to_json()) == scale


# ---- in the planner

SCALED = deployment(state=DeploymentState.ACTIVE, autoscaling=POLICY)


def serving(scale: Scale | None) -> Group:
    return replace(group(1, GroupState.SERVING, weight=1), scale=scale)


def next_steps(found: Group, running: int, in_flight: float | None, **changes: object) -> list[Action]:
    told = {} if in_flight is None else {"iris-v1": in_flight}
    gateways = (Gateway("gw", 9, frozenset({"iris-v1"}), in_flight=told),)
    there = tuple(replica(1, ordinal=ordinal) for ordinal in range(running))
    seen = observed(replace(SCALED, **changes), (found,), there, gateways=gateways)  # type: ignore[arg-type]
    return [action for action in plan(seen) if not isinstance(action, a.Report)]


def test_what_is_decided_is_noted_and_then_made() -> None:
    assert next_steps(serving(Scale(1)), 1, 4.0) == [a.ScaleGroup("g1", Scale(2))]
    assert next_steps(serving(Scale(2)), 1, 4.0) == [a.AddReplicas("g1", 1)]
    assert next_steps(serving(Scale(2)), 2, 4.0) == []
    assert next_steps(serving(Scale(1)), 2, 2.0) == [a.UnrouteReplicas("g1", ("r1.1",))]


def test_what_sleeps_is_woken_by_what_waits() -> None:
    assert next_steps(serving(Scale(0)), 1, 0.0, autoscaling=ZERO) == [a.UnrouteReplicas("g1", ("r1.0",))]
    assert next_steps(serving(Scale(0)), 0, 0.0, autoscaling=ZERO) == []
    assert next_steps(serving(Scale(0)), 0, 1.0, autoscaling=ZERO) == [a.ScaleGroup("g1", Scale(1))]
    assert next_steps(serving(Scale(1)), 0, 1.0, autoscaling=ZERO) == [a.AddReplicas("g1", 1)]


def test_a_new_version_is_started_while_the_old_sleeps() -> None:
    changed = replace(SCALED, targets=(target(2),), autoscaling=ZERO, state=DeploymentState.UPDATING)
    (made,) = (
        action for action in plan(observed(changed, (serving(Scale(0)),))) if isinstance(action, a.AddGroup)
    )
    assert made.replicas == 1


def test_a_shadow_keeps_one() -> None:
    shadow = replace(serving(Scale(1, NOW, 0)), shadow=True)
    copied = replace(target(1), spec=replace(target(1).spec, weight=0, shadow_percent=5))
    told = (Gateway("gw", 9, frozenset({"iris-v1"}), in_flight={"iris-v1": 0.0}),)
    sleepy = replace(SCALED, targets=(copied,), autoscaling=ZERO)
    found = observed(sleepy, (shadow,), (replica(1),), gateways=told, now=LATER)
    decided = [action.scale for action in plan(found) if isinstance(action, a.ScaleGroup)]
    assert decided == [Scale(1)]


def test_it_begins_with_the_replicas_of_the_deployment_within_the_bounds() -> None:
    assert next_steps(serving(None), 3, 6.0, replicas=3) == [a.ScaleGroup("g1", Scale(3))]
    assert next_steps(serving(None), 8, 16.0, replicas=20) == [a.ScaleGroup("g1", Scale(8))]


def test_turned_off_the_number_is_that_of_the_deployment_again() -> None:
    off = next_steps(serving(Scale(3)), 1, None, autoscaling=Autoscaling())
    assert off == [a.ScaleGroup("g1", None)]


def test_nothing_shrinks_while_a_rollout_may_be_taken_back() -> None:
    rollout = Rollout(frozenset({"g2"}), {"g1": 1}, 0, NOW, {})
    at_once = replace(POLICY, scale_down_delay_ms=0)
    assert next_steps(serving(Scale(3)), 3, 0.0, autoscaling=at_once) == [a.ScaleGroup("g1", Scale(1))]
    held = next_steps(serving(Scale(3)), 3, 0.0, autoscaling=at_once, rollout=rollout)
    assert not [action for action in held if isinstance(action, a.ScaleGroup)]
    grown = next_steps(serving(Scale(3)), 3, 100.0, rollout=rollout)
    assert a.ScaleGroup("g1", Scale(6)) in grown


def test_every_gateway_has_to_tell() -> None:
    two = (
        Gateway("a", 9, frozenset({"iris-v1"}), in_flight={"iris-v1": 9.0}),
        Gateway("b", 9, frozenset({"iris-v1"})),
    )
    found = observed(SCALED, (serving(Scale(1)),), (replica(1),), gateways=two)
    assert [action for action in plan(found) if isinstance(action, a.ScaleGroup)] == []
    both = (two[0], replace(two[1], in_flight={"iris-v1": 1.0}))
    found = observed(
        SCALED, (serving(Scale(4)),), tuple(replica(1, ordinal=n) for n in range(4)), gateways=both
    )
    assert [action for action in plan(found) if isinstance(action, a.ScaleGroup)] == [
        a.ScaleGroup("g1", Scale(5))
    ]


def test_a_new_version_begins_with_as_many_as_answer() -> None:
    changed = replace(SCALED, targets=(target(2),), state=DeploymentState.UPDATING)
    running = tuple(replica(1, ordinal=ordinal) for ordinal in range(5))
    found = observed(changed, (serving(Scale(5)),), running)
    (made,) = (action for action in plan(found) if isinstance(action, a.AddGroup))
    assert made.replicas == 5


def test_a_group_that_starts_waits_for_all_that_it_should_have() -> None:
    starting = replace(group(1, GroupState.STARTING), scale=None)
    found = observed(replace(SCALED, replicas=2), (starting,), (replica(1),))
    assert not [action for action in plan(found) if isinstance(action, a.AdmitGroup)]
    both = (replica(1, routed=False), replica(1, ReplicaState.READY, ordinal=1, routed=False))
    found = observed(replace(SCALED, replicas=2), (starting,), both)
    assert [action for action in plan(found) if isinstance(action, a.AdmitGroup)] == [
        a.AdmitGroup("g1", ("r1.0", "r1.1"))
    ]
