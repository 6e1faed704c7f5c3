"""The kit's database, outbox and idempotency on real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import asyncpg
import pytest
from alembic import command
from sqlalchemy import bindparam, func, literal_column, select, text
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.event import listen, remove
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit import idempotency, migrate, outbox, outbox_tables
from modelyard_kit.access import SYSTEM
from modelyard_kit.auth import Principal
from modelyard_kit.db import Database, Isolation
from modelyard_kit.driver import PoolExhausted, driver_of, is_lost, translated
from modelyard_kit.errors import Contention, LimitExceeded, NotFound, PeerUnavailable, RequestIdReused
from modelyard_kit.limits import LIMITS
from modelyard_kit.outbox import Event, Relay
from modelyard_kit.prepared import Prepared
from tests.framework.postgres import TestPostgres

ADA = Principal("1", "ada", "user")


@pytest.fixture
async def database(postgres_server: TestPostgres) -> AsyncIterator[Database]:
    database = Database.connect(postgres_server.empty())

    async def create(connection: AsyncConnection) -> None:
        def tables(sync: object) -> None:
            operations = SimpleNamespace(get_bind=lambda: sync)
            outbox_tables.create(operations)
            idempotency.create(operations)

        await connection.run_sync(tables)
        await connection.execute(text("CREATE TABLE counter (value int)"))
        await connection.execute(text("INSERT INTO counter VALUES (0)"))

    await database.in_tx(create)
    yield database
    await database.close()


async def increment(connection: AsyncConnection) -> None:
    value = (await connection.execute(text("SELECT value FROM counter"))).scalar_one()
    await connection.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})


async def served_by(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def count(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT value FROM counter"))).scalar_one())


async def test_concurrent_read_modify_write_loses_no_update(database: Database) -> None:
    await asyncio.gather(*(database.in_tx(increment) for _ in range(8)))
    assert await database.read(count) == 8


async def test_endless_contention_is_reported_and_changes_nothing(database: Database) -> None:
    async def beaten(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT value FROM counter"))
        await database.in_tx(increment)
        await increment(connection)

    with pytest.raises(Contention):
        await database.in_tx(beaten)
    assert await database.read(count) == 10


async def test_a_failing_transaction_leaves_nothing(database: Database) -> None:
    async def fail(connection: AsyncConnection) -> None:
        await increment(connection)
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        await database.in_tx(fail)
    assert await database.read(count) == 0


def event(name: str) -> Event:
    return Event("kit.thing.changed", SYSTEM, ADA, "r1", {"name": name})


async def append(database: Database, *names: str) -> None:
    for name in names:
        await database.in_tx(lambda connection, name=name: outbox.append(connection, event(name)))


async def test_the_relay_delivers_in_order_and_once_when_all_is_well(database: Database) -> None:
    seen: list[str] = []

    async def sink(events: Sequence[Event]) -> None:
        seen.extend(str(one.data["name"]) for one in events)

    relay = Relay(database, sink)
    await append(database, "a", "b", "c")
    assert await relay.deliver() == 3
    assert await relay.deliver() == 0
    assert seen == ["a", "b", "c"]


async def test_what_the_sink_did_not_take_is_delivered_again(database: Database) -> None:
    taken: list[str] = []
    failures = iter([True, False])

    async def sink(events: Sequence[Event]) -> None:
        if next(failures):
            raise PeerUnavailable("governance")
        taken.extend(str(one.data["name"]) for one in events)

    relay = Relay(database, sink)
    await append(database, "a")
    with pytest.raises(PeerUnavailable):
        await relay.deliver()
    assert await relay.deliver() == 1
    assert taken == ["a"]


async def test_a_notification_wakes_the_relay(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "POLL_SECONDS", 60.0)  # so that only NOTIFY can be what woke it
    delivered = asyncio.Event()
    seen: list[Event] = []

    async def sink(events: Sequence[Event]) -> None:
        seen.extend(events)
        delivered.set()

    task = asyncio.create_task(Relay(database, sink).run())
    try:
        # The relay may still be connecting its listener: every append notifies again.
        async with asyncio.timeout(60):
            while not delivered.is_set():
                await append(database, "a")
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert seen[0].data == {"name": "a"}


@pytest.mark.parametrize("again", ["same", "other"])
async def test_a_request_id_is_bound_to_its_content(database: Database, again: str) -> None:
    key = {"principal_id": "1", "method": "CreateThing", "request_id": "r"}

    async def first(connection: AsyncConnection) -> None:
        assert await idempotency.replay(connection, **key, fingerprint="same") is None
        await idempotency.remember(connection, **key, fingerprint="same", resource_id="42")

    async def second(connection: AsyncConnection) -> str | None:
        return await idempotency.replay(connection, **key, fingerprint=again)

    await database.in_tx(first)
    if again == "same":
        assert await database.in_tx(second) == "42"
    else:
        with pytest.raises(RequestIdReused):
            await database.in_tx(second)


@pytest.mark.parametrize("isolation", ["SERIALIZABLE", "READ COMMITTED"])
async def test_the_same_request_at_once_makes_one_resource(database: Database, isolation: Isolation) -> None:
    claim = idempotency.Claim("1", "CreateThing", "r", "same", "")

    async def create(connection: AsyncConnection, made: str) -> str:
        before = await idempotency.claim(connection, replace(claim, resource_id=made))
        if before is None:
            await increment(connection)
        return before or made

    def creating(made: str) -> Awaitable[str]:
        return database.in_tx(lambda connection: create(connection, made), isolation=isolation)

    made = await asyncio.gather(*(creating(str(number)) for number in range(8)))
    assert len(set(made)) == 1
    assert await database.read(count) == 1
    with pytest.raises(RequestIdReused):
        await database.in_tx(
            lambda connection: idempotency.claim(connection, replace(claim, fingerprint="x", resource_id="9"))
        )


async def test_several_are_claimed_together_or_not_at_all(database: Database) -> None:
    one, two = (idempotency.Claim("1", "CreateThing", request, "same", "1") for request in ("r", "s"))
    nothing = replace(one, request_id="")
    claiming = Prepared(idempotency.claiming("claims"))

    async def claim(*claims: idempotency.Claim) -> None:
        records = {"claims": idempotency.records_of(claims)}
        await database.in_tx(lambda connection: claiming.execute(connection, records))

    await claim(one, two, nothing)
    await claim(nothing, nothing)
    another = replace(one, request_id="t")
    for repeated in ([two, another], [another, another]):
        with pytest.raises(IntegrityError) as caught:
            await claim(*repeated)
        assert isinstance(caught.value.orig, asyncpg.UniqueViolationError)
        assert caught.value.orig.constraint_name == idempotency.CLAIMED
    await claim(another)  # nothing was left of it
    with pytest.raises(LimitExceeded):
        await claim(replace(one, request_id="x" * (LIMITS["request_id_length"].maximum + 1)))


async def test_a_claim_ends_with_its_transaction(database: Database) -> None:
    claim = idempotency.Claim("1", "CreateThing", "r", "same", "1")

    async def fail(connection: AsyncConnection) -> None:
        await idempotency.claim(connection, claim)
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        await database.in_tx(fail)
    again = await database.in_tx(
        lambda connection: idempotency.claim(connection, replace(claim, resource_id="2"))
    )
    assert again is None


async def test_connections_that_the_server_closed_are_replaced(database: Database) -> None:
    await asyncio.gather(*(database.query(count) for _ in range(5)))
    await _end_others(database)
    assert await database.query(count) == 0
    await _end_others(database)
    assert await database.read(count) == 0
    await _end_others(database)
    await database.in_tx(increment)
    assert await database.query(count) == 1


async def test_calls_one_after_the_other_use_one_connection(database: Database) -> None:
    at_once = await asyncio.gather(*(database.query(served_by) for _ in range(5)))
    assert len(set(at_once)) == 5
    assert len({await database.query(served_by) for _ in range(5)}) == 1


async def test_a_read_whose_connection_breaks_runs_again(database: Database) -> None:
    attempts = 0

    async def broken_once(connection: AsyncConnection) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await _end_others(database)
        return await count(connection)

    for reading in (database.query, database.read):
        attempts = 0
        assert await reading(broken_once) == 0
        assert attempts == 2


async def test_a_connection_that_breaks_while_it_is_made_is_lost_as_any(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.engine.dispose()
    left = 1

    async def breaks(self: PGDialect_asyncpg, connection: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(PGDialect_asyncpg, "setup_asyncpg_json_codec", breaks)
    assert await database.read(count) == 0
    await database.engine.dispose()
    left = 2
    with pytest.raises(OperationalError):
        await database.read(count)
    left = 1
    with pytest.raises(OperationalError):
        await database.in_tx(increment)


async def test_a_connection_that_breaks_before_its_transaction_is_lost_as_any(database: Database) -> None:
    def breaks(connection: Any, *_: Any) -> None:
        connection.driver_connection.terminate()

    listen(database.engine.sync_engine, "checkout", breaks)
    for use in (database.in_tx, database.read, database.query):
        with pytest.raises(DBAPIError) as caught:
            await use(count)
        assert caught.value.connection_invalidated
    remove(database.engine.sync_engine, "checkout", breaks)
    assert await database.read(count) == 0


async def test_whoever_waits_too_long_for_a_connection_is_told_so(postgres_server: TestPostgres) -> None:
    small = Database.connect(postgres_server.empty(), pool_size=1, patience=0.05)

    async def holds(connection: AsyncConnection) -> None:
        for use in (small.in_tx, small.read, small.query):
            with pytest.raises(
                PoolExhausted, match="no connection to the database was free for 0.05 s; there are 1"
            ):
                await use(count)

    await small.query(holds)
    await small.close()


async def test_what_asyncpg_refuses_by_itself_is_no_lost_connection(database: Database) -> None:
    async def wrong(connection: AsyncConnection) -> None:
        driver = driver_of(connection)
        with pytest.raises(InterfaceError, match="expects 1 argument") as caught, translated("SELECT"):
            await driver.fetch("SELECT $1::int", 1, 2)
        assert not is_lost(caught.value)
        first = asyncio.create_task(driver.fetch("SELECT pg_sleep(0.05)"))
        await asyncio.sleep(0)
        with pytest.raises(InterfaceError, match="another operation is in progress"), translated("SELECT"):
            await driver.fetch("SELECT 1")
        await first

    async def closed(connection: AsyncConnection) -> None:
        driver = driver_of(connection)
        driver.terminate()
        with pytest.raises(OperationalError, match="connection is closed") as caught, translated("SELECT"):
            await driver.fetch("SELECT 1")
        assert is_lost(caught.value)

    await database.query(wrong)
    await database.query(closed)


async def _end_others(database: Database) -> None:
    """End every connection to the database, as a restart of PostgreSQL does."""
    own = await asyncpg.connect(database.dsn)
    try:
        await own.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await own.close()


async def test_a_transaction_that_is_cancelled_anywhere_leaves_nothing_in_its_connection(
    database: Database,
) -> None:
    for steps in range(1, 60):
        task = asyncio.create_task(database.in_tx(increment, isolation="READ COMMITTED"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        before = await database.read(count)
        await database.in_tx(increment)  # another level: refused inside what is left of the other
        assert await database.query(count) == before + 1


async def test_a_query_that_is_cancelled_anywhere_leaves_nothing_in_its_connection(
    database: Database,
) -> None:
    elsewhere = Database.connect(database.dsn)
    for steps in range(1, 30):
        # Each is new to the connection, so that it is prepared there.
        statement = Prepared(
            select(func.count().label("rows")).where(literal_column(str(steps)) > bindparam("least", 0))
        )

        def ask(connection: AsyncConnection, statement: Prepared = statement) -> Awaitable[Sequence[Any]]:
            return statement.execute(connection, {})

        await elsewhere.query(ask)
        task = asyncio.create_task(database.query(ask))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await database.read(count)  # another level: refused inside what is left of the query
    await elsewhere.close()


@pytest.mark.parametrize("value", ["one", 2**70])
async def test_a_query_with_a_value_that_cannot_be_sent_leaves_nothing_in_its_connection(
    database: Database, value: object
) -> None:
    async def ask(connection: AsyncConnection) -> None:
        await connection.execute(
            text("SELECT value FROM counter WHERE value = CAST(:value AS bigint)"), {"value": value}
        )

    with pytest.raises(DBAPIError, match="invalid input for query argument"):
        await database.query(ask)
    assert await database.read(count) == 0


async def test_a_query_that_is_refused_keeps_its_connection(database: Database) -> None:
    async def divide(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT value / 0 FROM counter"))

    async def miss(_connection: AsyncConnection) -> None:
        raise NotFound("model", "prod.ml.iris")

    before = await database.query(served_by)
    with pytest.raises(DBAPIError, match="division by zero"):
        await database.query(divide)
    with pytest.raises(NotFound):
        await database.query(miss)
    assert await database.query(served_by) == before


async def test_nobody_is_notified_of_what_was_rolled_back(database: Database) -> None:
    heard = asyncio.Event()
    listener = await asyncpg.connect(database.dsn)
    await listener.add_listener(outbox.CHANNEL, lambda *_arguments: heard.set())

    async def fail(connection: AsyncConnection) -> None:
        await outbox.append(connection, event("a"))
        raise LookupError("on purpose")

    try:
        for _ in range(3):
            with pytest.raises(LookupError):
                await database.in_tx(fail)
        await database.in_tx(increment)  # on the connection of the transaction that failed
        await listener.execute("SELECT 1")
        assert not heard.is_set()
        await append(database, "a")
        await asyncio.wait_for(heard.wait(), 30)
    finally:
        await listener.close()


async def test_callers_that_take_turns_never_contend(database: Database) -> None:
    attempts = 0

    async def slow_increment(connection: AsyncConnection) -> None:
        nonlocal attempts
        attempts += 1
        await increment(connection)

    other = Database.connect(database.dsn)  # as another process would
    try:
        await asyncio.gather(
            *(pool.in_tx(slow_increment, turns=["counter"]) for pool in (database, other) for _ in range(20))
        )
    finally:
        await other.close()
    assert await database.read(count) == 40
    assert attempts == 40


async def test_a_turn_ends_with_a_failing_transaction(database: Database) -> None:
    async def fail(_connection: AsyncConnection) -> None:
        raise LookupError("on purpose")

    for _ in range(3):
        with pytest.raises(LookupError):
            await database.in_tx(fail, turns=["counter"])
    await asyncio.wait_for(database.in_tx(increment, turns=["counter"]), 60)


async def test_a_database_of_the_newest_form_is_left_alone(fresh_database: Callable[[str], str]) -> None:
    address = fresh_database("modelyard_catalog")
    with mock.patch.object(command, "upgrade") as upgrade:
        await migrate.upgrade(address, "modelyard_catalog")
        assert not upgrade.called
        connection = await asyncpg.connect(address)
        await connection.execute("UPDATE alembic_version SET version_num = '0001'")
        await connection.close()
        await migrate.upgrade(address, "modelyard_catalog")
        assert upgrade.called
