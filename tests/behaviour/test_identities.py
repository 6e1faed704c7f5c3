"""Groups, owners, disabled users, limited tokens, rotated keys and evidence, as users of the client meet them."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable
from pathlib import Path

import pytest

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard.types import Dataset, GatedAction
from tests.framework.stack import Stack
from tests.framework.waiting import eventually

from .test_governance import SERVICES, let_read, member, model, version_of

__all__ = ["model"]  # the fixture


async def new_group(admin: AsyncClient, *members: str) -> str:
    name = f"g-{uuid.uuid4().hex[:8]}"
    await admin.principals.create(name, kind="GROUP")
    for one in members:
        await admin.groups.add(name, one)
    return name


async def refusal(attempt: Awaitable[object]) -> str:
    try:
        await attempt
    except errors.ModelyardError as error:
        return error.reason
    return ""


async def test_a_group_reads_for_its_members_in_every_service(
    stack: Stack, admin: AsyncClient, schema: str
) -> None:
    async with stack.user("ada") as ada:
        inner = await new_group(admin, ada.name)
        outer = await new_group(admin, inner)
        await admin.grants.create(outer, "USE_CATALOG", schema.partition(".")[0])
        for privilege in ("USE_SCHEMA", "READ_METADATA"):
            await admin.grants.create(outer, privilege, schema)
        await let_read(stack, ada.client, schema, SERVICES)
        told = {one.privilege: one for one in await ada.client.grants.effective(schema)}
        assert f"to group '{outer}'" in told["READ_METADATA"].explanation
        await admin.groups.remove(outer, inner)
        await let_read(stack, ada.client, schema, set())


async def test_a_model_is_given_to_a_group(stack: Stack, admin: AsyncClient, schema: str, model: str) -> None:
    async with member(stack, schema) as ada:
        team = await new_group(admin, ada.name)
        assert await refusal(ada.client.models.update(model, description="mine")) == "PERMISSION_DENIED"
        await admin.models.update(model, owner=team)

        async def may_edit() -> bool:
            return not await refusal(ada.client.models.update(model, description="ours"))

        await eventually(may_edit)
        owned = await ada.client.models.list(schema, filter=f"owner = '{team}'").collect()
        assert [one.name for one in owned] == [model]
        await admin.groups.remove(team, ada.name)

        async def may_not() -> bool:
            return await refusal(ada.client.models.update(model, description="?")) == "PERMISSION_DENIED"

        await eventually(may_not)


async def test_who_is_disabled_is_refused_by_every_service_until_enabled(
    stack: Stack, admin: AsyncClient, schema: str
) -> None:
    async with member(stack, schema) as ada:
        await admin.principals.disable(ada.name)

        async def refused() -> bool:
            attempts = (
                ada.client.whoami(),
                ada.client.models.get(f"{schema}.absent"),
                ada.client.artifacts.list(f"{schema}.absent").collect(),
                ada.client.deployments.get(f"{schema}.absent"),
            )
            return {await refusal(attempt) for attempt in attempts} == {"TOKEN_INVALID"}

        await eventually(refused)
        await admin.principals.enable(ada.name)
        await let_read(stack, ada.client, schema, SERVICES)


async def test_a_limited_token_does_no_more_anywhere(stack: Stack, admin: AsyncClient, schema: str) -> None:
    made = await admin.tokens.create(privileges=["READ_METADATA", "apply_tag"])
    async with stack.client(made.secret) as reader:
        assert [one.name for one in await reader.schemas.list(schema.partition(".")[0]).collect()] == [schema]
        assert await refusal(reader.models.create(f"{schema}.x")) == "PERMISSION_DENIED"
        assert await refusal(reader.grants.create("admin", "EDIT", schema)) == "PERMISSION_DENIED"
        await reader.tags.set(schema, {"a": "b"})
        with pytest.raises(errors.InvalidArgument, match="limited"):
            await reader.tokens.create()


async def test_a_withdrawn_key_locks_nobody_out(stack: Stack, admin: AsyncClient, schema: str) -> None:
    async with member(stack, schema) as ada:
        before = await ada.client.access_token()
        (new,) = await admin.tokens.rotate_signing_key(withdraw_now=True)
        assert [key.kid for key in (await ada.client.tokens.signing_keys()).keys] == [new.kid]
        async with stack.client(before) as old:

            async def old_is_refused() -> bool:
                return await refusal(old.models.get(f"{schema}.absent")) == "TOKEN_INVALID"

            await eventually(old_is_refused)

        async def all_work() -> bool:
            attempts = (
                ada.client.whoami(),
                ada.client.models.get(f"{schema}.absent"),
                ada.client.artifacts.list(f"{schema}.absent").collect(),
                ada.client.deployments.get(f"{schema}.absent"),
                ada.client.policies.get(schema),
            )
            return {await refusal(attempt) for attempt in attempts} <= {"", "RESOURCE_NOT_FOUND"}

        await eventually(all_work)


async def test_evidence_is_asked_of_the_services_that_have_it(
    stack: Stack, admin: AsyncClient, model: str, tmp_path: Path
) -> None:
    evidence = {
        "accurate": "metrics.accuracy >= 0.9",
        "harmless": "scan.clean",
        "known data": "lineage.present && size(lineage.datasets) == 1",
        "signed": "size(signatures) == 0",
        "right author": "version.author == 'admin' && version.number == 2",
        "gold": "tags.stage == 'gold'",
    }
    await admin.policies.set(
        model, allow_self_approval=True, protected_aliases=["champion"], conditions=evidence
    )
    version = await version_of(admin, model, tmp_path)
    with pytest.raises(errors.PolicyUnmet) as refused:
        await admin.aliases.set(model, {"champion": version.number})
    unmet = {text.partition(":")[0] for text in refused.value.unmet}
    assert unmet >= {"needs 1 approval; has 0", "accurate", "known data", "gold"}
    assert not unmet & {"signed", "right author"}
    await admin.metrics.set(version.name, {"accuracy": 0.95})
    await admin.tags.set(version.name, {"stage": "gold"})
    await admin.log_input(version.name, Dataset("s3://lake/iris"))
    await admin.approvals.review(version.name, "approve")

    async def allowed() -> bool:  # once the scan is done
        return bool(await admin.policies.explain(version.name, GatedAction.MOVE_ALIAS, aliases=["champion"]))

    await eventually(allowed)
    found = await admin.policies.explain(version.name, GatedAction.MOVE_ALIAS, aliases=["champion"])
    assert all(one.met for one in found.conditions)
    assert found.facts["lineage"]["datasets"] == ["s3://lake/iris"]
    await admin.aliases.set(model, {"champion": version.number})


async def test_an_override_moves_an_alias_that_a_policy_holds(
    stack: Stack, admin: AsyncClient, model: str
) -> None:
    await admin.policies.set(model, protected_aliases=["champion"])
    assert await refusal(admin.aliases.set(model, {"champion": 1})) == "POLICY_UNMET"
    made = await admin.policies.override(f"{model}/1", "outage 17", "move_alias", aliases=["champion"])
    await admin.aliases.set(model, {"champion": 1})

    async def remembered() -> bool:
        entries = await admin.audit.list(resource_id=made.model_version.id).collect()
        return "governance.gate.override_used" in {entry.event.type for entry in entries}

    await eventually(remembered)
