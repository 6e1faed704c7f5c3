"""What Envoy says when it refuses a call by itself: the same codes, reasons and details as the services give.

Texts about one deployment stand in the metadata of its route, from where the listener's local replies take them; so
they cost nothing on calls that succeed, and a new deployment does not change the listener.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from google.rpc import error_details_pb2, status_pb2

DOMAIN = "modelyard"
METADATA = "modelyard"
"""Namespace of the route metadata."""

INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, PERMISSION_DENIED = 3, 4, 5, 7
RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE, UNAUTHENTICATED = 8, 12, 14, 16


@dataclass(frozen=True)
class Refusal:
    """One answer: canonical gRPC code, text, reason with its metadata."""

    code: int
    message: str
    reason: str
    metadata: Mapping[str, str]

    @property
    def details(self) -> str:
        """Value of the header `grpc-status-details-bin`."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        status = status_pb2.Status(code=self.code, message=self.message)
        status.details.add().Pack(info)
        return base64.b64encode(status.SerializeToString(deterministic=True)).decode().rstrip("=")


TOKEN_MISSING = Refusal(
    UNAUTHENTICATED, "the call carries no token: send `authorization: Bearer <JWT>`", "TOKEN_MISSING", {}
)
TOKEN_EXPIRED = Refusal(
    UNAUTHENTICATED, "the token has expired: exchange the API token for a new one", "TOKEN_EXPIRED", {}
)
TOKEN_INVALID = Refusal(
    UNAUTHENTICATED, "the token is not valid here: exchange the API token for a new one", "TOKEN_INVALID", {}
)
DEADLINE = Refusal(DEADLINE_EXCEEDED, "the deadline passed before the answer came", "DEADLINE_EXCEEDED", {})


def denied(deployment: str, *, private: bool = False) -> Refusal:
    """Return the answer to a caller without EXECUTE, or, of a private deployment, on the public listener."""
    told = ", which answers on the private listener alone," if private else ""
    return Refusal(
        PERMISSION_DENIED,
        f"EXECUTE on deployment '{deployment}'{told} is needed",
        "PERMISSION_DENIED",
        {"privilege": "EXECUTE", "resource_type": "deployment", "name": deployment},
    )


def too_large(maximum: int) -> Refusal:
    """Return the answer to a body over the limit. The code is the one gRPC gives to messages over a limit."""
    return Refusal(
        RESOURCE_EXHAUSTED,
        f"the request is larger than {maximum:,} bytes; send fewer rows, or raise max_request_bytes of the deployment",
        "REQUEST_TOO_LARGE",
        {"maximum": str(maximum)},
    )


def rate_limited(maximum: int) -> Refusal:
    """Return the answer to a prediction over the rate of its deployment."""
    return Refusal(
        RESOURCE_EXHAUSTED,
        f"the deployment takes {maximum:,} predictions per second here; ask more slowly,"
        " or raise traffic_limits.requests_per_second of the deployment",
        "RATE_LIMITED",
        {"maximum": str(maximum)},
    )


def overloaded(maximum: int) -> Refusal:
    """Return the answer while the replicas have as many predictions as they may."""
    return Refusal(
        RESOURCE_EXHAUSTED,
        f"each replica has {maximum:,} predictions already; repeat with backoff, add replicas,"
        " or raise traffic_limits.concurrent_per_replica of the deployment",
        "OVERLOADED",
        {"maximum": str(maximum)},
    )


_IDLE = {
    "INACTIVE": "is inactive: `modelyard deployments activate {0}` (ActivateDeployment) lets it answer again",
    "FAILED": "could not be started: `modelyard deployments show {0}` (GetDeployment) says why",
    "CREATING": "is being started: ask again in a moment; `modelyard deployments show {0}` (GetDeployment) says how far it is",
}


def no_replica(deployment: str, idle: str = "") -> Refusal:
    """Return the answer while no replica of a deployment can take the call; `idle` is its state if nothing shall answer now."""
    text = f"no replica of deployment '{deployment}' answers at the moment"
    if told := _IDLE.get(idle):
        text = f"deployment '{deployment}' {told.format(deployment)}"
    return Refusal(UNAVAILABLE, text, "REPLICA_NOT_READY", {})


def no_service(service: str) -> Refusal:
    """Return the answer while a service of the control plane does not answer."""
    return Refusal(
        UNAVAILABLE,
        f"the {service} service does not answer at the moment",
        "PEER_UNAVAILABLE",
        {"service": service},
    )


def route_metadata(refusals: Mapping[str, Refusal]) -> dict[str, str]:
    """Return the metadata of a route: text and details of each refusal that its calls can meet."""
    values: dict[str, str] = {}
    for kind, refusal in refusals.items():
        values[f"{kind}_message"] = refusal.message
        values[f"{kind}_details"] = refusal.details
    return values
