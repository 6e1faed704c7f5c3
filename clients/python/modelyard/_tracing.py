"""A span around each call and its `traceparent`, when OpenTelemetry is installed. The only module that touches it."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType


@functools.cache
def _api() -> tuple[ModuleType, ModuleType] | None:
    try:
        from opentelemetry import propagate, trace
    except ImportError:
        return None
    return trace, propagate


@contextmanager
def call_span(service: str, method: str) -> Iterator[list[tuple[str, str]]]:
    """Run a call in a client span; yields the metadata that carries the span to the service."""
    api = _api()
    if api is None:
        yield []
        return
    trace, propagate = api
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    tracer = trace.get_tracer("modelyard")
    with tracer.start_as_current_span(
        f"{service}/{method}", kind=trace.SpanKind.CLIENT, attributes=attributes
    ):
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        yield list(carrier.items())
