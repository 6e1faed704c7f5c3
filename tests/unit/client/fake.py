"""An in-process gRPC server that answers every public RPC as a test says, on the loop of the synchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from modelyard._endpoints import SERVICE_NAME
from modelyard.api.artifact.v1 import artifact_service_pb2
from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.api.governance.v1 import governance_service_pb2
from modelyard.api.inference.v1 import inference_service_pb2
from modelyard.api.oip.v2 import grpc_inference_pb2

MODULES = (
    artifact_service_pb2,
    catalog_service_pb2,
    governance_service_pb2,
    inference_service_pb2,
    grpc_inference_pb2,
)


class Refusal(Exception):
    """An error status as the services send it; without a reason as a proxy sends it."""

    def __init__(
        self, code: str, reason: str = "", message: str = "no", domain: str = "modelyard", **more: Any
    ) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.details: list[Any] = []
        if reason:
            info = error_details_pb2.ErrorInfo(
                reason=reason, domain=domain, metadata=more.get("metadata", {})
            )
            self.details.append(info)
        if "violations" in more:
            bad = error_details_pb2.BadRequest()
            for name, description in more["violations"].items():
                bad.field_violations.add(field=name, description=description)
            self.details.append(bad)
        if "unmet" in more:
            failure = error_details_pb2.PreconditionFailure()
            for description in more["unmet"]:
                failure.violations.add(type="POLICY", description=description)
            self.details.append(failure)

    async def abort(self, context: Any) -> None:
        trailer = ()
        if self.details:
            status = status_pb2.Status(code=code_pb2.Code.Value(self.code), message=self.message)
            for detail in self.details:
                packed = any_pb2.Any()
                packed.Pack(detail)
                status.details.append(packed)
            trailer = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(grpc.StatusCode[self.code], self.message, trailer)


@dataclass
class Fake:
    """Answers by RPC name: a function of the request (a list of requests for client streams), or nothing special."""

    answers: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    calls: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    hanging: set[str] = field(default_factory=set)
    target: str = ""
    _server: Any = None

    def requests(self, method: str) -> list[Any]:
        return [request for name, request, _ in self.calls if name == method]

    def metadata(self, method: str) -> list[dict[str, str]]:
        return [metadata for name, _, metadata in self.calls if name == method]

    async def start(self) -> None:
        self._server = grpc.aio.server()
        for module in MODULES:
            for service in module.DESCRIPTOR.services_by_name.values():
                name = SERVICE_NAME if module is grpc_inference_pb2 else service.full_name
                handlers = {m.name: self._handler(module, m) for m in service.methods}
                self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    def _handler(self, module: Any, method: Any) -> Any:
        request_type = method.input_type._concrete_class
        answer_type = method.output_type._concrete_class
        codec = {
            "request_deserializer": request_type.FromString,
            "response_serializer": answer_type.SerializeToString,
        }

        async def answer(request: Any, context: Any) -> Any:
            self.calls.append((method.name, request, dict(context.invocation_metadata())))
            if method.name in self.hanging:
                await asyncio.Event().wait()
            try:
                return self.answers.get(method.name, lambda _: answer_type())(request)
            except Refusal as refusal:
                await refusal.abort(context)

        async def unary(request: Any, context: Any) -> Any:
            return await answer(request, context)

        async def collecting(requests: Any, context: Any) -> Any:
            return await answer([request async for request in requests], context)

        async def streaming(request: Any, context: Any) -> Any:
            pieces = await answer(request, context)
            try:
                for piece in (
                    pieces if isinstance(pieces, (list, tuple)) or hasattr(pieces, "__next__") else [pieces]
                ):
                    yield piece
            except Refusal as refusal:
                await refusal.abort(context)

        if method.client_streaming:
            return grpc.stream_unary_rpc_method_handler(collecting, **codec)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(streaming, **codec)
        return grpc.unary_unary_rpc_method_handler(unary, **codec)
