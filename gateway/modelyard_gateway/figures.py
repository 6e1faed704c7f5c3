"""What Envoy counts about groups of replicas, as numbers that only grow while the agent lives, and what it has in flight.

Envoy begins to count anew when it restarts, and for replicas whenever the cluster of their group changes; it tells when that was. So the
agent looks every second and adds up what is new; what Envoy counted between the last look and such a change is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

K = TypeVar("K", str, float)

_WEIGHT = 0.2
_NOTHING = 0.01

Counters = Mapping[str, int]
"""Numbers that grow until they begin anew, by what is counted."""


@dataclass(frozen=True)
class Counted:
    """What Envoy has counted about one group."""

    answered: Counters = field(default_factory=dict)
    """Requests that did not fail, by address of the replica."""
    failed: Counters = field(default_factory=dict)
    """Those that did, by address."""
    latencies: Mapping[float, int] = field(default_factory=dict)
    """Requests by how long they took: how many up to a time in milliseconds, above the bound before."""
    cluster_since: str = ""
    """When Envoy took the cluster that its replicas are counted in, as RFC 3339."""
    envoy_since: str = ""
    """When Envoy started; latencies are counted since then."""
    in_flight: int = 0
    """Requests that wait for their answer now."""


@dataclass(frozen=True)
class Figures:
    """What was counted about one group since the agent began."""

    answered: int = 0
    failed: int = 0
    latencies: Mapping[float, int] = field(default_factory=dict)
    in_flight: float = 0.0
    """Requests that wait for their answer, averaged over the last looks: the newest counts a fifth."""


class Ledger:
    """Adds up what Envoy counts."""

    def __init__(self) -> None:
        self._last: dict[str, Counted] = {}
        self._totals: dict[str, Figures] = {}

    def note(self, groups: AbstractSet[str], found: Mapping[str, Counted]) -> Mapping[str, Figures]:
        """Add what was found anew of these groups and return their totals; every other group is forgotten.

        A group that was not found, as while Envoy starts, keeps its total.
        """
        for group in groups & found.keys():
            self._add(group, found[group])
        self._last = {group: last for group, last in self._last.items() if group in groups}
        self._totals = {group: total for group, total in self._totals.items() if group in groups}
        return dict(self._totals)

    def _add(self, group: str, now: Counted) -> None:
        last, total = self._last.get(group, Counted()), self._totals.get(group, Figures())
        goes_on = now.cluster_since == last.cluster_since
        answered = _grown(last.answered if goes_on else {}, now.answered)
        failed = _grown(last.failed if goes_on else {}, now.failed)
        latencies = _grown(last.latencies if now.envoy_since == last.envoy_since else {}, now.latencies)
        bounds = latencies.keys() | total.latencies.keys()
        self._last[group] = now
        self._totals[group] = Figures(
            total.answered + sum(answered.values()),
            total.failed + sum(failed.values()),
            {bound: total.latencies.get(bound, 0) + latencies.get(bound, 0) for bound in bounds},
            _averaged(total.in_flight, now.in_flight) if group in self._totals else now.in_flight,
        )


def _grown(before: Mapping[K, int], now: Mapping[K, int]) -> dict[K, int]:
    return {key: count - before.get(key, 0) for key, count in now.items()}


def _averaged(before: float, now: int) -> float:
    """Return the average with what was found now; what is left of an older number is 0 in the end."""
    average = before + (now - before) * _WEIGHT
    return average if average >= _NOTHING else 0.0
