"""PostgreSQL through SQLAlchemy Core: a transaction is a verb, not an object that is passed around."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

import asyncpg
import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from modelyard_kit.errors import Contention

T = TypeVar("T")
Isolation = Literal["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"]

ATTEMPTS = 10
# SQLSTATE 40001 serialization_failure and 40P01 deadlock_detected: PostgreSQL asks to run the transaction again.
_RETRYABLE = frozenset(("40001", "40P01"))

# Services ask for a page or less: starting other processes, or a compiler, for such a query takes longer than running it.
_SHORT_QUERIES = {"max_parallel_workers_per_gather": "0", "jit": "off"}

_log = structlog.get_logger()


class Database:
    """A pool of connections to one PostgreSQL database."""

    def __init__(self, engine: AsyncEngine, dsn: str) -> None:
        self.engine = engine
        self.dsn = dsn
        self._turns = _Turns()

    @classmethod
    def connect(cls, dsn: str, *, pool_size: int = 10) -> Database:
        """Return a pool that connects when first used.

        Args:
            dsn: `postgresql://user:password@host:port/database`, or `postgresql://user@/database?host=/socket/folder`.
            pool_size: connections held at most.
        """
        url = dsn.replace("postgresql://", "postgresql+asyncpg://", 1)
        engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"server_settings": _SHORT_QUERIES},
        )
        return cls(engine, dsn)

    async def in_tx(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        *,
        isolation: Isolation = "SERIALIZABLE",
        turn: str = "",
    ) -> T:
        """Run `work` in one transaction and commit; on any exception roll back.

        PostgreSQL may refuse a serializable transaction because of another one; then `work` runs again. So it must do nothing
        but SQL on the connection it is given.

        Args:
            work: what to do.
            isolation: isolation level.
            turn: name of what many callers change at once (a model whose versions are counted). Callers with the same name take turns,
                also across processes, instead of undoing each other's work. It makes nothing more correct, only cheaper.

        Raises:
            Contention: other transactions kept winning.
        """
        attempts = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.005, max=0.5),
            retry=retry_if_exception(_is_retryable),
        )
        try:
            async for attempt in attempts:
                with attempt:
                    async with (
                        self._turns.taken(turn),
                        self.engine.connect() as connection,
                        _turn(connection, turn),
                    ):
                        await connection.execution_options(isolation_level=isolation)
                        async with connection.begin():
                            return await work(connection)
        except RetryError as error:
            raise Contention(ATTEMPTS) from error.last_attempt.exception()
        raise AssertionError("unreachable: the loop above returns or raises")

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` on one consistent, read-only view."""
        async with self.engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            async with connection.begin():
                return await work(connection)

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    async def listen(self, channel: str, wake: asyncio.Event) -> None:
        """Set `wake` at every NOTIFY on `channel`, for ever; reconnects after a loss.

        A notification may be lost with the connection, so whoever waits polls as well.
        """
        while True:
            try:
                await self._listen_once(channel, wake)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("database_listen_lost", channel=channel, error=str(error))
            await asyncio.sleep(1.0)

    async def _listen_once(self, channel: str, wake: asyncio.Event) -> None:
        connection = await asyncpg.connect(self.dsn)
        closed = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _connection: closed.set())
            await connection.add_listener(channel, lambda *_arguments: wake.set())
            await closed.wait()
        finally:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=1.0)


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RETRYABLE


@asynccontextmanager
async def _turn(connection: AsyncConnection, name: str) -> AsyncIterator[None]:
    """Hold a lock of the session, taken before the transaction begins: one taken inside would come after its snapshot."""
    if not name:
        yield
        return
    key = func.hashtextextended(name, 0)
    await connection.execution_options(isolation_level="AUTOCOMMIT")
    await connection.execute(select(func.pg_advisory_lock(key)))
    await connection.commit()
    try:
        yield
    finally:
        if not connection.closed and not connection.invalidated:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(select(func.pg_advisory_unlock(key)))
            await connection.commit()


class _Turns:
    """Lets callers of this process wait for their turn without holding a connection meanwhile."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def taken(self, name: str) -> AsyncIterator[None]:
        """Wait for the turn and hold it."""
        if not name:
            yield
            return
        lock, waiting = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[name]
            if waiting == 1:
                del self._locks[name]
            else:
                self._locks[name] = (lock, waiting - 1)
