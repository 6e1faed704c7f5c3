"""Settings and states for tests of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard_gateway.settings import GatewaySettings
from modelyard_gateway.table import Desired, Predictions, Route, RouteTable, SigningKey, SigningKeys, Target
from modelyard_kit.access import SYSTEM, Chain, Link, ResourceType

KEYS = SigningKeys("modelyard", (SigningKey("k1", "x-of-k1", "y-of-k1"),))
CHAIN: Chain = (
    Link(ResourceType.DEPLOYMENT, "d1", "prod.ml.iris", "owner"),
    Link(ResourceType.SCHEMA, "s1", "prod.ml"),
    Link(ResourceType.CATALOG, "c1", "prod"),
    SYSTEM,
)


def settings(**given: Any) -> GatewaySettings:
    services = ("catalog", "artifact", "governance", "inference")
    addresses = {f"{service}_address": f"unix:/run/m/{service}.sock" for service in services}
    return GatewaySettings(**{"envoy_directory": Path("/run/m/envoy"), **addresses, **given})


def target(group: str = "g1", weight: int = 1, *addresses: str) -> Target:
    return Target(group, "prod.ml.iris/1", weight, addresses or (f"unix:/run/m/{group}.sock",))


def desired(*targets: Target, allowed: tuple[str, ...] = ("p1",), **route: Any) -> Desired:
    made = Route(
        **{"deployment": CHAIN, "targets": targets, "max_request_bytes": 1000, "timeout": 60.0, **route}
    )
    return Desired(KEYS, Predictions(RouteTable(1, (made,)), {"d1": allowed}))
