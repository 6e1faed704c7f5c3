"""Groups, disabled principals, limited tokens and rotated keys, over real gRPC and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from modelyard.api.governance.v1 import access_pb2, identity_pb2
from modelyard_governance.errors import GroupCycle
from modelyard_kit.access import SYSTEM, Privilege
from modelyard_kit.errors import (
    InvalidField,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    TokenInvalid,
)
from modelyard_kit.grants import Grants
from modelyard_kit.limits import LIMITS
from modelyard_kit.protos import grant_from_proto

from .governance_stack import IRIS, ML, PROD, Caller, Stack, stack
from .test_governance_service import IN_SYSTEM, ON_DEPLOYMENT, ON_MODEL, ON_PROD, audited, see

EDIT, EXECUTE = access_pb2.PRIVILEGE_EDIT, access_pb2.PRIVILEGE_EXECUTE


@pytest.fixture
async def running_stack(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(fresh_database("modelyard_governance"), tmp_path) as started:
        yield started


async def group(admin: Caller, name: str, *members: str) -> None:
    await admin("CreatePrincipal", principal={"name": name, "kind": "KIND_GROUP"})
    for member in members:
        await admin("AddGroupMember", group=name, member=member)


class TestGroups:
    async def test_members_of_members_hold_what_the_group_holds(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await group(admin, "team", "ada")
        await group(admin, "everybody", "team")
        await see(admin, "everybody")
        assert not (await ada("CheckPermission", privilege=EDIT, **ON_MODEL)).allowed
        await admin("CreateGrant", principal="everybody", privilege=EDIT, **ON_PROD)
        decision = await ada("CheckPermission", privilege=EDIT, **ON_MODEL)
        assert decision.allowed
        assert decision.explanation == "EDIT is granted on catalog 'prod' to group 'everybody'"
        await admin("CreateGrant", principal="team", privilege=EDIT, effect="EFFECT_DENY", **ON_MODEL)
        denied = await ada("CheckPermission", privilege=EDIT, **ON_MODEL)
        assert denied.explanation == "EDIT is denied on model 'prod.ml.iris' to group 'team'"
        assert (await admin("RemoveGroupMember", group="team", member="ada")).removed
        assert not (await admin("RemoveGroupMember", group="team", member="ada")).removed
        assert "nobody granted" in (await ada("CheckPermission", privilege=EDIT, **ON_MODEL)).explanation

    async def test_no_group_is_in_itself(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await group(admin, "c")
        await group(admin, "b", "c")
        await group(admin, "a", "b")
        for inner in ("a", "b", "c"):
            with pytest.raises(GroupCycle) as refusal:
                await admin("AddGroupMember", group=inner, member="a")
            assert refusal.value.metadata == {"group": inner, "member": "a"}
        await admin("AddGroupMember", group="a", member="c")  # twice in it is no circle

    async def test_two_that_close_a_circle_at_once_are_not_both_let(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await group(admin, "a")
        await group(admin, "b")
        together = await asyncio.gather(
            admin("AddGroupMember", group="a", member="b"),
            admin("AddGroupMember", group="b", member="a"),
            return_exceptions=True,
        )
        assert sorted(type(answer).__name__ for answer in together) == [
            "AddGroupMemberResponse",
            "GroupCycle",
        ]

    async def test_only_groups_have_members_and_only_managers_change_them(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await group(admin, "team")
        with pytest.raises(InvalidField, match="is a user, not a group"):
            await admin("AddGroupMember", group="ada", member="team")
        with pytest.raises(NotFound, match="nobody"):
            await admin("AddGroupMember", group="team", member="nobody")
        for method in ("AddGroupMember", "RemoveGroupMember"):
            with pytest.raises(PermissionDenied):
                await ada(method, group="team", member="ada")

    async def test_groups_cannot_act(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await group(admin, "team")
        with pytest.raises(InvalidField, match="is a group"):
            await admin("CreateToken", principal="team")
        with pytest.raises(InvalidField, match="is a group"):
            await admin("DisablePrincipal", name="team")

    async def test_adding_twice_is_once_and_both_ends_are_listed(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await group(admin, "team", "ada", "ada", "catalog")
        await group(admin, "all", "team")
        rows = (await ada("ListMemberships")).memberships
        assert [(row.group, row.member, row.member_kind) for row in rows] == [
            ("all", "team", identity_pb2.Principal.KIND_GROUP),
            ("team", "ada", identity_pb2.Principal.KIND_USER),
            ("team", "catalog", identity_pb2.Principal.KIND_SERVICE),
        ]
        of_ada = (await ada("ListMemberships", filter="member = 'ada'")).memberships
        assert [row.group for row in of_ada] == ["team"]
        first = await ada("ListMemberships", page_size=2)
        rest = await ada("ListMemberships", page_size=2, page_token=first.next_page_token)
        assert [*first.memberships, *rest.memberships] == list(rows)
        entries = await audited(admin, *["governance.group.member_added"] * 3)
        told = [e for e in entries if e.event.type == "governance.group.member_added"]
        assert [e.event.data["member"] for e in told] == ["ada", "catalog", "team"]

    async def test_a_principal_is_in_so_many_groups_and_not_one_more(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await running_stack.user("ada", admin)
        maximum = LIMITS["groups_per_principal"].maximum
        connection = await asyncpg.connect(running_stack.settings.database)
        await connection.execute(
            "INSERT INTO principals (id, name, kind, display_name, create_time, revision) "
            "SELECT 'g' || n, 'g' || n, 'group', '', now(), 0 FROM generate_series(0, $1) n",
            maximum,
        )
        await connection.execute(
            "INSERT INTO memberships (group_id, member_id, create_time) SELECT 'g' || n, p.id, now() "
            "FROM generate_series(2, $1) n, principals p WHERE p.name = 'ada'",
            maximum,
        )
        await connection.close()
        await admin("AddGroupMember", group="g0", member="ada")
        with pytest.raises(LimitExceeded, match="groups_per_principal"):
            await admin("AddGroupMember", group="g1", member="ada")

    async def test_a_group_has_so_many_members_and_not_one_more(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await group(admin, "team")
        maximum = LIMITS["members_per_group"].maximum
        connection = await asyncpg.connect(running_stack.settings.database)
        await connection.execute(
            "INSERT INTO principals (id, name, kind, display_name, create_time, revision) "
            "SELECT 'u' || n, 'u' || n, 'user', '', now(), 0 FROM generate_series(0, $1) n",
            maximum,
        )
        await connection.execute(
            "INSERT INTO memberships (group_id, member_id, create_time) SELECT p.id, 'u' || n, now() "
            "FROM generate_series(2, $1) n, principals p WHERE p.name = 'team'",
            maximum,
        )
        await connection.close()
        await admin("AddGroupMember", group="team", member="u0")
        with pytest.raises(LimitExceeded, match="members_per_group"):
            await admin("AddGroupMember", group="team", member="u1")

    async def test_watchers_learn_of_groups_and_decide_as_governance_does(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await group(admin, "team", "ada")
        await see(admin, "team", "EDIT")
        ada_id = (await ada("GetCaller")).principal.id
        grants = Grants()
        service = await running_stack.login(running_stack.secret("catalog"))
        async for step in service.watch():
            for held in step.changed:
                grants.replace(
                    held.principal_id,
                    held.principal_name,
                    map(grant_from_proto, held.grants),
                    groups=held.group_ids,
                    disabled=held.disabled,
                    is_group=held.is_group,
                )
            if step.complete:
                await grants.mark_fresh(step.revision)
                break
        chain = (IRIS, ML, PROD, SYSTEM)
        assert grants.decide(ada_id, Privilege.EDIT, chain).allowed
        assert "team" not in {grants.principals()[holder.id][0] for holder in grants.holders()}


class TestDisabling:
    async def test_who_is_disabled_may_nothing_until_enabled(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        secret = (await ada("CreateToken")).secret
        await see(admin, "ada", "EDIT")
        gone = (await admin("DisablePrincipal", name="ada")).principal
        assert gone.HasField("disable_time")
        assert (await admin("DisablePrincipal", name="ada")).principal == gone
        for attempt in (ada("GetCaller"), ada("CreateToken"), running_stack.login(secret)):
            with pytest.raises(TokenInvalid, match="disabled"):
                await attempt
        decision = await admin("CheckPermission", principal="ada", privilege=EDIT, **ON_MODEL)
        assert (decision.allowed, decision.explanation) == (False, "the principal is disabled")
        assert not (await admin("EnablePrincipal", name="ada")).principal.HasField("disable_time")
        assert (await ada("CheckPermission", privilege=EDIT, **ON_MODEL)).allowed
        await audited(admin, "governance.principal.disabled", "governance.principal.enabled")

    async def test_nobody_disables_itself_or_a_service(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        with pytest.raises(InvalidField, match="is you"):
            await admin("DisablePrincipal", name="admin")
        with pytest.raises(InvalidField, match="is a service"):
            await admin("DisablePrincipal", name="catalog")
        with pytest.raises(NotFound):
            await admin("EnablePrincipal", name="nobody")
        ada = await running_stack.user("ada", admin)
        with pytest.raises(PermissionDenied):
            await ada("DisablePrincipal", name="admin")


class TestLimitedTokens:
    async def test_a_token_gives_no_more_than_it_says(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        made = await admin("CreateToken", privileges=["PRIVILEGE_READ_METADATA", "PRIVILEGE_APPLY_TAG"])
        reader = await running_stack.login(made.secret)
        assert (await reader("CheckPermission", privilege="PRIVILEGE_READ_METADATA", **ON_MODEL)).allowed
        decision = await reader("CheckPermission", privilege=EXECUTE, **ON_DEPLOYMENT)
        assert decision.explanation == "the token is limited to other privileges than EXECUTE"
        with pytest.raises(PermissionDenied, match="limited"):
            await reader("CreateGrant", principal="admin", privilege=EDIT, **IN_SYSTEM)
        claims = jwt.decode(reader.token, options={"verify_signature": False})
        assert (claims["privileges"], claims["no_execute"]) == (["APPLY_TAG", "READ_METADATA"], True)
        assert (await admin("CheckPermission", privilege=EXECUTE, **ON_DEPLOYMENT)).allowed

    async def test_a_limited_token_makes_none_that_gives_more(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        limited = ["PRIVILEGE_READ_METADATA", "PRIVILEGE_EXECUTE"]
        reader = await running_stack.login((await admin("CreateToken", privileges=limited)).secret)
        for more in ([], ["PRIVILEGE_EDIT"], [*limited, "PRIVILEGE_MANAGE"]):
            with pytest.raises(InvalidField, match="privileges"):
                await reader("CreateToken", privileges=more)
        less = await reader("CreateToken", privileges=["PRIVILEGE_EXECUTE"])
        assert list(less.token.privileges) == [EXECUTE]
        claims = jwt.decode(
            (await running_stack.login(less.secret)).token, options={"verify_signature": False}
        )
        assert "no_execute" not in claims

    async def test_the_last_use_is_told(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        made = await admin("CreateToken", description="ci")
        assert not made.token.HasField("last_use_time")
        await running_stack.login(made.secret)
        (used,) = (await admin("ListTokens", filter="description = 'ci'")).tokens
        assert used.HasField("last_use_time")
        await running_stack.login(made.secret)  # within the minute: not written again
        (again,) = (await admin("ListTokens", filter="description = 'ci'")).tokens
        assert again.last_use_time == used.last_use_time


class TestKeys:
    async def published(self, stack: Stack) -> list[str]:
        return [key.kid for key in (await Caller(stack.stub)("GetJwks")).keys]

    async def test_a_new_key_is_published_before_it_signs(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        (old,) = await self.published(running_stack)
        keys = list((await admin("RotateSigningKey")).keys)
        assert [key.kid for key in keys] == await self.published(running_stack)
        new = keys[0]
        assert keys[1].kid == old
        assert not new.HasField("withdraw_time")
        assert new.sign_time.seconds < keys[1].withdraw_time.seconds
        later = await running_stack.admin()
        assert jwt.get_unverified_header(later.token)["kid"] == old

    async def test_both_keys_verify_while_they_overlap(
        self, fresh_database: Callable[[str], str], tmp_path: Path
    ) -> None:
        dsn = fresh_database("modelyard_governance")
        async with stack(dsn, tmp_path, key_overlap_seconds=0) as first:
            before = await first.admin()
            await before("RotateSigningKey")
            after = await first.admin()
            kids = {jwt.get_unverified_header(caller.token)["kid"] for caller in (before, after)}
            assert kids == set(await self.published(first))
            assert len(kids) == 2
            await before("GetCaller")
            await after("GetCaller")
        async with stack(dsn, tmp_path) as second:  # the new key is in the database, and opened again
            assert set(await self.published(second)) == kids
            await Caller(second.stub, before.token)("GetCaller")
            await Caller(second.stub, after.token)("GetCaller")

    async def test_a_leaked_key_is_withdrawn_at_once(self, running_stack: Stack) -> None:
        before = await running_stack.admin()
        (old,) = await self.published(running_stack)
        (new,) = (await before("RotateSigningKey", withdraw_now=True)).keys
        assert await self.published(running_stack) == [new.kid] != [old]
        with pytest.raises(TokenInvalid, match="key"):
            await before("GetCaller")
        after = await running_stack.admin()
        await after("GetCaller")
        await audited(after, "governance.signing_key.rotated")

    async def test_a_new_key_file_withdraws_what_the_old_one_made(
        self, fresh_database: Callable[[str], str], tmp_path: Path
    ) -> None:
        dsn = fresh_database("modelyard_governance")
        async with stack(dsn, tmp_path, key_overlap_seconds=0) as first:
            before = await first.admin()
            await before("RotateSigningKey")
            old = set(await self.published(first))
        file = tmp_path / "secrets" / "signing_key.pem"
        kept = file.read_bytes()
        file.unlink()
        async with stack(dsn, tmp_path) as second:
            assert len(await self.published(second)) == 1
            assert old.isdisjoint(await self.published(second))
            with pytest.raises(TokenInvalid):
                await Caller(second.stub, before.token)("GetCaller")
            await (await second.admin())("GetCaller")
            newer = set(await self.published(second))
        file.write_bytes(kept)  # and back again
        async with stack(dsn, tmp_path) as third:
            (again,) = await self.published(third)
            assert again in old - newer
            await (await third.admin())("GetCaller")

    async def test_so_many_keys_overlap_and_not_one_more(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        for _ in range(LIMITS["signing_keys"].maximum - 1):
            await admin("RotateSigningKey")
        with pytest.raises(LimitExceeded, match="signing_keys"):
            await admin("RotateSigningKey")

    async def test_private_keys_are_stored_encrypted(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await admin("RotateSigningKey")
        connection = await asyncpg.connect(running_stack.settings.database)
        rows = await connection.fetch("SELECT kid, sealed FROM signing_keys ORDER BY sign_time")
        await connection.close()
        assert rows[0]["sealed"] is None  # it is in the file
        with pytest.raises(ValueError, match="."):
            load_der_private_key(rows[1]["sealed"][12:], password=None)


class TestGrantsTold:
    async def test_every_privilege_is_decided_and_explained(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await group(admin, "team", "ada")
        await see(admin, "team", "EDIT")
        rows = (await ada("ExplainPrivileges", **ON_MODEL)).privileges
        told = {access_pb2.Privilege.Name(row.privilege).removeprefix("PRIVILEGE_"): row for row in rows}
        assert set(told) == {str(privilege) for privilege in Privilege} - {"OWNERSHIP"}
        assert {name for name, row in told.items() if row.allowed} == {"USE_CATALOG", "USE_SCHEMA", "EDIT"}
        assert told["EDIT"].explanation == "EDIT is granted on catalog 'prod' to group 'team'"
        assert told["EXECUTE"].explanation == "nobody granted EXECUTE on model 'prod.ml.iris' or above"
        assert list((await admin("ExplainPrivileges", principal="ada", **ON_MODEL)).privileges) == list(rows)
        with pytest.raises(PermissionDenied):
            await ada("ExplainPrivileges", principal="admin", **ON_MODEL)

    async def test_what_somebody_was_given_is_listed_wherever_it_stands(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await admin("CreateGrant", principal="ada", privilege=EDIT, **ON_MODEL)
        await admin("CreateGrant", principal="ada", privilege=EXECUTE, effect="EFFECT_DENY", **ON_DEPLOYMENT)
        mine = (await ada("ListPrincipalGrants")).grants
        assert [(grant.privilege, grant.resource.name) for grant in mine] == [
            (EDIT, "prod.ml.iris"),
            (EXECUTE, "prod.ml.iris"),
        ]
        denies = (await admin("ListPrincipalGrants", principal="ada", filter="effect = 'DENY'")).grants
        assert [grant.privilege for grant in denies] == [EXECUTE]
        with pytest.raises(PermissionDenied):
            await ada("ListPrincipalGrants", principal="admin")
