"""What a replica counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.api.inference.v1.replica_service_pb2 import GetStatisticsResponse
from modelyard_inference.replica.errors import InvalidTensor, ModelFailed, QueueFull
from modelyard_inference.replica.statistics import BOUNDS, Statistics, memory_bytes
from modelyard_kit.errors import DeadlineExceeded


def told(statistics: Statistics) -> GetStatisticsResponse:
    return GetStatisticsResponse.FromString(statistics.render(in_flight=3, pending=2))


def test_answers_are_counted_by_time() -> None:
    statistics = Statistics()
    for nanoseconds in (1, 250_000, 250_001, 999_999_999, 1_000_000_000, 61_000_000_000):
        statistics.answered(nanoseconds, read_ns=10, write_ns=20)
    found = told(statistics)
    counters = found.counters
    assert (counters.success_count, counters.compute_input_ns, counters.compute_output_ns) == (6, 60, 120)
    assert counters.request_ns == 63_000_500_001
    assert list(counters.latency_bounds) == list(BOUNDS) == sorted(set(BOUNDS))
    by_bound = dict(zip([*BOUNDS, float("inf")], counters.latency_counts, strict=True))
    assert {bound: count for bound, count in by_bound.items() if count} == {
        0.00025: 2, 0.0005: 1, 1.0: 2, float("inf"): 1,
    }  # fmt: skip
    assert (found.in_flight, found.pending) == (3, 2)
    assert found.memory_bytes > 10 * 2**20


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (QueueFull(1), "REJECTED"),
        (DeadlineExceeded(), "REJECTED"),
        (None, "CANCELED"),
        (ModelFailed("id"), "BACKEND"),
        (InvalidTensor("x", "is odd"), "OTHER"),
        (RuntimeError("ours"), "OTHER"),
    ],
)
def test_failures_are_counted_by_why(error: Exception | None, reason: str) -> None:
    statistics = Statistics()
    statistics.failed(error)
    counters = told(statistics).counters
    assert counters.failure_counts.pop(reason) == 1
    assert set(counters.failure_counts.values()) == {0}
    assert counters.success_count == 0


def test_memory_is_told_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    now = memory_bytes()
    monkeypatch.setattr("modelyard_inference.replica.statistics._MEMORY", Path("/nowhere"))
    assert memory_bytes() > now / 10
