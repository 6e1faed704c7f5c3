"""Endpoints as those who predict see them."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from modelyard._convert import from_proto
from modelyard._namespace import Namespace
from modelyard._prediction_stream import STRICT, PredictionStream, each
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.errors import InvalidTensor
from modelyard.types import EndpointInfo, EndpointStatistics, Prediction, ServerInfo

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        AsyncIterator,
        Callable,
        Iterable,
        Sequence,
    )

    import grpc

    from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceAsyncStub

ROUTE_KEY = "modelyard-deployment"
"""Metadata key by which the gateway routes without reading the body."""
VERSION_KEY = "modelyard-version"
"""Metadata key of the version that must answer, where a deployment has several."""
SERVICE_NAME = "inference.GRPCInferenceService"
"""The protocol's public name; the messages are those of `modelyard.api.oip.v2`."""


class _PublicStub:
    """Stub of the protocol under its public name."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        for method in oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
            request = getattr(oip, method.input_type.name)
            answer = getattr(oip, method.output_type.name)
            kind = channel.stream_stream if method.server_streaming else channel.unary_unary
            call = kind(
                f"/{SERVICE_NAME}/{method.name}",
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )
            setattr(self, method.name, call)


class AsyncEndpoints(Namespace):
    """`client.endpoints`: predictions, and what an endpoint takes and gives."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._infos: dict[tuple[str, int | None], EndpointInfo] = {}

    @property
    def _stub(self) -> GRPCInferenceServiceAsyncStub:
        return cast("GRPCInferenceServiceAsyncStub", self._connection.stub("serving", _PublicStub))

    async def predict(
        self,
        name: str,
        inputs: Any,
        *,
        version: int | None = None,
        method: str = "",
        outputs: Sequence[str] = (),
        timeout: float = 60.0,
        decode_text: bool = True,
    ) -> Prediction:
        """Predict with a deployment.

        Args:
            name: Full name of the deployment, `prod.ml_team.iris`.
            inputs: Rows as an array, nested lists or a DataFrame; or a dict of arrays by tensor name. Values take the
                type the deployment wants if that loses nothing but rounding.
            version: Version number that must answer; by default whichever gets the traffic.
            method: Method of the model, `predict_proba`; by default its first.
            outputs: Names of the wanted outputs; by default all.
            timeout: Seconds; the limit of the deployment holds too.
            decode_text: Give BYTES outputs that are UTF-8 as `str`.

        Raises:
            InvalidTensor: the inputs do not fit the model.
            PermissionDenied: you lack EXECUTE on the deployment.
            NotFound: there is no such deployment, or it does not run that version.
        """
        from modelyard import _predict

        async def attempt(info: EndpointInfo) -> Prediction:
            request = _predict.build_request(
                name, inputs, info, version=version, method=method, outputs=outputs
            )
            answer = await self._connection.call(
                self._stub.ModelInfer, request, timeout=timeout, metadata=_route(name, version)
            )
            return _predict.read_answer(name, answer, decode_text=decode_text)

        info = await self._info(name, version)
        try:
            return await attempt(info)
        except InvalidTensor:
            # The deployment may have moved to a version with another signature since it was asked.
            fresh = await self.metadata(name, version=version)
            if fresh.inputs == info.inputs:
                raise
        self._infos[name, version] = fresh
        return await attempt(fresh)

    async def predict_stream(
        self,
        name: str,
        batches: AsyncIterable[Any] | Iterable[Any],
        *,
        version: int | None = None,
        method: str = "",
        outputs: Sequence[str] = (),
        timeout: float = 60.0,
        decode_text: bool = True,
    ) -> AsyncGenerator[Prediction]:
        """Predict with a deployment again and again over one stream: cheaper than as many calls, and in their order.

        Up to 32 batches are on their way at once. The stream outlives the replicas that answer it: what is not answered when
        one ends is sent to another.

        Args:
            name: Full name of the deployment, `prod.ml_team.iris`.
            batches: Inputs one after the other, each as for `predict`. They may depend on the predictions given so far.
            version: Version number that must answer; by default whichever gets the traffic.
            method: Method of the model, `predict_proba`; by default its first.
            outputs: Names of the wanted outputs; by default all.
            timeout: Seconds after the last answer during which a lost connection is made again.
            decode_text: Give BYTES outputs that are UTF-8 as `str`.

        Raises:
            InvalidTensor: inputs do not fit the model; those before them are answered.
            PermissionDenied: you lack EXECUTE on the deployment.
            NotFound: there is no such deployment, or it does not run that version.
        """
        from modelyard import _predict

        info = await self._info(name, version)

        async def requests() -> AsyncIterator[oip.ModelInferRequest]:
            async for inputs in each(batches):
                yield _predict.build_request(
                    name, inputs, info, version=version, method=method, outputs=outputs
                )

        def open_call(
            pieces: Callable[[], AsyncIterator[oip.ModelInferRequest]],
        ) -> AsyncGenerator[oip.ModelStreamInferResponse]:
            return self._connection.converse(
                self._stub.ModelStreamInfer,
                oip.ModelInferRequest,
                pieces,
                metadata=[*_route(name, version), *STRICT],
            )

        async with aclosing(PredictionStream(open_call, timeout).answers(requests())) as answers:
            async for answer in answers:
                yield _predict.read_answer(name, answer.infer_response, decode_text=decode_text)

    async def metadata(self, name: str, *, version: int | None = None) -> EndpointInfo:
        """What a deployment takes and gives, and which versions answer."""
        request = oip.ModelMetadataRequest(name=name, version=str(version or ""))
        answer = await self._connection.call(
            self._stub.ModelMetadata, request, metadata=_route(name, version)
        )
        return from_proto(EndpointInfo, answer)

    async def ready(self, name: str, *, version: int | None = None) -> bool:
        """Whether a deployment answers predictions."""
        request = oip.ModelReadyRequest(name=name, version=str(version or ""))
        return (
            await self._connection.call(self._stub.ModelReady, request, metadata=_route(name, version))
        ).ready

    async def server_live(self) -> bool:
        """Whether the model server runs."""
        return (await self._connection.call(self._stub.ServerLive, oip.ServerLiveRequest())).live

    async def server_ready(self) -> bool:
        """Whether the model server answers predictions."""
        return (await self._connection.call(self._stub.ServerReady, oip.ServerReadyRequest())).ready

    async def server_metadata(self) -> ServerInfo:
        """Name, version and protocol extensions of the model server."""
        answer = await self._connection.call(self._stub.ServerMetadata, oip.ServerMetadataRequest())
        return from_proto(ServerInfo, answer)

    async def statistics(self, name: str, *, version: int | None = None) -> EndpointStatistics:
        """What one replica of a deployment counted since its process began; `deployments.statistics` has the sum and every replica.

        Raises:
            PermissionDenied: you lack EXECUTE on the deployment.
            NotFound: there is no such deployment, or it does not run that version.
        """
        request = oip.ModelStatisticsRequest(name=name, version=str(version or ""))
        answer = await self._connection.call(
            self._stub.ModelStatistics, request, metadata=_route(name, version)
        )
        found = answer.model_stats[0] if answer.model_stats else oip.ModelStatistics(name=name)
        parts = found.inference_stats
        return EndpointStatistics(
            name=found.name,
            version=found.version,
            last_inference=datetime.fromtimestamp(found.last_inference / 1000, UTC)
            if found.last_inference
            else None,
            inference_count=found.inference_count,
            execution_count=found.execution_count,
            success_count=parts.success.count,
            failure_count=parts.fail.count,
            request_ns=parts.success.ns,
            queue_ns=parts.queue.ns,
            compute_input_ns=parts.compute_input.ns,
            compute_infer_ns=parts.compute_infer.ns,
            compute_output_ns=parts.compute_output.ns,
        )

    async def _info(self, name: str, version: int | None) -> EndpointInfo:
        key = (name, version)
        if key not in self._infos:
            if len(self._infos) >= 1000:
                self._infos.clear()
            self._infos[key] = await self.metadata(name, version=version)
        return self._infos[key]


def _route(name: str, version: int | None) -> list[tuple[str, str]]:
    pinned = [(VERSION_KEY, str(version))] if version else []
    return [(ROUTE_KEY, name), *pinned]
