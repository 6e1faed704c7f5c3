"""From the contract's limits of a deployment to this service's own. Every check of their shape is here."""

from __future__ import annotations

from typing import Final

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard_inference.models import DEFAULT_MAX_REQUEST_BYTES, DEFAULT_TIMEOUT_MS
from modelyard_inference.traffic_limits import TrafficLimits
from modelyard_kit.errors import Violation

MAX_REQUEST_BYTES: Final = 1024 * 2**20
MAX_TIMEOUT_MS: Final = 3_600_000
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


def max_request_bytes(value: int, problems: list[Violation]) -> int:
    """Read the largest request; what is wrong is added to `problems`."""
    if not 0 <= value <= MAX_REQUEST_BYTES:
        problems.append(
            Violation(
                "deployment.max_request_bytes",
                f"{value} is not between 1 and {MAX_REQUEST_BYTES}; 0 means 64 MiB",
            )
        )
    return value or DEFAULT_MAX_REQUEST_BYTES


def timeout_ms(message: d.Deployment, problems: list[Violation]) -> int:
    """Read the longest time of a prediction; what is wrong is added to `problems`."""
    if not message.HasField("timeout"):
        return DEFAULT_TIMEOUT_MS
    milliseconds = message.timeout.seconds * 1000 + message.timeout.nanos // 1_000_000
    if not 1 <= milliseconds <= MAX_TIMEOUT_MS:
        problems.append(Violation("deployment.timeout", "is not between 1 millisecond and 1 hour"))
    return milliseconds
