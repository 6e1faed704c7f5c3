"""The state a gateway serves, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelyard_kit.access import Chain


@dataclass(frozen=True)
class Target:
    """A group of replicas of one version; `weight` 0 while it is being brought up or drained."""

    group: str
    model_version: str
    weight: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """Where the predictions of one deployment go. `timeout` is in seconds, 0 means none."""

    deployment: Chain
    targets: tuple[Target, ...]
    max_request_bytes: int
    timeout: float
    sticky_header: str = ""
    """Header whose value decides the target; empty for none."""

    @property
    def name(self) -> str:
        """Name of the deployment."""
        return self.deployment[0].name


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
