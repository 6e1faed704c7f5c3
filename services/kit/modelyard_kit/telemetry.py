"""Logs, traces and metrics: structlog to standard error, OpenTelemetry to a collector, Prometheus to be scraped."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import structlog
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import SpanKind

from modelyard_kit.config import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from sqlalchemy.ext.asyncio import AsyncEngine

_NAME = "modelyard"
_TRACE_KEYS = frozenset(propagate.get_global_textmap().fields)


def configure_logging(settings: Settings, service: str) -> None:
    """Send structured lines to standard error; the standard library's logging joins them."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer(default=str)
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service)


def start(settings: Settings, service: str) -> TracerProvider | None:
    """Set up traces and metrics for this process; returns the tracer provider if traces are exported.

    The SDK and its exporters are imported only when they are used: they take a fifth of a service's time to start.
    """
    if not (settings.otlp_endpoint or settings.metrics_listen):
        return None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({"service.name": f"modelyard-{service}"})
    readers: list[MetricReader] = []
    provider = None
    if settings.otlp_endpoint:
        provider = _export_traces(settings.otlp_endpoint, resource)
        readers.append(_otlp_metrics(settings.otlp_endpoint))
    if settings.metrics_listen:
        readers.append(_prometheus_metrics(settings.metrics_listen))
    metrics.set_meter_provider(MeterProvider(metric_readers=readers, resource=resource))
    return provider


def _export_traces(endpoint: str, resource: Resource) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
    trace.set_tracer_provider(provider)
    return provider


def _otlp_metrics(endpoint: str) -> MetricReader:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    return PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
    )


def _prometheus_metrics(listen: str) -> MetricReader:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import start_http_server

    host, _, port = listen.rpartition(":")
    start_http_server(int(port), host)
    return PrometheusMetricReader()


def trace_sql(engine: AsyncEngine) -> None:
    """Make a span of every statement that runs within a trace."""
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    # Its own check knows SQLAlchemy only up to 2.0; a behaviour test shows that it works with the version installed here.
    SQLAlchemyInstrumentor().instrument(engine=engine.sync_engine, skip_dep_check=True)


def tracer() -> trace.Tracer:
    """Return the tracer of Modelyard."""
    return trace.get_tracer(_NAME)


def meter() -> metrics.Meter:
    """Return the meter of Modelyard."""
    return metrics.get_meter(_NAME)


def outgoing_context() -> list[tuple[str, str]]:
    """Return the metadata that carries the current trace to another service (W3C Trace Context)."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return list(carrier.items())


def incoming_context(metadata: Mapping[str, str | bytes]) -> Any:
    """Return the trace context that a call brought along; None if it brought none."""
    if not metadata.keys() & _TRACE_KEYS:
        return None
    carrier = {key: value for key, value in metadata.items() if isinstance(value, str)}
    return propagate.extract(carrier)


def server_span(name: str, metadata: Mapping[str, str | bytes]) -> AbstractContextManager[trace.Span]:
    """Begin the span of an incoming call, in the trace that it brought along.

    Without one, where this process exports no traces, there is nothing to begin: a tenth of what the layers around a call take.
    """
    parent = incoming_context(metadata)
    if parent is None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return nullcontext(trace.INVALID_SPAN)
    return tracer().start_as_current_span(
        name, parent, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
    )
