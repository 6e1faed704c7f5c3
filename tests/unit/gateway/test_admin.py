"""An Envoy that does not run, and one that has no time to answer, are two things."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest

from modelyard_gateway import admin
from modelyard_gateway.admin import Admin, EnvoyBusyError, EnvoyUnreachableError
from modelyard_gateway.apply import Applier, ApplyFailedError
from modelyard_gateway.render import CLUSTERS_FILE, EMPTY, LISTENERS_FILE
from modelyard_gateway.settings import GatewaySettings
from tests.unit.gateway.samples import settings


class Talker:
    """What answers on an admin socket, while it wants to."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked = 0
        self.stats: dict[str, object] = {}

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = unquote((await reader.readuntil(b"\r\n\r\n")).decode().split()[1])
        self.asked += 1
        await self.answers.wait()
        rows = [{"name": name, "value": value} for name, value in self.stats.items()]
        body = json.dumps({"stats": rows} if path.startswith("/stats") else {}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def talker(**given: object) -> AsyncIterator[tuple[Talker, GatewaySettings]]:
    with tempfile.TemporaryDirectory(prefix="my-gw-") as folder:
        made = settings(envoy_directory=Path(folder), **given)
        one = Talker()
        server = await asyncio.start_unix_server(one.meet, made.admin_socket)
        try:
            yield one, made
        finally:
            one.answers.set()
            server.close()
            await server.wait_closed()


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(EnvoyUnreachableError, match="does not answer") as caught:
        await Admin(tmp_path / "none.sock").state()
    assert not isinstance(caught.value, EnvoyBusyError)


async def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_TIMEOUT_SECONDS", 0.05)
    async with talker() as (_, made):
        with pytest.raises(EnvoyBusyError, match="no answer"):
            await Admin(made.admin_socket).state()


async def test_a_configuration_is_waited_for_while_envoy_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_TIMEOUT_SECONDS", 0.05)
    async with talker(apply_timeout_seconds=60) as (one, made):
        applier = Applier(made, Admin(made.admin_socket))
        applier.prepare()
        applying = asyncio.create_task(applier.apply(EMPTY))  # what is there already
        async with asyncio.timeout(60):
            while one.asked < 3:
                await asyncio.sleep(0.01)
        assert not applying.done()
        one.stats = {
            "listener_manager.lds.version_text": applier._versions[LISTENERS_FILE],
            "cluster_manager.cds.version_text": applier._versions[CLUSTERS_FILE],
        }
        monkeypatch.setattr(admin, "_TIMEOUT_SECONDS", 60)
        one.answers.set()
        await applying


async def test_it_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_TIMEOUT_SECONDS", 0.05)
    async with talker(apply_timeout_seconds=0.1) as (_, made):
        applier = Applier(made, Admin(made.admin_socket))
        applier.prepare()
        with pytest.raises(ApplyFailedError, match="no answer"):
            await applier.apply(EMPTY)


async def test_health_is_not_told_while_clusters_take_each_others_place() -> None:
    async with talker() as (one, made):
        one.answers.set()
        one.stats = {"cluster.group-a.membership_healthy": 2, "cluster.group-b.membership_healthy": 0}
        assert await Admin(made.admin_socket).healthy_groups() == frozenset({"a"})
        one.stats["cluster_manager.warming_clusters"] = 1
        assert await Admin(made.admin_socket).healthy_groups() is None
