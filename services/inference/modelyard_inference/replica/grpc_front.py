"""The front on grpc.aio.

Methods are found by one generic handler: registered methods make the aio server slower with every one of them from grpcio
1.84 on, and a service may be served under two names this way. Messages pass as bytes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from modelyard_inference.replica import status
from modelyard_inference.replica.front import Call, Duplex, Routes, Stream, Unary, refusal
from modelyard_inference.replica.serving import request_id_of

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_MAX_CONCURRENT_CALLS: Final = 16_384


class GrpcFront:
    """A `Front` on grpc.aio."""

    def __init__(self, routes: Routes, *, listen: str, max_message_bytes: int) -> None:
        self._listen = listen
        self._server = grpc.aio.server(
            handlers=(_Handlers(routes),),
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                # Envoy pings connections that rest; the defaults take that for an attack.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
                ("grpc.http2.max_ping_strikes", 0),
            ],
            maximum_concurrent_rpcs=_MAX_CONCURRENT_CALLS,
        )

    async def start(self) -> None:
        """See `Front.start`."""
        path = Path(self._listen.removeprefix("unix:"))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        mask = os.umask(0o177)
        try:
            try:
                self._server.add_insecure_port(self._listen)
            except RuntimeError as error:
                raise OSError(f"cannot listen on {self._listen}: {error}") from error
            await self._server.start()
        finally:
            os.umask(mask)

    async def stop(self, grace_seconds: float) -> None:
        """See `Front.stop`."""
        await self._server.stop(grace_seconds)


class _Handlers(grpc.GenericRpcHandler):
    """Finds the handler of a path; None makes grpc answer UNIMPLEMENTED."""

    def __init__(self, routes: Routes) -> None:
        self._handlers: dict[str, Any] = {
            **{
                path: grpc.unary_unary_rpc_method_handler(_unary(path, method))
                for path, method in routes.unary.items()
            },
            **{
                path: grpc.unary_stream_rpc_method_handler(_stream(path, method))
                for path, method in routes.streams.items()
            },
            **{
                path: grpc.stream_stream_rpc_method_handler(_stream(path, method))
                for path, method in routes.duplex.items()
            },
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


def _unary(path: str, method: Unary) -> Any:
    loop = asyncio.get_running_loop()

    async def answer(body: bytes, context: Any) -> bytes:
        try:
            return await method(body, _call(context, loop))
        except Exception as error:
            await _abort(context, error, path)
            raise

    return answer


def _stream(path: str, method: Stream | Duplex) -> Any:
    loop = asyncio.get_running_loop()

    async def answer(asked: Any, context: Any) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(method(asked, _call(context, loop))) as messages:
                async for message in messages:
                    yield message
        except Exception as error:  # noqa: BLE001  as above
            await _abort(context, error, path)

    return answer


def _call(context: Any, loop: asyncio.AbstractEventLoop) -> Call:
    remaining = context.time_remaining()
    return Call(None if remaining is None else loop.time() + remaining, context.invocation_metadata() or ())


async def _abort(context: Any, error: Exception, path: str) -> None:
    told = refusal(error, path, request_id_of(context.invocation_metadata() or ()))
    # If nothing was sent before, this is a trailers-only answer, which Envoy may retry.
    await context.abort(
        _CODES[status.code(told)],
        status.message(told),
        trailing_metadata=((status.DETAILS_KEY, status.details(told)),),
    )
