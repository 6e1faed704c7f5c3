"""The state a gateway serves, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard_kit.access import Chain


@dataclass(frozen=True)
class Target:
    """A group of replicas of one version; `weight` 0 while it is being brought up or drained, or if it is a shadow."""

    group: str
    model_version: str
    weight: int
    addresses: tuple[str, ...]
    shadow_percent: int = 0
    """Share of the predictions of which it gets a copy; its answers reach nobody."""
    shadow: bool = False
    """Whether it is one, also while it gets no copies yet."""
    held: bool = False
    """Whether its only address is that of what holds predictions until it has a replica, and has to be told the group of each."""


@dataclass(frozen=True)
class Limits:
    """What callers may ask of a deployment through this gateway; 0 for no limit."""

    requests_per_second: int = 0
    bandwidth_mbps: int = 0
    """Megabits per second of requests and answers."""
    concurrent_per_replica: int = 0


UNLIMITED = Limits()


@dataclass(frozen=True)
class Route:
    """Where the predictions of one deployment go. `timeout` is in seconds, 0 means none."""

    deployment: Chain
    targets: tuple[Target, ...]
    max_request_bytes: int
    timeout: float
    sticky_header: str = ""
    """Header whose value decides the target; empty for none."""
    measured: bool = False
    """Whether figures about its groups are reported."""
    limits: Limits = UNLIMITED
    idle: str = ""
    """State of the deployment while nothing answers for it: CREATING, FAILED or INACTIVE."""
    private: bool = False
    """Whether it answers on the private listener alone."""

    @property
    def name(self) -> str:
        """Name of the deployment."""
        return self.deployment[0].name

    @property
    def serving(self) -> tuple[Target, ...]:
        """The targets that answer predictions."""
        return tuple(t for t in self.targets if t.weight and t.addresses)

    @property
    def mirror(self) -> Target | None:
        """The target that gets copies of predictions; None if nothing does."""
        return next((t for t in self.targets if t.shadow_percent and t.addresses), None)


@dataclass(frozen=True)
class RouteTable:
    """Every route, as of `version`."""

    version: int
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class SigningKey:
    """A public key of the issuer, EC P-256, coordinates in base64url."""

    kid: str
    x: str
    y: str


@dataclass(frozen=True)
class SigningKeys:
    """What verifies tokens."""

    issuer: str
    keys: tuple[SigningKey, ...]


@dataclass(frozen=True)
class Predictions:
    """The route table with, for each deployment id, the ids of the principals that may predict."""

    table: RouteTable
    allowed: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Desired:
    """Everything Envoy is configured from. `predictions` is None until routes and grants are known for the first time."""

    keys: SigningKeys
    predictions: Predictions | None
