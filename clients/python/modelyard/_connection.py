"""The way every call of the client takes: identity, request id, deadline, trace, error."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc

from modelyard._channel import Endpoint, open_channel, parse_target
from modelyard._chunks import RawArtifactStub
from modelyard._refusals import FirstStatus, cut_off, is_cancelled
from modelyard._secure_channel import SecureChannel
from modelyard._status import error_from_call
from modelyard._tls import tls_files
from modelyard._token import TokenSource, is_external
from modelyard._tracing import call_span
from modelyard.api.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from modelyard.api.governance.v1.governance_service_pb2 import ExchangeTokenRequest
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard.api.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from modelyard.errors import (
    ConfigurationError,
    ModelyardError,
    TlsFailed,
    TokenMissing,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from google.protobuf.descriptor import ServiceDescriptor
    from google.protobuf.message import Message

    from modelyard.api.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub
    from modelyard.api.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceAsyncStub
    from modelyard.api.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

    Metadata = Sequence[tuple[str, str]]

Q = TypeVar("Q", bound="Message")
A = TypeVar("A", bound="Message")
R = TypeVar("R")

SERVICES = ("catalog", "artifact", "governance", "inference", "serving")
"""Names that `services={...}` may override; `serving` answers predictions."""


def new_request_id() -> str:
    """An id that makes the repetition of a creation safe."""
    return uuid.uuid4().hex


class Connection:
    """Channels to the services, opened when first used on the event loop that uses them."""

    def __init__(
        self,
        target: str,
        token: str,
        *,
        services: Mapping[str, str],
        ca_certificate: str | Path | None,
        client_certificate: str | Path | None,
        client_key: str | Path | None,
        insecure: bool,
        timeout: float,
        max_message_bytes: int,
    ) -> None:
        unknown = set(services) - set(SERVICES)
        if unknown:
            raise ConfigurationError(
                f"services: {', '.join(sorted(unknown))} unknown; use {', '.join(SERVICES)}"
            )
        targets = {name: services.get(name, target) for name in SERVICES}
        tls = tls_files(ca_certificate, client_certificate, client_key)
        self._endpoints = {
            name: parse_target(text, tls=tls, insecure=insecure) for name, text in targets.items()
        }
        if any(endpoint.tls for endpoint in self._endpoints.values()):
            tls.read()
        elif client_certificate:
            raise ConfigurationError(
                f"target {target}: a connection without TLS shows no certificate; "
                "use https://… or drop client_certificate and client_key"
            )
        self._timeout = timeout
        self._max_message_bytes = max_message_bytes
        self._channels: dict[Endpoint, grpc.aio.Channel | SecureChannel] = {}
        self._stubs: dict[tuple[str, Any], Any] = {}
        self._token = TokenSource(token, self._exchange)
        self._closed = False

    @property
    def catalog(self) -> CatalogServiceAsyncStub:
        """Stub of the catalog."""
        return cast("CatalogServiceAsyncStub", self.stub("catalog", CatalogServiceStub))

    @property
    def artifact(self) -> ArtifactServiceAsyncStub:
        """Stub of the artifact store."""
        return cast("ArtifactServiceAsyncStub", self.stub("artifact", ArtifactServiceStub))

    @property
    def raw_artifact(self) -> RawArtifactStub:
        """Stub of the artifact store for the calls that carry content, as bytes."""
        return self.stub("artifact", RawArtifactStub)

    @property
    def governance(self) -> GovernanceServiceAsyncStub:
        """Stub of governance."""
        return cast("GovernanceServiceAsyncStub", self.stub("governance", GovernanceServiceStub))

    @property
    def inference(self) -> InferenceServiceAsyncStub:
        """Stub of the control plane of deployments."""
        return cast("InferenceServiceAsyncStub", self.stub("inference", InferenceServiceStub))

    def stub(self, service: str, make: Callable[[Any], R]) -> R:
        """The stub that `make` builds on the channel of a service, made once."""
        key = (service, make)
        if key not in self._stubs:
            self._stubs[key] = make(self._channel(service))
        return cast("R", self._stubs[key])

    async def access_token(self) -> str:
        """The short-lived token that calls carry."""
        bearer = await self._token.bearer()
        if not bearer:
            raise TokenMissing("this client has no token; give token=… or run `modelyard login`")
        return bearer

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Q, A],
        request: Q,
        *,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> A:
        """Make a call; `timeout` in seconds replaces the client's."""
        limit = self._timeout if timeout is None else timeout

        async def start(carried: Metadata) -> A:
            return await method(request, timeout=limit, metadata=[*carried, *metadata])

        return await self._authenticated(type(request), start)

    async def send(
        self,
        method: grpc.aio.StreamUnaryMultiCallable[Q, A],
        kind: type[Q],
        pieces: Callable[[], AsyncIterator[Q]],
        *,
        timeout: float,
    ) -> A:
        """Stream requests to the service; `pieces` is called again if the token has to be renewed."""

        async def start(carried: Metadata) -> A:
            call = method(pieces(), timeout=timeout, metadata=carried)
            return await _true_status(call, FirstStatus(call))

        return await self._authenticated(kind, start)

    async def receive(
        self, method: grpc.aio.UnaryStreamMultiCallable[Q, A], request: Q, *, timeout: float
    ) -> AsyncGenerator[A]:
        """Stream answers of the service."""

        async def start(carried: Metadata) -> tuple[grpc.aio.UnaryStreamCall[Q, A], Any, str]:
            call = method(request, timeout=timeout, metadata=carried)
            # The first answer, or a refusal that is worth a new token.
            return call, await call.read(), dict(carried)["x-request-id"]

        call, answer, request_id = await self._authenticated(type(request), start)
        try:
            while answer is not grpc.aio.EOF:
                yield answer
                answer = await call.read()
        except grpc.aio.AioRpcError as error:
            raise error_from_call(error, request_id) from error
        finally:
            call.cancel()

    async def converse(
        self,
        method: grpc.aio.StreamStreamMultiCallable[Q, A],
        kind: type[Q],
        pieces: Callable[[], AsyncIterator[Q]],
        *,
        metadata: Metadata = (),
    ) -> AsyncGenerator[A]:
        """Stream requests to the service and its answers back; `pieces` is called again if the token has to be renewed."""

        async def start(carried: Metadata) -> tuple[Any, FirstStatus, Any, str]:
            call = method(pieces(), metadata=[*carried, *metadata])
            status = FirstStatus(call)
            return call, status, await _true_status(call.read(), status), dict(carried)["x-request-id"]

        call, status, answer, request_id = await self._authenticated(kind, start)
        try:
            while answer is not grpc.aio.EOF:
                yield answer
                answer = await _true_status(call.read(), status)
        except grpc.aio.AioRpcError as error:
            raise error_from_call(error, request_id) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close every channel; calls in progress are cancelled."""
        self._closed = True
        channels, self._channels = list(self._channels.values()), {}
        self._stubs = {}
        for channel in channels:
            await channel.close()

    async def _authenticated(self, request: type[Message], start: Callable[[Metadata], Awaitable[R]]) -> R:
        """Run a call with identity; once more with a new token if the first one is refused."""
        bearer = await self._token.bearer()
        try:
            return await self._run(request, start, bearer)
        except Unauthenticated:
            if not self._token.renewable:
                raise
        self._token.forget(bearer)
        return await self._run(request, start, await self._token.bearer())

    async def _run(self, request: type[Message], start: Callable[[Metadata], Awaitable[R]], bearer: str) -> R:
        request_id = new_request_id()
        identity = [("authorization", f"Bearer {bearer}")] if bearer else []
        with call_span(*_names(request)) as trace:
            try:
                return await start([("x-request-id", request_id), *identity, *trace])
            except grpc.aio.AioRpcError as error:
                raise await self._explained(error_from_call(error, request_id)) from error

    async def _explained(self, error: ModelyardError) -> ModelyardError:
        """The error, or a better one if a service cannot be reached because of certificates."""
        if type(error) is Unavailable and not error.reason:
            for channel in list(self._channels.values()):
                if isinstance(channel, SecureChannel) and (problem := await channel.explain()):
                    return TlsFailed(problem, request_id=error.request_id)
        return error

    async def _exchange(self, token: str) -> tuple[str, datetime]:
        """Exchange an API token, or the token of an external issuer."""
        request = ExchangeTokenRequest(**{"id_token" if is_external(token) else "api_token": token})

        async def start(carried: Metadata) -> tuple[str, datetime]:
            answer = await self.governance.ExchangeToken(request, timeout=self._timeout, metadata=carried)
            return answer.access_token, answer.expire_time.ToDatetime(tzinfo=UTC)

        return await self._run(ExchangeTokenRequest, start, "")

    def _channel(self, service: str) -> grpc.aio.Channel | SecureChannel:
        if self._closed:
            raise ConfigurationError("the client is closed; make a new one")
        endpoint = self._endpoints[service]
        if endpoint not in self._channels:
            self._channels[endpoint] = open_channel(endpoint, self._max_message_bytes)
        return self._channels[endpoint]


async def _true_status(waited: Awaitable[R], status: FirstStatus) -> R:
    """Wait for a call that sends a stream; if it fails, raise with the status that the service gave."""
    try:
        return await waited
    except grpc.aio.AioRpcError as error:
        raise status.of(error) from error
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise cut_off(error) from error


def _names(request: type[Message]) -> tuple[str, str]:
    """Service and method of a request: it stands beside its service and is called `<Method>Request`."""
    services = request.DESCRIPTOR.file.services_by_name.values()
    service = cast("ServiceDescriptor", next(iter(services)))
    return service.full_name, request.DESCRIPTOR.name.removesuffix("Request")
