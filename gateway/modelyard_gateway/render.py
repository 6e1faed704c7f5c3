"""Settings and desired state become the files that Envoy watches. Pure: nothing is read, written or asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard_gateway import tls
from modelyard_gateway.clusters import TYPE, group_clusters, service_clusters
from modelyard_gateway.listener import listeners, source
from modelyard_gateway.parts import Parts, digest_of, text_of
from modelyard_gateway.rights import rights
from modelyard_gateway.route_parts import NAME, RBAC, every_route
from modelyard_gateway.routes import route_configuration
from modelyard_gateway.settings import GatewaySettings
from modelyard_gateway.table import Desired

Json = dict[str, Any]

LISTENERS_FILE = "listeners.json"
CLUSTERS_FILE = "clusters.json"
ROUTES_FILE = "routes.json"
RIGHTS_FILE = "rights.json"
BOOTSTRAP_FILE = "bootstrap.json"
_BUFFER_SLACK = 2**20
LATENCY_BOUNDS = tuple(
    round(digits * 10.0**power, 2) for power in range(-1, 5) for digits in (1, 1.5, 2, 3, 4, 5, 6, 8)
)
"""In milliseconds, to 80 s; above them everything is one."""


class InconsistentConfigurationError(ValueError):
    """What was rendered contradicts itself; it must not reach Envoy."""


@dataclass(frozen=True)
class Configuration:
    """Resources of one state of the gateway."""

    listeners: tuple[Json, ...]
    clusters: tuple[Json, ...]
    routes: Json | None
    rights: Json | None
    secrets: Mapping[str, Json] = field(default_factory=dict)
    """Of TLS, by name of their file."""


EMPTY = Configuration((), (), None, None)


def render(settings: GatewaySettings, desired: Desired, parts: Parts | None = None) -> Configuration:
    """Return the configuration for a desired state; with `parts` of the last time, only what changed is made.

    Raises:
        InconsistentConfigurationError: two groups have one name, or a route leads to a cluster that is not there.
    """
    parts = Parts() if parts is None else parts
    clusters = service_clusters(
        settings.services, f"unix:{settings.desk_socket}", settings.otlp_endpoint, settings.peer_ca
    )
    if desired.predictions:
        clusters += group_clusters(
            desired.predictions.table, settings.max_request_bytes + _BUFFER_SLACK, parts
        )
    folder = settings.envoy_directory
    configuration = Configuration(
        listeners=tuple(listeners(settings, desired.keys, folder / ROUTES_FILE, folder / RIGHTS_FILE)),
        clusters=tuple(clusters),
        routes=route_configuration(
            desired.predictions, settings.max_request_bytes, parts, settings.allowed_origins
        ),
        rights=rights(desired.predictions, parts),
        secrets=tls.secrets(settings),
    )
    parts.forget()
    check(configuration)
    return configuration


def check(configuration: Configuration) -> None:
    """Refuse what Envoy would take but could not serve.

    Raises:
        InconsistentConfigurationError: as `render`.
    """
    names = [cluster["name"] for cluster in configuration.clusters]
    if len(names) != len(set(names)):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        raise InconsistentConfigurationError(f"more than one cluster is named {', '.join(twice)}")
    if missing := referenced_clusters(configuration.routes) - set(names):
        raise InconsistentConfigurationError(
            f"routes lead to clusters that do not exist: {', '.join(sorted(missing))}"
        )


def referenced_clusters(routes: Json | None) -> set[str]:
    """Return the names of all clusters that the routes lead to."""
    found: set[str] = set()
    for route in every_route(routes):
        action = route.get("route", {})
        found |= {cluster["name"] for cluster in action.get("weighted_clusters", {}).get("clusters", ())}
        found |= {action["cluster"]} if "cluster" in action else set()
        found |= {policy["cluster"] for policy in action.get("request_mirror_policies", ())}
    return found


def version_of(resources: Iterable[Json]) -> str:
    """Return the version of a file of resources, a digest of the content."""
    return digest_of(list(resources))[:16]


def discovery_file(resources: Iterable[Json], version: str) -> str:
    """Return the text of a file of resources."""
    return text_of({"version_info": version, "resources": list(resources)})


def bootstrap(settings: GatewaySettings) -> Json:
    """Return the file Envoy is started with; it never changes while Envoy runs."""
    folder = settings.envoy_directory
    return {
        "node": {"id": settings.gateway_id, "cluster": "modelyard-gateway"},
        # Latencies are compared between versions while one takes over from the other; Envoy's own bounds are too far apart.
        "stats_flush_interval": "1s",
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"prefix": "cluster.group-"}, "buckets": list(LATENCY_BOUNDS)}
            ]
        },
        "admin": {"address": {"pipe": {"path": str(settings.admin_socket), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": source(folder / LISTENERS_FILE),
            "cds_config": source(folder / CLUSTERS_FILE),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": TYPE
                        + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 50000,
                    },
                }
            ]
        },
    }


def static_candidate(configuration: Configuration) -> Json:
    """Return the configuration in one file without watched parts, for `envoy --mode validate`."""
    listeners = json.loads(json.dumps(configuration.listeners))
    for resource in listeners:
        resource.pop("@type")
        for chain in resource["filter_chains"]:
            if "transport_socket" in chain:
                tls.embed(chain["transport_socket"], dict(configuration.secrets))
            manager = chain["filters"][0]["typed_config"]
            manager.pop("rds")
            routes = dict(configuration.routes or {"name": NAME})
            routes.pop("@type", None)
            manager["route_config"] = routes
            for filter_ in manager["http_filters"]:
                if filter_["name"] == RBAC and configuration.rights:
                    del filter_["config_discovery"]
                    filter_["typed_config"] = configuration.rights["typed_config"]
    clusters = [
        {key: value for key, value in cluster.items() if key != "@type"} for cluster in configuration.clusters
    ]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


__all__ = ["EMPTY", "TYPE", "Configuration", "InconsistentConfigurationError", "bootstrap", "check", "render"]
