"""The status that a service gave a stream, although gRPC forgets it.

A service may refuse a stream before all of it was sent. If a write fails at that moment, `grpc.aio` puts its own INTERNAL in
the place of the status that has come already (grpc/grpc#36066); so the status is kept here when it comes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

if TYPE_CHECKING:
    from collections.abc import Coroutine

R = TypeVar("R")


class FirstStatus:
    """Remembers the first status of a call that was not made up on this side."""

    def __init__(self, call: grpc.aio.Call) -> None:
        self._given: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    def of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Return the error to believe in when the call failed with `error`."""
        made_up = error.code() is grpc.StatusCode.INTERNAL and not error.trailing_metadata()
        return self._given or error if made_up else error

    def _keep(self, call: Any) -> None:
        code = _at_once(call.code())
        if self._given is None and code is not grpc.StatusCode.OK:
            self._given = grpc.aio.AioRpcError(
                code,
                _at_once(call.initial_metadata()),
                _at_once(call.trailing_metadata()),
                _at_once(call.details()),
                _at_once(call.debug_error_string()),
            )


def is_cancelled() -> bool:
    """Whether somebody cancelled the task that runs.

    `grpc.aio` cancels a call by itself when a connection is cut while a request is being written to it.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def cut_off(error: asyncio.CancelledError) -> grpc.aio.AioRpcError:
    """Return what `grpc.aio` should have said of a call that it cancelled by itself."""
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        details="the connection was cut while requests were being sent",
        debug_error_string=repr(error),
    )


def _at_once(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that has nothing to wait for: a call that is done knows its status."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: R = end.value
        return value
    coroutine.close()
    raise RuntimeError("a call said that it is done and does not know its status")
