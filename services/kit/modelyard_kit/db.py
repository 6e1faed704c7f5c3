"""PostgreSQL through SQLAlchemy Core: a transaction is a verb, not an object that is passed around."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Literal, TypeVar

import asyncpg
import structlog
from sqlalchemy import bindparam, event, func, select
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from modelyard_kit.driver import (
    PoolExhausted,
    driver_of,
    ended_if_it_fails,
    ended_unless_whole,
    from_json,
    is_lost,
    translated,
)
from modelyard_kit.errors import Contention
from modelyard_kit.prepared import Prepared

T = TypeVar("T")
Isolation = Literal["SERIALIZABLE", "READ COMMITTED"]

ATTEMPTS = 10
# Notifications of one channel are at least so far apart: each wakes listeners that then read everything there is.
NOTIFY_SECONDS = 0.02
# SQLSTATE 40001 serialization_failure and 40P01 deadlock_detected: PostgreSQL asks to run the transaction again.
_RETRYABLE = frozenset(("40001", "40P01"))

# Services ask for a page or less: starting other processes, or a compiler, for such a query takes longer than running it.
_SHORT_QUERIES = {"max_parallel_workers_per_gather": "0", "jit": "off"}
_TO_NOTIFY = "modelyard_notify"  # key in what SQLAlchemy keeps beside a connection
_NOTIFY = Prepared(select(func.pg_notify(bindparam("channel"), "")))

_AS_ASYNCPG_SAYS = {"SERIALIZABLE": "serializable", "READ COMMITTED": "read_committed"}

_log = structlog.get_logger()


class Database:
    """A pool of connections to one PostgreSQL database."""

    def __init__(self, engine: AsyncEngine, dsn: str, pool_size: int, patience: float) -> None:
        self.engine = engine
        self.dsn = dsn
        self._pool_size = pool_size
        self._patience = patience
        self._turns = _Turns()
        self._to_notify: set[str] = set()
        self._notifier: asyncio.Task[None] | None = None

    @classmethod
    def connect(cls, dsn: str, *, pool_size: int = 10, patience: float = 10.0) -> Database:
        """Return a pool that connects when first used.

        Args:
            dsn: `postgresql://user:password@host:port/database`, or `postgresql://user@/database?host=/socket/folder`.
            pool_size: connections held at most.
            patience: seconds that a call waits for one of them.
        """
        url = dsn.replace("postgresql://", "postgresql+asyncpg://", 1)
        engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=patience,
            pool_use_lifo=True,  # the connection used last has its plans made, and its memory in the processor's cache
            json_deserializer=from_json,
            isolation_level="AUTOCOMMIT",
            connect_args={"server_settings": _SHORT_QUERIES},
        )
        event.listen(engine.sync_engine, "checkout", _require_open)
        return cls(engine, dsn, pool_size, patience)

    async def in_tx(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        *,
        isolation: Isolation = "SERIALIZABLE",
        turns: Collection[str] = (),
    ) -> T:
        """Run `work` in one transaction and commit; on any exception roll back.

        PostgreSQL may refuse a serializable transaction because of another one; then `work` runs again. So it must do nothing
        but SQL on the connection it is given.

        Args:
            work: what to do.
            isolation: isolation level. READ COMMITTED is for work that first writes the one row that all it decides hangs on, so that
                whoever else would change that waits for it, or the other way round.
            turns: names of what many callers change at once (models whose versions are counted). Callers with the same name take
                turns instead of undoing each other's work, serializable ones also across processes. It makes nothing more correct,
                only cheaper.

        Raises:
            Contention: other transactions kept winning.
        """
        ordered = sorted(set(turns))
        try:
            return await self._attempt(work, isolation, ordered)
        except DBAPIError as error:  # almost never, so only now what knows how to try again is made
            if not _is_retryable(error):
                raise
        attempts = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS - 1),
            wait=wait_random_exponential(multiplier=0.005, max=0.5),
            retry=retry_if_exception(_is_retryable),
        )
        try:
            return await attempts(self._attempt, work, isolation, ordered)
        except RetryError as error:
            raise Contention(ATTEMPTS) from error.last_attempt.exception()

    async def _attempt(
        self, work: Callable[[AsyncConnection], Awaitable[T]], isolation: Isolation, turns: Sequence[str]
    ) -> T:
        locked = turns if isolation == "SERIALIZABLE" else ()  # at other levels locks of rows do
        async with AsyncExitStack() as held:
            for name in turns:
                await held.enter_async_context(self._turns.taken(name))
            connection = await held.enter_async_context(self._connected())
            for name in locked:
                await held.enter_async_context(_turn(connection, name))
            connection.info.pop(_TO_NOTIFY, None)
            result = await _transact(connection, work, isolation=_AS_ASYNCPG_SAYS[isolation])
            self._notify(connection.info.pop(_TO_NOTIFY, ()))
            return result

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` on one consistent, read-only view; once more if the connection is lost meanwhile."""

        async def view() -> T:
            async with self._connected() as connection:
                return await _transact(connection, work, isolation="repeatable_read", readonly=True)

        return await _again_if_lost(view)

    async def query(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` that makes one SELECT, which is a consistent view by itself: without the round trips of a transaction."""

        async def once() -> T:
            async with self._connected() as connection:
                with ended_unless_whole(driver_of(connection)):
                    return await work(connection)

        return await _again_if_lost(once)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        """Take a connection out of the pool; what asyncpg says while a new one is set up, SQLAlchemy passes on as it is.

        Raises:
            PoolExhausted: none was free in time.
        """
        connection = self.engine.connect()
        try:
            with translated("CONNECT"):
                await connection.start()
        except PoolTimeout as error:
            raise PoolExhausted(self._pool_size, self._patience) from error
        except DBAPIError as error:
            # SQLAlchemy says so only of connections that were there before.
            error.connection_invalidated = True
            raise
        try:
            yield connection
        finally:
            await connection.close()

    def _notify(self, channels: set[str] | tuple[()]) -> None:
        """Notify soon; what comes within a moment goes out as one."""
        self._to_notify.update(channels)
        if self._to_notify and (self._notifier is None or self._notifier.done()):
            self._notifier = asyncio.create_task(self._send_notifications())

    async def _send_notifications(self) -> None:
        while self._to_notify:
            channels, self._to_notify = self._to_notify, set()
            try:
                async with self._connected() as connection:
                    for channel in sorted(channels):
                        await _NOTIFY.execute(connection, {"channel": channel})
            except SQLAlchemyError as error:  # whoever listens polls as well
                _log.warning("database_notify_failed", channels=sorted(channels), error=str(error))
            await asyncio.sleep(NOTIFY_SECONDS)

    async def close(self) -> None:
        """Close every connection."""
        if self._notifier is not None:
            self._notifier.cancel()
            await asyncio.gather(self._notifier, return_exceptions=True)
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
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=1.0)


@asynccontextmanager
async def planned_for_values(connection: AsyncConnection) -> AsyncIterator[None]:
    """Have PostgreSQL plan every statement within this block for the values it has; the block is in a transaction of `Database`.

    Left to itself, it plans a statement that came a few times for any values, and never again.
    """
    driver = driver_of(connection)
    with translated("SET"):
        await driver.execute("SET LOCAL plan_cache_mode = force_custom_plan")
    yield
    with translated("SET"):
        await driver.execute("SET LOCAL plan_cache_mode = auto")


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RETRYABLE


def notify_after_commit(connection: AsyncConnection, channel: str) -> None:
    """Notify a channel once the transaction of `in_tx` has committed.

    Not by NOTIFY inside it: PostgreSQL lets transactions that notify commit one after the other, each waiting for the disk. If
    this process dies in between nobody is told, which is why whoever listens polls as well.
    """
    connection.info.setdefault(_TO_NOTIFY, set()).add(channel)


def _require_open(connection: Any, _record: Any, _proxy: Any) -> None:
    """Have the pool replace a connection that the server has closed; asyncpg knows without asking it."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


async def _transact(
    connection: AsyncConnection, work: Callable[[AsyncConnection], Awaitable[T]], **kind: Any
) -> T:
    """Run `work` in a transaction of asyncpg's, in which SQLAlchemy, that thinks of autocommit, takes no part.

    Its own costs more than a statement: it sets a level at every turn, and back.
    """
    driver = driver_of(connection)
    with translated("BEGIN"), ended_if_it_fails(driver):
        transaction = driver.transaction(**kind)
        await transaction.start()
    try:
        result = await work(connection)
    except BaseException:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError), ended_if_it_fails(driver):
            await transaction.rollback()
        raise
    with translated("COMMIT"), ended_if_it_fails(driver, unless=asyncpg.PostgresError):
        await transaction.commit()
    return result


async def _again_if_lost(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` that changes nothing, and once more if its connection broke: the pool then makes new ones."""
    try:
        return await work()
    except DBAPIError as error:
        if not is_lost(error):
            raise
    return await work()


@asynccontextmanager
async def _turn(connection: AsyncConnection, name: str) -> AsyncIterator[None]:
    """Hold a lock of the session, taken before the transaction begins: one taken inside would come after its snapshot."""
    key = func.hashtextextended(name, 0)
    await connection.execute(select(func.pg_advisory_lock(key)))
    try:
        yield
    finally:
        if not connection.closed and not connection.invalidated:
            await connection.execute(select(func.pg_advisory_unlock(key)))


class _Turns:
    """Lets callers of this process wait for their turn without holding a connection meanwhile."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def taken(self, name: str) -> AsyncIterator[None]:
        """Wait for the turn and hold it."""
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
