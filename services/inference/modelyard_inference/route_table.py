"""Where predictions go, as gateways are told."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard_inference.traffic_limits import UNLIMITED, TrafficLimits
from modelyard_kit.access import Chain


@dataclass(frozen=True)
class RouteTarget:
    """A group as gateways see it."""

    group: str
    version: str
    weight: int
    addresses: tuple[str, ...]
    shadow_percent: int = 0
    shadow: bool = False
    held: bool = False
    """Whether it has no replica, and its address is that of what holds predictions until it has one."""


@dataclass(frozen=True)
class Route:
    """Where the predictions of one deployment go."""

    chain: Chain
    targets: tuple[RouteTarget, ...]
    max_request_bytes: int
    timeout_ms: int
    sticky_header: str = ""
    measured: bool = False
    """Whether gateways report figures about its groups."""
    traffic_limits: TrafficLimits = UNLIMITED
    private: bool = False
    idle: str = ""
    """State of the deployment if nothing answers for it."""


@dataclass(frozen=True)
class RouteTable:
    """Everything a gateway needs, complete."""

    version: int
    routes: tuple[Route, ...]
