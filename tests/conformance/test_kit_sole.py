"""One process at a time, whatever becomes of processes and connections."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from modelyard_kit import sole as kit_sole
from modelyard_kit.sole import Sole, SupersededError
from tests.framework.postgres_proxy import postgres_proxy
from tests.framework.waiting import eventually

HOLDER = """
import asyncio, sys
from modelyard_kit.sole import Sole

async def hold():
    sole = Sole(sys.argv[1], "work")
    await sole.take()
    print("taken", flush=True)
    await asyncio.sleep(600)

asyncio.run(hold())
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit_sole, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(kit_sole, "_PING_SECONDS", 0.02)


@pytest.fixture
def dsn(fresh_database: Callable[[str], str]) -> str:
    return fresh_database("modelyard_catalog")


@asynccontextmanager
async def taken(dsn: str, name: str = "work") -> AsyncIterator[Sole]:
    sole = Sole(dsn, name)
    await sole.take()
    try:
        yield sole
    finally:
        await sole.close()


class Waiting(Sole):
    """Somebody else who wants the right."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, "work")
        self._asked = 0
        self.task = asyncio.create_task(self.take())

    async def _taken(self) -> bool:
        taken = await super()._taken()
        self._asked += 1
        return taken

    async def is_refused(self) -> None:
        """Wait until it has asked some times more, in vain."""
        asked = self._asked
        await eventually(lambda: self._asked >= asked + 3)
        assert not self.task.done()

    async def gets_it(self) -> None:
        """Wait until it has the right."""
        await asyncio.wait_for(self.task, 10)


@asynccontextmanager
async def waiting(dsn: str) -> AsyncIterator[Waiting]:
    other = Waiting(dsn)
    try:
        yield other
    finally:
        other.task.cancel()
        await asyncio.gather(other.task, return_exceptions=True)
        await other.close()


@asynccontextmanager
async def kept(sole: Sole) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(sole.keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_second_waits_for_the_first(dsn: str) -> None:
    async with waiting(dsn) as nobody_before:
        await nobody_before.gets_it()
    async with taken(dsn) as first, waiting(dsn) as second:
        await second.is_refused()
        await first.close()
        await second.gets_it()


async def test_other_work_and_other_databases_do_not_wait(
    dsn: str, fresh_database: Callable[[str], str]
) -> None:
    async with taken(dsn), taken(dsn, "other"), taken(fresh_database("modelyard_catalog")):
        pass


async def test_a_killed_process_gives_it_back(dsn: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, dsn, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"taken\n"
    async with waiting(dsn) as second:
        await second.is_refused()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await second.gets_it()


async def test_nothing_is_done_without_a_connection_and_all_goes_on_with_the_next(
    dsn: str, tmp_path: Path
) -> None:
    async with postgres_proxy(dsn, tmp_path) as proxy, taken(proxy.dsn) as sole, kept(sole) as keeping:
        await sole.held()
        proxy.cut()
        await eventually(lambda: not sole._held.is_set())
        proxy.mend()
        await asyncio.wait_for(sole.held(), 10)
        async with waiting(dsn) as second:
            await second.is_refused()
        assert not keeping.done()


async def test_whoever_was_cut_off_and_lost_it_says_so(dsn: str, tmp_path: Path) -> None:
    async with (
        postgres_proxy(dsn, tmp_path) as proxy,
        taken(proxy.dsn) as first,
        kept(first) as keeping,
        waiting(dsn) as second,
    ):
        proxy.cut()
        await second.gets_it()
        proxy.mend()
        with pytest.raises(SupersededError, match="another process has taken over: work"):
            await asyncio.wait_for(keeping, 10)
        assert not first._held.is_set()


async def test_who_waits_survives_a_database_that_is_away(dsn: str, tmp_path: Path) -> None:
    async with (
        postgres_proxy(dsn, tmp_path) as proxy,
        taken(dsn) as first,
        waiting(proxy.dsn) as second,
    ):
        proxy.cut()
        await first.close()
        await second.is_refused()
        proxy.mend()
        await second.gets_it()
