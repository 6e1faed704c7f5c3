"""The change feed when what it stands on dies: nothing is lost, and what happened to one resource keeps its order."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid

import pytest

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard_suite.supervisor import is_alive
from tests.framework.stack import Processes
from tests.framework.waiting import eventually

CHANGES = 30
KILLED_AFTER = (8, 18)


async def write(processes: Processes, admin: AsyncClient, models: list[str], killed: str) -> None:
    """Give models one number after the other, killing a process in between; each is written until that is confirmed."""
    for number in range(1, CHANGES + 1):
        for name in models:
            await written(admin, name, number)
        if number in KILLED_AFTER:
            before = processes.process(killed)
            os.kill(before.pid, signal.SIGKILL)

            async def back(pid: int = before.pid) -> bool:
                now = processes.process(killed)
                return now.pid != pid and is_alive(now)

            await eventually(back, seconds=60)


async def written(admin: AsyncClient, name: str, number: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await admin.tags.set(name, {"number": str(number)})
                return
            except (errors.Unavailable, errors.DeadlineExceeded):
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("killed", ["catalog", "postgres", "envoy"])
async def test_a_watch_goes_on_by_itself_and_misses_nothing(processes: Processes, killed: str) -> None:
    async with processes.admin() as admin, asyncio.timeout(240):
        catalog = f"c{uuid.uuid4().hex[:8]}"
        await admin.catalogs.create(catalog)
        await admin.schemas.create(f"{catalog}.ml")
        models = [f"{catalog}.ml.{name}" for name in ("a", "b")]
        for name in models:
            await admin.models.create(name)
        watch = admin.events.watch(catalog, types=["catalog.model.tagged"], from_beginning=True)
        writing = asyncio.create_task(write(processes, admin, models, killed))
        seen: dict[str, list[int]] = {name: [] for name in models}
        while not all(CHANGES in numbers for numbers in seen.values()):
            event = await anext(watch)
            seen[event.resource.name].append(int(event.data["after"]["number"]))
        await writing
        await watch.aclose()
        for name, numbers in seen.items():
            assert list(dict.fromkeys(numbers)) == list(range(1, CHANGES + 1)), (name, "by first sight")
