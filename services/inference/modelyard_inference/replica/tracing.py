"""Spans of predictions whose caller traces, exported by OTLP; without a collector nothing of this is loaded."""

from __future__ import annotations

from collections.abc import Callable

from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.front import Call, Unary

Wrap = Callable[[str, Unary], Unary]


def untraced(_name: str, method: Unary) -> Unary:
    """Return the method itself."""
    return method


def start(config: ReplicaConfig) -> tuple[Wrap, Callable[[], None]]:
    """Return what wraps the methods that predict, and what flushes spans at the end."""
    if not config.otlp_endpoint:
        return untraced, lambda: None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": "modelyard-replica",
                "modelyard.deployment": config.deployment,
                "modelyard.model_version": f"{config.model}/{config.version}",
            }
        )
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=config.otlp_endpoint)))
    tracer = provider.get_tracer("modelyard_inference.replica")
    propagator = TraceContextTextMapPropagator()

    def wrap(name: str, method: Unary) -> Unary:
        async def traced(body: bytes, call: Call) -> bytes:
            carrier = {key: value for key, value in call.metadata if isinstance(value, str)}
            if "traceparent" not in carrier:
                return await method(body, call)
            with tracer.start_as_current_span(
                name, context=propagator.extract(carrier), kind=SpanKind.SERVER
            ):
                return await method(body, call)

        return traced

    return wrap, provider.shutdown
