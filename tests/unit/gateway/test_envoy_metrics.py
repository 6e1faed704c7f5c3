"""What Prometheus gets to see of Envoy's statistics."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from modelyard_gateway import envoy_metrics
from modelyard_gateway.envoy_metrics import families, labels_of
from modelyard_gateway.table import RouteTable
from tests.conformance.gateway_stack import route

TABLE = RouteTable(1, (route("prod.ml.iris", ("g1", 1, ["unix:/s"])),))
TEXT = """\
# TYPE envoy_cluster_upstream_rq_total counter
envoy_cluster_upstream_rq_total{envoy_cluster_name="group-g1"} 3
envoy_cluster_upstream_rq_total{envoy_cluster_name="desk"} 1
# TYPE envoy_cluster_upstream_rq_xx counter
envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="group-g1"} 3
# TYPE envoy_cluster_membership_healthy gauge
envoy_cluster_membership_healthy{envoy_cluster_name="group-g1"} 1
# TYPE envoy_http_downstream_rq_time histogram
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="gateway",le="1"} 2
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="gateway",le="+Inf"} 3
envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix="gateway"} 5
envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix="gateway"} 3
"""


class Registered:
    def collect(self) -> Any:
        return families(TEXT, labels_of(TABLE))


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    made.register(Registered())
    return made


def test_clusters_of_deployments_have_the_labels_of_replicas(registry: CollectorRegistry) -> None:
    text = generate_latest(registry).decode()
    for line in (
        'envoy_cluster_upstream_rq_total{envoy_cluster_name="group-g1",model="prod.ml.iris",version="1"} 3.0',
        'envoy_cluster_upstream_rq_total{envoy_cluster_name="desk"} 1.0',
        'envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="gateway",le="1"} 2.0',
        "modelyard_gateway_envoy_series_left_out 0.0",
    ):
        assert line in text.splitlines()


def test_both_formats_of_prometheus_take_it(registry: CollectorRegistry) -> None:
    found = {
        family.name: family.type for family in parse_openmetrics(generate_openmetrics(registry).decode())
    }
    assert found == {
        "envoy_cluster_upstream_rq": "counter",
        "envoy_cluster_upstream_rq_xx": "unknown",
        "envoy_cluster_membership_healthy": "gauge",
        "envoy_http_downstream_rq_time": "histogram",
        "modelyard_gateway_envoy_series_left_out": "gauge",
    }


def test_series_are_bounded_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_metrics, "MAX_SERIES", 1)
    found = {family.name: family.samples for family in families(TEXT, {})}
    assert [len(samples) for samples in found.values()] == [1] * 5
    assert found["modelyard_gateway_envoy_series_left_out"][0].value == 1 + 3
