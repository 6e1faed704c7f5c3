"""What happens around every call, in one ordered list.

Each layer is an async context manager around the handler, written once and applied to all four shapes of RPC. The order is the
order of `LAYERS` in `CallChain`, outermost first:

1. request id: first, so that every log line and error below carries it;
2. telemetry: outside the error translation, so that refusals are counted and traced with their final status;
3. errors: the only place where an exception becomes a status;
4. identity: who calls; refusals are translated by the layer above;
5. permission: may it; needs the identity;
6. deadline: innermost, because only the handler's own work is cut by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.trace import SpanKind, StatusCode

from modelyard_kit import telemetry
from modelyard_kit.access import (
    AUTHENTICATED,
    AccessTable,
    Authenticated,
    Grants,
    Public,
    Rule,
    Services,
    authorize,
)
from modelyard_kit.auth import NOBODY, Call, TokenVerifier, current_call, set_current_call
from modelyard_kit.errors import DeadlineExceeded, DomainError, Internal, TokenMissing
from modelyard_kit.ids import new_id

DOMAIN = "modelyard"
DEFAULT_TIMEOUT = timedelta(seconds=60)
PATIENCE_SECONDS = 60.0
"""Time in which a watcher must take an answer."""
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

_log = structlog.get_logger()


@dataclass
class Incoming:
    """A call on its way through the layers."""

    method: str
    context: Any
    metadata: Mapping[str, str | bytes]
    request: Any = None  # None while the caller streams its requests
    streaming: bool = False  # whether the answer is a stream

    def text(self, key: str) -> str:
        """Return a metadata value, or an empty text."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else ""


Layer = Callable[[Incoming], AbstractAsyncContextManager[None]]


class CallChain(grpc.aio.ServerInterceptor):
    """Puts the layers around every handler of a server.

    Args:
        full_name: the proto name of the service, `modelyard.api.catalog.v1.CatalogService`.
        access: rule of each of its RPCs.
        verifier: checks the tokens.
        grants: decides.
    """

    def __init__(self, full_name: str, access: AccessTable, verifier: TokenVerifier, grants: Grants) -> None:
        self._rules = {f"/{full_name}/{rpc}": rule for rpc, rule in access.items()}
        self._verifier = verifier
        self._grants = grants
        self._watches: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._durations = telemetry.meter().create_histogram(
            "rpc.server.duration", unit="ms", description="Duration of calls by method and status."
        )
        self.layers: tuple[Layer, ...] = (
            self._request_id,
            self._telemetry,
            self._errors,
            self._identity,
            self._permission,
            self._deadline,
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler with the layers around it; health checks and unknown methods pass as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_HEALTH):
            return handler
        pairs = handler_call_details.invocation_metadata or ()
        return self._wrap(handler, method, dict(pairs))

    def _wrap(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: str, metadata: Mapping[str, str | bytes]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        any_handler: Any = handler

        def incoming(request_or_iterator: Any, context: Any) -> Incoming:
            request = None if handler.request_streaming else request_or_iterator
            return Incoming(method, context, metadata, request, handler.response_streaming)

        async def answer_once(request_or_iterator: Any, context: Any) -> Any:
            behaviour = any_handler.stream_unary if handler.request_streaming else any_handler.unary_unary
            async with self._around(incoming(request_or_iterator, context)):
                return await behaviour(request_or_iterator, context)

        async def answer_stream(request_or_iterator: Any, context: Any) -> AsyncIterator[Any]:
            behaviour = any_handler.stream_stream if handler.request_streaming else any_handler.unary_stream
            async with self._around(incoming(request_or_iterator, context)):
                async for response in behaviour(request_or_iterator, context):
                    yield response

        async def answer_watch(request_or_iterator: Any, context: Any) -> None:
            responses = any_handler.unary_stream(request_or_iterator, context)
            async with (
                self._around(incoming(request_or_iterator, context)),
                self._endable(context),
                aclosing(responses),
            ):
                async for response in responses:
                    await _hand_over(context, response)

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        around: Any = answer_stream if handler.response_streaming else answer_once
        if (
            handler.response_streaming
            and not handler.request_streaming
            and _is_endless(self._rules.get(method))
        ):
            around = answer_watch
        return make(around, handler.request_deserializer, handler.response_serializer)

    def end_watches(self) -> None:
        """End the streams that are watched for ever, which would otherwise hold up a clean stop."""
        self._ended |= self._watches
        for task in self._watches:
            task.cancel()

    @asynccontextmanager
    async def _endable(self, context: Any) -> AsyncIterator[None]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        self._watches.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            # A handler that is merely cancelled sends no status, and the server would wait for it as for one that runs.
            task.uncancel()
            await context.abort(
                grpc.StatusCode.UNAVAILABLE, "the service stops; watch again, from where you were"
            )
        finally:
            self._watches.discard(task)
            self._ended.discard(task)

    @asynccontextmanager
    async def _around(self, incoming: Incoming) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for layer in self.layers:
                await stack.enter_async_context(layer(incoming))
            yield

    @asynccontextmanager
    async def _request_id(self, incoming: Incoming) -> AsyncIterator[None]:
        given = incoming.text("x-request-id")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        set_current_call(Call(NOBODY, request_id))
        with structlog.contextvars.bound_contextvars(request_id=request_id, method=incoming.method):
            yield

    @asynccontextmanager
    async def _telemetry(self, incoming: Incoming) -> AsyncIterator[None]:
        begin = time.perf_counter()
        parent = telemetry.incoming_context(incoming.metadata.items())
        name = incoming.method.removeprefix("/")
        with telemetry.tracer().start_as_current_span(
            name, context=parent, kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            finally:
                # None until a status was set: then the call ended well.
                code = incoming.context.code() or grpc.StatusCode.OK
                code_name = code.name if isinstance(code, grpc.StatusCode) else grpc_code(code).name
                span.set_attribute("rpc.system", "grpc")
                span.set_attribute("rpc.grpc.status_code", code_name)
                if code_name in ("INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS"):
                    span.set_status(StatusCode.ERROR)
                duration = (time.perf_counter() - begin) * 1_000
                self._durations.record(duration, {"rpc.method": name, "rpc.grpc.status_code": code_name})
                _log.debug("call", status=code_name, milliseconds=round(duration, 3))

    @asynccontextmanager
    async def _errors(self, incoming: Incoming) -> AsyncIterator[None]:
        try:
            yield
        except DomainError as error:
            await abort(incoming.context, error)
        except TimeoutError:
            await abort(incoming.context, DeadlineExceeded())
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an id and the log the cause
            error_id = new_id()
            _log.exception("internal_error", error_id=error_id)
            await abort(incoming.context, Internal(error_id))

    @asynccontextmanager
    async def _identity(self, incoming: Incoming) -> AsyncIterator[None]:
        if not isinstance(self._rules.get(incoming.method), Public):
            scheme, _, token = incoming.text("authorization").partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise TokenMissing
            principal = await self._verifier.verify(token.strip())
            set_current_call(replace(current_call(), principal=principal))
            structlog.contextvars.bind_contextvars(principal=principal.name)
        yield

    @asynccontextmanager
    async def _permission(self, incoming: Incoming) -> AsyncIterator[None]:
        reflection = incoming.method.startswith(_REFLECTION)
        rule = AUTHENTICATED if reflection else self._rules[incoming.method]
        await authorize(rule, current_call().principal, self._grants, incoming.request)
        yield

    @asynccontextmanager
    async def _deadline(self, incoming: Incoming) -> AsyncIterator[None]:
        remaining = incoming.context.time_remaining()
        if remaining is None and (incoming.streaming or incoming.request is None):
            yield
            return
        seconds = DEFAULT_TIMEOUT.total_seconds() if remaining is None else remaining
        deadline = datetime.now(UTC) + timedelta(seconds=min(seconds, 86_400.0))
        set_current_call(replace(current_call(), deadline=deadline))
        async with asyncio.timeout(seconds):
            yield


def _is_endless(rule: Rule | None) -> bool:
    """Return whether a stream under this rule never ends by itself; services only watch each other."""
    return isinstance(rule, Services) or (isinstance(rule, Authenticated) and rule.endless)


async def _hand_over(context: Any, response: Any) -> None:
    """Send an answer of a watch. A caller who does not take answers is let go: it comes back, or it is dead."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await context.write(response)
    except TimeoutError:
        # Within a time of its own: what says so waits behind the answer that was not taken.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE,
                    f"no answer was taken for {PATIENCE_SECONDS:g} s; watch again, from where you were",
                )
        raise asyncio.CancelledError from None


def grpc_code(number: int) -> grpc.StatusCode:
    """Return the status code with this number."""
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def status_of(error: DomainError) -> status_pb2.Status:
    """Return the status message of a domain error: code, text, ErrorInfo, and its violations."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.violations and error.code == "INVALID_ARGUMENT":
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        details.append(bad)
    elif error.violations:
        failure = error_details_pb2.PreconditionFailure()
        for violation in error.violations:
            failure.violations.add(
                type=error.reason, subject=violation.field, description=violation.description
            )
        details.append(failure)
    packed = []
    for detail in details:
        item = any_pb2.Any()
        item.Pack(detail)
        packed.append(item)
    code: int = grpc.StatusCode[error.code].value[0]
    return status_pb2.Status(code=code, message=error.message, details=packed)


async def abort(context: Any, error: DomainError) -> None:
    """End a call with the status of a domain error."""
    status = status_of(error)
    trailing = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(grpc.StatusCode[error.code], error.message, trailing)
