"""What the replicas counted, for Prometheus: they listen on Unix sockets, so this service answers for all of them.

The names are those of Triton, so that dashboards made for it show replicas too. Triton's counters do not end in `_total`, which
OpenMetrics demands of counters; so they are sent without a type, in which both formats agree. Each replica is a series of its own: the
sum over replicas falls when one ends, which Prometheus would take for a restart of all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference.ports import Counters, Measured
from modelyard_inference.statistics import ReplicaFigures, Statistics

SCRAPE_SECONDS = 5.0
_MICROSECOND = 1_000

_log = structlog.get_logger()

COUNTERS: Mapping[str, tuple[str, Callable[[Counters], int]]] = {
    "nv_inference_request_success": ("Predictions that were answered", lambda c: c.success),
    "nv_inference_count": ("Rows that were computed", lambda c: c.inferences),
    "nv_inference_exec_count": ("Runs of the model", lambda c: c.executions),
    "nv_inference_request_duration_us": (
        "Time from requests to their answers",
        lambda c: c.request_ns // _MICROSECOND,
    ),
    "nv_inference_queue_duration_us": ("Time of waiting for the model", lambda c: c.queue_ns // _MICROSECOND),
    "nv_inference_compute_input_duration_us": (
        "Time of reading requests and putting their rows together",
        lambda c: c.input_ns // _MICROSECOND,
    ),
    "nv_inference_compute_infer_duration_us": (
        "Time in the model",
        lambda c: c.infer_ns // _MICROSECOND,
    ),
    "nv_inference_compute_output_duration_us": (
        "Time of writing answers",
        lambda c: c.output_ns // _MICROSECOND,
    ),
}
FAILURES = "nv_inference_request_failure"
LATENCY = "modelyard_prediction_duration_seconds"
GAUGES: Mapping[str, tuple[str, Callable[[Measured], int]]] = {
    "nv_inference_pending_request_count": ("Predictions that wait for the model", lambda m: m.pending),
    "modelyard_replica_in_flight": ("Predictions that a replica is at", lambda m: m.in_flight),
    "modelyard_replica_memory_bytes": ("Memory that a replica holds", lambda m: m.memory_bytes),
}
UP, RESTARTS = "modelyard_replica_up", "modelyard_replica_restarts"

LABELS = ("model", "version", "replica")
"""What tells the series of replicas apart."""
METRICS = frozenset({*COUNTERS, *GAUGES, FAILURES, LATENCY, UP, RESTARTS})
"""Names of everything that is told about replicas."""


@contextmanager
def offered(statistics: Statistics) -> Iterator[None]:
    """Answer scrapes of this process for all replicas while the block runs; only within an event loop."""
    from prometheus_client import REGISTRY

    collector = ReplicaCollector(statistics, asyncio.get_running_loop())
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)


class ReplicaCollector:
    """Asks the replicas when somebody scrapes.

    Args:
        statistics: asks.
        loop: that of the service; scrapes come on threads of their own.
    """

    def __init__(self, statistics: Statistics, loop: asyncio.AbstractEventLoop) -> None:
        self._statistics = statistics
        self._loop = loop

    def describe(self) -> Iterable[Any]:
        """Return nothing: registering must not ask."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Yield the families of metrics; none about replicas if they cannot be listed now."""
        asked = asyncio.run_coroutine_threadsafe(self._statistics.everything(), self._loop)
        try:
            figures = asked.result(SCRAPE_SECONDS)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            asked.cancel()
            _log.warning("replicas_not_scraped", error=str(error) or type(error).__name__)
            return
        yield from families(figures)


def families(figures: Sequence[ReplicaFigures]) -> Iterator[Any]:
    """Yield the families of metrics of some replicas."""
    from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric

    names = LABELS
    up = GaugeMetricFamily(UP, "Whether a replica tells what it is doing", labels=names)
    restarts = GaugeMetricFamily(RESTARTS, "How often a replica was started again", labels=names)
    for one in figures:
        up.add_metric(labels_of(one), float(one.measured is not None))
        restarts.add_metric(labels_of(one), one.replica.restarts)
    yield from (up, restarts)
    told = [(one, one.measured) for one in figures if one.measured]
    for name, (text, value) in COUNTERS.items():
        family = Metric(name, f"{text}, added up", "unknown")
        for one, measured in told:
            family.add_sample(name, dict(zip(names, labels_of(one), strict=True)), value(measured.counters))
        yield family
    failures = Metric(FAILURES, "Predictions that were not answered, by why, added up", "unknown")
    for one, measured in told:
        for reason, count in measured.counters.failures.items():
            labels = {**dict(zip(names, labels_of(one), strict=True)), "reason": reason}
            failures.add_sample(FAILURES, labels, count)
    yield failures
    for name, (text, gauge) in GAUGES.items():
        told_now = GaugeMetricFamily(name, text, labels=names)
        for one, measured in told:
            told_now.add_metric(labels_of(one), gauge(measured))
        yield told_now
    latency = HistogramMetricFamily(LATENCY, "Time that answered predictions took", labels=names)
    for one, measured in told:
        counters = measured.counters
        bounds = (*map(str, counters.bounds), "+Inf")
        buckets = list(zip(bounds, accumulate(counters.latencies), strict=True))
        latency.add_metric(labels_of(one), buckets, sum_value=counters.request_ns / 1e9)
    yield latency


def labels_of(one: ReplicaFigures) -> tuple[str, str, str]:
    """Return what Triton calls model and version, as predictions name them, and the replica."""
    return one.deployment.name, str(one.group.version.number), one.replica.id
