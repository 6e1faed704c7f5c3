"""Who one is, what one may do, what a version needs, and the memory of all that, as users of the client meet them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard.types import ApprovalState, ModelVersion, VersionApproval
from tests.framework.stack import Stack, User
from tests.framework.waiting import eventually

SERVICES = {"governance", "catalog", "artifact", "inference"}
NO_DIGEST = "sha256:" + "0" * 64


@pytest.fixture
async def model(admin: AsyncClient, schema: str, tmp_path: Path) -> str:
    """A new model with one version, made by the administrator."""
    name = f"{schema}.iris"
    await admin.models.create(name)
    await version_of(admin, name, tmp_path)
    return name


async def version_of(client: AsyncClient, model: str, folder: Path) -> ModelVersion:
    """Make a version whose artifact is a file of its own."""
    (folder / "weights").write_text(uuid.uuid4().hex)
    artifact = await client.artifacts.upload(model, folder / "weights")
    return await client.versions.create(model, artifact.digest)


async def may(attempt: Awaitable[object]) -> bool:
    """Tell whether the services permit something; that what it is about does not exist is for them who may."""
    try:
        await attempt
    except errors.PermissionDenied:
        return False
    except errors.NotFound:
        return True
    return True


async def services_that_let_read(client: AsyncClient, schema: str) -> set[str]:
    """Return the services that let a client read metadata in a schema."""
    attempts = {
        "governance": client.policies.get(schema),
        "catalog": client.models.get(f"{schema}.absent"),
        "artifact": client.artifacts.get(NO_DIGEST, model=f"{schema}.absent"),
        "inference": client.deployments.get(f"{schema}.absent"),
    }
    return {service for service, attempt in attempts.items() if await may(attempt)}


async def let_read(stack: Stack, client: AsyncClient, schema: str, services: set[str]) -> None:
    """Wait until exactly these services let a client read metadata in a schema."""

    async def settled() -> bool:
        return await services_that_let_read(client, schema) == services

    await eventually(settled)


@asynccontextmanager
async def member(stack: Stack, schema: str, *privileges: str) -> AsyncIterator[User]:
    """Run with a user that may read metadata in a schema and do what the privileges say; every service knows."""
    async with stack.user("member") as user:
        async with stack.admin() as admin:
            await admin.grants.create(user.name, "USE_CATALOG", schema.partition(".")[0])
            # Changes arrive in order, so where the last is known, all are.
            for privilege in ("USE_SCHEMA", *privileges, "READ_METADATA"):
                await admin.grants.create(user.name, privilege, schema)
        await let_read(stack, user.client, schema, SERVICES)
        yield user


# Users and tokens


async def test_an_api_token_proves_who_one_is(stack: Stack, admin: AsyncClient) -> None:
    name = f"ci-{uuid.uuid4().hex[:8]}"
    made = await admin.principals.create(name, kind="SERVICE_ACCOUNT", display_name="Build")
    token = await admin.tokens.create(principal=name, description="laptop")
    async with stack.client(token.secret) as client:
        assert await client.whoami() == made == await client.principals.get(name)
        assert [(one.id, one.description) for one in await client.tokens.list().collect()] == [
            (token.token.id, "laptop")
        ]
    assert name in [one.name async for one in admin.principals.list(page_size=2)]
    with pytest.raises(errors.AlreadyExists, match=name):
        await admin.principals.create(name)


async def test_a_secret_is_shown_once(admin: AsyncClient) -> None:
    request_id = uuid.uuid4().hex
    first = await admin.tokens.create(description="once", request_id=request_id)
    again = await admin.tokens.create(description="once", request_id=request_id)
    assert (again.token.id, again.secret) == (first.token.id, "")
    assert first.secret not in repr(first)


async def test_a_revoked_token_is_refused(stack: Stack, admin: AsyncClient) -> None:
    async with stack.user() as user:
        other = await user.client.tokens.create(description="lost")
        async with stack.client(other.secret) as before:
            await before.whoami()
        await user.client.tokens.revoke(other.token.id)
        assert (await user.client.tokens.revoke(other.token.id)).revoke_time is not None
        async with stack.client(other.secret) as after:
            with pytest.raises(errors.TokenInvalid, match="revoked"):
                await after.whoami()
        await user.client.whoami()  # with its first token


async def test_an_expired_token_is_refused(stack: Stack, admin: AsyncClient) -> None:
    name = f"brief-{uuid.uuid4().hex[:8]}"
    await admin.principals.create(name)
    with pytest.raises(errors.InvalidArgument, match="expire_time"):
        await admin.tokens.create(principal=name, expire_time=datetime.now(UTC) - timedelta(seconds=1))
    token = await admin.tokens.create(principal=name, expire_time=datetime.now(UTC) + timedelta(seconds=5))
    async with stack.client(token.secret) as client:
        assert (await client.whoami()).name == name

        async def expired() -> bool:
            try:
                await client.whoami()
            except errors.TokenExpired:
                return True
            return False

        await eventually(expired)  # so does what it was exchanged for, although the client holds that


@pytest.mark.parametrize("token", ["mya_" + "0" * 32 + "_" + "x" * 43, "mya_", "secret", "ey.ey.ey", "ü"])
async def test_a_made_up_token_is_refused(stack: Stack, token: str) -> None:
    async with stack.client(token) as client:
        with pytest.raises((errors.TokenInvalid, errors.InvalidArgument)):
            await client.whoami()


async def test_without_a_token_nothing_is_told(stack: Stack) -> None:
    async with stack.client("") as client:
        for attempt in _in_every_service(client):
            with pytest.raises(errors.TokenMissing):
                await attempt()
        assert (await client.tokens.signing_keys()).keys  # but how to verify tokens


FORGERIES: Mapping[str, tuple[type[Exception], Callable[[Any, Any, Mapping[str, Any], str], str]]] = {
    "of another key under our key id": (
        errors.TokenInvalid,
        lambda _ours, other, claims, kid: _jwt(claims, other, kid),
    ),
    "of an unknown key": (
        errors.TokenInvalid,
        lambda _ours, other, claims, _kid: _jwt(claims, other, "ours"),
    ),
    "unsigned": (
        errors.TokenInvalid,
        lambda _ours, _other, claims, kid: _jwt(claims, None, kid, algorithm="none"),
    ),
    "of the public key as a password": (
        errors.TokenInvalid,
        lambda ours, _other, claims, kid: _hmac_with_public_key(claims, ours, kid),
    ),
    "for another audience": (
        errors.TokenInvalid,
        lambda ours, _other, claims, kid: _jwt({**claims, "aud": "elsewhere"}, ours, kid),
    ),
    "of another issuer": (
        errors.TokenInvalid,
        lambda ours, _other, claims, kid: _jwt({**claims, "iss": "elsewhere"}, ours, kid),
    ),
    "of the past": (
        errors.TokenExpired,
        lambda ours, _other, claims, kid: _jwt({**claims, "iat": 1, "exp": 2}, ours, kid),
    ),
    "without an end": (
        errors.TokenInvalid,
        lambda ours, _other, claims, kid: _jwt({k: v for k, v in claims.items() if k != "exp"}, ours, kid),
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_jwt_not_of_this_installation_is_refused_by_every_service(
    stack: Stack, admin: AsyncClient, forgery: str
) -> None:
    genuine = await admin.access_token()
    claims = jwt.decode(genuine, options={"verify_signature": False})
    kid = jwt.get_unverified_header(genuine)["kid"]
    pem = (stack.home.secrets / "signing_key.pem").read_bytes()
    ours = serialization.load_pem_private_key(pem, password=None)
    other = ec.generate_private_key(ec.SECP256R1())
    expected, forge = FORGERIES[forgery]
    async with stack.client(_jwt(claims, ours, kid)) as client:
        assert (await client.whoami()).name == "admin"  # the forger's tool is sound
    async with stack.client(forge(ours, other, claims, kid)) as client:
        for attempt in _in_every_service(client):
            with pytest.raises(expected):
                await attempt()


async def test_the_tokens_of_others_are_nobodys_business(stack: Stack, admin: AsyncClient) -> None:
    async with stack.user("ada") as ada, stack.user("eve") as eve:
        [token] = await ada.client.tokens.list().collect()
        async with stack.client(await eve.client.access_token()) as with_jwt:
            for client in (eve.client, with_jwt):
                for attempt in (
                    client.tokens.list(principal=ada.name).collect(),
                    client.tokens.create(principal=ada.name),
                    client.tokens.revoke(token.id),
                    client.principals.create("mallory"),
                ):
                    with pytest.raises(errors.PermissionDenied) as caught:
                        await attempt
                    assert caught.value.privilege == "MANAGE"
        assert [one.id for one in await admin.tokens.list(principal=ada.name).collect()] == [token.id]
        await ada.client.whoami()


# Grants


async def test_a_grant_reaches_everything_inside_in_every_service_until_it_is_taken_back(
    stack: Stack, admin: AsyncClient, schema: str
) -> None:
    catalog = schema.partition(".")[0]
    async with stack.user() as user:
        assert await services_that_let_read(user.client, schema) == set()
        for privilege in ("USE_CATALOG", "USE_SCHEMA", "READ_METADATA"):
            await admin.grants.create(user.name, privilege, catalog)
        await let_read(stack, user.client, schema, SERVICES)
        await admin.schemas.create(f"{catalog}.later")
        await admin.models.create(f"{catalog}.later.iris")
        assert (await user.client.models.get(f"{catalog}.later.iris")).name == f"{catalog}.later.iris"
        assert await admin.grants.delete(user.name, "READ_METADATA", catalog)
        await let_read(stack, user.client, schema, set())
        assert not await admin.grants.delete(user.name, "READ_METADATA", catalog)


async def test_the_same_grant_twice_is_one(stack: Stack, admin: AsyncClient, schema: str) -> None:
    async with stack.user() as user:
        first = await admin.grants.create(user.name, "READ_METADATA", schema)
        assert await admin.grants.create(user.name, "READ_METADATA", schema) == first
        listed = await admin.grants.list(schema).collect()
        assert [one for one in listed if one.principal == user.name] == [first]


@pytest.mark.parametrize(("allow_on", "deny_on"), [(1, 3), (3, 1), (2, 2)])
async def test_a_denial_wins_wherever_it_stands(
    stack: Stack, admin: AsyncClient, model: str, allow_on: int, deny_on: int
) -> None:
    parts = model.split(".")
    on = {length: ".".join(parts[:length]) for length in (1, 2, 3)}
    kinds = {1: "CATALOG", 2: "SCHEMA", 3: "MODEL"}
    async with stack.user() as user:

        async def readable() -> bool:
            return await may(user.client.models.get(model))

        async def unreadable() -> bool:
            return not await readable()

        await admin.grants.create(user.name, "USE_CATALOG", on[1])
        await admin.grants.create(user.name, "USE_SCHEMA", on[2])
        await admin.grants.create(user.name, "READ_METADATA", on[allow_on], resource_type=kinds[allow_on])
        await eventually(readable)
        denial = (user.name, "READ_METADATA", on[deny_on])
        await admin.grants.create(*denial, resource_type=kinds[deny_on], effect="DENY")
        await eventually(unreadable)
        await admin.grants.delete(*denial, resource_type=kinds[deny_on], effect="DENY")
        await eventually(readable)


async def test_a_check_says_what_really_happens_and_why(stack: Stack, admin: AsyncClient, model: str) -> None:
    schema, catalog = model.rpartition(".")[0], model.partition(".")[0]
    kinds = {"": "SYSTEM", catalog: "CATALOG", schema: "SCHEMA", model: "MODEL"}
    async with stack.user() as user:
        attempts = _attempts(user.client, model)

        async def allowed_by_check() -> set[str]:
            decisions = await asyncio.gather(
                *(
                    user.client.grants.check(privilege, resource, resource_type=kinds[resource])
                    for privilege, (resource, _) in attempts.items()
                )
            )
            return {privilege for privilege, decision in zip(attempts, decisions, strict=True) if decision}

        async def becomes(expected: Sequence[str]) -> None:
            async def really() -> set[str]:
                permitted = await asyncio.gather(*(may(attempt()) for _, attempt in attempts.values()))
                return {privilege for privilege, yes in zip(attempts, permitted, strict=True) if yes}

            async def settled() -> bool:
                return await really() == set(expected)

            with contextlib.suppress(TimeoutError):
                await eventually(settled, seconds=10.0)
            assert (await really(), await allowed_by_check()) == (set(expected), set(expected))

        async def why(privilege: str) -> str:
            decision = await admin.grants.check(privilege, model, resource_type="MODEL", principal=user.name)
            return decision.explanation

        async def grant(privilege: str, resource: str, effect: str = "ALLOW") -> None:
            await admin.grants.create(
                user.name, privilege, resource, resource_type=kinds[resource], effect=effect
            )

        await becomes([])
        assert "USE_CATALOG" in await why("EDIT") or "USE_SCHEMA" in await why("EDIT")
        await grant("USE_CATALOG", catalog)
        await grant("USE_SCHEMA", catalog)
        await grant("READ_METADATA", schema)
        await grant("EDIT", model)
        await becomes(["USE_CATALOG", "USE_SCHEMA", "READ_METADATA", "EDIT"])
        assert await why("READ_METADATA") == f"READ_METADATA is granted on schema '{schema}'"
        assert await why("APPROVE") == f"nobody granted APPROVE on model '{model}' or above"
        everything = [privilege for privilege in attempts if privilege != "CREATE_CATALOG"]
        for privilege in everything:
            await grant(privilege, catalog)
        await becomes(everything)
        await grant("READ_METADATA", model, "DENY")
        await becomes([privilege for privilege in everything if privilege != "READ_METADATA"])
        assert await why("READ_METADATA") == f"READ_METADATA is denied on model '{model}'"
        await grant("USE_SCHEMA", schema, "DENY")
        # What is not inside the schema stays: the catalog, and the right to put schemas into it.
        await becomes(["USE_CATALOG", "CREATE_SCHEMA"])
        assert await why("EDIT") == f"USE_SCHEMA is denied on schema '{schema}'"


async def test_only_who_manages_a_resource_may_grant_on_it(
    stack: Stack, admin: AsyncClient, schema: str
) -> None:
    catalog = schema.partition(".")[0]
    async with stack.user("friend") as friend, member(stack, schema, "EDIT") as user:
        refused = (
            lambda: user.client.grants.create(friend.name, "READ_METADATA", schema),
            lambda: user.client.grants.delete(user.name, "READ_METADATA", schema),
            lambda: user.client.grants.list(schema).collect(),
            lambda: user.client.policies.set(schema),
            lambda: user.client.grants.check("EDIT", schema, principal=friend.name),
        )
        for attempt in refused:
            with pytest.raises(errors.PermissionDenied) as caught:
                await attempt()
            assert (caught.value.privilege, caught.value.name) == ("MANAGE", schema)
        await admin.grants.create(user.name, "MANAGE", schema)
        for attempt in refused:
            await attempt()
        for above in (catalog, ""):
            with pytest.raises(errors.PermissionDenied):
                await user.client.grants.create(friend.name, "READ_METADATA", above)
        with pytest.raises(errors.InvalidArgument, match="OWNERSHIP"):
            await user.client.grants.create(user.name, "OWNERSHIP", schema)
        with pytest.raises(errors.NotFound, match="nobody-here"):
            await user.client.grants.create("nobody-here", "EDIT", schema)


async def test_owners_keep_their_rights(stack: Stack, admin: AsyncClient) -> None:
    name = f"own{uuid.uuid4().hex[:10]}"
    async with stack.user("owner") as owner, stack.user("friend") as friend:
        await admin.grants.create(owner.name, "CREATE_CATALOG")
        await eventually(lambda: may(owner.client.catalogs.create(name)))
        await admin.grants.delete(owner.name, "CREATE_CATALOG")

        async def refused() -> bool:
            return not await may(owner.client.catalogs.create(f"{name}_2"))

        await eventually(refused)
        # What one made is one's own at once, and in every service, without any grant.
        await owner.client.schemas.create(f"{name}.ml")
        await owner.client.models.create(f"{name}.ml.iris")
        assert await services_that_let_read(owner.client, f"{name}.ml") == SERVICES
        for privilege in ("USE_CATALOG", "USE_SCHEMA", "READ_METADATA"):
            await owner.client.grants.create(friend.name, privilege, name)
        await let_read(stack, friend.client, f"{name}.ml", SERVICES)

        async def tagged() -> bool:
            return await may(owner.client.tags.set(name, {"a": "b"}))

        async def not_tagged() -> bool:
            return not await tagged()

        # A denial binds owners too; but as they manage what they own, they can lift it.
        await admin.grants.create(owner.name, "APPLY_TAG", name, effect="DENY")
        await eventually(not_tagged)
        await owner.client.grants.delete(owner.name, "APPLY_TAG", name, effect="DENY")
        await eventually(tagged)


async def test_nobody_locks_the_owner_of_the_system_out(admin: AsyncClient, schema: str) -> None:
    for privilege in ("USE_CATALOG", "READ_METADATA", "MANAGE"):
        await admin.grants.create("admin", privilege, schema.partition(".")[0], effect="DENY")
    decision = await admin.grants.check("MANAGE", schema)
    assert (bool(decision), decision.explanation) == (True, "owner of the system")
    assert await services_that_let_read(admin, schema) == SERVICES


async def test_grants_hang_on_ids_not_on_names(stack: Stack, admin: AsyncClient, model: str) -> None:
    schema = model.rpartition(".")[0]
    async with member(stack, schema) as user, removing(stack, admin, model):
        first = await admin.deployments.create(model, f"{model}/1")
        grant = await admin.grants.create(user.name, "DEPLOY", model, resource_type="DEPLOYMENT")
        assert grant.resource.id == first.id
        assert grant.principal_id == (await admin.principals.get(user.name)).id
        on_model = await admin.grants.create(user.name, "EDIT", model, resource_type="MODEL")
        assert on_model.resource.id == (await admin.models.get(model)).id
        check = user.client.grants.check
        assert await check("DEPLOY", model, resource_type="DEPLOYMENT")
        assert not await check("DEPLOY", model, resource_type="MODEL")
        await admin.deployments.delete(model)
        await admin.deployments.wait_deleted(model)
        second = await admin.deployments.create(model, f"{model}/1")
        assert second.id != first.id
        assert not await check("DEPLOY", model, resource_type="DEPLOYMENT")
        left = await admin.grants.list(model, resource_type="DEPLOYMENT").collect()
        assert user.name not in [one.principal for one in left]


# Approvals


async def test_a_policy_holds_versions_back_until_somebody_else_has_approved(
    stack: Stack, admin: AsyncClient, model: str
) -> None:
    schema = model.rpartition(".")[0]
    version = f"{model}/1"
    await admin.policies.set(schema, protected_aliases=["champion"], protect_deployments=True)
    async with member(stack, schema) as reviewer, removing(stack, admin, model):
        for attempt in (
            lambda: admin.aliases.set(model, {"candidate": 1, "champion": 1}),
            lambda: admin.deployments.create(model, version),
        ):
            with pytest.raises(errors.PolicyUnmet) as caught:
                await attempt()
            assert caught.value.unmet == ("needs 1 approval by somebody other than the author; has 0",)
            assert (caught.value.name, caught.value.metadata["policy"]) == (version, schema)
        assert (await admin.models.get(model)).aliases == {}
        assert await admin.deployments.list(schema).collect() == []
        with pytest.raises(errors.SelfApproval):
            await admin.approvals.review(version, "APPROVE")
        with pytest.raises(errors.PermissionDenied) as denied:
            await reviewer.client.approvals.review(version, "APPROVE")
        assert denied.value.privilege == "APPROVE"
        await admin.aliases.set(model, {"candidate": 1})  # an alias that the policy leaves alone

        await admin.grants.create(reviewer.name, "APPROVE", schema)
        approval = await reviewer.client.approvals.review(version, "APPROVE", comment="measured it")
        assert (approval.state, approval.approvals) == (ApprovalState.APPROVED, 1)
        assert [(one.reviewer, one.comment) for one in approval.reviews] == [(reviewer.name, "measured it")]
        assert await admin.approvals.get(version) == approval
        moved = await admin.aliases.set(model, {"champion": 1})
        assert moved.aliases == {"candidate": 1, "champion": 1}
        await admin.deployments.create(model, version)


async def test_a_rejection_needs_a_reason_and_one_is_enough(
    stack: Stack, admin: AsyncClient, model: str
) -> None:
    schema, version = model.rpartition(".")[0], f"{model}/1"
    await admin.policies.set(model, required_approvals=2, protected_aliases=["*"])
    async with (
        member(stack, schema, "APPROVE") as first,
        member(stack, schema, "APPROVE") as second,
        member(stack, schema, "APPROVE") as third,
    ):

        async def unmet() -> tuple[str, ...]:
            with pytest.raises(errors.PolicyUnmet) as caught:
                await admin.aliases.set(model, {"any": 1})
            return caught.value.unmet

        assert (await first.client.approvals.review(version, "APPROVE")).state is ApprovalState.PENDING
        assert await unmet() == ("needs 2 approvals by somebody other than the author; has 1",)
        with pytest.raises(errors.InvalidArgument, match="comment"):
            await second.client.approvals.review(version, "REJECT")
        await second.client.approvals.review(version, "REJECT", comment="leaks the target")
        approval = await third.client.approvals.review(version, "APPROVE")
        assert (approval.state, approval.approvals) == (ApprovalState.REJECTED, 2)
        assert await unmet() == (f"was rejected by {second.name}: leaks the target",)
        # Who rejected may change its mind; a later word replaces the earlier.
        approval = await second.client.approvals.review(version, "APPROVE")
        assert (approval.state, len(approval.reviews)) == (ApprovalState.APPROVED, 3)
        assert (await admin.aliases.set(model, {"any": 1})).aliases == {"any": 1}


async def test_the_nearest_policy_applies_alone(admin: AsyncClient, model: str) -> None:
    schema, catalog = model.rpartition(".")[0], model.partition(".")[0]
    assert await admin.policies.get(model) is None
    await admin.policies.set(catalog, required_approvals=3, protected_aliases=["*"])
    with pytest.raises(errors.PolicyUnmet, match=model):
        await admin.aliases.set(model, {"champion": 1})
    await admin.policies.set(schema, allow_self_approval=True, protected_aliases=["champion"])
    applying = await admin.policies.get(model)
    assert applying is not None
    assert (applying.resource.name, applying.required_approvals) == (schema, 1)
    await admin.approvals.review(f"{model}/1", "APPROVE")
    assert (await admin.aliases.set(model, {"champion": 1})).aliases == {"champion": 1}
    await admin.policies.set(model, required_approvals=2, protected_aliases=["champion"])
    await admin.aliases.remove(model, "champion")  # taking an alias away uses no version
    with pytest.raises(errors.PolicyUnmet, match="2 approvals"):
        await admin.aliases.set(model, {"champion": 1})


async def test_a_version_without_its_artifact_cannot_be_reviewed(admin: AsyncClient, model: str) -> None:
    pending = await admin.versions.create(model)
    with pytest.raises(errors.InvalidState) as caught:
        await admin.approvals.review(pending.name, "APPROVE")
    assert (caught.value.metadata["state"], caught.value.metadata["wanted"]) == ("PENDING", "READY")
    with pytest.raises(errors.NotFound):
        await admin.approvals.review(f"{model}/99", "APPROVE")


# Audit


async def test_everything_that_somebody_changed_is_in_the_audit_once(
    stack: Stack, admin: AsyncClient, tmp_path: Path
) -> None:
    name = f"au{uuid.uuid4().hex[:10]}"
    model = f"{name}.ml.iris"
    async with stack.user("ada") as ada, stack.user("bob") as bob:
        await admin.grants.create(ada.name, "CREATE_CATALOG")
        await eventually(lambda: may(ada.client.catalogs.create(name)))
        secret = await _live(ada.client, bob.name, model, tmp_path)
        expected = Counter(
            {
                "catalog.catalog.created": 1,
                "catalog.schema.created": 1,
                "catalog.model.created": 1,
                "artifact.upload.begun": 1,
                "artifact.artifact.committed": 1,
                "catalog.model_version.created": 2,
                "catalog.model_version.finalized": 1,
                "catalog.model_version.measured": 1,
                "catalog.model.tagged": 1,
                "catalog.alias.moved": 2,
                "governance.policy.set": 1,
                "governance.version.reviewed": 1,
                "governance.grant.created": 1,
                "governance.grant.deleted": 1,
                "governance.token.created": 1,
                "governance.token.revoked": 1,
            }
        )

        async def told() -> bool:
            entries = await admin.audit.list(page_size=1000).collect()
            return Counter(one.event.type for one in entries if one.event.actor_name == ada.name) >= expected

        await eventually(told)
        entries = await admin.audit.list(page_size=1000).collect()
        mine = [one.event for one in entries if one.event.actor_name == ada.name]
        # The inspection of an artifact ends in its own time, before this or after, and what ada tried before a service had heard of
        # her grants was refused.
        others = ("artifact.artifact.inspected", "catalog.access.denied", "governance.access.denied")
        done = [event.type for event in mine if event.type not in others]
        assert Counter(done) == expected
        ada_id = (await ada.client.whoami()).id
        assert {event.actor_id for event in mine} == {ada_id}
        assert all(event.request_id and event.time for event in mine)
        moves = [event.data for event in mine if event.type == "catalog.alias.moved"]
        assert [(move["before"], move["after"]) for move in moves][1][1] is None
        assert moves[0]["after"]["version"] == 1
        assert not any(secret in one.canonical_event for one in entries)
        [created] = [event for event in mine if event.type == "catalog.model.created"]
        of_model = await admin.audit.list(resource_id=created.resource.id).collect()
        assert {one.event.type for one in of_model} == {
            "catalog.model.created",
            "catalog.model.tagged",
            "catalog.alias.moved",
        }


async def test_whoever_reads_the_chain_can_recompute_it(admin: AsyncClient, schema: str) -> None:
    head = bytes(32)
    for number, entry in enumerate([one async for one in admin.audit.list(page_size=500)], 1):
        text = entry.canonical_event
        assert (entry.sequence, entry.previous_hash) == (number, head.hex())
        head = hashlib.sha256(head + number.to_bytes(8, "big") + text.encode()).digest()
        assert entry.hash == head.hex()
        assert json.loads(text)["type"] == entry.event.type
    verified = await admin.audit.verify()
    assert (verified.valid, verified.broken_sequence, verified.problem) == (True, 0, "")


async def test_the_audit_is_for_who_manages_the_system(stack: Stack, schema: str) -> None:
    async with member(stack, schema, "MANAGE") as user:
        for attempt in (user.client.audit.list().collect(), user.client.audit.verify()):
            with pytest.raises(errors.PermissionDenied) as caught:
                await attempt
            assert caught.value.privilege == "MANAGE"


@asynccontextmanager
async def removing(stack: Stack, admin: AsyncClient, deployment: str) -> AsyncIterator[None]:
    """Remove a deployment afterwards, with its replicas."""
    try:
        yield
    finally:
        await admin.deployments.delete(deployment)
        await admin.deployments.wait_deleted(deployment)


async def _live(client: AsyncClient, friend: str, model: str, folder: Path) -> str:
    """Do one of everything that changes something, and some things that are refused; return a secret."""
    schema = model.rpartition(".")[0]
    await client.schemas.create(schema)
    await client.models.create(model)
    version = await version_of(client, model, folder)
    pending = await client.versions.create(model)
    await client.versions.finalize(pending.name, version.artifact_digest)
    await client.metrics.set(version.name, {"accuracy": 0.9})
    await client.tags.set(model, {"team": "blue"})
    await client.aliases.set(model, {"champion": 1})
    await client.aliases.remove(model, "champion")
    await client.policies.set(schema, protected_aliases=["gold"])
    await client.approvals.review(version.name, "REJECT", comment="no")
    await client.grants.create(friend, "READ_METADATA", schema)
    await client.grants.delete(friend, "READ_METADATA", schema)
    token = await client.tokens.create(description="short")
    await client.tokens.revoke(token.token.id)
    for refused in (
        client.aliases.set(model, {"gold": 1}),
        client.models.create(model),
        client.grants.create(friend, "MANAGE"),
        client.tokens.create(principal=friend),
    ):
        with pytest.raises(errors.ModelyardError):
            await refused
    return token.secret


def _attempts(client: AsyncClient, model: str) -> Mapping[str, tuple[str, Callable[[], Awaitable[object]]]]:
    """Return for each privilege the resource to check it on, and what it permits."""
    schema, catalog = model.rpartition(".")[0], model.partition(".")[0]
    fresh = lambda: f"n{uuid.uuid4().hex[:10]}"  # noqa: E731
    return {
        "USE_CATALOG": (catalog, lambda: client.catalogs.get(catalog)),
        "USE_SCHEMA": (schema, lambda: client.schemas.get(schema)),
        "CREATE_CATALOG": ("", lambda: client.catalogs.create(fresh())),
        "CREATE_SCHEMA": (catalog, lambda: client.schemas.create(f"{catalog}.{fresh()}")),
        "CREATE_MODEL": (schema, lambda: client.models.create(f"{schema}.{fresh()}")),
        "CREATE_VERSION": (model, lambda: client.versions.create(model)),
        "READ_METADATA": (model, lambda: client.models.get(model)),
        "READ_ARTIFACT": (model, lambda: client.artifacts.digest_of(f"{model}/1")),
        "APPLY_TAG": (model, lambda: client.tags.set(model, {"a": "b"})),
        "EDIT": (model, lambda: client.aliases.set(model, {"any": 1})),
        "APPROVE": (model, lambda: client.approvals.review(f"{model}/1", "APPROVE")),
        "DEPLOY": (model, lambda: client.deployments.create(f"{schema}.x", f"{model}/999999")),
        "MANAGE": (model, lambda: client.grants.list(model, resource_type="MODEL").collect()),
    }


def _in_every_service(client: AsyncClient) -> Sequence[Callable[[], Awaitable[object]]]:
    return (
        client.whoami,
        lambda: client.catalogs.list().collect(),
        lambda: client.artifacts.get(NO_DIGEST, model="a.b.c"),
        lambda: client.deployments.list().collect(),
    )


def _jwt(claims: Mapping[str, Any], key: Any, kid: str, *, algorithm: str = "ES256") -> str:
    return jwt.encode(dict(claims), key, algorithm=algorithm, headers={"kid": kid})


def _hmac_with_public_key(claims: Mapping[str, Any], key: Any, kid: str) -> str:
    """Return a JWT that a verifier takes for genuine if it lets the token choose the algorithm."""
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    header = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())
    signed = header + b"." + part(json.dumps(dict(claims)).encode())
    return (signed + b"." + part(hmac.digest(pem, signed, "sha256"))).decode()


async def test_approvals_are_found_in_the_catalog(
    stack: Stack, admin: AsyncClient, model: str, tmp_path: Path
) -> None:
    """A review shows at the version, in its list and in the list of approvals; a copy begins without one."""
    other = await version_of(admin, model, tmp_path)
    assert other.approval_state is VersionApproval.NONE
    await admin.approvals.review(f"{model}/1", "approve")

    async def approved() -> bool:
        return [
            row.number for row in await admin.versions.list(model, filter="approval = 'APPROVED'").collect()
        ] == [1]

    await eventually(approved)
    assert (await admin.versions.get(f"{model}/1")).approval_state is VersionApproval.APPROVED
    mine = f"model = '{model}' AND state = 'APPROVED'"
    assert [row.model_version.name for row in await admin.approvals.list(filter=mine).collect()] == [
        f"{model}/1"
    ]
    copied = await admin.versions.copy(f"{model}/1", model)
    assert copied.approval_state is VersionApproval.NONE

    await admin.policies.set(model, required_approvals=2)

    async def pending_again() -> bool:
        return (await admin.versions.get(f"{model}/1")).approval_state is VersionApproval.PENDING

    await eventually(pending_again)
    renamed = await admin.models.rename(model, "flowers")

    async def listed_by_its_new_name() -> bool:
        asked = f"model = '{renamed.name}' AND state = 'PENDING'"
        return bool(await admin.approvals.list(filter=asked).collect())

    await eventually(listed_by_its_new_name)
    await admin.models.delete(renamed.name, force=True)

    async def gone() -> bool:
        return not await admin.approvals.list(filter=f"model = '{renamed.name}'").collect()

    await eventually(gone)


async def test_owners_are_given_and_found_by_name(stack: Stack, admin: AsyncClient, schema: str) -> None:
    """A name is as good as an id, for giving something away and for finding it again."""
    await admin.models.create(f"{schema}.iris")
    async with stack.user("owner") as ada:

        async def given() -> bool:
            with contextlib.suppress(
                errors.InvalidArgument
            ):  # the catalog learns of new principals in a moment
                await admin.models.update(f"{schema}.iris", owner=ada.name)
                return True
            return False

        await eventually(given)
        found = await admin.models.list(schema, filter=f"owner = '{ada.name}'").collect()
        assert [row.name for row in found] == [f"{schema}.iris"]
    with pytest.raises(errors.InvalidArgument, match="column 9: there is no principal called 'nobody'"):
        await admin.models.list(schema, filter="owner = 'nobody'").collect()
    with pytest.raises(errors.InvalidArgument, match="column 9: there is no principal called 'nobody'"):
        await admin.deployments.list(schema, filter="owner = 'nobody'").collect()
    assert (
        await admin.deployments.list(schema, filter="owner = 'admin' AND state != 'FAILED'").collect() == []
    )
