"""The other services, as any client would reach them: by their stubs, with a token, under a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from modelyard.api.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from modelyard.api.governance.v1.governance_service_pb2 import ExchangeTokenRequest
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard.api.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from modelyard_kit import telemetry
from modelyard_kit.auth import current_call
from modelyard_kit.channels import open_channel
from modelyard_kit.config import Settings
from modelyard_kit.errors import DomainError, PeerUnavailable, Violation

if TYPE_CHECKING:  # these names exist in the type stubs only
    from modelyard.api.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub
    from modelyard.api.catalog.v1.catalog_service_pb2_grpc import CatalogServiceAsyncStub
    from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceAsyncStub
    from modelyard.api.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

T = TypeVar("T")
TokenSource = Callable[[], Awaitable[str]]

_NAMES = ("catalog", "artifact", "governance", "inference")
_STATUS_KEY = "grpc-status-details-bin"


class Peers:
    """Stubs of the four services, called as this service.

    A call goes out with this service's own token: the rights of the original caller have been checked before. Its request id and
    trace go along, and its deadline if that is nearer.
    """

    def __init__(self, settings: Settings) -> None:
        addresses = {name: getattr(settings, f"{name}_address") for name in _NAMES}
        self._channels = {name: open_channel(to, settings.peer_ca) for name, to in addresses.items() if to}
        self._services: dict[Any, str] = {}
        self._exchanged = ExchangedToken(self._raw_governance, settings.token_file)
        self._tokens: TokenSource = self._exchanged

    @property
    def catalog(self) -> CatalogServiceAsyncStub:
        """Stub of the catalog service."""
        return CatalogServiceStub(self._channel("catalog"))

    @property
    def artifact(self) -> ArtifactServiceAsyncStub:
        """Stub of the artifact service."""
        return ArtifactServiceStub(self._channel("artifact"))

    @property
    def governance(self) -> GovernanceServiceAsyncStub:
        """Stub of the governance service."""
        return self._raw_governance()

    @property
    def inference(self) -> InferenceServiceAsyncStub:
        """Stub of the inference service."""
        return InferenceServiceStub(self._channel("inference"))

    def use_tokens(self, tokens: TokenSource) -> None:
        """Take tokens from elsewhere than governance; governance itself does."""
        self._tokens = tokens

    async def call(self, method: Callable[..., Any], request: Any, *, timeout: float = 5.0) -> Any:
        """Make one unary call and return its response.

        Args:
            method: a method of one of the stubs.
            request: its request message.
            timeout: seconds; the deadline of the call being served rules if it is nearer.

        Raises:
            PeerUnavailable: no answer in time.
            DomainError: as the peer refused, with its reason.
        """
        try:
            return await method(request, timeout=_remaining(timeout), metadata=await self._metadata())
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error, method) from error

    async def stream(
        self, method: Callable[..., Any], request: Any, *, timeout: float | None = None
    ) -> AsyncIterator[Any]:
        """Make one server-streaming call and yield its responses.

        Raises:
            PeerUnavailable: the stream cannot begin, or broke.
            DomainError: as the peer refused, with its reason.
        """
        try:
            async for response in method(request, timeout=timeout, metadata=await self._metadata()):
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error, method) from error

    def _refusal(self, error: grpc.aio.AioRpcError, method: Callable[..., Any]) -> DomainError:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            self._exchanged.forget()  # its key was withdrawn: the next call gets another token
        return domain_error(error, _service_of(method))

    async def close(self) -> None:
        """Close every channel."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    def _channel(self, name: str) -> grpc.aio.Channel:
        if name not in self._channels:
            raise LookupError(
                f"this service was not told where {name} is: set MODELYARD_{name.upper()}_ADDRESS"
            )
        return self._channels[name]

    def _raw_governance(self) -> GovernanceServiceAsyncStub:
        return GovernanceServiceStub(self._channel("governance"))

    async def _metadata(self) -> list[tuple[str, str]]:
        metadata = [("authorization", f"Bearer {await self._tokens()}")]
        with contextlib.suppress(LookupError):  # background work serves no call
            metadata.append(("x-request-id", current_call().request_id))
        return metadata + telemetry.outgoing_context()


class ExchangedToken:
    """Keeps a JWT, exchanged for the API token in a file and renewed after two thirds of its life."""

    def __init__(self, governance: Callable[[], GovernanceServiceAsyncStub], token_file: Path) -> None:
        self._governance = governance
        self._token_file = token_file
        self._token = ""
        self._renew_at = 0.0
        self._lock = asyncio.Lock()

    async def __call__(self) -> str:
        """Return a JWT that is valid for a while.

        Raises:
            PeerUnavailable: governance does not answer and the last one is too old.
            DomainError: governance refuses the API token.
        """
        async with self._lock:
            if time.monotonic() >= self._renew_at:
                await self._renew()
            return self._token

    def forget(self) -> None:
        """Let the next call exchange anew."""
        self._renew_at = 0.0

    async def _renew(self) -> None:
        secret = (await asyncio.to_thread(self._token_file.read_text)).strip()
        try:
            response = await self._governance().ExchangeToken(
                ExchangeTokenRequest(api_token=secret), timeout=5.0
            )
        except grpc.aio.AioRpcError as error:
            raise domain_error(error, "governance") from error
        life = response.expire_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)
        self._token = response.access_token
        self._renew_at = time.monotonic() + life.total_seconds() * 2 / 3


def domain_error(error: grpc.aio.AioRpcError, service: str) -> DomainError:
    """Return the domain error that a peer's status tells of.

    A status without a reason of ours means that the peer was not reached or is broken.
    """
    status = _status(error)
    info = error_details_pb2.ErrorInfo()
    violations: list[Violation] = []
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += [Violation(item.field, item.description) for item in bad.field_violations]
        elif detail.Is(error_details_pb2.PreconditionFailure.DESCRIPTOR):
            failure = error_details_pb2.PreconditionFailure()
            detail.Unpack(failure)
            violations += [Violation(item.subject, item.description) for item in failure.violations]
    known = _reasons().get(info.reason)
    if known is None or known.reason in ("INTERNAL", "TOKEN_INVALID", "TOKEN_EXPIRED", "TOKEN_MISSING"):
        return PeerUnavailable(service)
    rebuilt = known.__new__(known)
    DomainError.__init__(rebuilt, error.details() or "", metadata=dict(info.metadata), violations=violations)
    return rebuilt


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == _STATUS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return None


def _reasons() -> dict[str, type[DomainError]]:
    found: dict[str, type[DomainError]] = {}
    pending = list(DomainError.__subclasses__())
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        found[kind.reason] = kind
    return found


def _service_of(method: Any) -> str:
    path = getattr(method, "_method", b"")
    text = path.decode() if isinstance(path, bytes) else str(path)
    return next((name for name in _NAMES if f".{name}." in text), "peer")


def _remaining(timeout: float) -> float:
    try:
        deadline = current_call().deadline
    except LookupError:
        return timeout
    if deadline is None:
        return timeout
    return max(0.0, min(timeout, (deadline - datetime.now(UTC)).total_seconds()))
