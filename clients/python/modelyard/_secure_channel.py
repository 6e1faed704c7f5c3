"""A channel with TLS whose certificates may be renewed while a program runs."""

from __future__ import annotations

import asyncio
from functools import partialmethod
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from modelyard._tls import explain
from modelyard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from modelyard._tls import TlsFiles

T = TypeVar("T")

LAST_CALL_SECONDS = 3600.0
"""How long calls may go on over the connection that they began on."""
_FAILING = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.CONNECTING)


class SecureChannel:
    """Connects with what the files hold, and anew when they hold something else; used as a `grpc.aio.Channel` by stubs.

    A call finds its connection when it is made, so stubs may be kept for ever. Calls in progress end on the connection before.

    Raises:
        ConfigurationError: when it is made: the files cannot be used.
    """

    def __init__(self, address: str, files: TlsFiles, options: Sequence[tuple[str, Any]]) -> None:
        self._address, self._files, self._options = address, files, options
        self._stamp = files.stamp()
        self._pem = files.read()
        self._channel = self._open()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._explaining: asyncio.Task[str] | None = None

    def _method(self, kind: str, *given: Any, **named: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            return getattr(self._current(), kind)(*given, **named)(*arguments, **options)

        return call

    unary_unary = partialmethod(_method, "unary_unary")
    unary_stream = partialmethod(_method, "unary_stream")
    stream_unary = partialmethod(_method, "stream_unary")
    stream_stream = partialmethod(_method, "stream_stream")

    async def explain(self) -> str:
        """Why it cannot connect, if certificates are the reason; else empty. Calls that ask at once are told together."""
        if self._channel.get_state() not in _FAILING:
            return ""
        if self._explaining is None or self._explaining.done():
            self._explaining = self._begin(asyncio.to_thread(explain, self._address, self._files))
        return await asyncio.shield(self._explaining)

    async def close(self) -> None:
        """End it; calls in progress are cancelled."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    def _current(self) -> grpc.aio.Channel:
        stamp = self._files.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._renew()
        return self._channel

    def _renew(self) -> None:
        try:
            pem = self._files.read()
        except ConfigurationError:
            # Half renewed: when the rest is there, the stamp is another one again. Until then what was good stays in use, and
            # `explain` tells of the files if it is good no more.
            return
        if pem == self._pem:
            return
        self._begin(self._channel.close(LAST_CALL_SECONDS))
        self._pem = pem
        self._channel = self._open()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _open(self) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(*self._pem)
        return grpc.aio.secure_channel(self._address, credentials, options=self._options)
