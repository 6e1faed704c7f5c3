"""What happened between two looks at the figures of a deployment: rates and percentiles, replica by replica and in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from modelyard.types import InferenceCounters

if TYPE_CHECKING:
    from modelyard.types import DeploymentStatistics, ReplicaStatistics

_GONE = "CANCELED"
"""Why of predictions whose caller went, which is nobody's error."""


@dataclass(frozen=True)
class Row:
    """A deployment or one of its replicas; None where nothing is known yet."""

    deployment: str
    replica: str
    """Its id; empty for all replicas that answer."""
    model_version: str
    state: str
    predictions_per_second: float | None
    errors_per_second: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    in_flight: int
    pending: int
    memory_bytes: int
    restarts: int


@dataclass(frozen=True)
class _Happened:
    """What was counted between two looks."""

    answered: int = 0
    failed: int = 0
    bounds: tuple[float, ...] = ()
    latencies: tuple[int, ...] = ()

    def __add__(self, other: _Happened) -> _Happened:
        bounds, latencies = self.bounds or other.bounds, self.latencies or other.latencies
        if self.bounds == other.bounds:  # else one is empty, or of another release and left out
            latencies = tuple(map(sum, zip(self.latencies, other.latencies, strict=True)))
        return _Happened(self.answered + other.answered, self.failed + other.failed, bounds, latencies)


def rows(before: DeploymentStatistics | None, now: DeploymentStatistics) -> list[Row]:
    """A deployment and its replicas, with what happened since the look before, if there was one."""
    seconds = (now.time - before.time).total_seconds() if before and before.time and now.time else 0.0
    known = {one.replica: one.counters for one in before.replicas if one.measured} if before else {}
    happened = {one.replica: _between(known, one) for one in now.replicas}
    answering = [one for one in now.replicas if not one.shadow]
    total = sum((happened[one.replica] for one in answering), start=_Happened())
    versions = dict.fromkeys(one.model_version for one in answering)
    found = [
        Row(
            now.deployment,
            "",
            ", ".join(versions),
            str(now.state or ""),
            *_rates(total, seconds),
            sum(one.in_flight for one in answering),
            sum(one.pending for one in answering),
            sum(one.memory_bytes for one in now.replicas),
            sum(one.restarts for one in now.replicas),
        )
    ]
    for one in now.replicas:
        state = f"{one.state or ''}{' shadow' if one.shadow else ''}"
        rates = _rates(happened[one.replica], seconds if one.measured else 0.0)
        found.append(
            Row(
                now.deployment,
                one.replica,
                one.model_version,
                state,
                *rates,
                one.in_flight,
                one.pending,
                one.memory_bytes,
                one.restarts,
            )
        )
    return found


def percentile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """The time within which a share of what was counted was done: within a bucket in proportion; None if nothing was counted."""
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    for index, reached in enumerate(accumulate(counts)):
        if reached >= wanted and counts[index]:
            if index == len(bounds):
                break
            lower = bounds[index - 1] if index else 0.0
            part = (wanted - (reached - counts[index])) / counts[index]
            return lower + (bounds[index] - lower) * part
    return bounds[-1]  # at least


def _between(known: Mapping[str, InferenceCounters], one: ReplicaStatistics) -> _Happened:
    now, before = one.counters, known.get(one.replica, InferenceCounters())
    if before.success_count > now.success_count:  # its process was started again
        before = InferenceCounters()
    latencies = now.latency_counts
    if before.latency_bounds == now.latency_bounds:
        latencies = tuple(b - a for a, b in zip(before.latency_counts, now.latency_counts, strict=True))
    return _Happened(
        now.success_count - before.success_count,
        max(0, _errors(now) - _errors(before)),
        now.latency_bounds,
        latencies,
    )


def _errors(counters: InferenceCounters) -> int:
    return sum(count for why, count in counters.failure_counts.items() if why != _GONE)


def _rates(
    happened: _Happened, seconds: float
) -> tuple[float | None, float | None, float | None, float | None]:
    if seconds <= 0:
        return None, None, None, None
    return (
        happened.answered / seconds,
        happened.failed / seconds,
        percentile(0.5, happened.bounds, happened.latencies),
        percentile(0.95, happened.bounds, happened.latencies),
    )
