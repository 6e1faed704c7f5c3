"""A receiver of webhooks on loopback that checks what it gets, and answers as the test says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Receiver:
    """What arrived, in order. `answer` gives the status for an event; `hanging` keeps it waiting for ever."""

    port: int = 0
    answer: Callable[[dict[str, Any]], int] = lambda _event: 204
    hanging: bool = False
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The CloudEvents that arrived, each time they did."""
        return [json.loads(body) for body in self.bodies]

    def ids(self, kind: str = "") -> list[str]:
        """Ids of the events of a type that arrived."""
        return [event["id"] for event in self.events if event["type"].endswith(kind)]

    def signed_with(self, secret: str, position: int = -1) -> bool:
        """Whether a request is signed with this secret, checked as Standard Webhooks says."""
        headers = self.requests[position].headers
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + self.bodies[position]
        key = base64.b64decode(secret.removeprefix("whsec_"))
        wanted = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return any(hmac.compare_digest(wanted, each) for each in headers["webhook-signature"].split())

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.requests.append(request)
            self.bodies.append(body)
            if self.hanging:
                await asyncio.Event().wait()
            status = self.answer(json.loads(body))
            moved = {"location": self.url} if 300 <= status < 400 else {}
            return web.Response(status=status, headers=moved)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def receiver(**given: Any) -> AsyncIterator[Receiver]:
    """Run a receiver within this block."""
    made = Receiver(**given)
    app = web.Application()
    app.router.add_post("/hook", made._take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", made.port)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()
