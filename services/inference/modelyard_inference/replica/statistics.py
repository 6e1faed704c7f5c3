"""What a replica counts: plain numbers that its event loop alone changes, so that counting costs a prediction about a microsecond.

The figures are those of Triton, whose names are in docs/observability.md.
"""

from __future__ import annotations

import resource
import sys
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any, Final

from modelyard.api.inference.v1.replica_service_pb2 import GetStatisticsResponse
from modelyard.api.inference.v1.statistics_pb2 import InferenceCounters
from modelyard_inference.replica.errors import ModelFailed, QueueFull
from modelyard_kit.errors import DeadlineExceeded

GET_STATISTICS: Final = "/modelyard.api.inference.v1.ReplicaService/GetStatistics"
REJECTED, CANCELED, BACKEND, OTHER = "REJECTED", "CANCELED", "BACKEND", "OTHER"
BOUNDS: Final = (
    0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of latencies, in seconds."""
_BOUNDS_NS: Final = tuple(round(bound * 1e9) for bound in BOUNDS)
_MEMORY: Final = Path("/proc/self/statm")


class Statistics:
    """The counters of one replica; times are in nanoseconds."""

    def __init__(self) -> None:
        self.success = 0
        self.failures = dict.fromkeys((REJECTED, CANCELED, BACKEND, OTHER), 0)
        self.inferences = 0
        self.executions = 0
        self.request_ns = 0
        self.failed_ns = 0
        self.last_answer = 0
        """When the last prediction was answered, of `perf_counter_ns`; 0 if none was."""
        self.queue_ns = 0
        self.input_ns = 0
        self.infer_ns = 0
        self.output_ns = 0
        self.latencies = [0] * (len(BOUNDS) + 1)

    def answered(self, request_ns: int, *, read_ns: int, write_ns: int, now: int = 0) -> None:
        """Count a prediction that was answered `now`, of `perf_counter_ns`."""
        self.success += 1
        self.last_answer = now
        self.request_ns += request_ns
        self.input_ns += read_ns
        self.output_ns += write_ns
        self.latencies[bisect_left(_BOUNDS_NS, request_ns)] += 1

    def computed(self, rows: int, *, queue_ns: int, merge_ns: int, infer_ns: int) -> None:
        """Count what the model did for a prediction."""
        self.inferences += rows
        self.queue_ns += queue_ns
        self.input_ns += merge_ns
        self.infer_ns += infer_ns

    def failed(self, error: BaseException | None, request_ns: int = 0) -> None:
        """Count a prediction that was not answered; None: its caller is gone."""
        self.failures[_why(error)] += 1
        self.failed_ns += request_ns

    def render(self, *, in_flight: int, pending: int) -> bytes:
        """Return an encoded GetStatisticsResponse."""
        counters = InferenceCounters(
            success_count=self.success,
            failure_counts=self.failures,
            inference_count=self.inferences,
            execution_count=self.executions,
            request_ns=self.request_ns,
            queue_ns=self.queue_ns,
            compute_input_ns=self.input_ns,
            compute_infer_ns=self.infer_ns,
            compute_output_ns=self.output_ns,
            latency_bounds=BOUNDS,
            latency_counts=self.latencies,
        )
        return GetStatisticsResponse(
            counters=counters, in_flight=in_flight, pending=pending, memory_bytes=memory_bytes()
        ).SerializeToString()

    def for_triton(self, name: str, version: str) -> dict[str, Any]:
        """Return what a ModelStatisticsResponse says, and the JSON of Triton, about the model of a name and version."""

        def part(ns: int, count: int = self.success) -> dict[str, int]:
            return {"count": count, "ns": ns}

        found = {
            "name": name,
            "version": version,
            "last_inference": _milliseconds_since_1970(self.last_answer) if self.last_answer else 0,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": part(self.request_ns),
                "fail": part(self.failed_ns, sum(self.failures.values())),
                "queue": part(self.queue_ns),
                "compute_input": part(self.input_ns),
                "compute_infer": part(self.infer_ns),
                "compute_output": part(self.output_ns),
            },
            "memory_usage": [{"type": "CPU", "byte_size": memory_bytes()}],
        }
        return {"model_stats": [found]}


def memory_bytes() -> int:
    """Return the memory that this process holds; where the system does not say, the most it has held."""
    try:
        return int(_MEMORY.read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _milliseconds_since_1970(counter_ns: int) -> int:
    """Return the time of day of a value of `perf_counter_ns`; looking at the clock only here costs predictions nothing."""
    return (time.time_ns() - (time.perf_counter_ns() - counter_ns)) // 1_000_000


def _why(error: BaseException | None) -> str:
    if error is None:
        return CANCELED
    if isinstance(error, QueueFull | DeadlineExceeded):
        return REJECTED
    return BACKEND if isinstance(error, ModelFailed) else OTHER
