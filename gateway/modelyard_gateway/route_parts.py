"""What routes of every kind are made of: names that mean something in them, and their per-route filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from modelyard_gateway import rest
from modelyard_gateway.clusters import DESK, TYPE
from modelyard_gateway.descriptors import OIP_SERVICES, REST_SERVICE
from modelyard_gateway.refusals import METADATA

Json = dict[str, Any]

NAME = "gateway"
PRIVATE_NAME = "gateway-private"
"""Of the listener that answers for private deployments too; it notes in metadata of this name that a call came there."""
HEADER = "modelyard-deployment"
VERSION_HEADER = "modelyard-version"
"""Number of the version that must answer; without it whichever gets the traffic does."""
SAMPLE_HEADER = "modelyard-sample"
"""Id that a prediction and its copy have in common, by which their answers are compared; only Envoy sets it."""
GROUP_HEADER = "modelyard-group"
"""Group that a prediction is for, told to what holds it until the group has a replica."""

GRPC_TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
FIELD_EXTRACTION = "envoy.filters.http.grpc_field_extraction"
LUA = "envoy.filters.http.lua"
RBAC = "envoy.filters.http.rbac"
BUFFER = "envoy.filters.http.buffer"
CORS = "envoy.filters.http.cors"
RATE_LIMIT = "envoy.filters.http.local_ratelimit"
BANDWIDTH_LIMIT = "envoy.filters.http.bandwidth_limit"
SET_METADATA = "envoy.filters.http.set_metadata"
JWT = "envoy.filters.http.jwt_authn"

SUBJECT, EXECUTE_DENIED = (JWT, "jwt_payload", "sub"), (JWT, "jwt_payload", "no_execute")
"""Where dynamic metadata has the principal of a checked token, and whether the token gives no right to predict."""
PRIVATE = (PRIVATE_NAME, "private")
"""Where it says that a call came to the private listener."""

NAME_FIELDS = {
    "ModelInfer": "model_",
    "ModelStreamInfer": "model_",
    "ModelReady": "",
    "ModelMetadata": "",
    "ModelStatistics": "",
}
"""Methods of the protocol that name a deployment, and what stands before `name` and `version` in their fields."""
PREDICTION_PATHS = (
    *(f"/{service}/{method}" for service in OIP_SERVICES for method in NAME_FIELDS),
    *(f"/{REST_SERVICE}/{method}" for method in rest.RULES),
)
"""Every method that names a deployment."""
PREDICTION_PREFIXES = tuple(f"/{service}/" for service in (*OIP_SERVICES, REST_SERVICE))

OPEN = {"@type": TYPE + "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"}
UNBUFFERED = {"@type": TYPE + "envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "disabled": True}
NOWHERE = {"cluster": DESK}
"""Action of routes whose calls never come so far, because a filter answers or chooses another route; the desk would refuse them. The
filter for pages in browsers passes over routes without a cluster."""
_ENABLED = {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "config": {}}
_DISABLED = {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}
_RESOLVERS = (GRPC_TRANSCODER, FIELD_EXTRACTION, LUA)
USUAL_FILTERS = {BUFFER: UNBUFFERED, **dict.fromkeys(_RESOLVERS, _DISABLED)}
"""Per-route filters of all routes that say nothing else: what finds out the deployment is off, and bodies are not counted."""


def transcoded() -> Json:
    """Return the per-route filters of a route whose REST form becomes gRPC."""
    return {GRPC_TRANSCODER: _ENABLED, RBAC: OPEN}


def metadata(values: Json) -> Json:
    """Return metadata that local replies read."""
    return {"filter_metadata": {METADATA: values}}


def header_input(name: str) -> Json:
    """Return what takes the value of a header to look something up by."""
    kind = TYPE + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
    return {"name": "header", "typed_config": {"@type": kind, "header_name": name}}


def one_of(values: Sequence[str]) -> Json:
    """Return what matches any of these values of metadata."""
    exact = [{"string_match": {"exact": value}} for value in sorted(values)]
    return exact[0] if len(exact) == 1 else {"or_match": {"value_matchers": exact}}


def set_header(name: str, value: str) -> Json:
    """Return a header that replaces what is there."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def unresolved_route(prefix: str) -> Json:
    """Return the route of predictions whose deployment is not known yet, or does not exist: here the body is looked into."""
    return {
        "match": {"prefix": prefix},
        "route": NOWHERE,
        "metadata": {"filter_metadata": {LUA: {"unresolved": True}}},
        "typed_per_filter_config": {RBAC: OPEN, **dict.fromkeys(_RESOLVERS, _ENABLED)},
    }


def every_route(node: Any) -> Iterator[Json]:
    """Yield the routes anywhere in a route configuration."""
    if isinstance(node, list):
        for item in node:
            yield from every_route(item)
    elif isinstance(node, dict):
        if "routes" in node:
            yield from node["routes"]
        else:
            yield from every_route(list(node.values()))
