"""Logs of predictions, sent to a collector of OpenTelemetry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import grpc.aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_INFO,
    LogRecord,
    ResourceLogs,
    ScopeLogs,
)

from modelyard_inference import otlp
from modelyard_inference.log_files import ACCESS, PREDICT, Line
from modelyard_inference.log_policy import OTLP
from modelyard_inference.log_shipping import Source, trace_of

_MAX_BYTES: Final = 1024 * 1024
"""Of one request; collectors take 4 MiB."""
_EVENTS: Final = {ACCESS: "modelyard.prediction", PREDICT: "modelyard.prediction.tensors"}
# What OpenTelemetry has a name for has that; the rest is ours.
_NAMES: Final[Mapping[str, tuple[str, Callable[[str], otlp.Value]]]] = {
    "method": ("modelyard.method", str),
    "rows": ("modelyard.rows", int),
    "milliseconds": ("modelyard.duration_ms", float),
    "reason": ("error.type", str),
    "code": ("rpc.response.status_code", str),
    "id": ("modelyard.prediction.id", str),
    "inputs": ("modelyard.inputs", str),
    "outputs": ("modelyard.outputs", str),
    "number": ("modelyard.log.number", int),
}


class OtlpLogs:
    """Sends lines as log records.

    Args:
        endpoint: http://host:port or https://host:port of the collector.
    """

    name = OTLP

    def __init__(self, endpoint: str) -> None:
        self._channel = otlp.channel(endpoint)
        self._stub: Any = LogsServiceStub(self._channel)  # type: ignore[no-untyped-call,unused-ignore]
        self._headers = otlp.headers()

    async def write(self, source: Source, lines: Sequence[Line]) -> None:
        """See `Destination.write`."""
        resource = otlp.replica_resource(
            source.deployment, source.model_version, source.replica, shadow=source.shadow
        )
        for records in _parts(source.log, lines):
            logs = ScopeLogs(scope=otlp.SCOPE, log_records=records)
            request = ExportLogsServiceRequest(
                resource_logs=[ResourceLogs(resource=resource, scope_logs=[logs])]
            )
            try:
                await self._stub.Export(request, metadata=self._headers, timeout=otlp.TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise otlp.unavailable(error) from error

    async def close(self) -> None:
        """See `Destination.close`."""
        await self._channel.close()


def _parts(log: str, lines: Sequence[Line]) -> Iterator[list[LogRecord]]:
    part, size = list[LogRecord](), 0
    for line in lines:
        record = record_of(log, line)
        if part and size + record.ByteSize() > _MAX_BYTES:
            yield part
            part, size = [], 0
        part.append(record)
        size += record.ByteSize()
    if part:
        yield part


def record_of(log: str, line: Line) -> LogRecord:
    """Return the record of a line."""
    told: dict[str, otlp.Value] = {}
    for key, text in line.attributes.items():
        name, kind = _NAMES.get(key, ("", str))
        if name:
            told[name] = kind(text)
    if line.request_ids:
        told["modelyard.request_id"] = line.request_ids[0]
    trace, span = trace_of(line)
    return LogRecord(
        time_unix_nano=round(line.time.timestamp() * 1e6) * 1000 if line.time else 0,
        observed_time_unix_nano=time.time_ns(),
        severity_number=SEVERITY_NUMBER_INFO,
        severity_text="INFO",
        event_name=_EVENTS[log],
        body=AnyValue(string_value=line.message),
        attributes=otlp.attributes(told),
        trace_id=bytes.fromhex(trace),
        span_id=bytes.fromhex(span),
    )
