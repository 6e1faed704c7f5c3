"""Lists of governance over real gRPC: filters, orders, what each caller may see; and what the catalog is told of approvals."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2, timestamp_pb2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.api.common.v1 import event_pb2, resource_pb2
from modelyard.api.governance.v1 import approval_pb2
from modelyard_governance.models import Visible
from modelyard_governance.store import audit, grants, identity, standings
from modelyard_kit.access import SYSTEM, Scope
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidField, LimitExceeded
from modelyard_kit.filters import Asked
from tests.framework.plans import read_from_end_to_end
from tests.framework.waiting import eventually

from .governance_stack import IRIS, IRIS_1, ML, PROD, Caller, Stack, stack

ON_PROD: dict[str, Any] = {"resource_type": resource_pb2.RESOURCE_TYPE_CATALOG, "resource": "prod"}
ON_MODEL: dict[str, Any] = {"resource_type": resource_pb2.RESOURCE_TYPE_MODEL, "resource": "prod.ml.iris"}
APPROVE, REJECT = approval_pb2.Review.DECISION_APPROVE, approval_pb2.Review.DECISION_REJECT


@pytest.fixture
async def running_stack(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(fresh_database("modelyard_governance"), tmp_path) as started:
        yield started


async def names(caller: Caller, **asked: Any) -> list[str]:
    """Return the names of all principals asked for, one row a page."""
    found, token = [], ""
    while True:
        page = await caller("ListPrincipals", page_size=1, page_token=token, **asked)
        found += [row.name for row in page.principals]
        token = page.next_page_token
        if not token:
            return found


class TestLists:
    async def test_principals(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        for name in ("bob", "ada"):
            await admin(
                "CreatePrincipal", principal={"name": name, "kind": "KIND_USER", "display_name": name.title()}
            )
        people = {"filter": "kind = 'user' AND name != 'admin'"}
        assert await names(admin, **people) == ["ada", "bob"]
        assert await names(admin, **people, order_by="create_time") == ["bob", "ada"]
        assert await names(admin, filter="display_name ILIKE 'A%' AND name = 'ada'") == ["ada"]
        assert await names(admin, filter="kind = 'SERVICE'", order_by="name desc") == [
            "inference",
            "governance",
            "gateway",
            "catalog",
            "artifact",
        ]

    async def test_tokens(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        made = [(await admin("CreateToken", description=name)).token for name in ("ci", "nightly")]
        await admin("RevokeToken", token_id=made[0].id)
        live = await admin("ListTokens", filter="revoke_time IS NULL AND description IN ('ci', 'nightly')")
        assert [token.id for token in live.tokens] == [made[1].id]
        ordered = await admin(
            "ListTokens", filter="description != 'made by the installation'", order_by="description desc"
        )
        assert [token.description for token in ordered.tokens] == ["nightly", "ci"]

    async def test_grants(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        for name in ("bob", "ada"):
            await running_stack.user(name, admin)
            for privilege in ("PRIVILEGE_EDIT", "PRIVILEGE_EXECUTE"):
                await admin("CreateGrant", principal=name, privilege=privilege, **ON_MODEL)
        asked = {"filter": "privilege IN ('edit', 'MANAGE')", "order_by": "principal", "page_size": 1}
        first = await admin("ListGrants", **asked, **ON_MODEL)
        rest = await admin("ListGrants", **asked, page_token=first.next_page_token, **ON_MODEL)
        assert [grant.principal for grant in (*first.grants, *rest.grants)] == ["ada", "bob"]
        with pytest.raises(InvalidField, match="page_token"):
            await admin("ListGrants", **asked, page_token=first.next_page_token, **ON_PROD)

    async def test_audit_by_parts_of_the_event(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        before = datetime.now(UTC)
        made = (await ada("CreateToken", description="ci")).token
        await eventually(lambda: self._is_audited(admin, made.id))
        asked = (
            "actor = 'ada' AND type = 'governance.token.created' AND resource_type = 'token' "
            f"AND time >= '{(before - timedelta(minutes=1)).isoformat()}' AND resource_id = '{made.id}'"
        )
        found = (await admin("ListAuditEntries", filter=asked)).entries
        assert [entry.event.resource.id for entry in found] == [made.id]
        newest = (await admin("ListAuditEntries", order_by="sequence desc", page_size=3)).entries
        assert [entry.sequence for entry in newest] == sorted(
            (entry.sequence for entry in newest), reverse=True
        )
        with pytest.raises(InvalidField, match="column 1: found 'time', expected sequence"):
            await admin("ListAuditEntries", order_by="time desc")
        assert (await admin("VerifyAudit")).valid

    async def _is_audited(self, admin: Caller, token_id: str) -> bool:
        return bool((await admin("ListAuditEntries", filter=f"resource = '{token_id}'")).entries)

    @pytest.mark.parametrize(
        "method", ["ListPrincipals", "ListTokens", "ListGrants", "ListApprovals", "ListAuditEntries"]
    )
    async def test_mistakes_have_their_column(self, running_stack: Stack, method: str) -> None:
        admin = await running_stack.admin()
        where = ON_PROD if method == "ListGrants" else {}
        with pytest.raises(InvalidField, match=r"filter.*column 5: unknown field 'nmae'"):
            await admin(method, filter="NOT nmae = 'x'", **where)
        with pytest.raises(InvalidField, match="order_by.*column 1"):
            await admin(method, order_by="nmae", **where)
        with pytest.raises(LimitExceeded):
            await admin(method, filter=" " * 8_193, **where)
        with pytest.raises(InvalidField, match="page_size"):
            await admin(method, page_size=-1, **where)


class TestApprovals:
    async def review(self, caller: Caller, decision: int = APPROVE) -> None:
        await caller("ReviewVersion", model_version=IRIS_1.name, decision=decision, comment="c")

    async def reviewer(self, running: Stack, name: str, admin: Caller) -> Caller:
        made = await running.user(name, admin)
        for privilege in ("USE_CATALOG", "USE_SCHEMA", "READ_METADATA", "APPROVE"):
            await admin("CreateGrant", principal=name, privilege=f"PRIVILEGE_{privilege}", **ON_PROD)
        return made

    async def test_listed_as_they_are_and_told_to_the_catalog(self, running_stack: Stack) -> None:
        admin, told = await running_stack.admin(), running_stack.catalog.told
        bob = await self.reviewer(running_stack, "bob", admin)
        await self.review(bob)
        found = (await bob("ListApprovals", filter="state = 'approved' AND reviewer = 'bob'")).approvals
        assert list(found) == [(await bob("GetApproval", model_version=IRIS_1.name)).approval]
        await eventually(lambda: holds(told[-1:] == [(IRIS_1.id, "APPROVED", 1)]))

        await admin("SetApprovalPolicy", policy={"required_approvals": 2}, **ON_PROD)
        await eventually(lambda: holds(told[-1] == (IRIS_1.id, "PENDING", 2)))
        pending = (await bob("ListApprovals", filter="state = 'PENDING' AND approvals < 2")).approvals
        assert list(pending) == [(await bob("GetApproval", model_version=IRIS_1.name)).approval]
        await self.review(bob, REJECT)
        await eventually(lambda: holds(told[-1] == (IRIS_1.id, "REJECTED", 3)))
        assert [sequence for _, _, sequence in told] == sorted(sequence for _, _, sequence in told)

    async def test_only_to_who_may_read_the_model(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await self.review(await self.reviewer(running_stack, "bob", admin))
        eve = await running_stack.user("eve", admin)
        assert not (await eve("ListApprovals")).approvals
        for privilege in ("READ_METADATA", "USE_CATALOG", "USE_SCHEMA"):
            assert not (await eve("ListApprovals")).approvals
            await admin("CreateGrant", principal="eve", privilege=f"PRIVILEGE_{privilege}", **ON_PROD)
        assert len((await eve("ListApprovals")).approvals) == 1
        await admin(
            "CreateGrant",
            principal="eve",
            privilege="PRIVILEGE_READ_METADATA",
            effect="EFFECT_DENY",
            **ON_MODEL,
        )
        assert not (await eve("ListApprovals")).approvals

    async def test_names_places_and_deletions_follow_the_catalog(self, running_stack: Stack) -> None:
        admin, catalog = await running_stack.admin(), running_stack.catalog
        service = await running_stack.login(running_stack.secret("catalog"))
        await self.review(await self.reviewer(running_stack, "bob", admin))
        renamed = replace(IRIS_1, name="prod.ml.flowers/1")
        catalog.chains[-1] = (renamed, replace(IRIS, name="prod.ml.flowers"), ML, PROD, SYSTEM)
        catalog.called = renamed.name
        await service("RecordEvents", events=[event("updated", {"after": {"name": "prod.ml.flowers"}})])
        await eventually(lambda: self.listed(admin, "model = 'prod.ml.flowers'", [renamed.name]))
        gone = catalog.chains.pop()
        await service("RecordEvents", events=[event("deleted")])
        await eventually(lambda: self.listed(admin, "", []))
        catalog.chains.append(gone)
        await service("RecordEvents", events=[event("undeleted")])
        await eventually(lambda: self.listed(admin, "", [renamed.name]))

    async def listed(self, admin: Caller, asked: str, expected: list[str]) -> bool:
        found = (await admin("ListApprovals", filter=asked)).approvals
        return [approval.model_version.name for approval in found] == expected

    async def test_a_catalog_that_was_away_is_told_when_it_is_back(self, running_stack: Stack) -> None:
        admin, catalog = await running_stack.admin(), running_stack.catalog
        catalog.deaf = True
        await self.review(await self.reviewer(running_stack, "bob", admin))
        assert not catalog.told
        catalog.deaf = False
        await eventually(lambda: holds(catalog.told == [(IRIS_1.id, "APPROVED", 1)]))


def event(verb: str, data: dict[str, Any] | None = None) -> event_pb2.Event:
    """What the catalog tells of the model."""
    moment, details = timestamp_pb2.Timestamp(), struct_pb2.Struct()
    moment.GetCurrentTime()
    details.update(data or {})
    return event_pb2.Event(
        id=uuid.uuid4().hex,
        type=f"catalog.model.{verb}",
        resource=resource_pb2.Resource(type=resource_pb2.RESOURCE_TYPE_MODEL, id=IRIS.id, name=IRIS.name),
        time=moment,
        data=details,
    )


async def holds(condition: bool) -> bool:
    return condition


MANY = 20_000
_FILL = f"""
INSERT INTO principals SELECT 'p' || n, 'user' || n, 'user', '', now(), 0 FROM generate_series(1, {MANY}) n;
INSERT INTO grants SELECT 'g' || n, 'p' || n, 'EDIT', 'ALLOW', 'model', 'm' || n % 3, '', now() FROM generate_series(1, {MANY}) n;
INSERT INTO audit SELECT n, 'e' || n, 'r' || n % 997, json_build_object('type', 't' || n % 997, 'actorName', 'a' || n % 997, 'time',
    '2026-01-01T00:00:00Z'::timestamptz + n * interval '1 second'), '', '' FROM generate_series(1, {MANY}) n;
INSERT INTO standings SELECT 'v' || n, 'm' || n % 997, 's', 'c', 'prod.ml.iris/' || n, '', 'PENDING', 0, 1, now(), true, 1, 1, 0, 0,
    false FROM generate_series(1, {MANY}) n
"""
ALL = Scope("", frozenset(), frozenset(), everything=True)
READS: dict[str, Callable[[AsyncConnection, Asked], Awaitable[tuple[Any, str]]]] = {
    "principals": identity.page_of_accounts,
    "grants": lambda connection, asked: grants.page_on(connection, "m1", asked),
    "audit": lambda connection, asked: audit.page(connection, asked, ""),
    "standings": lambda connection, asked: standings.page(connection, asked, Visible(ALL, ALL, ALL)),
}
SEARCHES = [
    ("principals", ""),
    ("principals", "name LIKE 'user777%'"),
    ("principals", "id IN ('p7', 'p8')"),
    ("grants", ""),
    ("grants", "privilege = 'EDIT'"),
    ("audit", ""),
    ("audit", "type = 't7'"),
    ("audit", "actor = 'a7' AND time > '2026-01-01T00:10:00Z'"),
    ("audit", "time > '2026-01-01T01:00:00Z' AND time < '2026-01-01T01:01:00Z'"),
    ("audit", "resource_id = 'r7'"),
    ("standings", ""),
    ("standings", "state = 'PENDING'"),
    ("standings", "id = 'v777'"),
]


async def test_large_tables_are_not_read_from_end_to_end(fresh_database: Callable[[str], str]) -> None:
    database = Database.connect(fresh_database("modelyard_governance"))
    try:
        async with database.engine.connect() as connection:
            for statement in _FILL.split(";"):
                await connection.exec_driver_sql(statement)
            await connection.execute(text("VACUUM ANALYZE"))
        for table, asked in SEARCHES:
            scanned = await database.read(lambda connection, of=(table, asked): scans(connection, *of))  # type: ignore[misc]
            assert table not in scanned, (table, asked)
    finally:
        await database.close()


async def scans(connection: AsyncConnection, table: str, asked: str) -> set[str]:
    """Return the tables that the first two pages of a search read from end to end."""
    token = ""

    async def page() -> None:
        nonlocal token
        rows, token = await READS[table](connection, Asked(size=20, filter=asked, page_token=token))
        assert rows, (table, asked)

    found = await read_from_end_to_end(connection, page)
    return found | (await read_from_end_to_end(connection, page) if token else set())
