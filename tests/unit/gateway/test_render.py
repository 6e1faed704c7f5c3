"""Rendered configuration: what leads where, who may, and that it never contradicts itself."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2

from modelyard_gateway import render as rendering
from modelyard_gateway.clusters import DESK
from modelyard_gateway.render import (
    Configuration,
    InconsistentConfigurationError,
    bootstrap,
    discovery_file,
    render,
    version_of,
)
from modelyard_gateway.route_parts import BANDWIDTH_LIMIT, BUFFER, LUA, NOWHERE, RATE_LIMIT, RBAC, every_route
from modelyard_gateway.routes import CONTROL_PLANE, by_deployment
from modelyard_gateway.table import Desired, Limits, Predictions, Route, RouteTable
from modelyard_gateway.validation import AT_ONCE, candidates, marks
from modelyard_kit.access import Link, ResourceType
from tests.unit.gateway.samples import CHAIN, KEYS, desired, settings, target


def routes_of(configuration: Configuration) -> list[dict[str, Any]]:
    return list(every_route(configuration.routes))


STREAMED = {"name": ":path", "string_match": {"suffix": "/ModelStreamInfer"}}


def prediction_routes(configuration: Configuration) -> list[dict[str, Any]]:
    routes = [route for route in routes_of(configuration) if LUA in metadata_of(route) and is_resolved(route)]
    return [route for route in routes if STREAMED not in route["match"].get("headers", ())]


def stream_routes(configuration: Configuration) -> list[dict[str, Any]]:
    return [route for route in routes_of(configuration) if STREAMED in route["match"].get("headers", ())]


def metadata_of(route: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = route.get("metadata", {}).get("filter_metadata", {})
    return found


def is_resolved(route: dict[str, Any]) -> bool:
    return "unresolved" not in metadata_of(route)[LUA]


def matcher_of(configuration: Configuration) -> dict[str, Any]:
    assert configuration.routes is not None
    found: dict[str, Any] = configuration.routes["virtual_hosts"][0]["matcher"]
    return found


def test_a_deployment_is_looked_up_by_its_name_under_each_service_name() -> None:
    configuration = render(settings(), desired(target()))
    (predictions,) = matcher_of(configuration)["matcher_list"]["matchers"]
    paths = re.compile(predictions["predicate"]["single_predicate"]["value_match"]["safe_regex"]["regex"])
    for path in (
        "/inference.GRPCInferenceService/ModelInfer",
        "/modelyard.api.oip.v2.GRPCInferenceService/ModelMetadata",
        "/modelyard.api.oip.v2.RestInferenceService/Infer",
    ):
        assert paths.fullmatch(path)
    assert not paths.fullmatch("/inference.GRPCInferenceService/ServerLive")
    tree = predictions["on_match"]["matcher"]["matcher_tree"]
    assert tree["input"]["typed_config"]["header_name"] == "modelyard-deployment"
    assert list(tree["exact_match_map"]["map"]) == ["prod.ml.iris"]
    version = {"safe_regex": {"regex": "(?:1)?"}}  # of one version: asked for, or none asked for
    header = {"name": "modelyard-version", "string_match": version, "treat_missing_header_as_empty": True}
    assert [route["match"] for route in prediction_routes(configuration)] == [
        {"prefix": "/", "headers": [header]}
    ]


def test_traffic_is_shared_by_weight_and_groups_without_weight_are_only_warmed() -> None:
    configuration = render(settings(), desired(target("a", 3), target("b", 1), target("c", 0)))
    action = prediction_routes(configuration)[0]["route"]
    assert action["weighted_clusters"]["clusters"] == [
        {"name": "group-a", "weight": 3},
        {"name": "group-b", "weight": 1},
    ]
    assert {"group-a", "group-b", "group-c"} <= {cluster["name"] for cluster in configuration.clusters}


def test_calls_that_ask_for_a_version_meet_its_groups_alone() -> None:
    two = replace(target("b", 1), model_version="prod.ml.iris/2")
    warming = replace(target("c", 0), model_version="prod.ml.iris/3")
    routes = prediction_routes(render(settings(), desired(target("a", 3), two, warming)))
    asked = [route["match"]["headers"][0] for route in routes]
    assert asked == [
        {"name": "modelyard-version", "present_match": True, "invert_match": True},
        *(
            {
                "name": "modelyard-version",
                "string_match": {"exact": n},
                "treat_missing_header_as_empty": False,
            }
            for n in ("1", "2")
        ),
    ]
    assert [route["route"].get("cluster") for route in routes] == [None, "group-a", "group-b"]
    rights = {json.dumps(route["typed_per_filter_config"], sort_keys=True) for route in routes}
    assert len(rights) == 1  # the same for all of them


def test_what_holds_predictions_is_told_their_group() -> None:
    made = desired(replace(target("a", 3), held=True), target("b", 1))
    held, awake = prediction_routes(render(settings(), made))[0]["route"]["weighted_clusters"]["clusters"]
    (told,) = held["request_headers_to_add"]
    assert told["header"] == {"key": "modelyard-group", "value": "a"}
    assert "request_headers_to_add" not in awake
    (alone,) = prediction_routes(render(settings(), desired(replace(target(), held=True))))[0]["route"][
        "weighted_clusters"
    ]["clusters"]
    assert alone["request_headers_to_add"][0]["header"]["value"] == "g1"


def test_stickiness_is_a_hash_of_the_header() -> None:
    made = desired(target("a", 3), target("b", 1), sticky_header="x-customer")
    action = prediction_routes(render(settings(), made))[0]["route"]
    assert action["hash_policy"] == [{"header": {"header_name": "x-customer"}}]
    assert action["weighted_clusters"]["use_hash_policy"] is True


@pytest.mark.parametrize("targets", [(), (target("a", 0),)])
def test_without_traffic_the_answer_is_unavailable(targets: Any) -> None:
    route = prediction_routes(render(settings(), desired(*targets)))[0]
    assert route["direct_response"] == {"status": 503}


def test_only_predictions_are_repeated_once_they_were_sent() -> None:
    """What the virtual host says of repeating is for those; a change that a service may have made already must not be sent again."""
    configuration = render(settings(), desired(target()))
    actions = [route["route"] for route in routes_of(configuration) if "route" in route]
    to_services = [action for action in actions if action["cluster"].startswith("service-")]
    assert to_services
    assert {action["retry_policy"]["retry_on"] for action in to_services} == {
        "connect-failure,refused-stream"
    }
    assert all(
        "retry_policy" in action or action == NOWHERE for action in actions if action["cluster"] == DESK
    )
    assert not any("retry_policy" in route.get("route", {}) for route in prediction_routes(configuration))


def test_tokens_do_not_reach_replicas() -> None:
    for route in prediction_routes(render(settings(), desired(target()))):
        assert "authorization" in route["request_headers_to_remove"]


def test_the_smaller_limit_of_bodies_rules() -> None:
    def limit(of_route: int) -> int:
        route = prediction_routes(
            render(settings(max_request_bytes=5000), desired(target(), max_request_bytes=of_route))
        )[0]
        buffer = route["typed_per_filter_config"]["envoy.filters.http.buffer"]["buffer"]
        return int(buffer["max_request_bytes"]) - 5

    assert (limit(1000), limit(9000), limit(0)) == (1000, 5000, 5000)


def test_limits_are_part_of_the_route_and_of_the_cluster() -> None:
    limits = Limits(requests_per_second=5, bandwidth_mbps=8, concurrent_per_replica=3)
    configuration = render(settings(), desired(target("g", 1, "unix:/a", "unix:/b"), limits=limits))
    (route,) = prediction_routes(configuration)
    filters = route["typed_per_filter_config"]
    assert filters[RATE_LIMIT]["token_bucket"]["tokens_per_fill"] == 5
    assert filters[BANDWIDTH_LIMIT]["limit_kbps"] == 976  # KiB per second
    cluster = next(found for found in configuration.clusters if found["name"] == "group-g")
    assert cluster["circuit_breakers"]["thresholds"][0]["max_requests"] == 6
    (without,) = prediction_routes(render(settings(), desired(target())))
    assert {RATE_LIMIT, BANDWIDTH_LIMIT}.isdisjoint(without["typed_per_filter_config"])


def test_streams_go_where_predictions_go_and_last() -> None:
    configuration = render(settings(), desired(target("a", 3), target("b", 1), allowed=("p1",)))
    (streamed,), single = stream_routes(configuration), prediction_routes(configuration)[0]
    assert streamed["match"]["headers"] == [*single["match"]["headers"], STREAMED]
    assert streamed["route"]["weighted_clusters"] == single["route"]["weighted_clusters"]
    assert streamed["route"]["max_stream_duration"] == {"grpc_timeout_header_max": "0s"}
    assert RBAC not in streamed["typed_per_filter_config"] | single["typed_per_filter_config"]
    (host,) = (configuration.routes or {})["virtual_hosts"]
    assert host["typed_per_filter_config"][BUFFER]["disabled"]
    assert (BUFFER in streamed["typed_per_filter_config"], BUFFER in single["typed_per_filter_config"]) == (
        False,
        True,
    )


def test_refusals_of_a_route_carry_the_reason() -> None:
    metadata = prediction_routes(render(settings(), desired(target())))[0]["metadata"]["filter_metadata"][
        "modelyard"
    ]
    text = metadata["denied_details"]
    status = status_pb2.Status.FromString(base64.b64decode(text + "=" * (-len(text) % 4)))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, status.message, info.reason) == (7, metadata["denied_message"], "PERMISSION_DENIED")
    assert dict(info.metadata)["name"] == "prod.ml.iris"


def test_services_are_there_before_routes_are_known() -> None:
    configuration = render(settings(), Desired(KEYS, None))
    prefixes = {route["match"].get("prefix") for route in routes_of(configuration)}
    assert {f"/{name}/" for name in CONTROL_PLANE.values()} <= prefixes
    assert prediction_routes(configuration) == []


def test_replicas_by_host_name_are_resolved() -> None:
    def kind(*addresses: str) -> str:
        clusters = render(settings(), desired(target("g", 1, *addresses))).clusters
        return str(next(cluster["type"] for cluster in clusters if cluster["name"] == "group-g"))

    assert kind("unix:/a", "127.0.0.1:1", "[::1]:2") == "STATIC"
    assert kind("replica-0.svc:9000") == "STRICT_DNS"


def test_one_group_in_two_deployments_is_refused() -> None:
    wanted = desired(target("same"), target("same"))
    with pytest.raises(InconsistentConfigurationError, match="group-same"):
        render(settings(), wanted)


def test_a_route_to_a_missing_cluster_is_refused() -> None:
    good = render(settings(), desired(target()))
    bad = Configuration(good.listeners, (), good.routes, good.rights)
    with pytest.raises(InconsistentConfigurationError, match="group-g1"):
        rendering.check(bad)


def test_the_same_state_gives_the_same_files() -> None:
    one, two = desired(target("a"), target("b")), desired(target("a"), target("b"), allowed=("p1",))
    first, second = (render(settings(), wanted).clusters for wanted in (one, two))
    version = version_of(first)
    assert version == version_of(second) != version_of([])
    assert discovery_file(first, version) == discovery_file(second, version)
    assert json.loads(discovery_file(first, version)) == {"version_info": version, "resources": [*first]}


def test_deployments_and_rights_do_not_change_the_listener() -> None:
    """A change of the listener would end connections."""
    small = render(settings(), desired(target()))
    large = render(settings(), desired(target("x"), target("y"), allowed=("p1", "p2"), max_request_bytes=7))
    assert small.listeners == large.listeners
    empty = Desired(KEYS, Predictions(RouteTable(2, ()), {}))
    assert render(settings(), empty).listeners == small.listeners


def test_traces_are_sent_where_they_are_wanted() -> None:
    plain = render(settings(), desired(target()))
    traced = render(settings(otlp_endpoint="http://collector:4317"), desired(target()))
    assert "telemetry" not in {cluster["name"] for cluster in plain.clusters}
    cluster = next(cluster for cluster in traced.clusters if cluster["name"] == "telemetry")
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    assert address == {"socket_address": {"address": "collector", "port_value": 4317}}


def test_the_bootstrap_watches_the_folder() -> None:
    made = bootstrap(settings())
    assert made["admin"]["address"] == {"pipe": {"path": "/run/m/envoy/admin.sock", "mode": 0o600}}
    paths = [source["path_config_source"]["path"] for source in made["dynamic_resources"].values()]
    assert paths == ["/run/m/envoy/listeners.json", "/run/m/envoy/clusters.json"]


def test_envoy_is_asked_about_each_shape_and_not_about_names() -> None:
    accepted = marks(render(settings(), desired(target("g1", 1, "unix:/a", "10.0.0.1:80"))))
    for same in (
        desired(target("g2", 1, "unix:/b", "10.0.0.1:81"), allowed=("p2", "p3")),
        desired(
            target("g1", 1, "unix:/a", "10.0.0.1:80"),
            deployment=(Link(ResourceType.DEPLOYMENT, "d1", "prod.ml.other"), *CHAIN[1:]),
        ),
    ):
        assert not list(candidates(render(settings(), same), accepted))
    for other in (
        desired(target(), allowed=()),
        desired(target(), target("g2")),
        desired(target("g1", 0)),
        desired(target("g1", 1, "unix:/a", "10.0.0.2:80")),
        desired(target("g1", 1, "unix:/a", "10.0.0.1:80"), max_request_bytes=2000),
        desired(target("g1", 1, "unix:/a", "10.0.0.1:80"), private=True),
    ):
        assert list(candidates(render(settings(), other), accepted))


def many(count: int, changed: int = -1, varied: bool = False) -> Desired:
    """Deployments with a group each; that of `changed` is another one. If they vary, each is of a shape of its own."""
    routes = tuple(
        Route(
            (Link(ResourceType.DEPLOYMENT, f"d{number}", f"prod.ml.m{number}"), *CHAIN[1:]),
            (target(f"g{number}{'-new' if number == changed else ''}"),),
            1000 + number * varied,
            60.0 + (number == changed),
        )
        for number in range(count)
    )
    return Desired(KEYS, Predictions(RouteTable(1, routes), {}))


def test_envoy_is_asked_about_what_is_new_and_some_at_a_time() -> None:
    before = render(settings(), many(AT_ONCE + 3, varied=True))
    asked = list(candidates(before, frozenset()))
    assert [len(deployments_in(candidate)) for candidate, _ in asked] == [AT_ONCE, 3]
    assert frozenset.union(*(held for _, held in asked)) == marks(before)
    assert not list(candidates(before, marks(before)))
    (changed,) = candidates(render(settings(), many(AT_ONCE + 3, changed=7, varied=True)), marks(before))
    assert deployments_in(changed[0]) == ["prod.ml.m7"]
    names = [cluster["name"] for cluster in changed[0]["static_resources"]["clusters"]]
    assert [name for name in names if name.startswith("group-")] == ["group-g7-new"]
    assert "service-catalog" in names
    (alike,) = candidates(render(settings(), many(AT_ONCE + 3)), frozenset())
    assert len(deployments_in(alike[0])) == 1


def deployments_in(candidate: dict[str, Any]) -> list[str]:
    (listener,) = candidate["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return list(by_deployment(manager["route_config"]))
