"""Predictions whose caller traces become spans of that trace; the others cost nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard_inference.replica import tracing
from modelyard_inference.replica.app import Replica
from tests.conformance.replicas import DEPLOYMENT, iris_config, iris_rows, write_iris

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        del context
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_spans_join_the_callers_trace(tmp_path: Path) -> None:
    server, collector = grpc.aio.server(), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with tempfile.TemporaryDirectory(prefix="my") as sockets:
        config = iris_config(
            write_iris(tmp_path), Path(sockets) / "s", otlp_endpoint=f"http://127.0.0.1:{port}"
        )
        replica = Replica(config)
        await replica.start()
        request = pb.ModelInferRequest(model_name=DEPLOYMENT, raw_input_contents=[iris_rows()[0].tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        async with grpc.aio.insecure_channel(config.listen) as channel:
            stub = GRPCInferenceServiceStub(channel)
            await stub.ModelInfer(request)
            await stub.ModelInfer(request, metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),))
        await replica.stop()
    await server.stop(None)
    (export,) = collector.requests
    (span,) = export.resource_spans[0].scope_spans[0].spans
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("ModelInfer", TRACE, PARENT)
    attributes = {item.key: item.value.string_value for item in export.resource_spans[0].resource.attributes}
    assert attributes["modelyard.deployment"] == DEPLOYMENT
    assert attributes["modelyard.model_version"] == "prod.ml.iris_model/3"


def test_nothing_is_wrapped_without_a_collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    wrap, flush = tracing.start(iris_config(tmp_path, tmp_path, listen="unix:/s"))
    assert wrap("ModelInfer", tracing.start) is tracing.start  # type: ignore[arg-type]
    flush()
