"""From the contract's limits of traffic to this service's own. Every check of their shape is here."""

from __future__ import annotations

from typing import Final

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard_inference.traffic_limits import TrafficLimits
from modelyard_kit.errors import Violation

_MOST: Final = {
    "requests_per_second": 1_000_000,
    "bandwidth_mbps": 100_000,
    "concurrent_per_replica": 10_000,
}


def parse_limits(message: d.TrafficLimits, problems: list[Violation]) -> TrafficLimits:
    """Read what callers may ask of a deployment; what is wrong is added to `problems`."""
    given: dict[str, int] = {name: getattr(message, name) for name in _MOST}
    problems += [
        Violation(
            f"deployment.traffic_limits.{name}",
            f"{value} is not between 1 and {_MOST[name]:,}; 0 means no limit",
        )
        for name, value in given.items()
        if not 0 <= value <= _MOST[name]
    ]
    return TrafficLimits(**given)
