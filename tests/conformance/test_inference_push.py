"""What a collector of OpenTelemetry is told about replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from modelyard_inference import push, scrape
from modelyard_inference.push import MetricsPush
from modelyard_inference.statistics import ReplicaFigures
from tests.framework.otlp import attributes, collector
from tests.unit.inference.test_planner import NOW, deployment
from tests.unit.inference.test_scrape import COUNTERS, figures


class Told:
    """Figures, as the rules would ask for them."""

    def __init__(self, found: Sequence[ReplicaFigures]) -> None:
        self.found = found

    async def everything(self) -> Sequence[ReplicaFigures]:
        return self.found


def nanoseconds(time: Any) -> int:
    return int(time.timestamp()) * 10**9


async def test_each_replica_is_a_resource_with_the_figures_that_prometheus_gets() -> None:
    with collector() as collecting:
        pushing = MetricsPush(Told(figures()), collecting.address, now_ns=lambda: 99)  # type: ignore[arg-type]
        await pushing.push()
        await pushing.close()
    ((first, silent),) = (request.resource_metrics for request in collecting.metrics)
    resource = attributes(first.resource.attributes)
    assert (resource["service.name"], resource["service.instance.id"]) == ("modelyard-replica", "r1.0")
    assert resource["modelyard.deployment"] == deployment().name
    found = {metric.name: metric for metric in first.scope_metrics[0].metrics}
    assert found.keys() == scrape.METRICS
    success = found["nv_inference_request_success"].sum
    (point,) = success.data_points
    assert (point.as_int, success.is_monotonic, point.time_unix_nano) == (COUNTERS.success, True, 99)
    assert point.start_time_unix_nano == nanoseconds(NOW)
    assert attributes(point.attributes) == {
        "model": deployment().name, "version": "3", "replica": "r1.0",
    }  # fmt: skip
    failures = found["nv_inference_request_failure"].sum.data_points
    assert {attributes(one.attributes)["reason"]: one.as_int for one in failures} == COUNTERS.failures
    duration = found["nv_inference_request_duration_us"]
    assert (duration.unit, duration.sum.data_points[0].as_int) == ("us", 8_000)
    (latency,) = found["modelyard_prediction_duration_seconds"].histogram.data_points
    assert (list(latency.explicit_bounds), list(latency.bucket_counts)) == ([0.1, 1.0], [4, 2, 1])
    assert (latency.count, latency.sum) == (7, 0.008)
    assert found["modelyard_replica_memory_bytes"].gauge.data_points[0].as_int == 1_000_000
    told = {m.name: m.gauge.data_points[0].as_int for m in silent.scope_metrics[0].metrics}
    assert told == {"modelyard_replica_up": 0, "modelyard_replica_restarts": 6}


async def test_many_replicas_go_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_AT_ONCE", 3)
    with collector() as collecting:
        pushing = MetricsPush(Told(figures() * 4), collecting.address)  # type: ignore[arg-type]
        await pushing.push()
        await pushing.close()
    assert [len(request.resource_metrics) for request in collecting.metrics] == [3, 3, 2]


async def test_a_collector_that_is_away_is_told_of() -> None:
    with collector() as collecting:
        pushing = MetricsPush(Told(figures()), collecting.address)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="the collector says UNAVAILABLE"):
        await pushing.push()
    await pushing.close()
