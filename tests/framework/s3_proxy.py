"""Stands between a service and an S3 server: plays the faults of real ones, and the checks that the test servers lack."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web
from yarl import URL

Fault = Literal["500", "503", "no conditions", "hang", "cut", "reset"]
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
        rules: faults to play; the first that fits is used up first.
        requests: method and path of every request.
    """

    upstream: str
    endpoint: str = ""
    rules: list[Rule] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

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
            if rule.fault == "no conditions" and "If-None-Match" in request.headers:
                return web.Response(status=501, text="<Error><Code>NotImplemented</Code></Error>")
            if rule.fault == "hang":
                await asyncio.sleep(3600)
            if rule.fault == "reset":
                _drop(request)
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
            if rule and rule.fault == "cut":
                return await _cut(request, answer.status, kept, content)
            return web.Response(status=answer.status, headers=kept, body=content)


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
def proxy(upstream: str) -> Iterator[S3Proxy]:
    """Run a proxy in a thread of its own."""
    made = S3Proxy(upstream)
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
