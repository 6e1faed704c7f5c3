"""What the planner does with a rollout in steps, in every state that a crash or a caller can leave."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from modelyard_inference import actions as a
from modelyard_inference.canary import Figures, Rejection, Rollout, RolloutPolicy
from modelyard_inference.models import Deployment, DeploymentState, GroupState, ReplicaState
from modelyard_inference.planner import plan
from modelyard_inference.planner.observed import Gateway, Observed
from tests.unit.inference.test_planner import (
    NOW,
    READY,
    deployment,
    group,
    observed,
    replica,
    report,
    steps,
    target,
)

POLICY = RolloutPolicy(
    (20, 100), pause_ms=10_000, min_requests=10, max_error_percent=5.0, max_error_rise=100.0
)
OLD = group(1, GroupState.SERVING, weight=1)
NEW = group(2, GroupState.WARM)
FIRST = Rollout(frozenset(("g2",)), {"g1": 1}, 0, NOW, {"gw": {}})
TWENTY = {"g1": 800_000, "g2": 200_000}
REPLICAS = (replica(1), replica(2))
GOOD, BAD = Figures(100, 0, {1.0: 100}), Figures(90, 10, {1.0: 0, 2.0: 100})
LATER = NOW + timedelta(seconds=10)


def rolling(rollout: Rollout | None = FIRST, **changes: object) -> Deployment:
    given = {"state": DeploymentState.UPDATING, "rollout_policy": POLICY, "rollout": rollout, **changes}
    return deployment(target(2, serving="prod.ml.iris/1"), **given)  # type: ignore[arg-type]


def gateway(new: Figures = GOOD, old: Figures = GOOD) -> Gateway:
    figures = {"iris-v2": new, "iris-v1": old}
    return Gateway("gw", 9, frozenset(figures), figures=figures)


def at_step(
    percent_weights: dict[str, int] = TWENTY, rollout: Rollout | None = FIRST, **found: object
) -> Observed:
    old = replace(OLD, weight=percent_weights.get("g1", 0))
    if not old.weight:
        old = replace(old, state=GroupState.WARM)
    new = replace(NEW, state=GroupState.SERVING, weight=percent_weights["g2"])
    given = {"gateways": (gateway(),), **found}
    deployed = given.pop("deployed", None) or rolling(rollout)
    return observed(deployed, (old, new), REPLICAS, **given)  # type: ignore[arg-type]


def test_it_begins_when_the_new_is_healthy_and_counts_from_there() -> None:
    found = observed(rolling(None), (OLD, NEW), REPLICAS, gateways=(gateway(),))
    baseline = {"gw": {"iris-v2": GOOD, "iris-v1": GOOD}}
    assert steps(found) == [a.Shift(TWENTY, replace(FIRST, baseline=baseline))]
    cold = Gateway("gw", 9, frozenset(("iris-v1",)))
    assert steps(observed(rolling(None), (OLD, NEW), REPLICAS, gateways=(cold,))) == []


def test_the_first_version_of_all_needs_no_steps() -> None:
    made = rolling(None, state=DeploymentState.CREATING)
    found = observed(made, (NEW,), (replica(2),), gateways=(gateway(),))
    assert steps(found) == [a.Shift({"g2": 1})]


def test_a_change_without_new_replicas_needs_no_steps() -> None:
    both = deployment(target(1, 3), target(2, 1), rollout_policy=POLICY)
    groups = (OLD, replace(NEW, state=GroupState.SERVING, weight=5))
    assert steps(observed(both, groups, REPLICAS)) == [a.Shift({"g1": 3, "g2": 1})]


def test_a_step_lasts_its_time_and_its_predictions() -> None:
    assert steps(at_step()) == []
    few = gateway(Figures(9, 0, {1.0: 9}))
    assert steps(at_step(now=LATER, gateways=(few,))) == []
    assert report(at_step()) == (
        DeploymentState.UPDATING,
        "step 1 of 2: 20 % of the traffic to prod.ml.iris/2",
    )


def test_then_comes_the_next_one_and_the_old_stays() -> None:
    baseline = {"gw": {"iris-v2": GOOD, "iris-v1": GOOD}}
    second = replace(FIRST, step=1, since=LATER, baseline=baseline)
    assert steps(at_step(now=LATER)) == [a.Shift({"g2": 1_000_000}, second)]
    last = at_step({"g2": 1_000_000}, second, now=LATER)
    assert steps(last) == []  # nothing counted yet, and the old is kept warm beside it
    assert report(last)[1].startswith("step 2 of 2: 100 %")


def test_after_the_last_step_the_old_may_go() -> None:
    second = replace(FIRST, step=1)
    assert steps(at_step({"g2": 1_000_000}, second, now=LATER)) == [a.Shift({"g2": 1})]
    done = at_step({"g2": 1}, None)
    assert steps(done) == [a.EndGroup("g1")]


def test_what_all_gateways_count_is_one() -> None:
    half = Figures(5, 0, {1.0: 5})
    other = replace(gateway(half), id="other")
    found = at_step(now=LATER, gateways=(gateway(half), other))
    assert [type(step) for step in steps(found)] == [a.Shift]


def test_a_breach_is_taken_back_at_once_with_the_figures() -> None:
    (step,) = steps(at_step(gateways=(gateway(BAD),)))
    assert isinstance(step, a.TakeBack)
    assert step.versions == {"v2"}
    assert step.reason == (
        "prod.ml.iris/2 was taken back at 20 % of the traffic: more than 5 % failed"
        " (10.0 % of 100 predictions failed, 95 % took at most 1.9 ms)"
    )


def test_what_was_counted_before_the_step_says_nothing() -> None:
    bad_before = replace(FIRST, baseline={"gw": {"iris-v2": BAD}})
    now = Figures(BAD.answered + 20, BAD.failed, {1.0: 120})
    assert steps(at_step(rollout=bad_before, gateways=(gateway(now),))) == []


def test_a_paused_one_stays_but_is_still_taken_back() -> None:
    paused = replace(FIRST, paused=True)
    assert steps(at_step(rollout=paused, now=LATER)) == []
    assert report(at_step(rollout=paused))[1].endswith(", paused")
    (step,) = steps(at_step(rollout=paused, gateways=(gateway(BAD),)))
    assert isinstance(step, a.TakeBack)


def test_a_promoted_one_gets_everything_unjudged() -> None:
    promoted = replace(FIRST, promoted=True)
    assert steps(at_step(rollout=promoted, gateways=(gateway(BAD),))) == [a.Shift({"g2": 1})]


def test_after_it_was_taken_back_the_old_gets_everything_at_once() -> None:
    back = deployment(
        target(1),
        rollout_policy=POLICY,
        rejection=Rejection("too bad", frozenset(("v2",))),
        state=DeploymentState.UPDATING,
    )
    found = at_step({"g2": 1_000_000}, None, deployed=back)
    assert steps(found) == [a.Shift({"g1": 1})]
    settled = observed(back, (OLD,), (replica(1),))
    assert steps(settled) == []
    assert report(settled) == (DeploymentState.FAILED, "too bad")
    told = replace(back, state=DeploymentState.FAILED, state_message="too bad")
    assert report(observed(told, (OLD,), (replica(1),))) == (DeploymentState.FAILED, "too bad")


def test_a_version_that_fails_to_start_again_and_again_is_taken_back() -> None:
    def found(failures: int) -> Observed:
        down = replica(2, ReplicaState.STOPPED, failures=failures, message="cannot be loaded")
        starting = replace(NEW, state=GroupState.STARTING)
        return observed(rolling(None), (OLD, starting), (replica(1), down), processes={"r1.0": READY})

    assert not any(isinstance(step, a.TakeBack) for step in steps(found(2)))
    (step,) = (step for step in steps(found(3)) if isinstance(step, a.TakeBack))
    assert step.reason == "prod.ml.iris/2 was taken back, it could not be started: cannot be loaded"


def test_another_change_on_the_way_begins_from_what_is_proven() -> None:
    third = replace(group(3, GroupState.WARM), name="iris-v3")
    groups = (replace(OLD, weight=800_000), replace(NEW, state=GroupState.SERVING, weight=200_000), third)
    made = deployment(target(3), rollout_policy=POLICY, rollout=FIRST)
    (step,) = steps(
        observed(
            made,
            groups,
            (*REPLICAS, replica(3)),
            gateways=(Gateway("gw", 9, frozenset(("iris-v1", "iris-v3"))),),
        )
    )
    assert isinstance(step, a.Shift)
    assert step.weights == {"g1": 800_000, "g3": 200_000}
    assert step.rollout is not None
    assert (step.rollout.fresh, step.rollout.old) == ({"g3"}, {"g1": 1})


def test_back_to_the_old_on_the_way_is_no_rollout() -> None:
    groups = (replace(OLD, weight=800_000), replace(NEW, state=GroupState.SERVING, weight=200_000))
    made = deployment(target(1), rollout_policy=POLICY, rollout=FIRST)
    assert steps(observed(made, groups, REPLICAS)) == [a.Shift({"g1": 1})]


def test_a_resting_deployment_keeps_nothing() -> None:
    resting = rolling(active=False)
    assert a.Shift({}) in plan(at_step(deployed=resting))
    warm = at_step({"g2": 1_000_000}, deployed=resting)
    assert a.EndGroup("g1") in plan(warm)
