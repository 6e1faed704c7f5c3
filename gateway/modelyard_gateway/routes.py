"""Envoy's route table: what is where, who may, for how long, how large.

Every route says by itself which filters it wants and whom RBAC lets pass; a route that says nothing is denied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from modelyard_gateway import rest
from modelyard_gateway.clusters import DESK, group_cluster_name, service_cluster_name
from modelyard_gateway.descriptors import OIP_SERVICES, REST_SERVICE
from modelyard_gateway.refusals import (
    METADATA,
    UNIMPLEMENTED,
    denied,
    no_replica,
    no_service,
    route_metadata,
    too_large,
)
from modelyard_gateway.table import Predictions, Route, Target

Json = dict[str, Any]

TYPE = "type.googleapis.com/"
NAME = "gateway"
HEADER = "modelyard-deployment"
VERSION_HEADER = "modelyard-version"
"""Number of the version that must answer; without it whichever gets the traffic does."""
SAMPLE_HEADER = "modelyard-sample"
"""Id that a prediction and its copy have in common, by which their answers are compared; only Envoy sets it."""
GROUP_HEADER = "modelyard-group"
"""Group that a prediction is for, told to what holds it until the group has a replica."""
CONTROL_PLANE = {
    service: f"modelyard.api.{service}.v1.{service.capitalize()}Service"
    for service in ("catalog", "artifact", "governance", "inference")
}
HEALTH_PREFIX = "/grpc.health.v1.Health/"
REFLECTION_PREFIXES = (
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
)
SERVER_PATHS = tuple(
    f"/{service}/{method}"
    for service in OIP_SERVICES
    for method in ("ServerLive", "ServerReady", "ServerMetadata")
)
"""Calls about the server itself, which need no token."""

GRPC_TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
FIELD_EXTRACTION = "envoy.filters.http.grpc_field_extraction"
LUA = "envoy.filters.http.lua"
RBAC = "envoy.filters.http.rbac"
BUFFER = "envoy.filters.http.buffer"
JWT = "envoy.filters.http.jwt_authn"

FRAME_BYTES = 5
"""What gRPC puts before a message."""

_COPIED_PATHS = (*(f"/{service}/ModelInfer" for service in OIP_SERVICES), f"/{REST_SERVICE}/Infer")
"""Methods that a shadow gets copies of: predictions with one answer."""
_STREAMED = {"name": ":path", "string_match": {"suffix": "/ModelStreamInfer"}}
"""Predictions over a stream, under either name of the protocol: one route for both, as there may be many deployments."""
_STREAM_IDLE = "300s"
"""How long nothing may be said on such a stream."""
_PREDICTION_PREFIXES = tuple(f"/{service}/" for service in (*OIP_SERVICES, REST_SERVICE))
_RESOLVERS = (GRPC_TRANSCODER, FIELD_EXTRACTION, LUA)
_DISABLED = {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "disabled": True}
_UNBUFFERED = {"@type": TYPE + "envoy.extensions.filters.http.buffer.v3.BufferPerRoute", "disabled": True}
_OPEN = {"@type": TYPE + "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"}


def route_configuration(predictions: Predictions | None, max_request_bytes: int) -> Json:
    """Return the whole table.

    Args:
        predictions: Routes and who may use them; None while they are not known yet.
        max_request_bytes: Largest body the listener takes.
    """
    routes = [*_desk_routes(), *_server_routes(), *_control_plane_routes()]
    if predictions:
        for route in sorted(predictions.table.routes, key=lambda route: route.name):
            principals = predictions.allowed.get(route.deployment[0].id, ())
            routes += _deployment_routes(route, principals, max_request_bytes)
    routes += _unresolved_routes(max_request_bytes)
    routes.append(_unknown_path())
    return {
        "@type": TYPE + "envoy.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [{"name": NAME, "domains": ["*"], "routes": routes}],
    }


def _filters(**by_name: Json) -> Json:
    """Per-route filters of a route whose deployment is known or which needs none."""
    return dict.fromkeys(_RESOLVERS, _DISABLED) | {BUFFER: _UNBUFFERED, RBAC: _OPEN} | by_name


def _metadata(values: Json) -> Json:
    return {"filter_metadata": {METADATA: values}}


def _cluster_route(match: Json, cluster: str, service: str) -> Json:
    return {
        "match": match,
        "route": {
            "cluster": cluster,
            # The caller's grpc-timeout rules; streams that watch may be quiet for long.
            "timeout": "0s",
            "idle_timeout": "0s",
            "max_stream_duration": {"grpc_timeout_header_max": "0s"},
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
        "metadata": _metadata(route_metadata({"unavailable": no_service(service)})),
        "typed_per_filter_config": _filters(),
    }


def _desk_routes() -> list[Json]:
    matches: list[Json] = [{"path": path} for path in SERVER_PATHS]
    matches += [{"prefix": prefix} for prefix in (HEALTH_PREFIX, *REFLECTION_PREFIXES)]
    return [_cluster_route(match, DESK, "gateway") for match in matches]


def _server_routes() -> list[Json]:
    return [
        {
            "match": {"path": path},
            "direct_response": {"status": 200, "body": {"inline_string": json.dumps(answer)}},
            "response_headers_to_add": [_set_header("content-type", "application/json")],
            "typed_per_filter_config": _filters(),
        }
        for path, answer in rest.SERVER_PATHS.items()
    ]


def _control_plane_routes() -> list[Json]:
    return [
        _cluster_route({"prefix": f"/{full_name}/"}, service_cluster_name(service), service)
        for service, full_name in CONTROL_PLANE.items()
    ]


def _deployment_routes(route: Route, principals: Sequence[str], max_request_bytes: int) -> Iterable[Json]:
    largest = min(route.max_request_bytes or max_request_bytes, max_request_bytes)
    refusals = {
        "denied": denied(route.name),
        "too_large": too_large(largest),
        "unavailable": no_replica(route.name),
    }
    common = {
        "metadata": {
            "filter_metadata": {
                METADATA: route_metadata(refusals),
                LUA: {"max_request_bytes": largest + FRAME_BYTES},
            }
        },
        "typed_per_filter_config": _filters(
            **{
                RBAC: _allow(principals),
                BUFFER: {
                    "@type": TYPE + "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
                    "buffer": {"max_request_bytes": largest + FRAME_BYTES},
                },
            }
        ),
    }
    named = {"name": HEADER, "string_match": {"exact": route.name}}
    for match, action in _copied(route):
        yield {"match": {**match, "headers": [named, *match["headers"]]}, **action, **common}
    for pins, serving in _choices(route):
        action = _action(route, serving)
        yield {
            "match": {"prefix": "/", "headers": [named, *pins, _STREAMED]},
            **_streamed(action),
            "metadata": common["metadata"],
            # It is never complete, so it is not held back to be counted; replicas look at the size of each message.
            "typed_per_filter_config": {**common["typed_per_filter_config"], BUFFER: _UNBUFFERED},
        }
        for prefix in _PREDICTION_PREFIXES:
            yield {"match": {"prefix": prefix, "headers": [named, *pins]}, **action, **common}


def _choices(route: Route) -> Iterable[tuple[list[Json], Sequence[Target]]]:
    """Yield what a call may say of the version, as conditions of a match, with the targets that answer it then.

    A call that asks for a version that does not answer matches nothing here, and is refused where names are resolved.
    """
    serving = [target for target in route.targets if target.weight and target.addresses]
    by_number: dict[str, list[Target]] = {}
    for target in serving:
        by_number.setdefault(target.model_version.rpartition("/")[2], []).append(target)
    if not serving:
        yield [], ()
    elif len(by_number) == 1:
        (number,) = by_number  # one route for both kinds of calls: there may be many deployments
        yield [_version_match({"safe_regex": {"regex": f"(?:{re.escape(number)})?"}}, missing=True)], serving
    else:
        yield [{"name": VERSION_HEADER, "present_match": True, "invert_match": True}], serving
        for number, targets in by_number.items():
            yield [_version_match({"exact": number})], targets


def _copied(route: Route) -> Iterable[tuple[Json, Json]]:
    """Yield match and action of the predictions that are copied to the shadow: a random share of those that ask for no version.

    They are routes of their own, so that replicas keep digests of what is compared and of nothing else. The share is drawn in
    millionths: Envoy draws the target from the same random number, and from its last digits.
    """
    shadow, serving = route.mirror, [t for t in route.targets if t.weight and t.addresses]
    if shadow is None or not serving:
        return
    share = {"numerator": shadow.shadow_percent * 10_000, "denominator": "MILLION"}
    action = _action(route, serving)
    action["request_headers_to_add"] = [_set_header(SAMPLE_HEADER, "%UNIQUE_ID%")]
    action["route"]["request_mirror_policies"] = [
        {"cluster": group_cluster_name(shadow.group), "disable_shadow_host_suffix_append": True}
    ]
    pins = [_version_match({"exact": ""}, missing=True)]
    for path in _COPIED_PATHS:
        yield {"path": path, "headers": pins, "runtime_fraction": {"default_value": share}}, action


def _version_match(match: Json, *, missing: bool = False) -> Json:
    return {"name": VERSION_HEADER, "string_match": match, "treat_missing_header_as_empty": missing}


def _action(route: Route, serving: Sequence[Target]) -> Json:
    if not serving:
        return {"direct_response": {"status": 503}}
    timeout = f"{route.timeout:.3f}s"
    return {
        # Replicas run code of others: they never see tokens. What is compared is Envoy's choice, not the caller's.
        "request_headers_to_remove": ["authorization", "cookie", SAMPLE_HEADER],
        "route": {
            **_destination(serving, route.sticky_header),
            "timeout": "0s",
            "idle_timeout": "0s",
            "max_stream_duration": {"max_stream_duration": timeout, "grpc_timeout_header_max": timeout},
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset,unavailable",
                "num_retries": 2,
                "retry_host_predicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {
                            "@type": TYPE
                            + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                        },
                    }
                ],
                "host_selection_retry_max_attempts": 5,
                "retry_back_off": {"base_interval": "0.010s", "max_interval": "0.250s"},
            },
        },
    }


def _streamed(action: Json) -> Json:
    """Return the action for streams: they last as long as both sides like, and a caller's deadline says."""
    if "route" not in action:
        return action
    lasting = {"idle_timeout": _STREAM_IDLE, "max_stream_duration": {"grpc_timeout_header_max": "0s"}}
    return {**action, "route": {**action["route"], **lasting}}


def _destination(serving: Sequence[Target], sticky_header: str) -> Json:
    if len(serving) == 1 and not serving[0].held:
        return {"cluster": group_cluster_name(serving[0].group)}
    clusters = [
        {
            "name": group_cluster_name(target.group),
            "weight": target.weight,
            **({"request_headers_to_add": [_set_header(GROUP_HEADER, target.group)]} if target.held else {}),
        }
        for target in serving
    ]
    if not sticky_header:
        return {"weighted_clusters": {"clusters": clusters}}
    return {
        "weighted_clusters": {"clusters": clusters, "use_hash_policy": True},
        "hash_policy": [{"header": {"header_name": sticky_header}}],
    }


def _allow(principals: Sequence[str]) -> Json:
    """RBAC of one deployment: the `sub` of the verified token must be one of `principals`.

    A token that is limited to other privileges than EXECUTE says so in its claim `no_execute`.
    """
    policies = {}
    if principals:
        ids = [
            {
                "sourced_metadata": {
                    "metadata_matcher": {
                        "filter": JWT,
                        "path": [{"key": "jwt_payload"}, {"key": "sub"}],
                        "value": {"string_match": {"exact": principal}},
                    }
                }
            }
            for principal in sorted(principals)
        ]
        limited = {
            "filter": JWT,
            "path": [{"key": "jwt_payload"}, {"key": "no_execute"}],
            "value": {"bool_match": True},
        }
        policies["execute"] = {
            "permissions": [{"not_rule": {"sourced_metadata": {"metadata_matcher": limited}}}],
            "principals": [{"or_ids": {"ids": ids}}],
        }
    return {
        "@type": TYPE + "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
        "rbac": {"rules": {"action": "ALLOW", "policies": policies}},
    }


def _unresolved_routes(max_request_bytes: int) -> Iterable[Json]:
    """Predictions whose deployment is not known yet, or does not exist: here the body is looked into."""
    metadata = {
        "filter_metadata": {
            METADATA: route_metadata({"too_large": too_large(max_request_bytes)}),
            LUA: {"unresolved": True},
        }
    }
    for prefix in (*_PREDICTION_PREFIXES, rest.PREFIX):
        yield {
            "match": {"prefix": prefix},
            # Reached only if the filters above the router let the call pass unresolved, which they do not.
            "direct_response": {"status": 404},
            "metadata": metadata,
            "typed_per_filter_config": {RBAC: _OPEN, BUFFER: _UNBUFFERED},
        }


def _unknown_path() -> Json:
    text = "%REQ(:PATH)% is neither a method of a service nor a path of the REST form"
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 404, "body_format": {"text_format_source": {"inline_string": text}}},
        "response_headers_to_add": [_set_header("grpc-status", str(UNIMPLEMENTED))],
        "typed_per_filter_config": _filters(),
    }


def _set_header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
