"""What took over at once is watched for a while."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from modelyard_inference import actions as a
from modelyard_inference.canary import WATCH, Figures, Rejection, Rollout, RolloutPolicy
from modelyard_inference.models import Deployment, DeploymentState, GroupState, ReplicaState
from modelyard_inference.planner import plan
from modelyard_inference.planner.observed import Gateway, Observed
from tests.unit.inference.test_planner import (
    NOW,
    WATCHED,
    deployment,
    group,
    observed,
    replica,
    report,
    steps,
    target,
)

NEW = group(2, GroupState.SERVING, weight=1)
LATER = NOW + timedelta(milliseconds=WATCH.pause_ms)
SOME = WATCH.min_requests
BAD = Figures(SOME // 2 - 1, SOME // 2 + 1, {1.0: SOME})


def watching(rollout: Rollout | None = WATCHED, **changes: object) -> Deployment:
    given = {"state": DeploymentState.ACTIVE, "rollout": rollout, **changes}
    return deployment(target(2, serving="prod.ml.iris/2"), **given)  # type: ignore[arg-type]


def found(figures: Figures, deployed: Deployment | None = None, **changes: object) -> Observed:
    gateway = Gateway("gw", 9, frozenset(("iris-v1", "iris-v2")), figures={"iris-v2": figures})
    given = {"gateways": (gateway,), **changes}
    return observed(deployed or watching(), (NEW,), (replica(2),), **given)  # type: ignore[arg-type]


def test_what_is_good_is_let_be_when_its_time_has_passed() -> None:
    assert steps(found(Figures(SOME, 0, {1.0: SOME}))) == []
    assert report(found(Figures())) == (DeploymentState.ACTIVE, "")
    assert watching().measured
    assert steps(found(Figures(), now=LATER)) == [a.Shift({"g2": 1})]
    assert not watching(None).measured


def test_what_mostly_fails_goes_back_with_the_figures_and_how_a_replica_ended() -> None:
    (step,) = steps(found(BAD))
    assert isinstance(step, a.TakeBack)
    assert (step.versions, step.watched) == ({"v2"}, True)
    assert step.reason == (
        "prod.ml.iris/2 was taken back after it had taken over: more than 50 % failed"
        " (55.0 % of 20 predictions failed, 95 % took at most 0.9 ms)"
    )
    down = replica(2, ReplicaState.STOPPED, message="killed\nits last line", failures=1, routed=True)
    ended = replace(found(BAD), replicas=(down,))
    (taken,) = (step for step in steps(ended) if isinstance(step, a.TakeBack))
    assert taken.reason.endswith("; a replica ended: killed\nits last line")


def test_few_predictions_say_nothing_and_neither_do_those_from_before() -> None:
    assert steps(found(Figures(0, SOME - 1))) == []
    before = replace(WATCHED, baseline={"gw": {"iris-v2": BAD}})
    assert steps(found(BAD, watching(before))) == []


def test_what_comes_back_or_takes_over_in_steps_is_not_watched() -> None:
    new, old = group(2, GroupState.WARM), group(1, GroupState.SERVING, weight=1)
    replicas = (replica(1), replica(2))
    taken_back = watching(None, rejection=Rejection("bad", frozenset(("v1",))))
    assert a.Shift({"g2": 1}) in steps(observed(taken_back, (old, new), replicas))
    promoted = Rollout(frozenset(("g2",)), {"g1": 1}, 0, NOW, {}, promoted=True)
    stepped = watching(promoted, rollout_policy=RolloutPolicy((5, 100)))
    assert a.Shift({"g2": 1}) in steps(observed(stepped, (old, new), replicas))


def test_another_change_is_watched_anew_and_another_weight_goes_on() -> None:
    third = replace(group(3, GroupState.WARM), name="iris-v3")
    healthy = (Gateway("gw", 9, frozenset(("iris-v2", "iris-v3"))),)
    changed = replace(watching(), targets=(target(3),))
    (shift,) = steps(observed(changed, (NEW, third), (replica(2), replica(3)), gateways=healthy))
    assert shift == a.Shift({"g3": 1}, replace(WATCHED, fresh=frozenset(("g3",))))
    heavier = replace(watching(), targets=(target(2, 7),))
    assert steps(observed(heavier, (NEW,), (replica(2),))) == [a.Shift({"g2": 7}, WATCHED)]


def test_a_resting_deployment_watches_nothing() -> None:
    assert a.Shift({}) in plan(found(BAD, watching(active=False)))
