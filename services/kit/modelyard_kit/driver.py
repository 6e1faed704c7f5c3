"""asyncpg as it is under SQLAlchemy, for what has to be quick, with SQLAlchemy's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pydantic_core
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit.errors import DomainError

from_json = pydantic_core.from_json
"""What `json.loads` does, in half the time."""

# SQLSTATEs of what asyncpg raises by itself: none, or data_exception for a value that it cannot send.
_NOT_POSTGRESQL_S = frozenset((None, "22000"))


class PoolExhausted(PoolTimeout):
    """Every connection of the pool was in use for as long as a call waits for one; nothing was done."""

    def __init__(self, size: int, seconds: float) -> None:
        super().__init__(f"no connection to the database was free for {seconds:g} s; there are {size}")
        self.size = size


def driver_of(connection: AsyncConnection) -> Any:
    """Return the `asyncpg.Connection` of a connection that is open."""
    sync: Any = connection.sync_connection
    return sync.connection.driver_connection


def is_lost(error: BaseException) -> bool:
    """Return whether an error says that the database cannot be reached, or that the connection to it broke."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


@contextmanager
def ended_if_it_fails(driver: Any, unless: type[BaseException] | tuple[()] = ()) -> Iterator[None]:
    """End a connection on which a step failed or was cancelled: else whoever gets it next would get what is left of that step."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, unless):
            driver.terminate()
        raise


@contextmanager
def ended_unless_whole(driver: Any) -> Iterator[None]:
    """End a connection outside a transaction unless it is known that the statement within this block came to its end.

    asyncpg prepares a statement with Flush and executes it with Sync. Cancelled in between, or refusing a value, it leaves
    PostgreSQL in the transaction that the statement began by itself, and takes it for idle ("Extended Query" in PostgreSQL's
    protocol). A refusal of ours comes before a statement or after it, and to one of PostgreSQL's asyncpg answers with Sync.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, DomainError) and not _is_refusal(error):
            driver.terminate()
        raise


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) not in _NOT_POSTGRESQL_S


@contextmanager
def translated(statement: str) -> Iterator[None]:
    """Raise asyncpg's errors as SQLAlchemy does its own, without the parameters, among which may be secrets.

    Raises:
        IntegrityError: a constraint is violated.
        OperationalError: the connection is lost.
        InterfaceError: asyncpg refuses it by itself, as the wrong number of parameters.
        DatabaseError: anything else that PostgreSQL refuses.
    """
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        raise IntegrityError(statement, None, error) from error
    except asyncpg.InterfaceError as error:
        # A class alone does not say it, and whoever cleans up may have closed the connection since: SQLAlchemy reads the text too.
        if "connection is closed" not in str(error):
            raise InterfaceError(statement, None, error) from error
        raise OperationalError(statement, None, error, connection_invalidated=True) from error
    except (
        asyncpg.InternalClientError,
        asyncpg.PostgresConnectionError,
        asyncpg.AdminShutdownError,
        asyncpg.CrashShutdownError,
        asyncpg.CannotConnectNowError,
        OSError,
    ) as error:
        raise OperationalError(statement, None, error, connection_invalidated=True) from error
    except asyncpg.PostgresError as error:
        raise DatabaseError(statement, None, error) from error
