"""One event loop on a thread of its own, and how asynchronous methods become blocking ones on it.

All synchronous clients of a process share the loop, as zarr's arrays do: gRPC works best with one, and a program that runs
its own loop (a notebook) is not disturbed.
"""

from __future__ import annotations

import asyncio
import functools
import io
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

    from modelyard._events import AsyncEventWatch
    from modelyard._pager import AsyncPager
    from modelyard._reading import AsyncFile
    from modelyard.types import Event

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")

_OPEN_BUFFER_BYTES = 1024 * 1024

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def background_loop() -> asyncio.AbstractEventLoop:
    """The loop, started when asked for first; a forked process gets its own."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="modelyard", daemon=True).start()
            _loops[os.getpid()] = loop
        return loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and wait for it; an interrupt cancels it."""
    loop = background_loop()
    if _current_loop() is loop:
        coroutine.close()
        raise RuntimeError(
            "the synchronous client cannot be used from its own loop; use modelyard.aio.AsyncClient"
        )
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _current_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Blocking(Generic[A]):
    """A synchronous facade over one asynchronous object."""

    def __init__(self, wrapped: A) -> None:
        self._async = wrapped


class Pager(Generic[T]):
    """All rows of a list: `for row in pager`, `pager.collect()`, or page by page."""

    def __init__(self, wrapped: AsyncPager[T]) -> None:
        self._async = wrapped

    def pages(self) -> Iterator[Sequence[T]]:
        """The pages one after the other."""
        return _iterate(self._async.pages())

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page

    def collect(self, limit: int | None = None) -> list[T]:
        """The rows as a list, at most `limit` of them."""
        return run(self._async.collect(limit))


class EventWatch:
    """Events without an end: `for event in watch`; see `AsyncEventWatch`."""

    def __init__(self, wrapped: AsyncEventWatch) -> None:
        self._async = wrapped

    @property
    def resume_token(self) -> str:
        """Give it to `events.watch` to go on after the events taken so far."""
        return self._async.resume_token

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        try:
            return run(self._async.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the watch."""
        run(self._async.aclose())


def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """The blocking form of an asynchronous method."""

    @functools.wraps(method)
    def call(self: Blocking[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self._async, *args, **kwargs))

    return call


def paging(method: Callable[Concatenate[Any, P], AsyncPager[T]]) -> Callable[Concatenate[Any, P], Pager[T]]:
    """The blocking form of a method that gives a pager."""

    @functools.wraps(method)
    def call(self: Blocking[Any], /, *args: P.args, **kwargs: P.kwargs) -> Pager[T]:
        return Pager(method(self._async, *args, **kwargs))

    return call


def watching(
    method: Callable[Concatenate[Any, P], AsyncEventWatch],
) -> Callable[Concatenate[Any, P], EventWatch]:
    """The blocking form of a method that gives a watch."""

    @functools.wraps(method)
    def call(self: Blocking[Any], /, *args: P.args, **kwargs: P.kwargs) -> EventWatch:
        return EventWatch(method(self._async, *args, **kwargs))

    return call


def opening(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncFile]],
) -> Callable[Concatenate[Any, P], io.BufferedReader]:
    """The blocking form of a method that opens a file."""

    @functools.wraps(method)
    def call(self: Blocking[Any], /, *args: P.args, **kwargs: P.kwargs) -> io.BufferedReader:
        from modelyard._reading import RemoteFile

        return io.BufferedReader(RemoteFile(run(method(self._async, *args, **kwargs))), _OPEN_BUFFER_BYTES)

    return call


def streaming(
    method: Callable[Concatenate[Any, P], AsyncIterator[T]],
) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """The blocking form of an asynchronous generator."""

    @functools.wraps(method)
    def call(self: Blocking[Any], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return _iterate(method(self._async, *args, **kwargs))

    return call


def _iterate(source: AsyncIterator[T]) -> Iterator[T]:
    async def following() -> tuple[bool, Any]:
        try:
            return True, await anext(source)
        except StopAsyncIteration:
            return False, None

    try:
        while True:
            more, item = run(following())
            if not more:
                return
            yield item
    finally:
        close = getattr(source, "aclose", None)
        # An iterator that a failing program leaves behind is closed while the interpreter ends: no thread runs the loop then.
        if close is not None and not sys.is_finalizing():
            run(close())
