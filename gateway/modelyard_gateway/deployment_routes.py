"""Routes of one deployment: where its predictions go, who may, for how long, how large."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from modelyard_gateway.clusters import TYPE, group_cluster_name
from modelyard_gateway.refusals import (
    METADATA,
    Refusal,
    denied,
    no_replica,
    overloaded,
    rate_limited,
    route_metadata,
    too_large,
)
from modelyard_gateway.route_parts import (
    BANDWIDTH_LIMIT,
    BUFFER,
    EXECUTE_DENIED,
    GROUP_HEADER,
    LUA,
    PRIVATE,
    RATE_LIMIT,
    SAMPLE_HEADER,
    SUBJECT,
    VERSION_HEADER,
    Json,
    metadata,
    one_of,
    set_header,
    unresolved_route,
)
from modelyard_gateway.table import Limits, Route, Target

FRAME_BYTES = 5
"""What gRPC puts before a message."""

_COPIED = ".*/(?:ModelInfer|Infer|Invoke)"
"""Methods that a shadow gets copies of: predictions with one answer. Envoy refuses an expression that lists their whole paths."""
_STREAMED = {"name": ":path", "string_match": {"suffix": "/ModelStreamInfer"}}
"""Predictions over a stream, under either name of the protocol."""
_TRUE: Json = {"bool_match": True}
_STREAM_IDLE = "300s"
"""How long nothing may be said on such a stream."""
_PREVIOUS_HOSTS = TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
RETRY_POLICY: Json = {
    "retry_on": "connect-failure,refused-stream,reset,unavailable",
    "num_retries": 2,
    "retry_host_predicate": [
        {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": _PREVIOUS_HOSTS}}
    ],
    "host_selection_retry_max_attempts": 5,
    "retry_back_off": {"base_interval": "0.010s", "max_interval": "0.250s"},
}
"""How predictions are repeated; the same for all deployments, so it stands where all routes see it."""


def deployment_routes(route: Route, told: Sequence[str], max_request_bytes: int) -> Iterable[Json]:
    """Yield the routes of predictions that name this deployment, most specific first; the last one is for versions that do not answer.

    Args:
        route: The deployment.
        told: Ids of those who are told if nothing answers, and not that there is no such deployment.
        max_request_bytes: Largest body the listener takes.
    """
    largest = min(route.max_request_bytes or max_request_bytes, max_request_bytes)
    refusals = {
        "denied": denied(route.name, private=route.private),
        "unavailable": no_replica(route.name, route.idle),
        **_limit_refusals(route.limits),
    }
    filters = _limit_filters(route.limits)
    counted = {
        "metadata": {
            "filter_metadata": {
                METADATA: route_metadata({**refusals, "too_large": too_large(largest)}),
                LUA: {"max_request_bytes": largest + FRAME_BYTES},
            }
        },
        "typed_per_filter_config": {
            **filters,
            BUFFER: {
                "@type": TYPE + "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
                "buffer": {"max_request_bytes": largest + FRAME_BYTES},
            },
        },
    }
    # A stream is never complete, so it is not held back to be counted; replicas look at the size of each message.
    streamed = {"metadata": metadata(route_metadata(refusals)), "typed_per_filter_config": filters}
    for match, action in _copied(route):
        yield {"match": match, **action, **counted}
    for pins, serving in _choices(route):
        action = _action(route, serving)
        yield {"match": {"prefix": "/", "headers": [*pins, _STREAMED]}, **_streamed(action), **streamed}
        yield {"match": {"prefix": "/", "headers": pins}, **action, **counted}
    if not route.serving:
        for match, action in _told(told, private=route.private):
            yield {"match": match, **action, **counted}
    yield unresolved_route("/")


def _limit_refusals(limits: Limits) -> dict[str, Refusal]:
    found = {}
    if limits.requests_per_second:
        found["rate_limited"] = rate_limited(limits.requests_per_second)
    if limits.concurrent_per_replica:
        found["overloaded"] = overloaded(limits.concurrent_per_replica)
    return found


def _limit_filters(limits: Limits) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if limits.requests_per_second:
        always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        found[RATE_LIMIT] = {
            "@type": TYPE + "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "rate",
            "token_bucket": {
                "max_tokens": limits.requests_per_second,
                "tokens_per_fill": limits.requests_per_second,
                "fill_interval": "1s",
            },
            "filter_enabled": always,
            "filter_enforced": always,
            "rate_limited_as_resource_exhausted": True,
        }
    if limits.bandwidth_mbps:
        found[BANDWIDTH_LIMIT] = {
            "@type": TYPE + "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit",
            "stat_prefix": "bandwidth",
            "enable_mode": "REQUEST_AND_RESPONSE",
            "limit_kbps": limits.bandwidth_mbps * 1_000_000 // (8 * 1024),  # its unit is KiB per second
        }
    return found


def _choices(route: Route) -> Iterable[tuple[list[Json], Sequence[Target]]]:
    """Yield what a call may say of the version, as conditions of a match, with the targets that answer it then.

    A call that asks for a version that does not answer matches nothing here, and is refused where names are resolved.
    """
    serving = route.serving
    by_number: dict[str, list[Target]] = {}
    for target in serving:
        by_number.setdefault(target.model_version.rpartition("/")[2], []).append(target)
    if len(by_number) == 1:
        (number,) = by_number  # one route for both kinds of calls, and so one account of what they use
        yield [_version_match({"safe_regex": {"regex": f"(?:{re.escape(number)})?"}}, missing=True)], serving
    elif serving:
        yield [{"name": VERSION_HEADER, "present_match": True, "invert_match": True}], serving
        for number, targets in by_number.items():
            yield [_version_match({"exact": number})], targets


def _copied(route: Route) -> Iterable[tuple[Json, Json]]:
    """Yield match and action of the predictions that are copied to the shadow: a random share of those that ask for no version.

    They are routes of their own, so that replicas keep digests of what is compared and of nothing else. The share is drawn in
    millionths: Envoy draws the target from the same random number, and from its last digits.
    """
    shadow, serving = route.mirror, route.serving
    if shadow is None or not serving:
        return
    share = {"numerator": shadow.shadow_percent * 10_000, "denominator": "MILLION"}
    action = _action(route, serving)
    action["request_headers_to_add"] = [set_header(SAMPLE_HEADER, "%UNIQUE_ID%")]
    action["route"]["request_mirror_policies"] = [
        {"cluster": group_cluster_name(shadow.group), "disable_shadow_host_suffix_append": True}
    ]
    pins = [_version_match({"exact": ""}, missing=True)]
    yield (
        {"safe_regex": {"regex": _COPIED}, "headers": pins, "runtime_fraction": {"default_value": share}},
        action,
    )


def _told(principals: Sequence[str], *, private: bool) -> Iterable[tuple[Json, Json]]:
    """Yield match and action while nothing answers: only who may predict is told that there is such a deployment.

    Without a match the call is refused where names are resolved, as for a name that does not exist. A call that names its deployment
    in a header meets this route before its token is checked, and so always goes there first.
    """
    if not principals:
        return
    conditions = [
        _metadata(*SUBJECT, value=one_of(principals)),
        {**_metadata(*EXECUTE_DENIED), "invert": True},
    ]
    if private:
        conditions.append(_metadata(*PRIVATE))
    yield {"prefix": "/", "dynamic_metadata": conditions}, {"direct_response": {"status": 503}}


def _version_match(match: Json, *, missing: bool = False) -> Json:
    return {"name": VERSION_HEADER, "string_match": match, "treat_missing_header_as_empty": missing}


def _action(route: Route, serving: Sequence[Target]) -> Json:
    timeout = f"{route.timeout:.3f}s"
    return {
        # Replicas run code of others: they never see tokens. What is compared is Envoy's choice, not the caller's.
        "request_headers_to_remove": ["authorization", "cookie", SAMPLE_HEADER],
        "route": {
            **_destination(serving, route.sticky_header),
            "timeout": "0s",
            "idle_timeout": "0s",
            "max_stream_duration": {"max_stream_duration": timeout, "grpc_timeout_header_max": timeout},
        },
    }


def _streamed(action: Json) -> Json:
    """Return the action for streams: they last as long as both sides like, and a caller's deadline says."""
    lasting = {"idle_timeout": _STREAM_IDLE, "max_stream_duration": {"grpc_timeout_header_max": "0s"}}
    return {**action, "route": {**action["route"], **lasting}}


def _destination(serving: Sequence[Target], sticky_header: str) -> Json:
    if len(serving) == 1 and not serving[0].held:
        return {"cluster": group_cluster_name(serving[0].group)}
    clusters = [
        {
            "name": group_cluster_name(target.group),
            "weight": target.weight,
            **({"request_headers_to_add": [set_header(GROUP_HEADER, target.group)]} if target.held else {}),
        }
        for target in serving
    ]
    if not sticky_header:
        return {"weighted_clusters": {"clusters": clusters}}
    return {
        "weighted_clusters": {"clusters": clusters, "use_hash_policy": True},
        "hash_policy": [{"header": {"header_name": sticky_header}}],
    }


def _metadata(namespace: str, *path: str, value: Json = _TRUE) -> Json:
    return {"filter": namespace, "path": [{"key": key} for key in path], "value": value}
