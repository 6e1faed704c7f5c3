"""What callers may ask of a deployment. Gateways see to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrafficLimits:
    """What callers may ask of a deployment through each gateway; 0 for no limit."""

    requests_per_second: int = 0
    bandwidth_mbps: int = 0
    concurrent_per_replica: int = 0


UNLIMITED = TrafficLimits()
