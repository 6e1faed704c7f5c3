"""Envoy's route table: what is where, who may, for how long, how large.

A route that says nothing of RBAC is for those who have the right to predict at the deployment that is named (`rights.py`). What most routes have in common, filters that are
off and how predictions are repeated, stands once, because Envoy takes as long for a table as there is of it. Predictions that name their
deployment are looked up by its name, so that many deployments cost a call no more than few.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from modelyard_gateway import control_plane_rest, rest
from modelyard_gateway.clusters import DESK, TYPE, service_cluster_name
from modelyard_gateway.deployment_routes import RETRY_POLICY, deployment_routes
from modelyard_gateway.descriptors import OIP_SERVICES
from modelyard_gateway.parts import Parts
from modelyard_gateway.refusals import UNIMPLEMENTED, no_service, route_metadata
from modelyard_gateway.route_parts import (
    CORS,
    HEADER,
    NAME,
    NOWHERE,
    OPEN,
    PREDICTION_PATHS,
    PREDICTION_PREFIXES,
    RBAC,
    USUAL_FILTERS,
    Json,
    header_input,
    metadata,
    set_header,
    transcoded,
    unresolved_route,
)
from modelyard_gateway.table import Predictions, Route

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


def route_configuration(
    predictions: Predictions | None, max_request_bytes: int, parts: Parts, origins: Sequence[str] = ()
) -> Json:
    """Return the whole table.

    Args:
        predictions: Routes and who may use them; None while they are not known yet.
        max_request_bytes: Largest body the listener takes.
        parts: What was rendered before.
        origins: Whose pages may call from browsers, `https://console.example.com`; `*` for everybody's.
    """
    prefixes = (*PREDICTION_PREFIXES, *rest.PREFIXES)
    unresolved = [unresolved_route(prefix) for prefix in prefixes]
    others = [*_desk_routes(), *_server_routes(), *_control_plane_routes(), *unresolved, _unknown_path()]
    by_name = _by_name(predictions, max_request_bytes, parts) if predictions else {}
    host: Json = {
        "name": NAME,
        "domains": ["*"],
        "retry_policy": RETRY_POLICY,
        "typed_per_filter_config": USUAL_FILTERS | ({CORS: _cors(origins)} if origins else {}),
    }
    host |= _choice(by_name, _routes(unresolved), _routes(others))
    return {
        "@type": TYPE + "envoy.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [host],
    }


def _by_name(predictions: Predictions, max_request_bytes: int, parts: Parts) -> Json:
    made = {}
    for route in sorted(predictions.table.routes, key=lambda route: route.name):
        # Those who may predict at what answers are no matter of its routes, so that a grant does not change them.
        told = () if route.serving else tuple(predictions.allowed.get(route.deployment[0].id, ()))
        made[route.name] = parts.part(_deployment, route, told, max_request_bytes)
    return made


def _deployment(route: Route, told: Sequence[str], max_request_bytes: int) -> Json:
    return _routes(deployment_routes(route, told, max_request_bytes))


def by_deployment(routes: Json | None) -> Json:
    """Return where a table leads predictions, by name of their deployment."""
    host = routes["virtual_hosts"][0] if routes else {}
    found: Json = (
        _tree(host["matcher"])["matcher_tree"]["exact_match_map"]["map"] if "matcher" in host else {}
    )
    return found


def only(routes: Json | None, deployments: Iterable[str]) -> Json | None:
    """Return a table without other deployments than these."""
    found = by_deployment(routes)
    if not routes or not found:
        return routes
    host = dict(routes["virtual_hosts"][0])
    matcher = host.pop("matcher")
    kept = {name: found[name] for name in deployments}
    host |= _choice(kept, _tree(matcher)["on_no_match"], matcher["on_no_match"])
    return {**routes, "virtual_hosts": [host]}


def _choice(by_name: Json, unresolved: Json, others: Json) -> Json:
    """The choice of a route: of a prediction by the name of its deployment, of everything else among the others."""
    if not by_name:
        return {"routes": others["action"]["typed_config"]["routes"]}
    named = {
        "matcher_tree": {"input": header_input(HEADER), "exact_match_map": {"map": by_name}},
        "on_no_match": unresolved,
    }
    paths = {"safe_regex": {"google_re2": {}, "regex": "|".join(map(re.escape, PREDICTION_PATHS))}}
    is_prediction = {"single_predicate": {"input": header_input(":path"), "value_match": paths}}
    matchers = [{"predicate": is_prediction, "on_match": {"matcher": named}}]
    return {"matcher": {"matcher_list": {"matchers": matchers}, "on_no_match": others}}


def _tree(matcher: Json) -> Json:
    found: Json = matcher["matcher_list"]["matchers"][0]["on_match"]["matcher"]
    return found


def _routes(routes: Iterable[Json]) -> Json:
    return {
        "action": {
            "name": "routes",
            "typed_config": {"@type": TYPE + "envoy.config.route.v3.RouteList", "routes": list(routes)},
        }
    }


def _cors(origins: Sequence[str]) -> Json:
    anybody: Json = {"safe_regex": {"regex": ".*"}}
    return {
        "@type": TYPE + "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [anybody if one == "*" else {"exact": one} for one in origins],
        "allow_methods": "GET, POST",
        # Browsers take `*` for every header but this one.
        "allow_headers": "authorization, *",
        "expose_headers": "grpc-status, grpc-message, grpc-status-details-bin",
        "max_age": "3600",
    }


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
        "metadata": metadata(route_metadata({"unavailable": no_service(service)})),
        "typed_per_filter_config": transcoded(),
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
            "response_headers_to_add": [set_header("content-type", "application/json")],
            "typed_per_filter_config": {RBAC: OPEN},
        }
        for path, answer in rest.SERVER_PATHS.items()
    ]


def _control_plane_routes() -> list[Json]:
    routes = [
        _cluster_route({"prefix": f"/{full_name}/"}, service_cluster_name(service), service)
        for service, full_name in CONTROL_PLANE.items()
    ]
    rest_form = {
        "match": {"prefix": control_plane_rest.PREFIX},
        "route": NOWHERE,
        "typed_per_filter_config": transcoded(),
    }
    return [*routes, rest_form]


def _unknown_path() -> Json:
    text = "%REQ(:PATH)% is neither a method of a service nor a path of the REST form"
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 404, "body_format": {"text_format_source": {"inline_string": text}}},
        "response_headers_to_add": [set_header("grpc-status", str(UNIMPLEMENTED))],
        "typed_per_filter_config": {RBAC: OPEN},
    }
