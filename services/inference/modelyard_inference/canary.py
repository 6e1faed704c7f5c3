"""How a new version takes the traffic over in steps, and what decides whether it goes on or back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

QUANTILE = 0.95
"""Of the latencies that are compared."""


@dataclass(frozen=True)
class RolloutPolicy:
    """How a new version takes the traffic over; without steps all at once."""

    steps: tuple[int, ...] = ()
    """Shares of the new one after the other, in percent; the last is 100."""
    pause_ms: int = 0
    """Shortest time of each step."""
    min_requests: int = 0
    """Predictions that the new must have taken in a step before it is judged."""
    max_error_percent: float = 0.0
    """Largest share of them that may fail."""
    max_error_rise: float = 0.0
    """Percentage points by which that share may be above that of the old."""
    max_latency_ms: int = 0
    """Longest 95th percentile of the time they take; 0 for no bound."""
    max_latency_ratio: float = 0.0
    """Largest ratio of that to the old's; 0 for no bound."""

    def percent_at(self, step: int) -> int:
        """Return the share of the new at a step; everything after the last, as when a caller took steps away."""
        return self.steps[step] if step < len(self.steps) else 100

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RolloutPolicy:
        """Return the policy of its JSON form."""
        return cls(**{**value, "steps": tuple(value.get("steps", ()))})


AT_ONCE = RolloutPolicy()
WATCH = RolloutPolicy((100,), pause_ms=60_000, min_requests=20, max_error_percent=50.0, max_error_rise=100.0)
"""How a version is judged, and for how long, that took over at once: it goes back only if it is plainly broken."""


@dataclass(frozen=True)
class Figures:
    """What was counted about predictions; numbers that only grow."""

    answered: int = 0
    failed: int = 0
    latencies: Mapping[float, int] = field(default_factory=dict)
    """Predictions by the time they took: how many by upper bounds in milliseconds."""

    def __add__(self, other: Figures) -> Figures:
        """Return the sums."""
        bounds = self.latencies.keys() | other.latencies.keys()
        latencies = {b: self.latencies.get(b, 0) + other.latencies.get(b, 0) for b in bounds}
        return Figures(self.answered + other.answered, self.failed + other.failed, latencies)

    def since(self, before: Figures) -> Figures:
        """Return what was counted since; everything if the one who counts has begun anew."""
        latencies = {b: count - before.latencies.get(b, 0) for b, count in self.latencies.items()}
        answered, failed = self.answered - before.answered, self.failed - before.failed
        if answered < 0 or failed < 0 or any(count < 0 for count in latencies.values()):
            return self
        return Figures(answered, failed, latencies)

    @property
    def requests(self) -> int:
        """Return how many predictions there were."""
        return self.answered + self.failed

    @property
    def error_percent(self) -> float:
        """Return the share of predictions that failed."""
        return 100.0 * self.failed / self.requests if self.requests else 0.0

    @property
    def latency_ms(self) -> float:
        """Return the 95th percentile of the time predictions took, as if evenly spread within each bound."""
        wanted, seen, lower = QUANTILE * sum(self.latencies.values()), 0, 0.0
        for upper, count in sorted(self.latencies.items()):
            if count and seen + count >= wanted:
                return lower + (upper - lower) * (wanted - seen) / count
            seen, lower = seen + count, upper
        return lower

    def __str__(self) -> str:
        """Return the figures for people."""
        return (
            f"{self.error_percent:.1f} % of {self.requests} predictions failed,"
            f" 95 % took at most {self.latency_ms:.1f} ms"
        )


@dataclass(frozen=True)
class Rollout:
    """A rollout that is under way."""

    fresh: frozenset[str]
    """Ids of the groups that take over."""
    old: Mapping[str, int]
    """Weights of the groups that answered before, by id; they are kept until the rollout ends."""
    step: int
    """Position in the steps of the policy."""
    since: datetime
    """When the step began."""
    baseline: Mapping[str, Mapping[str, Figures]]
    """What gateways had counted by then, by id of the gateway and name of the group."""
    paused: bool = False
    """Whether a caller wants it to stay at this step."""
    promoted: bool = False
    """Whether a caller wants the rest at once, without further judgement."""
    watching: bool = False
    """Whether the new have everything already, and are only judged; nothing is kept for it."""
    exchange: bool = False
    """Whether the new take the places of the old one by one, instead of standing beside them; `step` counts those that have theirs."""

    @property
    def kept(self) -> frozenset[str]:
        """Return the ids of the groups that stay until it ends, without traffic if need be, to go back to."""
        return frozenset() if self.exchange or self.watching else frozenset(self.old)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        baseline = {
            gateway: {
                group: {**asdict(f), "latencies": sorted(f.latencies.items())} for group, f in groups.items()
            }
            for gateway, groups in self.baseline.items()
        }
        return {
            "fresh": sorted(self.fresh),
            "old": dict(self.old),
            "step": self.step,
            "since": self.since.isoformat(),
            "baseline": baseline,
            "paused": self.paused,
            "promoted": self.promoted,
            "watching": self.watching,
            "exchange": self.exchange,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rollout:
        """Return the rollout of its JSON form."""
        baseline = {
            gateway: {
                group: Figures(**{**f, "latencies": dict(f["latencies"])}) for group, f in groups.items()
            }
            for gateway, groups in value["baseline"].items()
        }
        since = datetime.fromisoformat(value["since"])
        return cls(**{**value, "fresh": frozenset(value["fresh"]), "since": since, "baseline": baseline})


@dataclass(frozen=True)
class Rejection:
    """Why what was asked for was taken back."""

    reason: str
    versions: frozenset[str]
    """Ids of the versions that took over and had to go; a followed alias that still means one does not bring it back."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"reason": self.reason, "versions": sorted(self.versions)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rejection:
        """Return the rejection of its JSON form."""
        return cls(value["reason"], frozenset(value["versions"]))


_PARTS = 10_000


def step_weights(old: Mapping[str, int], new: Mapping[str, int], percent: int) -> dict[str, int]:
    """Return weights by which `new` gets a percentage of the traffic and `old` the rest, each shared as its own weights say."""
    weights: dict[str, int] = {}
    for side, share in ((old, 100 - percent), (new, percent)):
        total = sum(side.values())
        for group_id, weight in side.items():
            part = share * max(1, round(_PARTS * weight / total))
            if part:
                weights[group_id] = weights.get(group_id, 0) + part
    return weights


def breach(policy: RolloutPolicy, new: Figures, old: Figures) -> str:
    """Return which bound the new does not keep to; empty if it keeps to all, or took too few predictions to tell."""
    if new.requests < policy.min_requests:
        return ""
    if new.error_percent > policy.max_error_percent:
        return f"more than {policy.max_error_percent:g} % failed"
    if policy.max_latency_ms and new.latency_ms > policy.max_latency_ms:
        return f"the 95th percentile is above {policy.max_latency_ms} ms"
    if old.requests < policy.min_requests:
        return ""
    if new.error_percent > old.error_percent + policy.max_error_rise:
        return f"more than {policy.max_error_rise:g} percentage points more failed than of the old ({old})"
    if policy.max_latency_ratio and new.latency_ms > old.latency_ms * policy.max_latency_ratio:
        return f"the 95th percentile is above {policy.max_latency_ratio:g} times that of the old ({old})"
    return ""
