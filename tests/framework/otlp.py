"""An OTLP collector in the test process that keeps what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class Span:
    """A span as it was received."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans, and requests about logs and metrics as they came."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.logs: list[Any] = []
        self.metrics: list[Any] = []
        self.refuses: grpc.StatusCode | None = None
        """What it answers to logs, if it does not take them."""
        self.address = ""

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            service = _attributes(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans += [
                    Span(
                        service,
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        _attributes(span.attributes),
                    )
                    for span in scope.spans
                ]
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, collecting: Collector) -> None:
        self._collecting = collecting

    def Export(self, request: Any, context: Any) -> Any:
        if self._collecting.refuses:
            context.abort(self._collecting.refuses, "not now")
        self._collecting.logs.append(request)
        return logs_service_pb2.ExportLogsServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collecting: Collector) -> None:
        self._collecting = collecting

    def Export(self, request: Any, context: Any) -> Any:
        self._collecting.metrics.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def attributes(pairs: Any) -> dict[str, Any]:
    """Return attributes as Python has them."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def _attributes(pairs: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in pairs}


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on loopback within this block."""
    collecting = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collecting, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(collecting), server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(collecting), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    collecting.address = f"http://127.0.0.1:{port}"
    try:
        yield collecting
    finally:
        server.stop(0).wait()
