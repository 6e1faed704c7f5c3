"""The methods a replica answers: the Open Inference Protocol under both of its names, its REST form, and health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from time import perf_counter_ns
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from modelyard.api.inference.v1 import replica_service_pb2 as replica_pb
from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.api.oip.v2 import rest_inference_pb2 as rest_pb
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.replica import invocations, messages, rest
from modelyard_inference.replica.batching import Outputs
from modelyard_inference.replica.contract import Contract, Prediction
from modelyard_inference.replica.engine import Predictor
from modelyard_inference.replica.errors import ReplicaNotReady
from modelyard_inference.replica.front import Call, Routes, Unary
from modelyard_inference.replica.journal import Journal
from modelyard_inference.replica.lifecycle import Lifecycle
from modelyard_inference.replica.samples import TAKE_SAMPLES, Samples, digest_of, sample_id_of
from modelyard_inference.replica.statistics import GET_STATISTICS
from modelyard_inference.replica.streaming import Streaming
from modelyard_inference.runtimes.signature import TensorSpec
from modelyard_kit.errors import DeadlineExceeded, DomainError, InvalidField, NotFound, RequestTooLarge

OIP_SERVICES: Final = ("inference.GRPCInferenceService", "modelyard.api.oip.v2.GRPCInferenceService")
REST_SERVICE: Final = "modelyard.api.oip.v2.RestInferenceService"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
SET_LOGGING: Final = "/modelyard.api.inference.v1.ReplicaService/SetLogging"
_JSON: Final = "application/json"
# Up to these sizes a body is read on the event loop, beyond them in a thread: health must not wait for it.
_LARGE_BODY: Final = 4 * 1024 * 1024
_LARGE_SLOW_BODY: Final = 32 * 1024

M = TypeVar("M", bound=Message)
T = TypeVar("T")


@dataclass(slots=True)
class _Times:
    """When a prediction began, was read, and was computed: of `perf_counter_ns`."""

    begun: int
    read: int = 0
    computed: int = 0


class Servicer:
    """Answers encoded messages with encoded messages."""

    def __init__(self, contract: Contract, engine: Predictor, lifecycle: Lifecycle, journal: Journal) -> None:
        self._journal = journal
        self._contract = contract
        self._engine = engine
        self._lifecycle = lifecycle
        self._renderer = messages.Renderer(contract)
        self._samples = Samples()
        self._max_bytes = contract.config.max_request_bytes
        has_bytes = any(
            spec.datatype == "BYTES"
            for method in contract.config.signature.methods
            for spec in (*method.inputs, *method.outputs)
        )
        self._large = _LARGE_SLOW_BODY if has_bytes else _LARGE_BODY
        self._version = _version()

    def routes(self, wrap: Callable[[str, Unary], Unary]) -> Routes:
        """Return the methods by path; `wrap` gets the methods that predict."""
        oip: dict[str, Unary] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelStatistics": self.model_statistics,
            "ModelInfer": wrap("ModelInfer", self.model_infer),
        }
        unary = {f"/{service}/{name}": method for service in OIP_SERVICES for name, method in oip.items()}
        unary[f"/{REST_SERVICE}/Infer"] = wrap("Infer", self.rest_infer)
        unary[f"/{REST_SERVICE}/Invoke"] = wrap("Invoke", self.rest_invoke)
        unary[f"/{REST_SERVICE}/Describe"] = self.rest_describe
        unary[f"/{REST_SERVICE}/Ready"] = self.rest_ready
        unary[f"/{REST_SERVICE}/Statistics"] = self.rest_statistics
        unary[f"/{HEALTH_SERVICE}/Check"] = self.health_check
        unary[TAKE_SAMPLES] = self.take_samples
        unary[GET_STATISTICS] = self.get_statistics
        unary[SET_LOGGING] = self.set_logging
        streaming = Streaming(self._contract, self._lifecycle, wrap("ModelStreamInfer", self.model_infer))
        return Routes(
            unary,
            streams={f"/{HEALTH_SERVICE}/Watch": self.health_watch},
            duplex={f"/{service}/ModelStreamInfer": streaming.answer for service in OIP_SERVICES},
        )

    async def model_infer(self, body: bytes, call: Call) -> bytes:
        """ModelInfer."""
        return await self._answer(
            call, body, self._large, lambda: messages.parse(body, self._contract), self._renderer.render
        )

    async def rest_infer(self, body: bytes, call: Call) -> bytes:
        """RestInferenceService.Infer."""
        data = await self._answer_json(
            _decode(rest_pb.InferRequest, body),
            call,
            rest.parse,
            lambda prediction, outputs: rest.render(prediction, outputs, self._contract),
        )
        response = rest_pb.InferResponse()
        response.body.content_type, response.body.data = _JSON, data
        return response.SerializeToString()

    async def rest_invoke(self, body: bytes, call: Call) -> bytes:
        """RestInferenceService.Invoke."""
        request = _decode(rest_pb.InvokeRequest, body)
        if request.form not in invocations.ANSWERS:
            raise InvalidField("form", f"{request.form!r} is none of {', '.join(invocations.ANSWERS)}")
        data = await self._answer_json(
            request,
            call,
            invocations.parser(request.body.content_type),
            lambda prediction, outputs: invocations.render(prediction, outputs, request.form),
        )
        response = rest_pb.InvokeResponse()
        response.body.content_type, response.body.data = _JSON, data
        return response.SerializeToString()

    async def _answer_json(
        self,
        request: rest_pb.InferRequest | rest_pb.InvokeRequest,
        call: Call,
        parse: Callable[[str, str, bytes, Contract], Prediction],
        render: Callable[[Prediction, Outputs], bytes],
    ) -> bytes:
        name, version, body = request.model_name, request.model_version, request.body.data
        return await self._answer(
            call, body, _LARGE_SLOW_BODY, lambda: parse(name, version, body, self._contract), render
        )

    async def _answer(
        self,
        call: Call,
        body: bytes,
        large: int,
        parse: Callable[[], Prediction],
        render: Callable[[Prediction, Outputs], bytes],
    ) -> bytes:
        """Predict what a body asks for; one that is `large`, in bytes, is read in a thread."""
        with self._counted(call) as times:
            self._check_size(len(body))
            prediction = parse() if len(body) < large else await asyncio.to_thread(parse)
            times.read = perf_counter_ns()
            outputs = await self._predict(prediction, call)
            times.computed = perf_counter_ns()
            answer = await self._render(outputs, lambda: render(prediction, outputs))
            if self._journal.on:
                self._journal.answered(call, prediction, outputs, perf_counter_ns() - times.begun)
            return answer

    async def server_live(self, body: bytes, call: Call) -> bytes:
        """ServerLive."""
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, body: bytes, call: Call) -> bytes:
        """ServerReady."""
        return pb.ServerReadyResponse(ready=self._lifecycle.ready).SerializeToString()

    async def server_metadata(self, body: bytes, call: Call) -> bytes:
        """ServerMetadata."""
        return pb.ServerMetadataResponse(
            name=self._contract.config.server_name, version=self._version, extensions=["statistics"]
        ).SerializeToString()

    async def model_ready(self, body: bytes, call: Call) -> bytes:
        """ModelReady: an unknown model is not ready, which is no error."""
        request = _decode(pb.ModelReadyRequest, body)
        known = request.name == self._contract.name and self._contract.is_version(request.version)
        return pb.ModelReadyResponse(ready=known and self._lifecycle.ready).SerializeToString()

    async def model_metadata(self, body: bytes, call: Call) -> bytes:
        """ModelMetadata."""
        request = _decode(pb.ModelMetadataRequest, body)
        return self._metadata(request.name, request.version).SerializeToString()

    async def model_statistics(self, body: bytes, call: Call) -> bytes:
        """ModelStatistics."""
        request = _decode(pb.ModelStatisticsRequest, body)
        self._contract.check_model(request.name, request.version)
        found = self._engine.statistics.for_triton(self._contract.name, self._contract.version)
        return pb.ModelStatisticsResponse(**found).SerializeToString()

    async def rest_statistics(self, body: bytes, call: Call) -> bytes:
        """RestInferenceService.Statistics."""
        request = _decode(rest_pb.StatisticsRequest, body)
        self._contract.check_model(request.model_name, request.model_version)
        response = rest_pb.StatisticsResponse()
        response.body.content_type = _JSON
        response.body.data = rest.dump(
            self._engine.statistics.for_triton(self._contract.name, self._contract.version)
        )
        return response.SerializeToString()

    async def rest_describe(self, body: bytes, call: Call) -> bytes:
        """RestInferenceService.Describe."""
        request = _decode(rest_pb.DescribeRequest, body)
        described = self._metadata(request.model_name, request.model_version)
        response = rest_pb.DescribeResponse()
        response.body.content_type = _JSON
        response.body.data = rest.dump(
            {
                "name": described.name,
                "versions": list(described.versions),
                "platform": described.platform,
                "inputs": [_tensor(item) for item in described.inputs],
                "outputs": [_tensor(item) for item in described.outputs],
                "properties": dict(described.properties),
            }
        )
        return response.SerializeToString()

    async def rest_ready(self, body: bytes, call: Call) -> bytes:
        """RestInferenceService.Ready: not ready is an error there, because HTTP clients look at the status."""
        request = _decode(rest_pb.ReadyRequest, body)
        self._contract.check_model(request.model_name, request.model_version)
        if not self._lifecycle.ready:
            raise ReplicaNotReady(self._lifecycle.state.value)
        response = rest_pb.ReadyResponse()
        response.body.content_type = _JSON
        response.body.data = rest.dump({"name": self._contract.name, "ready": True})
        return response.SerializeToString()

    async def take_samples(self, body: bytes, call: Call) -> bytes:
        """ReplicaService.TakeSamples."""
        return self._samples.take()

    async def get_statistics(self, body: bytes, call: Call) -> bytes:
        """ReplicaService.GetStatistics."""
        return self._engine.statistics.render(
            in_flight=self._lifecycle.in_flight, pending=self._engine.pending
        )

    async def set_logging(self, body: bytes, call: Call) -> bytes:
        """ReplicaService.SetLogging."""
        wanted = _decode(replica_pb.SetLoggingRequest, body).policy
        self._journal.switch(LogPolicy(wanted.access_log, wanted.predict_log_percent, wanted.include_payload))
        return replica_pb.SetLoggingResponse().SerializeToString()

    async def health_check(self, body: bytes, call: Call) -> bytes:
        """Health.Check of this process ("") or its deployment."""
        service = _decode(health_pb2.HealthCheckRequest, body).service
        if service not in ("", self._contract.name):
            raise NotFound("service", service)
        return self._health()

    async def health_watch(self, body: bytes, call: Call) -> AsyncGenerator[bytes, None]:
        """Health.Watch: the state now and after every change."""
        service = _decode(health_pb2.HealthCheckRequest, body).service
        if service not in ("", self._contract.name):
            yield health_pb2.HealthCheckResponse(
                status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            ).SerializeToString()
            await asyncio.Event().wait()
        while True:
            change = self._lifecycle.change
            yield self._health()
            await change.wait()

    @contextmanager
    def _counted(self, call: Call) -> Iterator[_Times]:
        """Count a prediction in and out, and what came of it."""
        self._lifecycle.enter()
        statistics, times = self._engine.statistics, _Times(perf_counter_ns())
        try:
            yield times
        except asyncio.CancelledError:
            took = perf_counter_ns() - times.begun
            statistics.failed(None, took)
            self._journal.refused(call, None, took)
            raise
        except Exception as error:
            if isinstance(error, DomainError):
                self._samples.refused(call, error)
            took = perf_counter_ns() - times.begun
            statistics.failed(error, took)
            self._journal.refused(call, error, took)
            raise
        else:
            end = perf_counter_ns()
            statistics.answered(
                end - times.begun, read_ns=times.read - times.begun, write_ns=end - times.computed, now=end
            )
        finally:
            self._lifecycle.leave()

    async def _predict(self, prediction: Prediction, call: Call) -> Outputs:
        outputs = await self._run(prediction, call)
        if sample_id := sample_id_of(call):
            digest = await self._render(outputs, lambda: digest_of(prediction, outputs))
            self._samples.answered(sample_id, digest)
        return outputs

    async def _run(self, prediction: Prediction, call: Call) -> Outputs:
        future = self._engine.submit(prediction, call)
        if prediction.timeout is None:
            return await future
        # The front ends calls at their deadline; the protocol's own parameter is this method's business.
        try:
            async with asyncio.timeout(prediction.timeout):
                return await future
        except TimeoutError as error:
            raise DeadlineExceeded from error

    async def _render(self, outputs: Outputs, render: Callable[[], T]) -> T:
        if sum(array.nbytes for array in outputs.values()) < self._large:
            return render()
        return await asyncio.to_thread(render)

    def _health(self) -> bytes:
        states = health_pb2.HealthCheckResponse
        return states(
            status=states.SERVING if self._lifecycle.ready else states.NOT_SERVING
        ).SerializeToString()

    def _metadata(self, name: str, version: str) -> pb.ModelMetadataResponse:
        self._contract.check_model(name, version)
        config, method = self._contract.config, self._contract.first.signature
        return pb.ModelMetadataResponse(
            name=self._contract.name,
            versions=[self._contract.version],
            platform=config.runtime,
            inputs=[_spec(spec) for spec in method.inputs],
            outputs=[_spec(spec) for spec in method.outputs],
            properties={
                "artifact_digest": config.artifact_digest,
                "model_version": f"{config.model}/{config.version}",
                "methods": ",".join(self._contract.methods),
            },
        )

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise RequestTooLarge(self._max_bytes)


def _decode(message: type[M], body: bytes) -> M:
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise InvalidField("body", f"is not a {message.DESCRIPTOR.name}") from error


def _spec(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _tensor(item: pb.ModelMetadataResponse.TensorMetadata) -> dict[str, Any]:
    return {"name": item.name, "datatype": item.datatype, "shape": list(item.shape)}


def _version() -> str:
    try:
        return metadata.version("modelyard")
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a source tree that is not installed
