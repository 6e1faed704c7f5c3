"""Signed requests to an object store, made by threads.

By the standard library alone: a thread that sends a file with `sendfile`, or receives into one buffer, holds the
interpreter only between pieces and needs the same few megabytes for any size. So the client needs no further package for it.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import ssl
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelyard.types import SignedUrl

    Tell = Callable[[int], None]

TIMEOUT = 60.0
"""Seconds without a byte until a connection is given up."""
ATTEMPTS = 5
_FIRST_PAUSE = 0.2
_PIECE_BYTES = 4 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
_ANSWER_BYTES = 64 * 1024
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_FAILED = (OSError, http.client.HTTPException)


class Refused(Exception):
    """The object store does not take this request again as it is: its address ran out, or something is wrong with it."""


class Unreachable(Exception):
    """The object store did not answer, again and again."""


class Stopped(Exception):
    """The transfer was given up from outside."""


class ObjectStore:
    """Makes signed requests; each thread keeps a connection to each address."""

    def __init__(self) -> None:
        self._threads = threading.local()
        self._stopped = threading.Event()
        self._open: list[http.client.HTTPConnection] = []

    def stop(self) -> None:
        """End every transfer at its next piece, and close the connections."""
        self._stopped.set()
        while self._open:
            self._open.pop().close()

    def put(self, request: SignedUrl, source: str, offset: int, length: int, tell: Tell) -> None:
        """Send a part of a file; `tell` learns of each piece, and of less than zero when it is sent again.

        Raises:
            Refused: a new address is needed.
            Unreachable: it failed several times.
        """

        def attempt(connection: http.client.HTTPConnection, target: str) -> int:
            self._begin(connection, request, target, {"Content-Length": str(length)})
            with Path(source).open("rb", buffering=0) as file:
                end = offset + length
                for position in range(offset, end, _PIECE_BYTES):
                    self._check()
                    wanted = min(_PIECE_BYTES, end - position)
                    count = connection.sock.sendfile(file, position, wanted)
                    if count < wanted:
                        raise Refused(f"{source} became shorter while it was sent")
                    told(count)
            return _finish(connection.getresponse())

        told = _Told(tell)
        self._insist(request, attempt, told)

    def get(
        self,
        request: SignedUrl,
        offset: int,
        length: int,
        write: Callable[[memoryview], None],
        tell: Tell,
    ) -> None:
        """Read a range and hand its pieces to `write` in order; after a cut it goes on where that was.

        Raises:
            Refused: a new address is needed, or the store has not as many bytes.
            Unreachable: it failed several times.
        """
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        position, end = offset, offset + length

        def attempt(connection: http.client.HTTPConnection, target: str) -> int:
            nonlocal position
            self._begin(connection, request, target, {"Range": f"bytes={position}-{end - 1}"})
            response = connection.getresponse()
            if response.status != http.client.PARTIAL_CONTENT:
                # A store that ignores ranges answers 200 and everything.
                whole = response.status == http.client.OK and position == 0 and response.length == length
                if response.status == http.client.OK and not whole:
                    raise Refused(f"{request.url.partition('?')[0]} gives no ranges")
                if not whole:
                    return _finish(response)
            while position < end:
                self._check()
                count = response.readinto(buffer[: min(_BUFFER_BYTES, end - position)])
                if not count:
                    raise http.client.IncompleteRead(b"", end - position)
                write(buffer[:count])
                position += count
                tell(count)
            response.read(_ANSWER_BYTES)
            return http.client.OK

        if length:
            self._insist(request, attempt, None)

    def _insist(
        self,
        request: SignedUrl,
        attempt: Callable[[http.client.HTTPConnection, str], int],
        told: _Told | None,
    ) -> None:
        url = urlsplit(request.url)
        for number in range(ATTEMPTS):
            self._check()
            if number:
                time.sleep(_FIRST_PAUSE * 2**number * random.uniform(0.5, 1.5))  # noqa: S311
            try:
                status = attempt(*self._connection(url))
            except _FAILED as error:
                self._drop(url)
                problem = str(error) or type(error).__name__
            except BaseException:
                self._drop(url)
                raise
            else:
                if 200 <= status < 300:
                    return
                self._drop(url)
                problem = f"HTTP status {status}"
                if status not in _RETRIED:
                    raise Refused(f"{request.method} {url.netloc}{url.path}: {problem}")
            if told:
                told.again()
        raise Unreachable(f"{request.method} {url.netloc}{url.path}: {problem}")

    def _begin(
        self,
        connection: http.client.HTTPConnection,
        request: SignedUrl,
        target: str,
        headers: dict[str, str],
    ) -> None:
        given = {name.lower() for name in request.headers}
        connection.putrequest(request.method, target, skip_host="host" in given, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        for name, value in headers.items():
            if name.lower() not in given:
                connection.putheader(name, value)
        connection.endheaders()

    def _connection(self, url: SplitResult) -> tuple[http.client.HTTPConnection, str]:
        """A connection of this thread, and what to ask it for."""
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        proxy = _proxy(url)
        if proxy and url.scheme == "http":
            target = url.geturl()
        known = self._known()
        if (url.scheme, url.netloc) not in known:
            known[url.scheme, url.netloc] = _open(url, proxy)
            self._open.append(known[url.scheme, url.netloc])
        return known[url.scheme, url.netloc], target

    def _drop(self, url: SplitResult) -> None:
        connection = self._known().pop((url.scheme, url.netloc), None)
        if connection:
            connection.close()
            with contextlib.suppress(ValueError):  # stopped in the meantime
                self._open.remove(connection)

    def _known(self) -> dict[tuple[str, str], http.client.HTTPConnection]:
        if not hasattr(self._threads, "connections"):
            self._threads.connections = {}
        connections: dict[tuple[str, str], http.client.HTTPConnection] = self._threads.connections
        return connections

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped


class _Told:
    """Counts what was told of one attempt, to take it back before the next."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._size = 0

    def __call__(self, size: int) -> None:
        self._size += size
        self._tell(size)

    def again(self) -> None:
        self._tell(-self._size)
        self._size = 0


def _open(url: SplitResult, proxy: str) -> http.client.HTTPConnection:
    host, port = url.hostname or "", url.port
    if proxy:
        way = urlsplit(proxy if "://" in proxy else f"//{proxy}")
        if url.scheme == "http":
            return http.client.HTTPConnection(way.hostname or "", way.port, timeout=TIMEOUT)
        tunnel = http.client.HTTPSConnection(
            way.hostname or "", way.port, timeout=TIMEOUT, context=ssl.create_default_context()
        )
        tunnel.set_tunnel(host, port)
        return tunnel
    if url.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT, blocksize=_BUFFER_BYTES)
    return http.client.HTTPSConnection(
        host, port, timeout=TIMEOUT, blocksize=_BUFFER_BYTES, context=ssl.create_default_context()
    )


def _proxy(url: SplitResult) -> str:
    """The proxy that the environment wants for an address; empty for none."""
    proxy = urllib.request.getproxies().get(url.scheme, "")
    return "" if not proxy or urllib.request.proxy_bypass(url.netloc) else proxy


def _finish(response: http.client.HTTPResponse) -> int:
    """The status of an answer whose text nobody needs; read, so that the connection can be used again."""
    response.read(_ANSWER_BYTES)
    return response.status
