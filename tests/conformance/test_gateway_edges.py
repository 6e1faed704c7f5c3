"""Deadlines, traces, the access log and gRPC-Web at a real Envoy."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from modelyard import _status, errors
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from tests.conformance.gateway_stack import ADA, BOB, INFER, GatewayStack, gateway_stack, route
from tests.framework.waiting import eventually

IRIS = "prod.ml.iris"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[GatewayStack]:
    async with gateway_stack(**settings) as stack:
        replica = await stack.replica("one")
        await stack.apply([route(IRIS, ("g1", 1, [replica.address]))])
        await stack.healthy("g1")
        yield stack


async def test_the_deadline_of_the_caller_and_of_the_route() -> None:
    async with serving() as stack, stack.channel() as channel:
        replica = stack._replicas[0]
        replica.delay = 20.0
        call: Any = channel.unary_unary(INFER, request_serializer=oip.ModelInferRequest.SerializeToString)
        metadata = [stack.authorization(), ("modelyard-deployment", IRIS)]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(oip.ModelInferRequest(model_name=IRIS), metadata=metadata, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "grpc-timeout" in replica.metadata or replica.asked == [IRIS]
        short = route(IRIS, ("g1", 1, [replica.address]))
        short = type(short)(short.deployment, short.targets, short.max_request_bytes, 0.3)
        await stack.apply([short])
        for timeout in (None, 15.0):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(oip.ModelInferRequest(model_name=IRIS), metadata=metadata, timeout=timeout)
            error = _status.error_from_call(caught.value, "")
            assert isinstance(error, errors.DeadlineExceeded)


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: asyncio.Queue[Any] = asyncio.Queue()

    async def Export(self, request: Any, _context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put_nowait(span)
        return trace_service_pb2.ExportTraceServiceResponse()


async def test_a_trace_goes_through() -> None:
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with serving(otlp_endpoint=f"http://127.0.0.1:{port}") as stack:
            await stack.infer(IRIS, extra={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
            passed_on = str(stack._replicas[0].metadata["traceparent"])
            async with asyncio.timeout(60):
                while (span := await collector.spans.get()).trace_id.hex() != TRACE:
                    pass
            assert span.parent_span_id.hex() == "b7ad6b7169203331"
            assert passed_on == f"00-{TRACE}-{span.span_id.hex()}-01"
    finally:
        await server.stop(None)


async def test_the_access_log_says_who_asked_what_and_how_it_ended() -> None:
    async with serving() as stack:
        await stack.infer(IRIS, extra={"x-request-id": "first"})
        with pytest.raises(grpc.aio.AioRpcError):
            await stack.infer(IRIS, BOB, header=IRIS)
        log = Path(stack.settings.access_log_file)
        await eventually(lambda: len(log.read_text().splitlines()) >= 2)
        first, second = (json.loads(line) for line in log.read_text().splitlines())
        assert (first["sub"], first["deployment"], first["request_id"]) == (ADA.id, IRIS, "first")
        assert (first["grpc_status"], first["path"], first["cluster"]) == ("OK", INFER, "group-g1")
        assert (second["sub"], second["deployment"], second["grpc_status"]) == (
            BOB.id,
            IRIS,
            "PERMISSION_DENIED",
        )
        assert stack.issuer.token(ADA)[:20] not in log.read_text()


async def test_grpc_web() -> None:
    async with serving() as stack, aiohttp.ClientSession() as session:
        message = oip.ModelInferRequest(model_name=IRIS, id="7").SerializeToString()
        frame = b"\0" + struct.pack(">I", len(message)) + message
        headers = dict([stack.authorization()]) | {
            "content-type": "application/grpc-web+proto",
            "x-grpc-web": "1",
        }
        url = f"http://127.0.0.1:{stack.port}{INFER}"
        async with session.post(url, data=frame, headers=headers) as response:
            assert response.content_type == "application/grpc-web+proto"
            body = await response.read()
        (size,) = struct.unpack(">I", body[1:5])
        answer = oip.ModelInferResponse.FromString(body[5 : 5 + size])
        assert (answer.model_name, answer.id) == (IRIS, "7")
