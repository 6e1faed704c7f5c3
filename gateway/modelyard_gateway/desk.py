"""Answers calls about the server itself: liveness, readiness, metadata, health, reflection.

Envoy sends them here because they belong to no deployment. Predictions do not depend on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from modelyard.api.artifact.v1 import artifact_service_pb2
from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.api.governance.v1 import governance_service_pb2
from modelyard.api.inference.v1 import inference_service_pb2
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.api.oip.v2 import rest_inference_pb2
from modelyard_gateway.descriptors import OIP_SERVICES, REST_SERVICE, public_oip
from modelyard_gateway.routes import CONTROL_PLANE
from modelyard_kit.reflection import add_reflection

_CONTRACTS = (
    catalog_service_pb2, artifact_service_pb2, governance_service_pb2, inference_service_pb2, oip, rest_inference_pb2,
)  # fmt: skip


@asynccontextmanager
async def serving(desk_socket: Path, is_ready: Callable[[], bool]) -> AsyncIterator[None]:
    """Serve on a Unix socket within this block.

    Args:
        desk_socket: Where; an old socket there is replaced.
        is_ready: Whether Envoy answers predictions.
    """
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(_server_methods(name, is_ready) for name in OIP_SERVICES))
    status = health.aio.HealthServicer()
    await status.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    names = (*OIP_SERVICES, REST_SERVICE, *CONTROL_PLANE.values(), health.SERVICE_NAME)
    add_reflection(server, names, (module.DESCRIPTOR for module in _CONTRACTS), [public_oip()])
    await asyncio.to_thread(desk_socket.unlink, missing_ok=True)
    server.add_insecure_port(f"unix:{desk_socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(1.0)


def _server_methods(service: str, is_ready: Callable[[], bool]) -> grpc.GenericRpcHandler:
    def live(_request: oip.ServerLiveRequest) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    def ready(_request: oip.ServerReadyRequest) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=is_ready())

    def metadata(_request: oip.ServerMetadataRequest) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name="modelyard", version="2", extensions=["statistics"])

    return grpc.method_handlers_generic_handler(
        service,
        {
            "ServerLive": _unary(live, oip.ServerLiveRequest),
            "ServerReady": _unary(ready, oip.ServerReadyRequest),
            "ServerMetadata": _unary(metadata, oip.ServerMetadataRequest),
        },
    )


def _unary(answer: Callable[[Any], Any], request_type: Any) -> grpc.RpcMethodHandler[Any, Any]:
    async def handle(request: Any, _context: Any) -> Any:
        return answer(request)

    handler: Callable[[Any, Any], Awaitable[Any]] = handle
    return grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=request_type.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
