"""One process at a time: whoever works holds a lock of the database, others wait for it.

The lock is of a session (`pg_advisory_lock`), so PostgreSQL gives it back by itself when the process dies, and soon after its machine
is gone. What it guards may run for a moment in two processes all the same, while one that was cut off has not found out: so it
only ever acts on what it has just read from the same database.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import asyncpg
import structlog

_POLL_SECONDS: Final = 0.5
_PING_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 1.0
# The server gives up a client that is gone without a word after 20 s instead of two hours. Sockets of this machine need none of it.
_KEEPALIVES: Final = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_LOST: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)

_TAKE: Final = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
_HOLDER: Final = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid::bigint << 32 | objid::bigint = hashtextextended($1, 0)"
)

_log = structlog.get_logger()


class SupersededError(RuntimeError):
    """Another process took over while this one had no connection to the database."""


class Sole:
    """The right to work alone on a database.

    Args:
        dsn: the database.
        name: what is done alone: one lock for each name.
    """

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._connection: asyncpg.Connection | None = None
        self._backend = 0
        self._held = asyncio.Event()

    async def take(self) -> None:
        """Wait until no other process has the right, and take it."""
        told = False
        while not await self._taken():
            if not told:
                _log.warning("waiting_for_other_process", work=self._name, backend=await self._holder())
                told = True
            await asyncio.sleep(_POLL_SECONDS)

    async def held(self) -> None:
        """Return at once while this process has the right; else when it has it again."""
        await self._held.wait()

    async def keep(self) -> None:
        """Hold the right for ever; for the background of a service.

        Raises:
            SupersededError: another process has it.
        """
        while True:
            try:
                await self._ask("SELECT 1")
            except _LOST as error:
                self._held.clear()
                _log.warning("sole_connection_lost", work=self._name, error=str(error))
                await self._take_again(self._backend)
            await asyncio.sleep(_PING_SECONDS)

    async def close(self) -> None:
        """Give the right back."""
        self._held.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*_LOST):
                await connection.close(timeout=_CLOSE_SECONDS)

    async def _take_again(self, before: int) -> None:
        """Take it back; `before` is the session that was lost, which the server may still think is there."""
        while not await self._taken():
            if await self._holder() not in (before, None):
                raise SupersededError(f"another process has taken over: {self._name}")
            await asyncio.sleep(_POLL_SECONDS)

    async def _taken(self) -> bool:
        """Try to take the right; False if another process has it, or the database does not answer."""
        try:
            if await self._ask(_TAKE, self._name):
                self._held.set()
        except _LOST:
            await self.close()
        return self._held.is_set()

    async def _holder(self) -> int | None:
        """Return the session of PostgreSQL that has the right; None if that is not known."""
        try:
            backend: int | None = await self._ask(_HOLDER, self._name)
        except _LOST:
            return None
        return backend

    async def _ask(self, query: str, *values: str) -> Any:
        if self._connection is None or self._connection.is_closed():
            if self._held.is_set():
                raise ConnectionError("the connection was closed")
            self._connection = await asyncpg.connect(
                self._dsn, server_settings=_KEEPALIVES, timeout=_ANSWER_SECONDS
            )
            self._backend = self._connection.get_server_pid()
        return await self._connection.fetchval(query, *values, timeout=_ANSWER_SECONDS)
