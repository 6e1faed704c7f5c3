"""What governance's SQL promises, on a real PostgreSQL: revisions, one-time things, and a chain nobody can change unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance import tables
from modelyard_governance.audit import Audit
from modelyard_governance.audit_key import AuditKey
from modelyard_governance.canonical import canonical_json
from modelyard_governance.chain import GENESIS
from modelyard_governance.models import (
    Account,
    ApiToken,
    Directory,
    Grant,
    Policy,
    RecordedEvent,
    Review,
    Verdict,
)
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.store import approvals, audit, grants, identity
from modelyard_kit.access import SYSTEM, Effect, Link, Privilege, ResourceGrant, ResourceType
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.filters import Asked
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IRIS = Link(ResourceType.MODEL, "m-iris", "prod.ml.iris")


SWAP = """
UPDATE audit SET sequence = 9 WHERE sequence = 2; UPDATE audit SET sequence = 2 WHERE sequence = 4;
UPDATE audit SET sequence = 4 WHERE sequence = 9"""


@pytest.fixture
async def database(fresh_database: Callable[[str], str]) -> AsyncIterator[Database]:
    opened = Database.connect(fresh_database("modelyard_governance"))
    yield opened
    await opened.close()


async def add_account(connection: AsyncConnection, name: str) -> Account:
    account = Account(new_id(), name, "user", name.title(), NOW)
    assert await identity.insert_account(
        connection, account, revision=await identity.next_revision(connection)
    )
    return account


def grant_to(account: Account, privilege: Privilege = Privilege.EXECUTE, on: Link = IRIS) -> Grant:
    return Grant(new_id(), account.id, account.name, privilege, Effect.ALLOW, on, NOW)


def event(number: int, *, resource: Link = IRIS, kind: str = "catalog.model.updated") -> RecordedEvent:
    document = {"id": f"e{number}", "type": kind, "resource": {"id": resource.id}, "data": {"number": number}}
    return RecordedEvent(f"e{number}", kind, resource, document, canonical_json(document))


@pytest.fixture
def record(database: Database) -> Audit:
    return Audit(
        database=database,
        feed=PermissionFeed(database, Grants()),
        clock=utc_now,
        wake=lambda: None,
        signed=AuditKey(Ed25519PrivateKey.generate()).problem,
        directory=cast("Directory", None),
    )


async def test_the_migration_makes_the_tables_of_the_store(database: Database) -> None:
    async def columns(connection: AsyncConnection) -> set[tuple[str, str, bool]]:
        rows = await connection.execute(
            text(
                "SELECT table_name, column_name, is_nullable FROM information_schema.columns WHERE table_schema = 'public'"
            )
        )
        return {(row[0], row[1], row[2] == "YES") for row in rows if row[0] != "alembic_version"}

    wanted = {
        (table.name, column.name, bool(column.nullable))
        for table in tables.metadata.sorted_tables
        for column in table.columns
    }
    assert await database.read(columns) == wanted


class TestIdentity:
    async def test_a_name_is_taken_once(self, database: Database) -> None:
        async def work(connection: AsyncConnection) -> None:
            first = await add_account(connection, "ada")
            other = Account(new_id(), "ada", "user", "", NOW)
            assert not await identity.insert_account(connection, other, revision=9)
            assert await identity.account_by_name(connection, "ada") == first
            assert await identity.account_by_id(connection, first.id) == first
            assert await identity.account_by_id(connection, "nobody") is None

        await database.in_tx(work)

    async def test_tokens_live_and_end(self, database: Database) -> None:
        async def work(connection: AsyncConnection) -> None:
            ada = await add_account(connection, "ada")
            lives = ApiToken(new_id(), ada.id, "ada", "lives", NOW, NOW + timedelta(days=1))
            over = ApiToken(new_id(), ada.id, "ada", "over", NOW, NOW - timedelta(days=1))
            await identity.insert_token(connection, lives, lookup="l1", secret_hash=b"1")
            await identity.insert_token(connection, over, lookup="l2", secret_hash=b"2")
            assert await identity.count_live_tokens(connection, ada.id, now=NOW) == 1
            assert await identity.page_of_tokens(connection, ada.id, Asked(size=9)) == ([lives, over], "")
            first, token = await identity.page_of_tokens(connection, ada.id, Asked(size=1))
            assert first == [lives]
            following = Asked(size=1, page_token=token)
            assert await identity.page_of_tokens(connection, ada.id, following) == ([over], "")
            stored = await identity.secret(connection, "l1")
            assert stored is not None
            assert (stored.account, stored.secret_hash, stored.token) == (ada, b"1", lives)
            assert await identity.revoke_token(connection, lives.id, now=NOW)
            assert not await identity.revoke_token(connection, lives.id, now=NOW)
            assert await identity.count_live_tokens(connection, ada.id, now=NOW) == 0

        await database.in_tx(work)

    async def test_replaced_files_end_only_tokens_from_files(self, database: Database) -> None:
        async def work(connection: AsyncConnection) -> None:
            ada = await add_account(connection, "ada")
            for lookup, from_file in (("old", True), ("new", True), ("own", False)):
                token = ApiToken(lookup, ada.id, "ada", "", NOW)
                await identity.insert_token(
                    connection, token, lookup=lookup, secret_hash=b"", bootstrap=from_file
                )
            ended = await identity.revoke_bootstrap_tokens(connection, ada.id, keep_lookup="new", now=NOW)
            assert ended == ["old"]

        await database.in_tx(work)


class TestGrants:
    async def test_the_same_grant_twice_is_one(self, database: Database) -> None:
        async def work(connection: AsyncConnection) -> None:
            ada = await add_account(connection, "ada")
            first = grant_to(ada)
            assert await grants.add(connection, first)
            assert not await grants.add(connection, grant_to(ada))
            assert await grants.like(connection, ada.id, IRIS.id, Privilege.EXECUTE, Effect.ALLOW) == first
            assert await grants.page_on(connection, IRIS.id, Asked(size=1)) == ([first], "")
            assert await grants.remove(connection, ada.id, IRIS.id, Privilege.EXECUTE, Effect.ALLOW)
            assert not await grants.remove(connection, ada.id, IRIS.id, Privilege.EXECUTE, Effect.ALLOW)

        await database.in_tx(work)

    async def test_only_what_changed_is_read_and_all_of_it(self, database: Database) -> None:
        async def give(connection: AsyncConnection) -> int:
            ada = await add_account(connection, "ada")
            await add_account(connection, "bob")
            before = await grants.revision(connection)
            await grants.add(connection, grant_to(ada))
            await grants.add(connection, grant_to(ada, Privilege.MANAGE, SYSTEM))
            await grants.mark_changed(connection, [ada.id], revision=await identity.next_revision(connection))
            return before

        before = await database.in_tx(give)
        changed = await database.read(lambda connection: grants.changed_since(connection, before))
        assert [held.principal for held in changed] == ["ada"]
        assert set(changed[0].grants) == {
            ResourceGrant(IRIS.id, Privilege.EXECUTE, Effect.ALLOW),
            ResourceGrant("system", Privilege.MANAGE, Effect.ALLOW),
        }
        everybody = await database.read(lambda connection: grants.changed_since(connection, -1))
        assert {held.principal: len(held.grants) for held in everybody} == {"ada": 2, "bob": 0}

    async def test_a_resource_has_one_owner(self, database: Database) -> None:
        async def work(connection: AsyncConnection) -> None:
            ada, bob = await add_account(connection, "ada"), await add_account(connection, "bob")
            for account in (ada, bob):
                await grants.add(connection, grant_to(account, Privilege.OWNERSHIP))
            await grants.add(connection, grant_to(ada, Privilege.EXECUTE))
            assert await grants.remove_other_owners(connection, IRIS.id, bob.id) == [ada.id]
            left, _ = await grants.page_on(connection, IRIS.id, Asked(size=9))
            assert {(item.principal, item.privilege) for item in left} == {
                ("bob", "OWNERSHIP"),
                ("ada", "EXECUTE"),
            }

        await database.in_tx(work)

    async def test_concurrent_changes_each_get_their_revision(self, database: Database) -> None:
        async def one(number: int) -> int:
            async def work(connection: AsyncConnection) -> int:
                revision = await identity.next_revision(connection)
                account = Account(new_id(), f"u{number}", "user", "", NOW)
                await identity.insert_account(connection, account, revision=revision)
                return revision

            return await database.in_tx(work)

        revisions = await asyncio.gather(*map(one, range(5)))
        assert sorted(revisions) == [1, 2, 3, 4, 5]


class TestApprovals:
    async def test_a_policy_is_replaced_and_keeps_its_id(self, database: Database) -> None:
        async def work(connection: AsyncConnection) -> None:
            first = Policy("p1", IRIS, 1, True, ("champion",), False, NOW)
            second = Policy("p2", IRIS, 2, False, (), True, NOW + timedelta(1))
            assert await approvals.put_policy(connection, first) == first
            stored = await approvals.put_policy(connection, second)
            assert (stored.id, stored.required_approvals, stored.protected_aliases) == ("p1", 2, ())
            assert await approvals.policies_on(connection, [IRIS.id, "other"]) == {IRIS.id: stored}

        await database.in_tx(work)

    async def test_a_later_review_replaces_the_earlier(self, database: Database) -> None:
        async def work(connection: AsyncConnection) -> None:
            ada = await add_account(connection, "ada")
            bob = await add_account(connection, "bob")
            said = [
                Review(ada.id, "ada", Verdict.APPROVE, "", NOW),
                Review(bob.id, "bob", Verdict.APPROVE, "", NOW + timedelta(1)),
                Review(ada.id, "ada", Verdict.REJECT, "drift", NOW + timedelta(2)),
            ]
            for review in said:
                await approvals.put_review(connection, "v1", review)
            assert await approvals.reviews_of(connection, "v1") == said[1:]
            assert await approvals.reviews_of(connection, "v2") == []

        await database.in_tx(work)


class TestAudit:
    async def test_appends_from_all_sides_make_one_chain(self, database: Database, record: Audit) -> None:
        batches = [[event(number) for number in range(start, start + 5)] for start in (0, 3, 6, 9, 12)]
        await asyncio.gather(*map(record.record, batches))
        entries, _ = await record.page(Asked(size=100), "")
        assert [entry.sequence for entry in entries] == list(range(1, 18))
        assert sorted(entry.event_id for entry in entries) == sorted(f"e{number}" for number in range(17))
        outcome = await record.verify()
        assert (outcome.valid, outcome.entries, outcome.head_hash) == (True, 17, entries[-1].hash)
        assert await database.read(audit.head) == (17, entries[-1].hash)

    async def test_an_empty_chain_holds(self, record: Audit) -> None:
        outcome = await record.verify()
        assert (outcome.valid, outcome.entries, outcome.head_hash) == (True, 0, GENESIS)

    async def test_many_batches_are_verified(self, record: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modelyard_governance.audit.VERIFY_BATCH", 3)
        await record.record([event(number) for number in range(10)])
        assert (await record.verify()).entries == 10

    @pytest.mark.parametrize(
        "statement",
        ["UPDATE audit SET canonical_event = ''", "DELETE FROM audit WHERE sequence = 2", "TRUNCATE audit"],
    )
    async def test_the_database_refuses_changes(
        self, database: Database, record: Audit, statement: str
    ) -> None:
        await record.record([event(number) for number in range(3)])
        with pytest.raises(DBAPIError, match="append-only"):
            await database.in_tx(lambda connection: connection.execute(text(statement)))
        assert (await record.verify()).entries == 3

    @pytest.mark.parametrize(
        ("tampering", "broken"),
        [
            (
                "UPDATE audit SET canonical_event = replace(canonical_event, '\"number\":2', '\"number\":7')",
                3,
            ),
            ("UPDATE audit SET hash = decode(repeat('ab', 32), 'hex') WHERE sequence = 3", 3),
            ("UPDATE audit SET previous_hash = decode(repeat('ab', 32), 'hex') WHERE sequence = 1", 1),
            ("UPDATE audit SET resource_id = 'elsewhere' WHERE sequence = 4", 4),
            ("UPDATE audit SET event_id = 'e99' WHERE sequence = 5", 5),
            ("DELETE FROM audit WHERE sequence = 1", 1),
            ("DELETE FROM audit WHERE sequence = 3", 3),
            ("DELETE FROM audit WHERE sequence = 5", 5),
            ("DELETE FROM audit", 1),
            (
                "DELETE FROM audit WHERE sequence = 2; UPDATE audit SET sequence = sequence - 1 WHERE sequence > 2",
                2,
            ),
            (SWAP, 2),
            ("UPDATE audit_head SET sequence = 4", 5),
            ("UPDATE audit_head SET hash = decode(repeat('00', 32), 'hex')", 5),
        ],
    )
    async def test_tampering_behind_its_back_is_found(
        self, database: Database, record: Audit, tampering: str, broken: int
    ) -> None:
        await record.record([event(number) for number in range(5)])

        async def tamper(connection: AsyncConnection) -> None:
            await connection.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
            for statement in tampering.split(";"):
                await connection.exec_driver_sql(statement)

        await database.in_tx(tamper)
        outcome = await record.verify()
        assert (outcome.valid, outcome.broken_sequence) == (False, broken)
        assert outcome.problem

    async def test_entries_are_found_by_resource(self, record: Audit) -> None:
        other = Link(ResourceType.MODEL, "m-other", "prod.ml.other")
        await record.record([event(number, resource=other if number % 2 else IRIS) for number in range(6)])
        found, token = await record.page(Asked(size=2), IRIS.id)
        assert [entry.sequence for entry in found] == [1, 3]
        found, token = await record.page(Asked(size=2, page_token=token), IRIS.id)
        assert ([entry.sequence for entry in found], token) == ([5], "")
