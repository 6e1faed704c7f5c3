"""The governance service over real gRPC on a real database: every RPC, as its callers see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard.api.common.v1 import event_pb2, resource_pb2
from modelyard.api.governance.v1 import access_pb2, approval_pb2
from modelyard_governance.errors import SelfApproval
from modelyard_governance.models import Account
from modelyard_governance.signing import Signer
from modelyard_kit import api_tokens
from modelyard_kit.access import SYSTEM
from modelyard_kit.errors import (
    AlreadyExists,
    DomainError,
    InvalidField,
    InvalidState,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    RequestIdReused,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
)
from modelyard_kit.limits import LIMITS
from modelyard_kit.protos import chain_to_proto, timestamp
from tests.framework.waiting import eventually

from .governance_stack import IRIS, IRIS_1, ML, PROD, Caller, Stack, stack

EXECUTE, MANAGE = access_pb2.PRIVILEGE_EXECUTE, access_pb2.PRIVILEGE_MANAGE
DENY = access_pb2.EFFECT_DENY
IN_SYSTEM: dict[str, Any] = {"resource_type": resource_pb2.RESOURCE_TYPE_SYSTEM}
ON_PROD: dict[str, Any] = {"resource_type": resource_pb2.RESOURCE_TYPE_CATALOG, "resource": "prod"}
ON_SCHEMA: dict[str, Any] = {"resource_type": resource_pb2.RESOURCE_TYPE_SCHEMA, "resource": "prod.ml"}
ON_MODEL: dict[str, Any] = {"resource_type": resource_pb2.RESOURCE_TYPE_MODEL, "resource": "prod.ml.iris"}
ON_DEPLOYMENT: dict[str, Any] = {
    "resource_type": resource_pb2.RESOURCE_TYPE_DEPLOYMENT,
    "resource": "prod.ml.iris",
}


@pytest.fixture
async def running_stack(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(fresh_database("modelyard_governance"), tmp_path) as started:
        yield started


async def see(admin: Caller, name: str, *privileges: str) -> None:
    """Let a user reach into the catalog, and give it privileges there."""
    for privilege in ("USE_CATALOG", "USE_SCHEMA", *privileges):
        await admin("CreateGrant", principal=name, privilege=f"PRIVILEGE_{privilege}", **ON_PROD)


async def audited(admin: Caller, *types: str) -> list[Any]:
    """Return the audit entries once events of these types have arrived, each as often as it is named."""
    entries: list[Any] = []

    async def arrived() -> bool:
        entries[:] = (await admin("ListAuditEntries", page_size=1000)).entries
        return Counter(types) <= Counter(entry.event.type for entry in entries)

    await eventually(arrived)
    return entries


class TestTokens:
    async def test_the_installation_made_an_administrator_and_services(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        me = (await admin("GetCaller")).principal
        assert (me.name, me.kind) == ("admin", 1)
        catalog = await running_stack.login(running_stack.secret("catalog"))
        assert (await catalog("GetCaller")).principal.kind == 3
        names = [item.name for item in (await admin("ListPrincipals")).principals]
        assert names == ["admin", "artifact", "catalog", "gateway", "governance", "inference"]

    async def test_without_a_token_only_the_doors_are_open(self, running_stack: Stack) -> None:
        nobody = Caller(running_stack.stub)
        assert len((await nobody("GetJwks")).keys) == 1
        for method in ("GetCaller", "ListPrincipals", "VerifyAudit", "RecordEvents"):
            with pytest.raises(TokenMissing):
                await nobody(method)

    @pytest.mark.parametrize(
        "secret", ["x", "mya_1_2", api_tokens.generate()], ids=["word", "short", "unknown"]
    )
    async def test_unknown_api_tokens_are_refused(self, running_stack: Stack, secret: str) -> None:
        with pytest.raises(TokenInvalid):
            await running_stack.login(secret)

    async def test_a_wrong_secret_under_a_known_id_is_refused(self, running_stack: Stack) -> None:
        known = running_stack.secret("admin").split("_")[1]
        with pytest.raises(TokenInvalid):
            await running_stack.login(f"mya_{known}_{api_tokens.generate()[-43:]}")

    async def test_foreign_expired_and_broken_jwts_are_refused(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        claims = jwt.decode(admin.token, options={"verify_signature": False})
        account = Account(claims["sub"], "admin", "user", "", datetime.now(UTC))
        foreign = Signer(ec.generate_private_key(ec.SECP256R1()), issuer="modelyard", lifetime=timedelta(1))
        with pytest.raises(TokenInvalid):
            await Caller(running_stack.stub, foreign.sign(account, now=datetime.now(UTC))[0])("GetCaller")
        with pytest.raises(TokenInvalid):
            await Caller(running_stack.stub, admin.token[:-4] + "AAAA")("GetCaller")
        with pytest.raises(TokenInvalid):
            await Caller(running_stack.stub, running_stack.secret("admin"))("GetCaller")

    async def test_a_revoked_token_is_no_longer_exchanged(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        made = await ada("CreateToken", description="laptop")
        assert made.token.principal == "ada"
        await running_stack.login(made.secret)
        first = (await ada("RevokeToken", token_id=made.token.id)).token
        assert first.HasField("revoke_time")
        assert (await ada("RevokeToken", token_id=made.token.id)).token == first
        with pytest.raises(TokenInvalid, match="revoked"):
            await running_stack.login(made.secret)

    async def test_a_principal_has_so_many_tokens_and_not_one_more(self, running_stack: Stack) -> None:
        ada = await running_stack.user("ada", await running_stack.admin())
        made = await ada("CreateToken")
        maximum = LIMITS["tokens_per_principal"].maximum
        connection = await asyncpg.connect(running_stack.settings.database)
        copies = """
            INSERT INTO tokens
            SELECT (jsonb_populate_record(t, jsonb_build_object('id', gen_random_uuid(), 'lookup', 'copy' || n))).*
            FROM tokens t, generate_series(1, $2 - (SELECT count(*) FROM tokens u WHERE u.principal_id =
                (SELECT principal_id FROM tokens WHERE id = $1)) - 1) n
            WHERE t.id = $1"""
        await connection.execute(copies, made.token.id, maximum)
        await connection.close()
        last = await ada("CreateToken")
        with pytest.raises(LimitExceeded, match="tokens_per_principal"):
            await ada("CreateToken")
        await ada("RevokeToken", token_id=last.token.id)
        await ada("CreateToken")

    async def test_a_token_ends_and_its_jwt_with_it(self, running_stack: Stack, monkeypatch: Any) -> None:
        admin = await running_stack.admin()
        soon = datetime.now(UTC) + timedelta(seconds=60)
        made = await admin("CreateToken", expire_time=timestamp(soon))
        answer = await Caller(running_stack.stub)("ExchangeToken", api_token=made.secret)
        assert answer.expire_time.ToDatetime(tzinfo=UTC) <= soon
        with pytest.raises(InvalidField, match="expire_time"):
            await admin("CreateToken", expire_time=timestamp(soon - timedelta(days=1)))
        connection = await asyncpg.connect(running_stack.settings.database)
        await connection.execute(
            "UPDATE tokens SET expire_time = now() - interval '1 s' WHERE id = $1", made.token.id
        )
        await connection.close()
        with pytest.raises(TokenExpired):
            await running_stack.login(made.secret)

    async def test_a_token_lasts_ninety_days_unless_told_otherwise(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        made = (await admin("CreateToken")).token
        assert made.expire_time.ToDatetime() - made.create_time.ToDatetime() == timedelta(days=90)

    async def test_a_replayed_request_shows_no_secret(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        first = await admin("CreateToken", description="ci", request_id="r1")
        again = await admin("CreateToken", description="ci", request_id="r1")
        assert (again.token, again.secret) == (first.token, "")
        with pytest.raises(RequestIdReused):
            await admin("CreateToken", description="other", request_id="r1")

    async def test_tokens_of_others_need_manage_on_the_system(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        theirs = (await admin("CreateToken")).token
        for method, fields in (
            ("CreateToken", {"principal": "admin"}),
            ("ListTokens", {"principal": "admin"}),
            ("RevokeToken", {"token_id": theirs.id}),
        ):
            with pytest.raises(PermissionDenied) as refusal:
                await ada(method, **fields)
            assert refusal.value.metadata["privilege"] == "MANAGE"
        assert len((await ada("ListTokens")).tokens) == 1
        assert len((await admin("ListTokens", principal="ada")).tokens) == 1
        with pytest.raises(NotFound):
            await admin("ListTokens", principal="nobody")
        with pytest.raises(NotFound):
            await admin("RevokeToken", token_id="nothing")
        with pytest.raises(InvalidField, match="token_id"):
            await admin("RevokeToken", token_id="\0")

    async def test_lists_come_in_pages(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        made = [(await admin("CreateToken", description=str(number))).token.id for number in range(4)]
        seen: list[str] = []
        token = ""
        while True:
            page = await admin("ListTokens", page_size=2, page_token=token)
            assert len(page.tokens) <= 2
            seen += [item.id for item in page.tokens]
            token = page.next_page_token
            if not token:
                break
        assert seen[1:] == made
        for wrong in ("nonsense", "WyJcdTAwMDAiXQ"):  # the second holds a zero character
            with pytest.raises(InvalidField, match="page_token"):
                await admin("ListTokens", page_token=wrong)


class TestPrincipals:
    async def test_create_get_and_replay(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        wanted = {"name": "ci@example.org", "kind": "KIND_SERVICE_ACCOUNT", "display_name": "CI"}
        made = (await admin("CreatePrincipal", principal=wanted, request_id="r")).principal
        assert (await admin("CreatePrincipal", principal=wanted, request_id="r")).principal == made
        assert (await admin("GetPrincipal", name="ci@example.org")).principal == made
        with pytest.raises(AlreadyExists):
            await admin("CreatePrincipal", principal=wanted)
        with pytest.raises(RequestIdReused):
            await admin("CreatePrincipal", principal={**wanted, "display_name": "x"}, request_id="r")
        with pytest.raises(NotFound):
            await admin("GetPrincipal", name="nobody")

    async def test_only_who_manages_the_system_may_create(self, running_stack: Stack) -> None:
        ada = await running_stack.user("ada", await running_stack.admin())
        with pytest.raises(PermissionDenied):
            await ada("CreatePrincipal", principal={"name": "bob", "kind": "KIND_USER"})
        assert (await ada("GetPrincipal", name="admin")).principal.name == "admin"


class TestGrants:
    async def test_a_grant_and_its_loss_take_effect_at_once(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        assert not (await ada("CheckPermission", privilege=EXECUTE, **ON_MODEL)).allowed
        await see(admin, "ada", "EXECUTE")
        answer = await ada("CheckPermission", privilege=EXECUTE, **ON_MODEL)
        assert (answer.allowed, answer.explanation) == (True, "EXECUTE is granted on catalog 'prod'")
        assert (await ada("CheckPermission", privilege=EXECUTE, **ON_DEPLOYMENT)).allowed
        await admin("CreateGrant", principal="ada", privilege=EXECUTE, effect=DENY, **ON_SCHEMA)
        denied = await ada("CheckPermission", privilege=EXECUTE, **ON_MODEL)
        assert (denied.allowed, denied.explanation) == (False, "EXECUTE is denied on schema 'prod.ml'")
        deletion = {"principal": "ada", "privilege": EXECUTE, "effect": DENY, **ON_SCHEMA}
        assert (await admin("DeleteGrant", **deletion)).deleted
        assert not (await admin("DeleteGrant", **deletion)).deleted
        assert (await ada("CheckPermission", privilege=EXECUTE, **ON_MODEL)).allowed

    async def test_the_same_grant_twice_is_one(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await running_stack.user("ada", admin)
        first = (await admin("CreateGrant", principal="ada", privilege=EXECUTE, **ON_MODEL)).grant
        again = (await admin("CreateGrant", principal="ada", privilege=EXECUTE, **ON_MODEL)).grant
        assert first == again
        assert (first.resource.id, first.resource.name) == (IRIS.id, IRIS.name)
        assert list((await admin("ListGrants", **ON_MODEL)).grants) == [first]

    async def test_managing_one_model_is_managing_that_model(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await running_stack.user("bob", admin)
        await see(admin, "ada")
        await admin("CreateGrant", principal="ada", privilege=MANAGE, **ON_MODEL)
        await ada("CreateGrant", principal="bob", privilege=EXECUTE, **ON_MODEL)
        assert (await ada("CheckPermission", principal="bob", privilege=EXECUTE, **ON_MODEL)).allowed is False
        for wider in (ON_SCHEMA, ON_PROD, IN_SYSTEM):
            with pytest.raises(PermissionDenied):
                await ada("CreateGrant", principal="ada", privilege=MANAGE, **wider)
            with pytest.raises(PermissionDenied):
                await ada("CheckPermission", principal="bob", privilege=EXECUTE, **wider)

    async def test_unknown_things(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        with pytest.raises(NotFound, match="principal"):
            await admin("CreateGrant", principal="nobody", privilege=EXECUTE, **ON_MODEL)
        nothing = {**ON_MODEL, "resource": "prod.ml.nothing"}
        with pytest.raises(NotFound, match="model"):
            await admin("CreateGrant", principal="admin", privilege=EXECUTE, **nothing)
        with pytest.raises(NotFound, match="model"):
            await admin("CheckPermission", privilege=EXECUTE, **nothing)

    @pytest.mark.parametrize("name", ["prod.ml.nothing", "prod.nothing.iris", "nothing.ml.iris"])
    async def test_who_may_not_see_cannot_tell_what_exists(self, running_stack: Stack, name: str) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        if name.startswith("prod.ml"):
            await see(admin, "ada")

        async def answers(resource: str) -> list[str]:
            on = {**ON_MODEL, "resource": resource}
            told = (await ada("CheckPermission", privilege=EXECUTE, **on)).explanation
            with pytest.raises(PermissionDenied) as refusal:
                await ada("ListGrants", **on)
            with pytest.raises(PermissionDenied) as review:
                await ada("GetApproval", model_version=f"{resource}/1")
            return [told, refusal.value.message, review.value.message]

        existing = " ".join(await answers("prod.ml.iris"))
        missing = " ".join(await answers(name))
        for part, there in zip(name.split("."), ("prod", "ml", "iris"), strict=True):
            missing = missing.replace(part, there) if part == "nothing" else missing
        assert missing == existing

    async def test_the_peer_is_asked_once_for_a_call(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        running_stack.catalog.asked.clear()
        await admin("ListGrants", **ON_MODEL)
        assert running_stack.catalog.asked == ["prod.ml.iris"]
        await admin("ListGrants", **ON_MODEL)
        assert len(running_stack.catalog.asked) == 2


class TestWatch:
    async def test_it_tells_everything_then_each_change_and_beats(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        gateway = await running_stack.login(running_stack.secret("gateway"))
        call = gateway.watch()
        first = await call.read()
        assert first.complete
        assert {item.principal_name for item in first.changed} >= {"admin", "gateway"}
        owner = next(item for item in first.changed if item.principal_name == "admin")
        assert [(item.resource_id, item.privilege) for item in owner.grants] == [
            ("system", access_pb2.PRIVILEGE_OWNERSHIP)
        ]
        beat = await call.read()
        assert (list(beat.changed), beat.complete, beat.revision) == ([], True, first.revision)
        await running_stack.user("ada", admin)
        await admin("CreateGrant", principal="ada", privilege=EXECUTE, **ON_MODEL)
        while not (step := await call.read()).changed or not step.changed[0].grants:
            pass
        assert (step.changed[0].principal_name, step.complete) == ("ada", True)
        assert step.changed[0].grants[0].resource_id == IRIS.id
        await admin("DeleteGrant", principal="ada", privilege=EXECUTE, **ON_MODEL)
        while not (step := await call.read()).changed:
            pass
        assert not step.changed[0].grants
        call.cancel()

    async def test_a_change_made_elsewhere_arrives(self, running_stack: Stack) -> None:
        """Another process of governance writes to the same database."""
        gateway = await running_stack.login(running_stack.secret("gateway"))
        call = gateway.watch()
        revision = (await call.read()).revision
        connection = await asyncpg.connect(running_stack.settings.database)
        async with connection.transaction():
            await connection.execute("UPDATE permissions SET revision = revision + 1")
            await connection.execute(
                "UPDATE principals SET revision = (SELECT revision FROM permissions) WHERE name = 'catalog'"
            )
        await connection.close()
        while not (step := await call.read()).changed:
            pass
        assert (step.changed[0].principal_name, step.revision) == ("catalog", revision + 1)
        call.cancel()

    async def test_users_may_not_watch(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        for method in ("EvaluateGate", "RecordEvents"):
            with pytest.raises(PermissionDenied):
                await admin(method)


class TestApprovals:
    async def test_the_whole_story(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        bob = await running_stack.user("bob", admin)
        for name in ("ada", "bob"):
            await see(admin, name, "READ_METADATA", "APPROVE")
        running_stack.catalog.author_id = (await ada("GetCaller")).principal.id
        assert not (await bob("GetApprovalPolicy", **ON_MODEL)).HasField("policy")
        policy = {"required_approvals": 1, "protected_aliases": ["champion"], "protect_deployments": True}
        made = (await admin("SetApprovalPolicy", policy=policy, **ON_PROD)).policy
        assert (await bob("GetApprovalPolicy", **ON_MODEL)).policy == made
        assert made.resource.name == "prod"

        async def gate(**fields: Any) -> Any:
            catalog = await running_stack.login(running_stack.secret("catalog"))
            chain = chain_to_proto((IRIS_1, IRIS, ML, PROD, SYSTEM))
            usual = {
                "model_version": chain,
                "author_id": running_stack.catalog.author_id,
                "action": approval_pb2.GATED_ACTION_MOVE_ALIAS,
                "aliases": ["champion"],
            }
            return await catalog("EvaluateGate", **{**usual, **fields})

        closed = await gate()
        assert (closed.allowed, closed.policy) == (False, "prod")
        assert list(closed.unmet) == ["needs 1 approval by somebody other than the author; has 0"]
        assert (await gate(aliases=["challenger"])).allowed

        with pytest.raises(SelfApproval) as refusal:
            await ada("ReviewVersion", model_version="prod.ml.iris/1", decision=1)
        assert refusal.value.metadata == {"name": "prod.ml.iris/1", "author": "ada"}

        approved = (await bob("ReviewVersion", model_version="prod.ml.iris@champion", decision=1)).approval
        assert approved.state == approval_pb2.Approval.STATE_APPROVED
        assert (await gate()).allowed
        assert (await gate(action=approval_pb2.GATED_ACTION_DEPLOY, aliases=[])).allowed

        rejected = (
            await bob("ReviewVersion", model_version="prod.ml.iris/1", decision=2, comment="drift")
        ).approval
        assert (rejected.state, len(rejected.reviews)) == (approval_pb2.Approval.STATE_REJECTED, 1)
        assert (await gate()).unmet[0] == "was rejected by bob: drift"
        assert (await ada("GetApproval", model_version="prod.ml.iris/1")).approval == rejected

        nearer = (await admin("SetApprovalPolicy", policy={"required_approvals": 2}, **ON_MODEL)).policy
        assert (await ada("GetApproval", model_version="prod.ml.iris/1")).approval.required_approvals == 2
        changed = await admin("SetApprovalPolicy", policy={"required_approvals": 3}, **ON_MODEL)
        assert (changed.policy.id, changed.policy.required_approvals) == (nearer.id, 3)
        assert (await gate()).allowed  # the nearest policy applies alone, and protects nothing

    async def test_who_may_not(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await see(admin, "ada", "READ_METADATA")
        with pytest.raises(PermissionDenied) as refusal:
            await ada("ReviewVersion", model_version="prod.ml.iris/1", decision=1)
        assert refusal.value.metadata == {
            "privilege": "APPROVE",
            "resource_type": "model",
            "name": "prod.ml.iris",
        }
        with pytest.raises(PermissionDenied):
            await ada("SetApprovalPolicy", policy={"required_approvals": 1}, **ON_MODEL)
        with pytest.raises(NotFound, match=r"prod\.ml\.iris/9"):
            await ada("GetApproval", model_version="prod.ml.iris/9")

    async def test_only_ready_versions_are_reviewed(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        running_stack.catalog.state = ModelVersion.STATE_PENDING
        with pytest.raises(InvalidState) as refusal:
            await admin("ReviewVersion", model_version="prod.ml.iris/1", decision=1)
        assert (refusal.value.metadata["state"], refusal.value.metadata["wanted"]) == ("PENDING", "READY")


class TestAudit:
    async def test_every_change_is_remembered_once(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await admin("CreateGrant", principal="ada", privilege=EXECUTE, **ON_MODEL)
        await admin("DeleteGrant", principal="ada", privilege=EXECUTE, **ON_MODEL)
        await admin("SetApprovalPolicy", policy={"required_approvals": 1}, **ON_MODEL)
        await admin("ReviewVersion", model_version="prod.ml.iris/1", decision=1)
        made = await ada("CreateToken", description="laptop")
        await ada("RevokeToken", token_id=made.token.id)
        entries = await audited(
            admin,
            "governance.principal.created",
            "governance.token.created",
            "governance.token.revoked",
            "governance.grant.created",
            "governance.grant.deleted",
            "governance.policy.set",
            "governance.version.reviewed",
        )
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        assert len({entry.event.id for entry in entries}) == len(entries)
        outcome = await admin("VerifyAudit")
        assert (outcome.valid, outcome.entries, outcome.head_hash) == (True, len(entries), entries[-1].hash)
        secret = made.secret[-43:]  # which may have any number of "_" itself
        assert all(secret not in entry.canonical_event for entry in entries)
        about = await admin("ListAuditEntries", resource_id=IRIS.id)
        assert [entry.event.type for entry in about.entries] == [
            "governance.grant.created",
            "governance.grant.deleted",
        ]
        assert about.entries[0].event.actor_name == "admin"

    async def test_events_of_others_arrive_once_and_tell_owners(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        owner_id = (await ada("GetCaller")).principal.id
        catalog = await running_stack.login(running_stack.secret("catalog"))
        made = event_pb2.Event(
            id="e1",
            type="catalog.model.created",
            resource=resource_pb2.Resource(
                type=resource_pb2.RESOURCE_TYPE_MODEL, id=IRIS.id, name=IRIS.name, owner_id=owner_id
            ),
            actor_id=owner_id,
            actor_name="ada",
            time=timestamp(datetime.now(UTC)),
        )
        for _ in range(2):
            await catalog("RecordEvents", events=[made, made])
        grants = (await admin("ListGrants", **ON_MODEL)).grants
        assert [(item.principal, item.privilege) for item in grants] == [
            ("ada", access_pb2.PRIVILEGE_OWNERSHIP)
        ]
        about = await admin("ListAuditEntries", resource_id=IRIS.id)
        assert [entry.event for entry in about.entries] == [made]
        stranger = event_pb2.Event()
        stranger.CopyFrom(made)
        stranger.id, stranger.resource.owner_id = "e2", "nobody"
        await catalog("RecordEvents", events=[stranger])
        assert len((await admin("ListGrants", **ON_MODEL)).grants) == 1

    async def test_pages_of_the_chain(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        everything = await audited(admin, "governance.token.created")
        seen: list[int] = []
        token = ""
        while len(seen) < len(everything):
            page = await admin("ListAuditEntries", page_size=2, page_token=token)
            seen += [entry.sequence for entry in page.entries]
            token = page.next_page_token
        assert seen[: len(everything)] == list(range(1, len(everything) + 1))

    async def test_only_who_manages_the_system_reads_it(self, running_stack: Stack) -> None:
        ada = await running_stack.user("ada", await running_stack.admin())
        for method in ("ListAuditEntries", "VerifyAudit"):
            with pytest.raises(PermissionDenied):
                await ada(method)


class TestRestart:
    async def test_everything_is_there_again_and_a_replaced_file_rotates_its_token(
        self, fresh_database: Callable[[str], str], tmp_path: Path
    ) -> None:
        dsn = fresh_database("modelyard_governance")
        async with stack(dsn, tmp_path) as before:
            admin = await before.admin()
            principals = (await admin("ListPrincipals")).principals
            old = before.secret("admin")
        (tmp_path / "secrets" / "admin.token").write_text(api_tokens.generate())
        async with stack(dsn, tmp_path) as after:
            again = Caller(after.stub, admin.token)  # the signing key is the same
            assert (await again("ListPrincipals")).principals == principals
            with pytest.raises(TokenInvalid, match="revoked"):
                await after.login(old)
            await after.admin()

    async def test_a_file_without_a_token_stops_the_start(
        self, fresh_database: Callable[[str], str], tmp_path: Path
    ) -> None:
        dsn = fresh_database("modelyard_governance")
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / "admin.token").write_text("password")
        with pytest.raises(SystemExit, match=r"admin\.token: holds no API token"):
            async with stack(dsn, tmp_path):
                pass

    async def test_a_peer_that_is_away_is_named(
        self, fresh_database: Callable[[str], str], tmp_path: Path
    ) -> None:
        dsn = fresh_database("modelyard_governance")
        async with stack(dsn, tmp_path, inference_address="") as started:
            admin = await started.admin()
            with pytest.raises(DomainError) as refusal:
                await admin("ListGrants", **ON_DEPLOYMENT)
            assert (refusal.value.reason, refusal.value.metadata) == (
                "PEER_UNAVAILABLE",
                {"service": "inference"},
            )
