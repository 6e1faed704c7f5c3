"""A model that another server runs: predictions are passed on to it by the Open Inference Protocol, under its name there.

There is no queue and no batch here, because that server has its own; only the rows that are under way are bounded.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from time import perf_counter_ns
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.remote import RemoteModel, target_of
from modelyard_inference.replica import backends
from modelyard_inference.replica.backends import Backend
from modelyard_inference.replica.batching import Outputs
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.contract import Prediction
from modelyard_inference.replica.engine import keeping_to
from modelyard_inference.replica.errors import (
    BackendBusy,
    BackendNotReady,
    InvalidTensor,
    ModelFailed,
    OutputMismatch,
    QueueFull,
)
from modelyard_inference.replica.front import Call, Metadata
from modelyard_inference.replica.statistics import Statistics
from modelyard_inference.replica.warm_up import warm_up
from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.datatypes import Array, from_raw, to_raw
from modelyard_inference.runtimes.signature import MethodSignature
from modelyard_kit.errors import DeadlineExceeded, DomainError

log: Any = structlog.get_logger()
CHECK_SECONDS: Final = 1.0
"""Between two questions whether the model is ready."""
_CHECK_TIMEOUT: Final = 2.0
UNREADY_CHECKS: Final = 2
"""Answers in a row that say no, or do not come, before the replica says that it is not ready."""
_WARM_UP_SECONDS: Final = 60.0
_SERVICE: Final = "/inference.GRPCInferenceService/"
_PASSED_ON: Final = ("x-request-id", "traceparent", "tracestate")
_OPTIONS: Final = (
    # What a deployment takes is checked before, what a model answers is its own business, here as with one of ours.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Finds out that a machine is gone without a word; the questions every second keep servers from minding the pings.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A channel of its own for every replica, and so a connection.
    ("grpc.use_local_subchannel_pool", 1),
)
_TOLD: Final = 500
_REFUSED: Final = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
)
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.CANCELLED)

M = TypeVar("M", bound=Message)


class BackendFailed(Exception):
    """The other server failed on a prediction; its words are for the log."""


class Server:
    """One model on another server; inside a running event loop."""

    def __init__(
        self, model: RemoteModel, backend: Backend, method: MethodSignature, *, max_rows: int
    ) -> None:
        self.name = f"the model {model.model!r} on {model.url}"
        self._model = model
        self._method = method
        self._most = max_rows
        self._metadata = backend.metadata
        if backend.url.startswith("grpcs:"):
            credentials = grpc.ssl_channel_credentials(backend.ca)
            self._channel = grpc.aio.secure_channel(target_of(backend.url), credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target_of(backend.url), options=_OPTIONS)
        self._infer = self._stub("ModelInfer", pb.ModelInferRequest, pb.ModelInferResponse)
        self._ready = self._stub("ModelReady", pb.ModelReadyRequest, pb.ModelReadyResponse)

    async def problem(self) -> str:
        """Return why the model is not ready; empty if it is."""
        request = pb.ModelReadyRequest(name=self._model.model, version=self._model.version)
        try:
            answer = await self._ready(request, timeout=_CHECK_TIMEOUT, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            return f"{self.name} is not ready: {error.code().name}: {(error.details() or '')[:_TOLD]}"
        return "" if answer.ready else f"{self.name} is not ready"

    async def infer(
        self, inputs: Mapping[str, Array], *, timeout: float | None, metadata: Metadata = ()
    ) -> Outputs:
        """Return what the model answers, as the signature says.

        Raises:
            RejectedInput: it refuses the values.
            OutputMismatch: it answers something else than the signature says.
            BackendFailed: it fails.
            DomainError: there is no answer in time, or no room or nobody for the request.
        """
        passed = [(key, value) for key, value in metadata if key in _PASSED_ON]
        try:
            response: pb.ModelInferResponse = await self._infer(
                self._request(inputs), timeout=timeout, metadata=(*passed, *self._metadata)
            )
        except grpc.aio.AioRpcError as error:
            raise self._told(error) from error
        return keeping_to(self._method, self._outputs(response))

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()

    def _stub(self, method: str, request: type[Message], response: type[Message]) -> Any:
        return self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )

    def _request(self, inputs: Mapping[str, Array]) -> pb.ModelInferRequest:
        request = pb.ModelInferRequest(model_name=self._model.model, model_version=self._model.version)
        for spec in self._method.inputs:
            array = inputs[spec.name]
            request.inputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
            request.raw_input_contents.append(to_raw(spec.datatype, array))
        for spec in self._method.outputs:
            request.outputs.add(name=spec.name)
        return request

    def _outputs(self, response: pb.ModelInferResponse) -> Mapping[str, Array]:
        raw: Sequence[bytes] = response.raw_output_contents
        if len(raw) != len(response.outputs):
            raise OutputMismatch(
                f"{self.name} answers {len(response.outputs)} outputs, {len(raw)} of them raw"
            )
        outputs = {}
        for tensor, data in zip(response.outputs, raw, strict=True):
            try:
                outputs[tensor.name] = from_raw(tensor.datatype, data, tensor.shape)
            except (KeyError, ValueError) as error:
                raise OutputMismatch(
                    f"output {tensor.name!r} of {self.name} is no {tensor.datatype} of the shape {list(tensor.shape)}"
                ) from error
        return outputs

    def _told(self, error: grpc.aio.AioRpcError) -> Exception:
        code, details = error.code(), (error.details() or "")[:_TOLD]
        if code in _REFUSED:
            return RejectedInput(
                self._method.inputs[0].name, f"was refused by the server that runs the model: {details}"
            )
        if code in _AWAY:
            return BackendNotReady()
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return BackendBusy(self._most)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded()
        return BackendFailed(f"{self.name}: {code.name}: {details}")


class Remote:
    """Passes predictions on to another server. `load` comes first; the methods are for the event loop."""

    def __init__(self, config: ReplicaConfig) -> None:
        self.statistics = Statistics()
        self.exhausted = asyncio.Event()
        """Never set: passing on takes little memory."""
        self.pending = 0
        """Nothing waits here."""
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._rows = 0
        self._connected: Server | None = None

    async def load(self) -> None:
        """Connect, find the model ready, and warm it up.

        Raises:
            LoadError: the server may not be called, its model is not ready, or does not keep to the signature.
        """
        methods = self._config.signature.methods
        if len(methods) != 1:
            names = ", ".join(method.name for method in methods)
            raise LoadError(f"the signature names the methods {names}; a model on another server has one")
        model = backends.model_of(self._config.model_directory)
        backend = backends.find(self._config.backends_file, model.url)
        self._connected = Server(model, backend, methods[0], max_rows=self._config.max_queue_rows)
        if problem := await self._server.problem():
            raise LoadError(problem)
        await asyncio.to_thread(warm_up, self._config, self._run)

    def submit(self, prediction: Prediction, call: Call) -> asyncio.Future[Outputs]:
        """Pass a prediction on. Cancelling the future is enough to take it back.

        Raises:
            QueueFull: more rows would be under way than allowed; a request larger than that by itself goes alone.
        """
        if self._rows and self._rows + prediction.rows > self._config.max_queue_rows:
            raise QueueFull(self._config.max_queue_rows)
        self._rows += prediction.rows
        return asyncio.ensure_future(self._answer(prediction, call))

    async def troubles(self) -> AsyncGenerator[str, None]:
        """Yield why the model is not ready, and an empty text when it is again, for ever."""
        told, failures = "", 0
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            problem = await self._server.problem()
            failures = failures + 1 if problem else 0
            if bool(problem) is not bool(told) and (not problem or failures >= UNREADY_CHECKS):
                told = problem
                yield told

    async def close(self, *, within_seconds: float) -> bool:
        """Hang up; always in time."""
        del within_seconds
        if self._connected is not None:
            await self._connected.close()
        return True

    @property
    def _server(self) -> Server:
        assert self._connected is not None  # noqa: S101  load() comes first
        return self._connected

    async def _answer(self, prediction: Prediction, call: Call) -> Outputs:
        begun = perf_counter_ns()
        timeout = None if call.deadline is None else max(0.0, call.deadline - self._loop.time())
        try:
            outputs = await self._server.infer(prediction.inputs, timeout=timeout, metadata=call.metadata)
        except DomainError:
            raise
        except RejectedInput as error:
            told = f"input '{error.tensor}' for model '{self._config.deployment}' {error.problem}"
            raise InvalidTensor(error.tensor, told) from error
        except (BackendFailed, OutputMismatch) as error:
            error_id = uuid.uuid4().hex
            log.error("model_failed", error_id=error_id, method=prediction.method, problem=str(error))  # noqa: TRY400  the text says it all
            raise ModelFailed(error_id) from error
        finally:
            self._rows -= prediction.rows
        self.statistics.executions += 1
        self.statistics.computed(prediction.rows, queue_ns=0, merge_ns=0, infer_ns=perf_counter_ns() - begun)
        return outputs

    def _run(self, name: str, inputs: Mapping[str, Array]) -> Outputs:
        """Run the method in a thread, for the warm-up."""
        del name  # there is only one
        asked = self._server.infer(inputs, timeout=_WARM_UP_SECONDS)
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
