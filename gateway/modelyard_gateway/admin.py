"""What Envoy says about itself, through its admin interface on a Unix socket."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modelyard_gateway.clusters import group_of_cluster
from modelyard_gateway.figures import Counted
from modelyard_gateway.route_parts import NAME, RBAC

# Envoy answers on the thread that takes configurations, which with thousands of clusters it is busy with for seconds.
_TIMEOUT_SECONDS = 10.0
_LDS = "listener_manager.lds.version_text"
_CDS = "cluster_manager.cds.version_text"
_RDS = f"http.{NAME}.rds.{NAME}.version_text"
_RIGHTS = f"extension_config_discovery.http_filter.{RBAC}.version_text"
_WARMING = "cluster_manager.warming_clusters"
_HEALTHY_NAME = re.compile(r"cluster\.group-(.*)\.membership_healthy")
# One time for each prediction, as Envoy waited for its replica.
_LATENCY_NAME = re.compile(r"cluster\.group-(.*)\.upstream_rq_time")
_LATENCIES = (
    "/stats?filter=%5Ecluster%5C.group-.*%5C.upstream_rq_time$&format=json&histogram_buckets=cumulative"
)
_STARTED = "/config_dump?mask=last_updated"
_TAKEN = "/config_dump?resource=dynamic_active_clusters&mask=cluster.name,last_updated"
# A cluster has hundreds of statistics; of texts there are few, and of numbers that go up and down a tenth.
_VERSIONS = "/stats?type=TextReadouts&filter=version_text$&format=json"
_WARMING_NOW = "/config_dump?resource=dynamic_warming_clusters&mask=cluster.name"
_HEALTHY = (
    "/stats?type=Gauges&format=json&filter="
    "%5E(cluster%5C.group-.*%5C.membership_healthy%7Ccluster_manager%5C.warming_clusters)$"
)

_LONGEST_REST_SECONDS = 5.0

Host = dict[str, Any]
"""One replica of a group in Envoy's words."""


class EnvoyUnreachableError(Exception):
    """Envoy does not run, or does not answer."""


class EnvoyBusyError(EnvoyUnreachableError):
    """Envoy runs, and gave no answer in time: it goes on serving what it served."""


@dataclass(frozen=True)
class EnvoyState:
    """Which version of each file Envoy serves, how many clusters are still warming, and its open complaints."""

    listeners: str
    clusters: str
    routes: str
    rights: str
    warming: int


class Admin:
    """Asks one Envoy."""

    def __init__(self, admin_socket: Path) -> None:
        self._socket = admin_socket

    async def state(self) -> EnvoyState:
        """Return what Envoy has applied.

        Raises:
            EnvoyUnreachableError: it does not answer.
        """
        values = await self._stats(_VERSIONS)
        # After the versions, so that it counts the clusters of that one.
        warming = (await self._json(_WARMING_NOW)).get("configs", [])
        return EnvoyState(
            listeners=str(values.get(_LDS, "")),
            clusters=str(values.get(_CDS, "")),
            routes=str(values.get(_RDS, "")),
            rights=str(values.get(_RIGHTS, "")),
            warming=len(warming),
        )

    async def healthy_groups(self) -> frozenset[str] | None:
        """Return the groups with at least one replica that Envoy would send a prediction to.

        None while clusters are warming: one that takes the place of another is counted under the same name before it serves.

        Raises:
            EnvoyUnreachableError: it does not answer.
        """
        values = await self._stats(_HEALTHY)
        if values.pop(_WARMING, 0):
            return None
        named = {_HEALTHY_NAME.fullmatch(name): hosts for name, hosts in values.items()}
        return frozenset(name[1] for name, hosts in named.items() if name and hosts)

    async def hosts(self) -> dict[str, list[Host]]:
        """Return the replicas of each group as Envoy sees them.

        Raises:
            EnvoyUnreachableError: it does not answer.
        """
        clusters = (await self._json("/clusters?format=json")).get("cluster_statuses", [])
        named = {group_of_cluster(cluster["name"]): cluster for cluster in clusters}
        return {
            group: cluster.get("host_statuses", []) for group, cluster in named.items() if group is not None
        }

    async def counted(self) -> dict[str, Counted]:
        """Return what Envoy has counted about each group; nothing if its clusters change meanwhile: the next look tells.

        Raises:
            EnvoyUnreachableError: it does not answer.
        """
        began = await self._began()
        hosts, latencies = await self.hosts(), await self._latencies()
        if await self._began() != began:
            return {}
        envoy_since, clusters_since = began
        return {
            group: Counted(
                {_address(host): _stat(host, "rq_success") for host in hosts[group]},
                {_address(host): _stat(host, "rq_error") for host in hosts[group]},
                latencies.get(group, {}),
                since,
                envoy_since,
                sum(_stat(host, "rq_active") for host in hosts[group]),
            )
            for group, since in clusters_since.items()
            if group in hosts
        }

    async def _began(self) -> tuple[str, dict[str, str]]:
        """Return when Envoy started, and when it took the cluster of each group: it counts since then."""
        started = (await self._json(_STARTED)).get("configs", [])
        taken = (await self._json(_TAKEN)).get("configs", [])
        named = {group_of_cluster(config["cluster"]["name"]): config["last_updated"] for config in taken}
        return (
            next(
                config["last_updated"]
                for config in started
                if config["@type"].endswith("BootstrapConfigDump")
            ),
            {group: since for group, since in named.items() if group is not None},
        )

    async def _latencies(self) -> dict[str, dict[float, int]]:
        rows = (await self._json(_LATENCIES)).get("stats", [])
        found = {}
        for histogram in rows[0].get("histograms", []) if rows else []:
            match = _LATENCY_NAME.fullmatch(histogram["name"])
            if match:
                buckets = histogram["buckets"]
                sums = [0, *(int(bucket["cumulative"]) for bucket in buckets)]
                bounds = (float(bucket["upper_bound"]) for bucket in buckets)
                found[match[1]] = {b: n - m for b, m, n in zip(bounds, sums, sums[1:], strict=False)}
        return found

    async def problem(self) -> str:
        """Return why Envoy refused the last files; empty when it did not.

        Raises:
            EnvoyUnreachableError: it does not answer.
        """
        dump = await self._json("/config_dump")
        problems = []
        for config in dump.get("configs", []):
            for rows in config.values():
                for row in rows if isinstance(rows, list) else ():
                    details = row.get("error_state", {}).get("details", "") if isinstance(row, dict) else ""
                    if details:
                        problems.append(details)
        return "; ".join(problems)

    async def listen_port(self, listener: str = NAME) -> int:
        """Return the port of a listener, by default the public one; 0 when there is none or it is a Unix socket.

        Raises:
            EnvoyUnreachableError: it does not answer.
        """
        for status in (await self._json("/listeners?format=json")).get("listener_statuses", []):
            if status["name"] == listener:
                return int(status["local_address"].get("socket_address", {}).get("port_value", 0))
        return 0

    def prometheus(self, names: str) -> str:
        """Return what Envoy has counted since it started under names that match an expression, as Prometheus reads it; blocks.

        Raises:
            EnvoyUnreachableError: it does not answer.
        """
        return self._get(f"/stats/prometheus?usedonly&filter={quote(names, safe='')}").decode(
            "utf-8", "replace"
        )

    async def _stats(self, path: str) -> dict[str, Any]:
        rows = (await self._json(path)).get("stats", [])
        return {row["name"]: row["value"] for row in rows if "name" in row}

    async def _json(self, path: str) -> dict[str, Any]:
        text = await asyncio.to_thread(self._get, path)
        try:
            answer: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise EnvoyUnreachableError(f"Envoy's admin interface gave no JSON for {path}") from error
        return answer

    def _get(self, path: str) -> bytes:
        connection = _UnixConnection(self._socket)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        except (TimeoutError, BlockingIOError) as error:
            # The latter: so many wait already that the socket takes no more.
            raise EnvoyBusyError(
                f"Envoy runs, but gave no answer on {self._socket} within {_TIMEOUT_SECONDS:.0f} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise EnvoyUnreachableError(f"Envoy does not answer on {self._socket}: {error}") from error
        finally:
            connection.close()


def rest_after(seconds: float, least: float) -> float:
    """Return how long to leave Envoy alone after a look that took so long, as long again: looks are work for it."""
    return min(max(least, seconds), _LONGEST_REST_SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("envoy", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


def _address(host: Host) -> str:
    return json.dumps(host.get("address", {}), sort_keys=True)


def _stat(host: Host, name: str) -> int:
    """Envoy leaves out a number that is 0."""
    return next((int(stat.get("value", 0)) for stat in host.get("stats", ()) if stat["name"] == name), 0)
