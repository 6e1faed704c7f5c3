"""What happens around every call, in one ordered list.

Each layer is a coroutine that awaits the rest of the call, written once and applied to all four shapes of RPC: a handler that
streams its answers is one more coroutine, which writes them. The order is that of `CallChain.layers`, outermost first:

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
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.trace import StatusCode

from modelyard_kit import telemetry
from modelyard_kit.auth import NOBODY, Call, TokenVerifier, current_call, set_current_call
from modelyard_kit.authorization import (
    AUTHENTICATED,
    AccessTable,
    Authenticated,
    Public,
    Requires,
    Rule,
    Services,
    authorize,
)
from modelyard_kit.driver import PoolExhausted, is_lost
from modelyard_kit.errors import (
    DeadlineExceeded,
    DomainError,
    Internal,
    Overloaded,
    PeerUnavailable,
    TokenMissing,
)
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id

DOMAIN = "modelyard"
DEFAULT_TIMEOUT = timedelta(seconds=60)
PATIENCE_SECONDS = 60.0
"""Time in which a watcher must take an answer."""
# In milliseconds. OpenTelemetry's own begin with 5, which is longer than most calls take.
_DURATION_BOUNDS = tuple(digits * 10.0**power for power in range(5) for digits in (1, 1.5, 2, 3, 5))
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = "/grpc.reflection."
_SHAPES = {  # by whether requests and answers are streams
    (False, False): "unary_unary",
    (True, False): "stream_unary",
    (False, True): "unary_stream",
    (True, True): "stream_stream",
}
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

_log = structlog.get_logger()


@dataclass
class Incoming:
    """A call on its way through the layers."""

    method: str
    context: Any
    metadata: Mapping[str, str | bytes]
    given: Any  # the request, or the iterator of requests
    request: Any = None  # None while the caller streams its requests
    streaming: bool = False  # whether the answer is a stream

    def text(self, key: str) -> str:
        """Return a metadata value, or an empty text."""
        value = self.metadata.get(key, "")
        return value if isinstance(value, str) else ""


Proceed = Callable[[Incoming], Awaitable[Any]]
"""The rest of a call: the layers further in, and the handler. Returns its response; None if that is a stream."""

Layer = Callable[[Incoming, Proceed], Awaitable[Any]]


class CallChain(grpc.aio.ServerInterceptor):
    """Puts the layers around every handler of a server.

    Args:
        full_name: the proto name of the service, `modelyard.api.catalog.v1.CatalogService`.
        access: rule of each of its RPCs.
        verifier: checks the tokens.
        grants: decides.
        refused: is told of every domain error that ended a call, with the call and its method.
    """

    def __init__(
        self,
        full_name: str,
        access: AccessTable,
        verifier: TokenVerifier,
        grants: Grants,
        *,
        refused: Callable[[Call, str, DomainError], None] = lambda _call, _method, _error: None,
    ) -> None:
        self._rules = {f"/{full_name}/{rpc}": rule for rpc, rule in access.items()}
        self._verifier = verifier
        self._grants = grants
        self._refused = refused
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._watches: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._durations = telemetry.meter().create_histogram(
            "rpc.server.duration",
            unit="ms",
            description="Duration of calls by method and status.",
            explicit_bucket_boundaries_advisory=_DURATION_BOUNDS,
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
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(_HEALTH):
            return handler
        self._wrapped[method] = self._wrap(handler, method)
        return self._wrapped[method]

    def _wrap(self, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
        shape = _SHAPES[handler.request_streaming, handler.response_streaming]
        behaviour = getattr(handler, shape)

        async def answer_once(incoming: Incoming) -> Any:
            return await behaviour(incoming.given, incoming.context)

        async def answer_stream(incoming: Incoming) -> None:
            async for response in behaviour(incoming.given, incoming.context):
                await incoming.context.write(response)

        async def answer_watch(incoming: Incoming) -> None:
            async with aclosing(behaviour(incoming.given, incoming.context)) as responses:
                async for response in responses:
                    await _hand_over(incoming.context, response)

        layers = self.layers
        proceed: Proceed = answer_once
        if handler.response_streaming:
            proceed = answer_stream
            if not handler.request_streaming and _is_endless(self._rules.get(method)):
                layers, proceed = (*layers, self._endable), answer_watch
        for layer in reversed(layers):
            proceed = _inside(layer, proceed)

        async def serve(request_or_iterator: Any, context: Any) -> Any:
            incoming = Incoming(
                method=method,
                context=context,
                metadata=dict(context.invocation_metadata() or ()),
                given=request_or_iterator,
                request=None if handler.request_streaming else request_or_iterator,
                streaming=handler.response_streaming,
            )
            return await proceed(incoming)

        make: Any = getattr(grpc, f"{shape}_rpc_method_handler")
        return make(serve, handler.request_deserializer, handler.response_serializer)  # type: ignore[no-any-return]

    def end_watches(self) -> None:
        """End the streams that are watched for ever, which would otherwise hold up a clean stop."""
        self._ended |= self._watches
        for task in self._watches:
            task.cancel()

    async def _endable(self, incoming: Incoming, proceed: Proceed) -> Any:
        """Innermost, around the handlers of endless streams alone."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        self._watches.add(task)
        try:
            return await proceed(incoming)
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            # A handler that is merely cancelled sends no status, and the server would wait for it as for one that runs.
            task.uncancel()
            await incoming.context.abort(
                grpc.StatusCode.UNAVAILABLE, "the service stops; watch again, from where you were"
            )
        finally:
            self._watches.discard(task)
            self._ended.discard(task)

    async def _request_id(self, incoming: Incoming, proceed: Proceed) -> Any:
        given = incoming.text("x-request-id")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        # The context variables of this call alone: the server runs every call as a task of its own.
        set_current_call(Call(NOBODY, request_id))
        structlog.contextvars.bind_contextvars(request_id=request_id, method=incoming.method)
        return await proceed(incoming)

    async def _telemetry(self, incoming: Incoming, proceed: Proceed) -> Any:
        begin = time.perf_counter()
        name = incoming.method.removeprefix("/")
        with telemetry.server_span(name, incoming.metadata) as span:
            try:
                return await proceed(incoming)
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

    async def _errors(self, incoming: Incoming, proceed: Proceed) -> Any:
        try:
            return await proceed(incoming)
        except DomainError as error:
            self._refused(current_call(), incoming.method, error)
            await abort(incoming.context, error)
        except TimeoutError:
            await abort(incoming.context, DeadlineExceeded())
        except PoolExhausted as error:
            _log.warning("database_pool_exhausted", error=str(error))
            await abort(incoming.context, Overloaded(error.size))
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an id and the log the cause
            if is_lost(error):
                _log.warning("database_unavailable", error=str(error))
                await abort(incoming.context, PeerUnavailable("database"))
            error_id = new_id()
            _log.exception("internal_error", error_id=error_id)
            await abort(incoming.context, Internal(error_id))

    async def _identity(self, incoming: Incoming, proceed: Proceed) -> Any:
        if not isinstance(self._rules.get(incoming.method), Public):
            scheme, _, token = incoming.text("authorization").partition(" ")
            if scheme.lower() != "bearer" or not token:
                raise TokenMissing
            principal = await self._verifier.verify(token.strip())
            set_current_call(replace(current_call(), principal=principal))
            structlog.contextvars.bind_contextvars(principal=principal.name)
        return await proceed(incoming)

    async def _permission(self, incoming: Incoming, proceed: Proceed) -> Any:
        reflection = incoming.method.startswith(_REFLECTION)
        rule = AUTHENTICATED if reflection else self._rules[incoming.method]
        call = current_call()
        permit = await authorize(rule, call.principal, self._grants, incoming.request)
        set_current_call(replace(call, permit=permit))
        return await proceed(incoming)

    async def _deadline(self, incoming: Incoming, proceed: Proceed) -> Any:
        remaining = incoming.context.time_remaining()
        if remaining is None and (incoming.streaming or incoming.request is None):
            return await proceed(incoming)
        seconds = DEFAULT_TIMEOUT.total_seconds() if remaining is None else remaining
        deadline = datetime.now(UTC) + timedelta(seconds=min(seconds, 86_400.0))
        set_current_call(replace(current_call(), deadline=deadline))
        async with asyncio.timeout(seconds):
            return await proceed(incoming)


def _inside(layer: Layer, proceed: Proceed) -> Proceed:
    return lambda incoming: layer(incoming, proceed)


def _is_endless(rule: Rule | None) -> bool:
    """Return whether a stream under this rule never ends by itself; services only watch each other."""
    return isinstance(rule, Services) or (isinstance(rule, Authenticated | Requires) and rule.endless)


async def _hand_over(context: Any, response: Any) -> None:
    """Send an answer of a watch. A caller who does not take answers is let go: it comes back, or it is dead."""
    writing = asyncio.ensure_future(context.write(response))
    try:
        await asyncio.wait({writing}, timeout=PATIENCE_SECONDS)
    except asyncio.CancelledError:
        # Cancelled with its caller, the write would go on below grpc.aio, which would not know that the head of the answer
        # is on its way: to say why the watch ends would send it twice, and fail.
        await asyncio.wait({writing}, timeout=PATIENCE_SECONDS)
        _let_go(writing)
        raise
    if writing.done():
        writing.result()  # raises what the write raised
        return
    # Within a time of its own: what says so waits behind the answer that was not taken. Behind a first one it is refused.
    with contextlib.suppress(TimeoutError, grpc.aio.InternalError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await context.abort(
                grpc.StatusCode.UNAVAILABLE,
                f"no answer was taken for {PATIENCE_SECONDS:g} s; watch again, from where you were",
            )
    _let_go(writing)
    raise asyncio.CancelledError


def _let_go(task: asyncio.Future[Any]) -> None:
    """End a task of which nobody wants to know any more how it ends, or asyncio would log that."""
    task.cancel()
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


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
