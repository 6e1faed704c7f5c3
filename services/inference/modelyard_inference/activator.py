"""Holds the predictions of groups that have no replica at the moment, until one answers, and passes them on to it.

While a group has none, gateways know this process as its only address, and say of each prediction which group it is for. That it
waits is what ends its wait: gateways count it as in flight, so the group gets a replica. As soon as that is in the route table, what was
held goes to it, and gateways send the next ones there themselves.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from modelyard_inference.errors import TooManyHeld
from modelyard_inference.replica import status
from modelyard_inference.replica.errors import ReplicaNotReady
from modelyard_inference.routes import Routes
from modelyard_kit.errors import DeadlineExceeded, DomainError

GROUP_HEADER: Final = "modelyard-group"
"""Metadata key by which gateways say which group a prediction is for."""
MAX_HELD: Final = 1_000
MAX_HELD_BYTES: Final = 256 * 2**20
_GRACE_SECONDS: Final = 1.0
_STREAMED: Final = "/ModelStreamInfer"
_OWN_METADATA: Final = ("grpc-", "user-agent", GROUP_HEADER)


class Activator:
    """Listens for predictions that have to wait.

    Args:
        address: `unix:/path` to listen on.
        routes: tells when a group has replicas.
        patience: longest time that a prediction is held, in seconds.
    """

    def __init__(self, address: str, routes: Routes, *, patience: float) -> None:
        self._address = address
        self._routes = routes
        self._patience = patience
        self._held = 0
        self._held_bytes = 0
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            handlers=(_Every(self),),
            options=[
                ("grpc.max_receive_message_length", MAX_HELD_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
                ("grpc.http2.max_ping_strikes", 0),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)  # type: ignore[no-untyped-call,unused-ignore]

    async def start(self) -> None:
        """Listen.

        Raises:
            RuntimeError: the address cannot be used.
        """
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        self._server.add_insecure_port(self._address)
        await self._server.start()

    async def stop(self) -> None:
        """Refuse what is held, so that gateways repeat it elsewhere, and stop."""
        await self._server.stop(_GRACE_SECONDS)

    async def answer(self, path: str, body: bytes, context: Any) -> bytes:
        """Hold a prediction until its group has a replica, and return what that answers."""
        try:
            with self._place(len(body)):
                async with self._replica(context) as (channel, arguments):
                    ask: Any = channel.unary_unary(path)
                    answer: bytes = await ask(body, **arguments)
                    return answer
        except (grpc.aio.AioRpcError, DomainError) as error:
            await _refuse(context, error)
            raise

    async def stream(
        self, path: str, bodies: AsyncIterator[bytes], context: Any
    ) -> AsyncGenerator[bytes, None]:
        """Hold a stream until its group has a replica; it stays with that, through this process, until it ends."""
        try:
            with self._place(0):
                async with self._replica(context) as (channel, arguments):
                    ask: Any = channel.stream_stream(path)
                    async for answer in ask(bodies, **arguments):
                        yield answer
        except (grpc.aio.AioRpcError, DomainError) as error:
            await _refuse(context, error)

    @asynccontextmanager
    async def _replica(self, context: Any) -> AsyncIterator[tuple[grpc.aio.Channel, dict[str, Any]]]:
        """Wait for a replica of the group that a call is for; give a channel to it, and what the call is made with."""
        loop, metadata = asyncio.get_running_loop(), context.invocation_metadata() or ()
        remaining = context.time_remaining()
        deadline = None if remaining is None else loop.time() + remaining
        group = next((value for name, value in metadata if name == GROUP_HEADER), "")
        try:
            async with asyncio.timeout(
                min(self._patience, self._patience if remaining is None else remaining)
            ):
                addresses = await self._routes.replicas_of(group)
        except TimeoutError as error:
            raise DeadlineExceeded from error
        if not addresses:
            raise ReplicaNotReady("leaving")
        passed = [(name, value) for name, value in metadata if not name.startswith(_OWN_METADATA)]
        timeout = None if deadline is None else max(0.0, deadline - loop.time())
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        # Channels to one address share a connection.
        async with grpc.aio.insecure_channel(random.choice(addresses), options=options) as channel:  # noqa: S311 - no secret
            yield channel, {"metadata": passed, "timeout": timeout}

    @contextmanager
    def _place(self, size: int) -> Iterator[None]:
        if self._held >= MAX_HELD or self._held_bytes + size > MAX_HELD_BYTES:
            raise TooManyHeld(MAX_HELD)
        self._held += 1
        self._held_bytes += size
        try:
            yield
        finally:
            self._held -= 1
            self._held_bytes -= size


class _Every(grpc.GenericRpcHandler):
    """Finds a handler for every path but those of health, which are registered beside it."""

    def __init__(self, activator: Activator) -> None:
        self._activator = activator

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        if path.startswith("/grpc.health."):
            return None

        async def answer(body: bytes, context: Any) -> bytes:
            return await self._activator.answer(path, body, context)

        async def stream(bodies: AsyncIterator[bytes], context: Any) -> AsyncGenerator[bytes, None]:
            async with aclosing(self._activator.stream(path, bodies, context)) as answers:
                async for each in answers:
                    yield each

        if path.endswith(_STREAMED):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(answer)


async def _refuse(context: Any, error: grpc.aio.AioRpcError | DomainError) -> None:
    if isinstance(error, grpc.aio.AioRpcError):
        await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
    else:
        details = ((status.DETAILS_KEY, status.details(error)),)
        await context.abort(grpc.StatusCode[error.code], status.message(error), details)
