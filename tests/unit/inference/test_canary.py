"""Weights of a step, figures that only grow, and the bounds that a new version has to keep."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from modelyard_inference.canary import Figures, Rollout, RolloutPolicy, breach, step_weights

POLICY = RolloutPolicy(
    (5, 100),
    min_requests=10,
    max_error_percent=10.0,
    max_error_rise=2.0,
    max_latency_ms=50,
    max_latency_ratio=2.0,
)
FAST = {10.0: 100, 20.0: 0}


def figures(answered: int = 100, failed: int = 0, latencies: dict[float, int] | None = None) -> Figures:
    return Figures(answered, failed, FAST if latencies is None else latencies)


@pytest.mark.parametrize(
    ("percent", "weights"),
    [
        (5, {"a": 95 * 10_000, "b": 5 * 10_000}),
        (100, {"b": 100 * 10_000}),
    ],
)
def test_a_step_shares_between_old_and_new(percent: int, weights: dict[str, int]) -> None:
    assert step_weights({"a": 7}, {"b": 1}, percent) == weights


def test_each_side_keeps_its_own_shares_and_a_group_may_be_on_both() -> None:
    found = step_weights({"a": 1, "b": 3}, {"b": 1, "c": 1}, 20)
    assert found == {"a": 80 * 2_500, "b": 80 * 7_500 + 20 * 5_000, "c": 20 * 5_000}
    assert sum(found.values()) == 100 * 10_000


def test_no_target_is_too_small_to_be_served() -> None:
    assert step_weights({"a": 1}, {"b": 1_000_000, "c": 1}, 1)["c"] == 1


def test_figures_of_a_gateway_that_began_anew_count_from_nothing() -> None:
    before = Figures(10, 2, {1.0: 12})
    assert Figures(15, 2, {1.0: 17}).since(before) == Figures(5, 0, {1.0: 5})
    assert Figures(3, 0, {1.0: 3}).since(before) == Figures(3, 0, {1.0: 3})


@pytest.mark.parametrize(
    ("latencies", "expected"),
    [({}, 0.0), ({1.0: 100}, 0.95), ({1.0: 90, 2.0: 10}, 1.5), ({1.0: 0, 5.0: 1}, 4.8)],
)
def test_the_percentile_lies_within_its_bucket(latencies: dict[float, int], expected: float) -> None:
    assert Figures(latencies=latencies).latency_ms == pytest.approx(expected)


@pytest.mark.parametrize(
    ("new", "old", "told"),
    [
        (figures(), figures(), ""),
        (figures(0, 9), figures(), ""),  # too few to tell
        (figures(80, 20), figures(0, 0, {}), "more than 10 % failed"),
        (figures(95, 5), figures(), "more than 2 percentage points more failed than of the old"),
        (figures(95, 5), figures(96, 4), ""),
        (figures(95, 5), figures(9, 0), ""),  # too few of the old to compare with
        (figures(latencies={60.0: 100}), figures(), "above 50 ms"),
        (figures(latencies={10.0: 0, 30.0: 100}), figures(), "above 2 times that of the old"),
        (figures(latencies={10.0: 0, 12.0: 100}), figures(), ""),
    ],
)
def test_bounds(new: Figures, old: Figures, told: str) -> None:
    found = breach(POLICY, new, old)
    assert (told in found) if told else found == ""


def test_without_bounds_everything_goes() -> None:
    free = replace(
        POLICY, max_error_percent=100.0, max_error_rise=100.0, max_latency_ms=0, max_latency_ratio=0.0
    )
    assert breach(free, figures(0, 100, {9e9: 100}), figures()) == ""


def test_a_rollout_is_read_back_as_it_was_written() -> None:
    baseline = {"gw": {"iris-v1": Figures(3, 1, {0.5: 2, 1.0: 2})}}
    made = Rollout(frozenset("ab"), {"c": 3}, 1, datetime(2026, 1, 1, tzinfo=UTC), baseline, paused=True)
    assert Rollout.from_json(json.loads(json.dumps(made.to_json()))) == made
