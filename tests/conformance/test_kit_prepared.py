"""Prepared statements are those of SQLAlchemy: the same rows, the same errors, the same transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Float,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit.db import Database
from modelyard_kit.driver import driver_of
from modelyard_kit.prepared import Prepared
from tests.framework.postgres import TestPostgres

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("count", BigInteger),
    Column("score", Float),
    Column("time", DateTime(timezone=True)),
    Column("data", JSONB(none_as_null=True)),
    Column("names", ARRAY(Text)),
)
ADD = Prepared(insert(THINGS).values({column.name: bindparam(column.name) for column in THINGS.c}))
NAMED = Prepared(select(THINGS).where(THINGS.c.name == bindparam("name")).order_by(THINGS.c.id))
RENAME = Prepared(
    update(THINGS)
    .where(THINGS.c.name == bindparam("old"))
    .values(name=bindparam("new"))
    .returning(THINGS.c.name)
)


@pytest.fixture
async def database(postgres_server: TestPostgres) -> AsyncIterator[Database]:
    database = Database.connect(postgres_server.empty())

    async def create(connection: AsyncConnection) -> None:
        await connection.run_sync(THINGS.create)

    await database.in_tx(create)
    yield database
    await database.close()


def thing(name: str, **values: object) -> dict[str, object]:
    return {column.name: None for column in THINGS.c} | {"id": str(uuid4()), "name": name} | values


async def add(database: Database, *things: dict[str, object]) -> None:
    async def work(connection: AsyncConnection) -> None:
        for each in things:
            assert not await ADD.execute(connection, each)

    await database.in_tx(work)


async def test_rows_are_those_of_sqlalchemy(database: Database) -> None:
    time = datetime(2026, 1, 2, tzinfo=UTC)
    full = thing("ä", count=2**40, score=0.5, time=time, data={"a": [1, None, "ü"]}, names=["x", ""])
    await add(database, full, thing("empty"))

    async def read(connection: AsyncConnection) -> None:
        for name, expected in (("ä", full), ("empty", None)):
            [row] = await NAMED.execute(connection, {"name": name})
            query = select(THINGS).where(THINGS.c.name == name)
            assert tuple(row) == tuple((await connection.execute(query)).one())
            if expected is not None:
                assert row._asdict() == expected
        assert not await NAMED.execute(connection, {"name": "none"})

    await database.read(read)
    await database.query(read)


async def test_it_returns_what_was_changed(database: Database) -> None:
    await add(database, thing("a"))
    names = {"old": "a", "new": "b"}
    assert [row.name for row in await database.in_tx(lambda c: RENAME.execute(c, names))] == ["b"]
    assert not await database.in_tx(lambda c: RENAME.execute(c, names))


async def test_errors_are_those_of_sqlalchemy_and_tell_no_values(database: Database) -> None:
    await add(database, thing("secret"))
    with pytest.raises(IntegrityError) as caught:
        await add(database, thing("other"), thing("secret"))
    assert isinstance(caught.value.orig, asyncpg.UniqueViolationError)
    assert "[parameters" not in str(caught.value)
    assert not await database.query(lambda c: NAMED.execute(c, {"name": "other"}))
    broken = Prepared(select(literal_column("1 / 0").label("x")))
    with pytest.raises(DBAPIError, match="division by zero") as refused:
        await database.query(lambda c: broken.execute(c, {}))
    assert not refused.value.connection_invalidated


async def test_what_sqlalchemy_does_in_between_is_in_the_same_transaction(database: Database) -> None:
    async def work(connection: AsyncConnection) -> None:
        await ADD.execute(connection, thing("a"))
        with pytest.raises(IntegrityError):
            async with connection.begin_nested():
                await connection.execute(insert(THINGS), thing("a"))
        await connection.execute(insert(THINGS), thing("b"))
        assert len(await NAMED.execute(connection, {"name": "b"})) == 1
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        await database.in_tx(work)
    for name in ("a", "b"):
        assert not await database.query(lambda c, name=name: NAMED.execute(c, {"name": name}))


async def test_a_read_whose_connection_breaks_runs_again(database: Database) -> None:
    attempts = 0

    async def broken_once(connection: AsyncConnection) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            other = await asyncpg.connect(database.dsn)
            await other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await other.close()
        return len(await NAMED.execute(connection, {"name": "a"}))

    for reading in (database.query, database.read):
        attempts = 0
        assert await reading(broken_once) == 0
        assert attempts == 2


async def test_a_first_execution_that_is_cancelled_anywhere_leaves_nothing_in_its_connection(
    database: Database,
) -> None:
    async def count(connection: AsyncConnection) -> int:
        driver: Any = driver_of(connection)
        return int(await driver.fetchval("SELECT count(*) FROM things"))

    for steps in range(1, 40):
        first = Prepared(select(THINGS).where(THINGS.c.count == bindparam(f"at_{steps}")).limit(steps))
        task = asyncio.create_task(
            database.query(lambda c, one=first, at=steps: one.execute(c, {f"at_{at}": 1}))
        )
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await database.in_tx(count) == 0


async def test_what_is_read_in_a_view_cannot_be_written(database: Database) -> None:
    with pytest.raises(DBAPIError, match="read-only"):
        await database.read(lambda c: ADD.execute(c, thing("a")))
