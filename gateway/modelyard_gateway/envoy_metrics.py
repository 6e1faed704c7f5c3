"""What Envoy counts, for Prometheus: its admin interface is a Unix socket, so the agent answers for it.

Of several hundred statistics for each cluster those are told that say something about traffic, under Envoy's own names. Series of
groups of replicas have the labels `model` and `version` that the replicas' own have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from modelyard_gateway.admin import Admin, EnvoyUnreachableError
from modelyard_gateway.clusters import group_cluster_name
from modelyard_gateway.table import RouteTable

MAX_SERIES: Final = 5_000
"""Of one metric; beyond that they are left out, and counted."""
FILTER: Final = (
    r"^(server\.(uptime|live|concurrency|memory_allocated|memory_physical_size|days_until_first_cert_expiring)"
    r"|http\.gateway(-private)?\.(downstream_(rq|cx)_(total|active)|downstream_rq_[1-5]xx|downstream_rq_time"
    r"|rbac\.denied|jwt_authn\.denied)"
    r"|rate\.http_local_rate_limit\.rate_limited"
    r"|cluster\..*\.(upstream_rq_(total|active|[245]xx|retry|timeout|pending_overflow)"
    r"|upstream_cx_(active|connect_fail)|membership_(total|healthy)|outlier_detection\.ejections_active))$"
)
"""Names that Envoy's statistics have before they become Prometheus'."""
_UP, _LEFT_OUT = "modelyard_gateway_envoy_up", "modelyard_gateway_envoy_series_left_out"
_TOLD: Final = {
    _UP: "Whether Envoy tells what it counts",
    _LEFT_OUT: f"Series beyond the first {MAX_SERIES} of each metric",
}
_CLUSTER = "envoy_cluster_name"

Labels = Mapping[str, Mapping[str, str]]
"""What is known of clusters, as labels, by their name."""


@contextmanager
def offered(admin: Admin, table: Callable[[], RouteTable | None]) -> Iterator[None]:
    """Answer scrapes of this process for Envoy too while the block runs."""
    from prometheus_client import REGISTRY

    collector = EnvoyCollector(admin, table)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


class EnvoyCollector:
    """Asks Envoy when somebody scrapes, on the scrape's own thread.

    Args:
        admin: its admin interface.
        table: returns what it serves.
    """

    def __init__(self, admin: Admin, table: Callable[[], RouteTable | None]) -> None:
        self._admin = admin
        self._table = table

    def describe(self) -> Iterable[Any]:
        """Return nothing: registering must not ask."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Yield the families of metrics; only that it does not answer if Envoy does not."""
        from prometheus_client.metrics_core import GaugeMetricFamily

        try:
            text = self._admin.prometheus(FILTER)
        except EnvoyUnreachableError:
            yield GaugeMetricFamily(_UP, _TOLD[_UP], value=0.0)
            return
        yield GaugeMetricFamily(_UP, _TOLD[_UP], value=1.0)
        yield from families(text, labels_of(self._table()))


def labels_of(table: RouteTable | None) -> Labels:
    """Return the labels of the clusters of a table."""
    return {
        group_cluster_name(target.group): {
            "model": route.name,
            "version": target.model_version.rpartition("/")[2],
        }
        for route in (table.routes if table else ())
        for target in route.targets
    }


def families(text: str, labels: Labels) -> Iterator[Any]:
    """Yield the families of metrics in Envoy's text."""
    from prometheus_client.metrics_core import GaugeMetricFamily, Metric
    from prometheus_client.parser import text_string_to_metric_families

    left_out = 0
    for given in text_string_to_metric_families(text):
        samples = [sample for sample in given.samples if sample.name.startswith("envoy_")]
        # OpenMetrics lets only names that end in `_total` be counters; the parser gives others that end, which Envoy's do not have.
        odd = given.type == "counter" and f"# TYPE {given.name} counter" in text
        if odd:
            samples = [sample._replace(name=given.name) for sample in samples]
        family = Metric(given.name, "As Envoy counts", "unknown" if odd else given.type)
        family.samples = [
            sample._replace(labels={**sample.labels, **labels.get(sample.labels.get(_CLUSTER, ""), {})})
            for sample in samples[:MAX_SERIES]
        ]
        left_out += len(samples) - len(family.samples)
        yield family
    yield GaugeMetricFamily(_LEFT_OUT, _TOLD[_LEFT_OUT], value=float(left_out))
