"""A replica that answers the Open Inference Protocol without a model, in this process or as one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.api.oip.v2 import rest_inference_pb2 as rest
from modelyard_gateway.descriptors import OIP_SERVICES, REST_SERVICE
from modelyard_kit.channels import SERVER_OPTIONS


class FakeReplica:
    """Answers with its label as version, and remembers whom it was asked for."""

    def __init__(self, socket: Path, label: str) -> None:
        self.address = f"unix:{socket}"
        self.label = label
        self.asked: list[str] = []
        self.metadata: dict[str, str | bytes] = {}
        self.fail_with: grpc.StatusCode | None = None
        self.delay = 0.0
        self.running = asyncio.Event()
        """While it is not set, predictions that came are held."""
        self.running.set()
        self.answered = 0
        self.at_once = self.most_at_once = 0
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._health = health.aio.HealthServicer()

    async def start(self) -> FakeReplica:
        for service in OIP_SERVICES:
            self._register(service, self._oip_methods())
        self._register(REST_SERVICE, self._rest_methods())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def set_serving(self, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        await self._health.set("", states.SERVING if serving else states.NOT_SERVING)

    async def stop(self, grace: float = 0.0) -> None:
        await self._server.stop(grace)

    async def wait(self) -> None:
        await self._server.wait_for_termination()

    def _register(self, service: str, methods: dict[str, tuple[Any, Any]]) -> None:
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                answer, request_deserializer=kind.FromString, response_serializer=_serialize
            )
            for name, (answer, kind) in methods.items()
        }
        if service in OIP_SERVICES:
            handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
                self._stream,
                request_deserializer=oip.ModelInferRequest.FromString,
                response_serializer=_serialize,
            )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    async def _stream(
        self, requests: AsyncIterator[oip.ModelInferRequest], context: Any
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        async for request in requests:
            await self._enter(request.model_name, context)
            answer = oip.ModelInferResponse(model_version=self.label, id=request.id)
            yield oip.ModelStreamInferResponse(infer_response=answer)

    def _oip_methods(self) -> dict[str, tuple[Any, Any]]:
        async def infer(request: oip.ModelInferRequest, context: Any) -> oip.ModelInferResponse:
            await self._enter(request.model_name, context)
            return oip.ModelInferResponse(
                model_name=request.model_name,
                model_version=self.label,
                id=request.id,
                outputs=[
                    oip.ModelInferResponse.InferOutputTensor(
                        name="y", datatype=tensor.datatype, shape=tensor.shape
                    )
                    for tensor in request.inputs
                ],
                raw_output_contents=list(request.raw_input_contents),
            )

        async def ready(request: oip.ModelReadyRequest, context: Any) -> oip.ModelReadyResponse:
            await self._enter(request.name, context)
            return oip.ModelReadyResponse(ready=True)

        async def metadata(request: oip.ModelMetadataRequest, context: Any) -> oip.ModelMetadataResponse:
            await self._enter(request.name, context)
            rows = {"datatype": "FP32", "shape": [-1, 4]}
            answer = oip.ModelMetadataResponse(name=request.name, versions=[self.label])
            answer.inputs.add(name="x", **rows)
            answer.outputs.add(name="y", **rows)
            return answer

        async def statistics(
            request: oip.ModelStatisticsRequest, context: Any
        ) -> oip.ModelStatisticsResponse:
            await self._enter(request.name, context)
            found = oip.ModelStatistics(name=request.name, version=self.label, inference_count=7)
            return oip.ModelStatisticsResponse(model_stats=[found])

        return {
            "ModelStatistics": (statistics, oip.ModelStatisticsRequest),
            "ModelInfer": (infer, oip.ModelInferRequest),
            "ModelReady": (ready, oip.ModelReadyRequest),
            "ModelMetadata": (metadata, oip.ModelMetadataRequest),
        }

    def _rest_methods(self) -> dict[str, tuple[Any, Any]]:
        async def infer(request: rest.InferRequest, context: Any) -> rest.InferResponse:
            await self._enter(request.model_name, context)
            sent = json.loads(request.body.data or b"{}")
            return rest.InferResponse(body=self._body(request, outputs=sent.get("inputs", [])))

        async def invoke(request: rest.InvokeRequest, context: Any) -> rest.InvokeResponse:
            await self._enter(request.model_name, context)
            kind, data = request.body.content_type, request.body.data
            sent = json.loads(data) if kind == "application/json" else data.decode()
            return rest.InvokeResponse(body=self._body(request, form=request.form, sent=sent, kind=kind))

        async def describe(request: rest.DescribeRequest, context: Any) -> rest.DescribeResponse:
            await self._enter(request.model_name, context)
            return rest.DescribeResponse(body=self._body(request, platform="fake"))

        async def ready(request: rest.ReadyRequest, context: Any) -> rest.ReadyResponse:
            await self._enter(request.model_name, context)
            return rest.ReadyResponse(body=self._body(request, ready=True))

        async def statistics(request: rest.StatisticsRequest, context: Any) -> rest.StatisticsResponse:
            await self._enter(request.model_name, context)
            return rest.StatisticsResponse(body=self._body(request, model_stats=[]))

        return {
            "Infer": (infer, rest.InferRequest),
            "Invoke": (invoke, rest.InvokeRequest),
            "Describe": (describe, rest.DescribeRequest),
            "Ready": (ready, rest.ReadyRequest),
            "Statistics": (statistics, rest.StatisticsRequest),
        }

    def _body(self, request: Any, **values: Any) -> HttpBody:
        answer = {"model_name": request.model_name, "model_version": self.label, **values}
        answer["asked_version"] = request.model_version
        return HttpBody(content_type="application/json", data=json.dumps(answer).encode())

    async def _enter(self, name: str, context: Any) -> None:
        self.asked.append(name)
        self.metadata = dict(context.invocation_metadata())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.running.wait()
            await asyncio.sleep(self.delay)
        finally:
            self.at_once -= 1
        self.answered += 1
        if self.fail_with:
            await context.abort(self.fail_with, 'said "no", 50% sure')


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


async def _main(socket: Path, label: str) -> None:
    await (await FakeReplica(socket, label).start()).wait()


if __name__ == "__main__":
    os.umask(0o077)
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2]))
