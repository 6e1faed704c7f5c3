"""Stands between a service and an S3 server: plays the faults of real ones, and the checks that the test servers lack."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web
from yarl import URL

Fault = Literal["500", "503", "hang", "cut", "reset"]
_HOP = {"transfer-encoding", "connection", "content-length", "content-encoding", "date", "server"}


@dataclass
class Rule:
    """What happens to requests of a method whose path and query contain a text, so many times."""

    method: str
    contains: str
    fault: Fault
    times: int
    seen: int = 0


@dataclass
class S3Proxy:
    """A running proxy.

    Attributes:
        endpoint: its address.
        checks_puts: whether it refuses a put whose SHA-256 is not the one in its header, and tells it afterwards.
        rules: faults to play; the first that fits is used up first.
        requests: method and path of every request.
    """

    upstream: str
    checks_puts: bool = False
    endpoint: str = ""
    rules: list[Rule] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)

    def fail(self, fault: Fault, method: str, contains: str = "", *, times: int = 1_000_000) -> Rule:
        """Play a fault."""
        rule = Rule(method, contains, fault, times)
        self.rules.append(rule)
        return rule

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on, or play a fault."""
        where = request.raw_path
        self.requests.append((request.method, where))
        body = await request.read()
        rule = next(
            (
                r
                for r in self.rules
                if r.times > r.seen and r.method == request.method and r.contains in where
            ),
            None,
        )
        if rule:
            rule.seen += 1
            if rule.fault in ("500", "503"):
                return web.Response(status=int(rule.fault), text="<Error><Code>SlowDown</Code></Error>")
            if rule.fault == "hang":
                await asyncio.sleep(3600)
            if rule.fault == "reset":
                _drop(request)
        if self.checks_puts and (refused := self._check(request, body)):
            return refused
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        url = URL(self.upstream + where, encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, headers=headers, data=io.BytesIO(body)) as answer,
        ):
            content = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if request.method == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            if request.path in self.checksums and "x-amz-checksum-mode" in request.headers:
                kept["x-amz-checksum-sha256"] = self.checksums[request.path]
            if rule and rule.fault == "cut":
                return await _cut(request, answer.status, kept, content)
            return web.Response(status=answer.status, headers=kept, body=content)

    def _check(self, request: web.Request, body: bytes) -> web.Response | None:
        wanted = request.headers.get("x-amz-checksum-sha256")
        if request.method != "PUT" or wanted is None:
            return None
        if base64.b64encode(hashlib.sha256(body).digest()).decode() != wanted:
            return web.Response(status=400, text="<Error><Code>BadDigest</Code></Error>")
        self.checksums[request.path] = wanted
        return None


def _drop(request: web.Request) -> None:
    assert request.transport
    request.transport.abort()


async def _cut(
    request: web.Request, status: int, headers: dict[str, str], content: bytes
) -> web.StreamResponse:
    """Announce all of it, send half of it, and hang up."""
    answer = web.StreamResponse(status=status, headers=headers)
    answer.content_length = len(content)
    await answer.prepare(request)
    await answer.write(content[: len(content) // 2])
    _drop(request)
    return answer


@contextmanager
def proxy(upstream: str, *, checks_puts: bool = False) -> Iterator[S3Proxy]:
    """Run a proxy in a thread of its own."""
    made = S3Proxy(upstream, checks_puts=checks_puts)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", made.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
