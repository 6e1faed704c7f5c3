"""What the replicas counted, sent to a collector of OpenTelemetry: the figures and names of `scrape`, each replica a resource of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import grpc.aio
import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as m
from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference import otlp, scrape
from modelyard_inference.ports import Counters, Measured
from modelyard_inference.statistics import ReplicaFigures, Statistics

PERIOD_SECONDS = 60.0
_AT_ONCE: Final = 200
"""Replicas in a request, which has about 4 KiB for each; collectors take 4 MiB."""
_CUMULATIVE: Final = m.AGGREGATION_TEMPORALITY_CUMULATIVE

_log = structlog.get_logger()


class MetricsPush:
    """Sends what replicas counted.

    Args:
        statistics: asks them.
        endpoint: http://host:port or https://host:port of the collector.
        now_ns: tells the time, in nanoseconds since 1970.
    """

    def __init__(
        self, statistics: Statistics, endpoint: str, *, now_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._statistics = statistics
        self._now_ns = now_ns
        self._channel = otlp.channel(endpoint)
        self._stub: Any = MetricsServiceStub(self._channel)  # type: ignore[no-untyped-call,unused-ignore]
        self._headers = otlp.headers()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            try:
                await self.push()
            except (SQLAlchemyError, OSError) as error:
                _log.warning("metrics_of_replicas_not_sent", error=str(error))

    async def push(self) -> None:
        """Ask the replicas and send what they say.

        Raises:
            SQLAlchemyError, OSError: the replicas cannot be listed.
            OSError: the collector does not take it.
        """
        figures = await self._statistics.everything()
        for start in range(0, len(figures), _AT_ONCE):
            request = request_of(figures[start : start + _AT_ONCE], self._now_ns())
            try:
                await self._stub.Export(request, metadata=self._headers, timeout=otlp.TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise otlp.unavailable(error) from error

    async def close(self) -> None:
        """Let go of the connection."""
        await self._channel.close()


def request_of(figures: Sequence[ReplicaFigures], now_ns: int) -> ExportMetricsServiceRequest:
    """Return the request that tells the figures of some replicas."""
    return ExportMetricsServiceRequest(
        resource_metrics=[
            m.ResourceMetrics(
                resource=otlp.replica_resource(
                    one.deployment.name, one.group.version.name, one.replica.id, shadow=one.group.shadow
                ),
                scope_metrics=[m.ScopeMetrics(scope=otlp.SCOPE, metrics=_Points(one, now_ns).metrics())],
            )
            for one in figures
        ]
    )


class _Points:
    """Makes the points of one replica."""

    def __init__(self, one: ReplicaFigures, now_ns: int) -> None:
        self._one = one
        self._now = now_ns
        self._since = _nanoseconds(one.replica.start_time)
        self._labels = dict(zip(scrape.LABELS, scrape.labels_of(one), strict=True))

    def metrics(self) -> Iterator[m.Metric]:
        one = self._one
        yield self._gauge(scrape.UP, int(one.measured is not None))
        yield self._gauge(scrape.RESTARTS, one.replica.restarts)
        if one.measured:
            yield from self._measured(one.measured)

    def _measured(self, measured: Measured) -> Iterator[m.Metric]:
        for name, (_, counted) in scrape.COUNTERS.items():
            yield self._sum(name, [self._point(counted(measured.counters), since=self._since)])
        failures = measured.counters.failures.items()
        yield self._sum(
            scrape.FAILURES, [self._point(count, since=self._since, reason=why) for why, count in failures]
        )
        for name, (_, now) in scrape.GAUGES.items():
            yield self._gauge(name, now(measured))
        yield self._latency(measured.counters)

    def _sum(self, name: str, points: Sequence[m.NumberDataPoint]) -> m.Metric:
        unit = "us" if name.endswith("_us") else "1"
        total = m.Sum(aggregation_temporality=_CUMULATIVE, is_monotonic=True, data_points=points)
        return m.Metric(name=name, unit=unit, sum=total)

    def _gauge(self, name: str, value: int) -> m.Metric:
        unit = "By" if name.endswith("_bytes") else "1"
        return m.Metric(name=name, unit=unit, gauge=m.Gauge(data_points=[self._point(value)]))

    def _latency(self, counters: Counters) -> m.Metric:
        point = m.HistogramDataPoint(
            attributes=self._attributes(),
            start_time_unix_nano=self._since,
            time_unix_nano=self._now,
            count=sum(counters.latencies),
            sum=counters.request_ns / 1e9,
            explicit_bounds=counters.bounds,
            bucket_counts=counters.latencies,
        )
        histogram = m.Histogram(aggregation_temporality=_CUMULATIVE, data_points=[point])
        return m.Metric(name=scrape.LATENCY, unit="s", histogram=histogram)

    def _point(self, value: int, *, since: int = 0, **more: str) -> m.NumberDataPoint:
        return m.NumberDataPoint(
            attributes=self._attributes(**more),
            start_time_unix_nano=since,
            time_unix_nano=self._now,
            as_int=value,
        )

    def _attributes(self, **more: str) -> list[KeyValue]:
        return otlp.attributes({**self._labels, **more})


def _nanoseconds(time_of_day: datetime | None) -> int:
    return round(time_of_day.timestamp() * 1e6) * 1000 if time_of_day else 0
