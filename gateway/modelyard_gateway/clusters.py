"""Envoy clusters: one for each service of the control plane and one for each group of replicas."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelyard_gateway.parts import Parts
from modelyard_gateway.table import Limits, RouteTable, Target

Json = dict[str, Any]

TYPE = "type.googleapis.com/"
DESK = "desk"
TELEMETRY = "telemetry"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

THRESHOLDS = {
    "max_connections": 4096,
    "max_pending_requests": 65536,
    "max_requests": 65536,
    "max_retries": 4096,
}
SHADOW_THRESHOLDS = {
    "max_connections": 64,
    "max_pending_requests": 256,
    "max_requests": 256,
    "max_retries": 0,
}
"""A shadow that is slow or stuck holds so many copies at most; further ones are left out."""


def service_cluster_name(service: str) -> str:
    """Return the cluster of a service of the control plane."""
    return f"service-{service}"


def group_cluster_name(group: str) -> str:
    """Return the cluster of a group of replicas."""
    return f"group-{group}"


def group_of_cluster(cluster: str) -> str | None:
    """Return the group that a cluster belongs to, or None for other clusters."""
    return cluster.removeprefix("group-") if cluster.startswith("group-") else None


def service_clusters(
    services: dict[str, str], desk: str, otlp_endpoint: str, peer_ca: Path | None
) -> list[Json]:
    """Return the clusters that do not depend on routes; services beyond Unix sockets speak TLS if their CA is given."""
    clusters = [_service_cluster(name, address, peer_ca) for name, address in sorted(services.items())]
    clusters.append(_cluster(DESK, [desk]))
    if otlp_endpoint:
        parts = urlsplit(otlp_endpoint if "//" in otlp_endpoint else f"//{otlp_endpoint}")
        clusters.append(_cluster(TELEMETRY, [f"{parts.hostname}:{parts.port or 4317}"]))
    return clusters


def _service_cluster(name: str, address: str, peer_ca: Path | None) -> Json:
    cluster = _cluster(service_cluster_name(name), [address])
    if peer_ca and not address.startswith("unix:"):
        host = address.rpartition(":")[0].strip("[]")
        kind = "IP_ADDRESS" if _is_literal(address) else "DNS"
        context = {
            "trusted_ca": {"filename": str(peer_ca)},
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": host}}],
        }
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"validation_context": context, "alpn_protocols": ["h2"]},
                **({"sni": host} if kind == "DNS" else {}),
            },
        }
    return cluster


def group_clusters(table: RouteTable, buffer_bytes: int, parts: Parts) -> list[Json]:
    """Return one cluster for each group that has addresses, also for those without traffic: they are being warmed."""
    pairs = ((route, target) for route in table.routes for target in route.targets if target.addresses)
    return [
        parts.part(_shadow_cluster, target, buffer_bytes, route.timeout)
        if target.shadow
        else parts.part(_answering_cluster, target, buffer_bytes, route.limits)
        for route, target in sorted(pairs, key=lambda pair: pair[1].group)
    ]


def _shadow_cluster(target: Target, buffer_bytes: int, timeout: float) -> Json:
    """A cluster that gets copies only: few at a time, each with an end of its own, because no caller waits who would end it."""
    cluster = _group_cluster(target, buffer_bytes)
    cluster["circuit_breakers"] = {"thresholds": [SHADOW_THRESHOLDS]}
    options = cluster["typed_extension_protocol_options"][_HTTP_OPTIONS]
    options["common_http_protocol_options"] = {"max_stream_duration": f"{timeout:.3f}s"}
    return cluster


def _answering_cluster(target: Target, buffer_bytes: int, limits: Limits) -> Json:
    """A cluster that answers: what is over the limit is refused at once, so that an overload costs those who are answered nothing."""
    cluster = _group_cluster(target, buffer_bytes)
    if limits.concurrent_per_replica:
        most = limits.concurrent_per_replica * len(target.addresses)
        cluster["circuit_breakers"] = {"thresholds": [{**THRESHOLDS, "max_requests": most}]}
    return cluster


def _group_cluster(target: Target, buffer_bytes: int) -> Json:
    cluster = _cluster(group_cluster_name(target.group), target.addresses)
    cluster |= {
        "per_connection_buffer_limit_bytes": buffer_bytes,
        "lb_policy": "LEAST_REQUEST",
        # A replica that was taken off the list gets nothing more, even while it still answers health checks.
        "ignore_health_on_host_removal": True,
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0},
            "ignore_new_hosts_until_first_hc": True,
        },
        # A machine that stands still for some seconds, or a model that holds the interpreter, must not empty a deployment; a
        # replica that is gone refuses connections, which is seen at once.
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                # Of groups that got no prediction yet: with thousands of them a check each second would be all that Envoy does.
                # The first check of a replica is at once, and it answered before it came here.
                "no_traffic_interval": "5s",
                "no_traffic_healthy_interval": "10s",
                "interval_jitter_percent": 20,
                "healthy_threshold": 1,
                "unhealthy_threshold": 3,
                "grpc_health_check": {"authority": "replica"},
            }
        ],
        # Only what says "this replica is in trouble" ejects it; a model that fails on an input must not.
        "outlier_detection": {
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 50,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
        },
    }
    return cluster


def _cluster(name: str, addresses: Iterable[str]) -> Json:
    addresses = sorted(addresses)
    return {
        "@type": TYPE + "envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC" if all(map(_is_literal, addresses)) else "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": TYPE + _HTTP_OPTIONS,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "circuit_breakers": {"thresholds": [THRESHOLDS]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": envoy_address(address)}} for address in addresses]}
            ],
        },
    }


def envoy_address(address: str) -> Json:
    """Return `unix:/path` or `host:port` as Envoy writes it."""
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _is_literal(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    try:
        ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True
