"""The change feed, as users of the Python client meet it: through Envoy, and over the death of the catalog."""

from __future__ import annotations

import asyncio
import os
import signal

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard_suite.supervisor import is_alive
from tests.framework.stack import Processes, Stack
from tests.framework.waiting import eventually


async def test_a_watch_tells_of_changes_and_goes_on_by_its_token(admin: AsyncClient, schema: str) -> None:
    catalog = schema.partition(".")[0]
    watch = admin.events.watch(catalog, from_beginning=True)
    async with asyncio.timeout(60):
        first = [await anext(watch) for _ in range(2)]
        assert [event.resource.name for event in first] == [catalog, schema]
        model = await admin.models.create(f"{schema}.iris")
        made = await anext(watch)
        assert (made.type, made.resource.id, made.data["after"]) == (
            "catalog.model.created",
            model.id,
            {"description": "", "tags": {}},
        )
        await watch.aclose()
        await admin.tags.set(model.name, {"stage": "new"})
        again = admin.events.watch(catalog, types=["catalog.model.*"], resume_token=watch.resume_token)
        assert [(await anext(again)).type for _ in range(2)] == [
            "catalog.model.created",
            "catalog.model.tagged",
        ]
        await again.aclose()


async def test_a_grant_counts_for_a_watch_that_runs(stack: Stack, admin: AsyncClient, schema: str) -> None:
    catalog = schema.partition(".")[0]
    async with stack.user() as user, asyncio.timeout(60):
        watch = user.client.events.watch(types=["catalog.model.created"])
        begun = asyncio.ensure_future(anext(watch))
        try:
            await anext(user.client.events.watch(catalog))
            raise AssertionError("a catalog that one may not use can be watched")
        except errors.PermissionDenied:
            pass
        for privilege in ("USE_CATALOG", "USE_SCHEMA", "READ_METADATA"):
            await admin.grants.create(user.name, privilege, catalog)
        for number in range(1_000):
            await admin.models.create(f"{schema}.m{number}")
            await asyncio.wait([begun], timeout=0.1)
            if begun.done():
                break
        assert (await begun).resource.name.startswith(f"{schema}.m")
        await watch.aclose()


async def test_a_watch_survives_the_death_of_the_catalog(processes: Processes) -> None:
    async with processes.admin() as admin, asyncio.timeout(120):
        name = f"c{os.getpid()}"
        await admin.catalogs.create(name)
        watch = admin.events.watch(name, from_beginning=True)
        assert (await anext(watch)).resource.name == name
        before = processes.process("catalog")
        os.kill(before.pid, signal.SIGKILL)

        async def back() -> bool:
            now = processes.process("catalog")
            return now.pid != before.pid and is_alive(now)

        await eventually(back, seconds=60)

        async def created() -> bool:
            try:
                await admin.schemas.create(f"{name}.ml")
            except (errors.Unavailable, errors.DeadlineExceeded):
                return False
            except errors.AlreadyExists:
                return True
            return True

        await eventually(created, seconds=60)
        event = await anext(watch)
        while event.resource.name == name:
            event = await anext(watch)  # seen before: once at least
        assert event.resource.name == f"{name}.ml"
        await watch.aclose()
