"""What Envoy counts about groups of replicas, as numbers that only grow while the agent lives.

Envoy begins to count anew when it restarts, and for a replica whenever the cluster of its group changes. So the agent looks every second
and adds up what is new; what Envoy counted between the last look and such a change is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

K = TypeVar("K", str, float)

Counters = Mapping[str, int]
"""Numbers that grow until they begin anew, by what they count."""


@dataclass(frozen=True)
class Counted:
    """What Envoy has counted about one group."""

    answered: Counters = field(default_factory=dict)
    """Requests that did not fail, by address of the replica."""
    failed: Counters = field(default_factory=dict)
    """Those that did, by address."""
    latencies: Mapping[float, int] = field(default_factory=dict)
    """Requests by how long they took: how many up to a time in milliseconds, above the bound before."""


@dataclass(frozen=True)
class Figures:
    """What was counted about one group since the agent began."""

    answered: int = 0
    failed: int = 0
    latencies: Mapping[float, int] = field(default_factory=dict)


class Ledger:
    """Adds up what Envoy counts."""

    def __init__(self) -> None:
        self._last: dict[str, Counted] = {}
        self._totals: dict[str, Figures] = {}

    def note(self, found: Mapping[str, Counted]) -> Mapping[str, Figures]:
        """Add what is new of these groups and return their totals; every other group is forgotten."""
        for group, now in found.items():
            before, total = self._last.get(group, Counted()), self._totals.get(group, Figures())
            latencies = _grown(before.latencies, now.latencies)
            bounds = latencies.keys() | total.latencies.keys()
            self._totals[group] = Figures(
                total.answered + sum(_grown(before.answered, now.answered).values()),
                total.failed + sum(_grown(before.failed, now.failed).values()),
                {bound: total.latencies.get(bound, 0) + latencies.get(bound, 0) for bound in bounds},
            )
        self._forget(found.keys())
        self._last = dict(found)
        return dict(self._totals)

    def _forget(self, kept: Collection[str]) -> None:
        for group in self._totals.keys() - set(kept):
            del self._totals[group]


def _grown(before: Mapping[K, int], now: Mapping[K, int]) -> dict[K, int]:
    """Return by how much each number has grown; one that is smaller than before has begun anew."""
    return {
        key: count - since if count >= (since := before.get(key, 0)) else count for key, count in now.items()
    }
