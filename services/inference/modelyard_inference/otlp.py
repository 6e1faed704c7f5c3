"""The OpenTelemetry protocol as this service speaks it: about replicas, which have no exporter for it.

The messages are those of the protocol itself, which is stable; the SDK's classes for logs are not, and know only their own process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.util.re import parse_env_headers

TIMEOUT_SECONDS = 10.0
SCOPE = InstrumentationScope(name="modelyard_inference")

Value = str | int | float | bool


def channel(endpoint: str) -> grpc.aio.Channel:
    """Return a channel to a collector, `http://host:port` or with TLS `https://host:port`, as the SDK's exporters make it.

    Raises:
        OSError: the file of OTEL_EXPORTER_OTLP_CERTIFICATE cannot be read.
    """
    target = endpoint.removeprefix("https://").removeprefix("http://")
    if not endpoint.startswith("https://"):
        return grpc.aio.insecure_channel(target)
    certificate = os.environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE")
    trusted = Path(certificate).read_bytes() if certificate else None
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(trusted))


def headers() -> list[tuple[str, str]]:
    """Return what a collector wants to know of its callers: OTEL_EXPORTER_OTLP_HEADERS."""
    return list(parse_env_headers(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""), liberal=True).items())


def unavailable(error: grpc.aio.AioRpcError) -> OSError:
    """Return what it means that a collector did not take something."""
    return OSError(f"the collector says {error.code().name}: {error.details()}")


def replica_resource(deployment: str, model_version: str, replica: str, *, shadow: bool) -> Resource:
    """Return the resource that a replica is; its spans have the same."""
    return Resource(
        attributes=attributes(
            {
                "service.name": "modelyard-replica",
                "service.instance.id": replica,
                "modelyard.deployment": deployment,
                "modelyard.model_version": model_version,
                "modelyard.shadow": shadow,
            }
        )
    )


def attributes(given: Mapping[str, Value]) -> list[KeyValue]:
    """Return attributes."""
    return [KeyValue(key=key, value=_value(value)) for key, value in given.items()]


def _value(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value)
