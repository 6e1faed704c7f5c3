"""One embedded PostgreSQL for a test process, and an empty, migrated database for each test that asks."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from modelyard_kit import migrate
from modelyard_kit.driver import driver_of
from modelyard_suite.postgres import EmbeddedPostgres

T = TypeVar("T")


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[tuple[AsyncConnection, Any]]:
    """Yield a connection in a transaction, and what commits it; otherwise it is rolled back."""
    async with engine.connect() as connection:
        driver = driver_of(connection)
        opened = driver.transaction()
        await opened.start()
        try:
            yield connection, opened
        finally:
            if driver.is_in_transaction():
                await opened.rollback()


class TestPostgres:
    """A running server. `fresh` copies a template database, which takes a few hundredths of a second."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._templates: set[str] = set()
        self._lock = threading.Lock()

    def fresh(self, package: str) -> str:
        """Return the address of a new database with every migration of `package` applied."""
        with self._lock:
            return _run(self._fresh, package)

    def empty(self) -> str:
        """Return the address of a new, empty database."""
        return _run(self._copy, "template1")

    def drop(self, address: str) -> None:
        """Remove a database that `fresh` or `empty` made, and end what is connected to it."""
        _run(self._drop, address)

    async def _drop(self, address: str) -> None:
        name = make_url(address).database
        connection = await asyncpg.connect(self.server.dsn("postgres"))
        try:
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        finally:
            await connection.close()

    async def _fresh(self, package: str) -> str:
        template = f"template_{package}"
        if package not in self._templates:
            await self.server.ensure_database(template)
            await migrate.upgrade(self.server.dsn(template), package)
            self._templates.add(package)
        return await self._copy(template)

    async def _copy(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        connection = await asyncpg.connect(self.server.dsn("postgres"))
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        finally:
            await connection.close()
        return self.server.dsn(name)


@contextmanager
def postgres() -> Iterator[TestPostgres]:
    """Run a server in a temporary folder; nothing is left of it."""
    with tempfile.TemporaryDirectory(prefix="my-pg-", ignore_cleanup_errors=True) as folder:
        # PostgreSQL runs as a user of its own when the tests run as root, so the folder must let it through.
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "data", Path(folder) / "s")
        server.prepare()
        options = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [*server.command(), *options],
                user=server.user,
                group=server.user,
                cwd="/",
                stdout=log,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + 30
            while not _run(server.is_ready):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((Path(folder) / "log").read_text())
                time.sleep(0.05)
            yield TestPostgres(server)
        finally:
            process.send_signal(signal.SIGQUIT)  # "immediate": there is nothing to keep
            process.wait(30)


def _run(work: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
    """Run a coroutine function to its end from any thread, also one that runs an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work(*arguments))).result()
