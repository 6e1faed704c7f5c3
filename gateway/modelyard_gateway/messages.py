"""From messages of the services to the values of `table`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from modelyard.api.governance.v1 import governance_service_pb2
from modelyard.api.inference.v1 import deployment_pb2, route_pb2
from modelyard.api.inference.v1.inference_service_pb2 import GroupFigures, LatencyBucket
from modelyard_gateway.figures import Figures
from modelyard_gateway.table import Limits, Route, RouteTable, SigningKey, SigningKeys, Target
from modelyard_kit.config import check_address
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import chain_from_proto

MAX_PERCENT = 100


def table_from_proto(message: route_pb2.RouteTable) -> RouteTable:
    """Return the table of a message.

    Raises:
        InvalidField: a route is incomplete.
    """
    return RouteTable(message.version, tuple(_route(route) for route in message.routes))


def keys_from_proto(message: governance_service_pb2.GetJwksResponse) -> SigningKeys:
    """Return the signing keys of a message.

    Raises:
        InvalidField: there is none, or one is not ES256.
    """
    if not message.keys:
        raise InvalidField("keys", "governance must publish at least one signing key")
    for key in message.keys:
        if key.alg != "ES256":
            raise InvalidField("keys.alg", f"{key.alg!r} is not supported; ES256 is")
    keys = tuple(SigningKey(key.kid, key.x, key.y) for key in message.keys)
    return SigningKeys(message.issuer, keys)


def figures_to_proto(found: Mapping[str, Figures]) -> list[GroupFigures]:
    """Return the messages of what was counted, by name of the group."""
    return [
        GroupFigures(
            group=group,
            answered=figures.answered,
            failed=figures.failed,
            latencies=[
                LatencyBucket(upper_milliseconds=bound, count=count)
                for bound, count in sorted(figures.latencies.items())
                if count
            ],
            in_flight=figures.in_flight,
        )
        for group, figures in sorted(found.items())
    ]


def _route(message: route_pb2.Route) -> Route:
    chain = chain_from_proto(message.deployment, "routes.deployment")
    return Route(
        deployment=chain,
        targets=tuple(_target(target) for target in message.targets),
        max_request_bytes=message.max_request_bytes,
        timeout=message.timeout.ToNanoseconds() / 1e9,
        sticky_header=message.sticky_header,
        measured=message.measured,
        limits=_limits(message.traffic_limits),
        idle=_idle(message),
        private=message.private,
    )


def _idle(message: route_pb2.Route) -> str:
    return deployment_pb2.Deployment.State.Name(message.idle).removeprefix("STATE_") if message.idle else ""


def _limits(message: deployment_pb2.TrafficLimits) -> Limits:
    given: dict[str, int] = {each.name: getattr(message, each.name) for each in fields(Limits)}
    for name, value in given.items():
        if value < 0:
            raise InvalidField(f"routes.traffic_limits.{name}", f"{value} is negative")
    return Limits(**given)


def _target(message: route_pb2.RouteTarget) -> Target:
    if not message.group:
        raise InvalidField("routes.targets.group", "must be set")
    if message.weight < 0:
        raise InvalidField("routes.targets.weight", f"{message.weight} is negative")
    for address in message.addresses:
        try:
            check_address(address)
        except ValueError as error:
            raise InvalidField("routes.targets.addresses", str(error)) from error
    if not 0 <= message.shadow_percent <= MAX_PERCENT:
        raise InvalidField(
            "routes.targets.shadow_percent", f"{message.shadow_percent} is not between 0 and 100"
        )
    return Target(
        message.group,
        message.model_version,
        message.weight,
        tuple(message.addresses),
        message.shadow_percent,
        message.shadow,
        message.held,
    )
