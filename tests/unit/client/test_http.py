"""Signed requests against an HTTP server that fails as object stores do."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard import _http
from modelyard._http import ObjectStore, Refused, Stopped, Unreachable
from modelyard.types import SignedUrl

DATA = bytes(range(256)) * 40_000  # 10 MB: several pieces


class Server(ThreadingHTTPServer):
    """Keeps objects; `failures` are answered before anything else: a status, or `cut`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.failures: list[Any] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.ranges = True

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}?signature=1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        data = self.rfile.read(length)
        self.server.seen.append((self.path, dict(self.headers)))
        if len(data) < length:  # the client went away: no store keeps half an object
            self.close_connection = True
            return
        if self.fails():
            return
        self.server.objects[self.path] = data
        self.answer(200, b"")

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        data = self.server.objects[self.path]
        first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
        if self.server.failures and self.server.failures[0] == "cut":
            self.server.failures.pop(0)
            self.send_response(206)
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            self.wfile.write(data[first : first + 2_000_000])
            self.close_connection = True
            return
        if self.fails():
            return
        if self.server.ranges:
            self.answer(206, data[first : last + 1])
        else:
            self.answer(200, data)

    def fails(self) -> bool:
        if not self.server.failures:
            return False
        failure = self.server.failures.pop(0)
        if failure == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.answer(failure, b"<Error/>")
        return True

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(_http, "_FIRST_PAUSE", 0.0)
    running = Server()
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").write_bytes(DATA)
    return tmp_path / "source"


def put(server: Server, source: Path, offset: int = 0, length: int = len(DATA), **headers: str) -> int:
    told: list[int] = []
    request = SignedUrl(url=server.url("x"), method="PUT", headers=headers)
    store = ObjectStore()
    try:
        store.put(request, source, offset, length, told.append)
    finally:
        store.stop()
    return sum(told)


def get(server: Server, offset: int = 0, length: int = len(DATA)) -> bytes:
    pieces: list[bytes] = []
    told: list[int] = []
    request = SignedUrl(url=server.url("x"), method="GET")
    store = ObjectStore()
    try:
        store.get(request, offset, length, lambda piece: pieces.append(bytes(piece)), told.append)
    finally:
        store.stop()
    assert sum(told) == length
    return b"".join(pieces)


def test_a_part_is_sent_with_the_headers_that_were_signed(server: Server, source: Path) -> None:
    assert put(server, source, 1000, 5_000_000, **{"x-amz-checksum": "abc"}) == 5_000_000
    assert server.objects["/x?signature=1"] == DATA[1000 : 1000 + 5_000_000]
    [(path, headers)] = server.seen
    assert path == "/x?signature=1"
    assert headers["x-amz-checksum"] == "abc"
    assert headers["Content-Length"] == "5000000"


@pytest.mark.parametrize("failure", [500, 503, 429, "cut"])
def test_what_failed_for_a_moment_is_sent_again(server: Server, source: Path, failure: Any) -> None:
    server.failures = [failure, failure]
    assert put(server, source) == len(DATA)  # told once, not three times
    assert hashlib.sha256(server.objects["/x?signature=1"]).digest() == hashlib.sha256(DATA).digest()


@pytest.mark.parametrize("status", [400, 403, 404])
def test_an_address_that_is_refused_is_not_tried_again(server: Server, source: Path, status: int) -> None:
    server.failures = [status]
    with pytest.raises(Refused, match=str(status)):
        put(server, source)
    assert len(server.seen) == 1


def test_a_store_that_stays_broken_is_given_up(server: Server, source: Path) -> None:
    server.failures = [503] * 100
    with pytest.raises(Unreachable, match="503"):
        put(server, source)
    assert len(server.seen) == _http.ATTEMPTS


def test_a_store_that_is_not_there_is_given_up(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "_FIRST_PAUSE", 0.0)
    with pytest.raises(Unreachable):
        ObjectStore().put(SignedUrl(url="http://127.0.0.1:9/x", method="PUT"), source, 0, 1, lambda _: None)


@pytest.mark.parametrize("missing", [1, 5_000_000])
def test_a_file_that_became_shorter_is_not_sent_for_ever(server: Server, source: Path, missing: int) -> None:
    with pytest.raises(Refused, match="became shorter"):
        put(server, source, 0, len(DATA) + missing)
    assert not server.objects


def test_a_range_is_read(server: Server) -> None:
    server.objects["/x?signature=1"] = DATA
    assert get(server, 10, 3_000_000) == DATA[10:3_000_010]
    assert get(server, 10, 0) == b""


def test_a_cut_read_goes_on_where_it_was(server: Server) -> None:
    server.objects["/x?signature=1"] = DATA
    server.failures = ["cut", 503, "cut"]
    assert get(server) == DATA
    starts = [int(headers["Range"].removeprefix("bytes=").split("-")[0]) for _, headers in server.seen]
    assert starts == [0, 2_000_000, 2_000_000, 4_000_000]


def test_a_store_without_ranges_gives_whole_objects_only(server: Server) -> None:
    server.objects["/x?signature=1"] = DATA
    server.ranges = False
    assert get(server) == DATA
    with pytest.raises(Refused):
        get(server, 10, 20)


def test_a_stopped_transfer_ends(server: Server, source: Path) -> None:
    store = ObjectStore()

    def stop(_: int) -> None:
        store.stop()

    with pytest.raises(Stopped):
        store.put(SignedUrl(url=server.url("x"), method="PUT"), source, 0, len(DATA), stop)
