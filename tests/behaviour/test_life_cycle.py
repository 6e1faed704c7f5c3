"""Stories of renames, deletions and copies, with every service taking its part."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from modelyard import errors
from modelyard.aio import AsyncClient
from tests.framework.deployed import ROWS, deployed, load, predictor
from tests.framework.stack import Processes, Stack
from tests.framework.waiting import eventually


async def test_a_copy_is_downloaded_and_finalized_like_any_version(
    admin: AsyncClient, schema: str, tmp_path: Path
) -> None:
    (tmp_path / "model.txt").write_text("weights")
    source, other = f"{schema}.source", f"{schema}.other"
    for name in (source, other):
        await admin.models.create(name)
    artifact = await admin.artifacts.upload(source, tmp_path)
    made = await admin.versions.create(source, artifact_digest=artifact.digest, label="1.0")
    copy = await admin.versions.copy(f"{source}@1.0", other, label="1.0")
    assert (copy.artifact_digest, copy.copied_from_id) == (made.artifact_digest, made.id)
    await admin.models.delete(source, force=True)
    folder = await admin.artifacts.download(f"{other}@1.0", tmp_path / "copy")
    assert (folder / "model.txt").read_text() == "weights"
    again = await admin.versions.create(other, artifact_digest=artifact.digest)
    pending = await admin.versions.create(other)
    finalized = await admin.versions.finalize(pending.name, artifact.digest)
    assert (again.number, finalized.number) == (2, 3)
    assert (await admin.versions.finalize(copy.name, artifact.digest)).id == copy.id


async def test_a_deployment_outlives_renames_and_keeps_its_model_from_being_deleted(
    processes: Processes,
) -> None:
    async with deployed(processes) as one, processes.admin() as admin:
        catalog, _, _ = one.name.split(".")
        renamed = f"{catalog}.team.flower"
        async with load(predictor(admin, one)) as seen:
            await admin.models.rename(one.name, f"{catalog}.ml.flower")
            await admin.schemas.rename(f"{catalog}.ml", f"{catalog}.team")
            await admin.aliases.set(renamed, {"champion": 2})
            await seen.more(5, version=2)
        assert seen.failures == []
        deployment = await admin.deployments.get(one.name)
        assert [target.model_version for target in deployment.targets] == [f"{renamed}@champion"]
        for delete in (
            admin.versions.delete(f"{renamed}/2", force=True),
            admin.models.delete(renamed, force=True),
            admin.schemas.delete(f"{catalog}.team", force=True),
            admin.catalogs.delete(catalog, force=True),
        ):
            with pytest.raises(errors.ResourceInUse, match=f"deployment {one.name}"):
                await delete
        answer = await admin.predict(one.name, ROWS[:1], outputs=["output"])
        assert answer.model_version == 2
    async with processes.admin() as admin:
        deleted = await admin.catalogs.delete(catalog, force=True)
        with pytest.raises(errors.NotFound):
            await admin.versions.get(f"{renamed}@champion")
        await admin.catalogs.undelete(deleted.id)
        assert (await admin.versions.get(f"{renamed}@champion")).number == 2


async def test_grants_follow_a_rename_and_not_a_name(admin: AsyncClient, schema: str) -> None:
    name, renamed = f"{schema}.iris", f"{schema}.flower"
    await admin.models.create(name)
    first = await admin.models.get(name)
    await admin.grants.create("gateway", "DEPLOY", name, resource_type="MODEL")
    await admin.models.rename(name, renamed)
    await admin.models.create(name)
    assert (await admin.models.get(renamed)).id == first.id

    async def granted(model: str) -> list[str]:
        """Names of those who were granted something; the owner is listed as well."""
        grants = [grant async for grant in admin.grants.list(model, resource_type="MODEL")]
        return [grant.principal for grant in grants if grant.privilege == "DEPLOY"]

    assert await granted(renamed) == ["gateway"]
    assert await granted(name) == []


async def test_a_new_owner_takes_the_place_of_the_old_one(admin: AsyncClient, schema: str) -> None:
    name = f"{schema}.iris"
    await admin.models.create(name)
    gateway = await admin.principals.get("gateway")
    assert (await admin.models.update(name, owner_id=gateway.id)).owner_id == gateway.id

    async def owners() -> list[str]:
        grants = [grant async for grant in admin.grants.list(name, resource_type="MODEL")]
        return [grant.principal for grant in grants if grant.privilege == "OWNERSHIP"]

    async with asyncio.timeout(60):
        while await owners() != ["gateway"]:
            await asyncio.sleep(0.05)


async def test_what_went_with_a_deleted_schema_can_be_seen_and_brought_back(
    admin: AsyncClient, schema: str
) -> None:
    """Twice under the same name: each generation is found by its id, by those who may use it."""
    catalog = schema.partition(".")[0]
    generations = []
    for model in ("first", "second"):
        await admin.models.create(f"{schema}.{model}")
        await admin.versions.create(f"{schema}.{model}")
        generations.append(await admin.schemas.delete(schema, force=True))
        await admin.schemas.create(schema)
    shown = await admin.schemas.list(catalog, show_deleted=True).collect()
    assert {row.id for row in generations} < {row.id for row in shown}
    for generation, model in zip(generations, ("first", "second"), strict=True):
        (inside,) = await admin.models.list(schema_id=generation.id).collect()
        assert inside.name == f"{schema}.{model}"
        (version,) = await admin.versions.list(model_id=inside.id).collect()
        assert version.number == 1
    with pytest.raises(errors.InvalidArgument, match="give either schema or schema_id"):
        await admin.models.list(schema, schema_id=generations[0].id).collect()
    with pytest.raises(errors.InvalidArgument, match="schema: is required, or schema_id"):
        await admin.models.list().collect()
    with pytest.raises(errors.InvalidArgument, match="schema_id: is not an id"):
        await admin.models.list(schema_id="prod").collect()
    await admin.schemas.delete(schema)
    await admin.schemas.undelete(generations[0].id)
    assert (await admin.versions.get(f"{schema}.first/1")).number == 1


async def test_a_deleted_schema_shows_what_it_holds_only_to_those_who_may_use_it(
    stack: Stack, admin: AsyncClient, schema: str
) -> None:
    catalog = schema.partition(".")[0]
    await admin.models.create(f"{schema}.iris")
    parent = await admin.catalogs.get(catalog)
    deleted = await admin.schemas.delete(schema, force=True)
    async with stack.user() as user:
        for listed in (
            user.client.models.list(schema_id=deleted.id),
            user.client.schemas.list(catalog_id=parent.id),
        ):
            with pytest.raises(errors.PermissionDenied, match="USE_"):
                await listed.collect()
        for privilege in ("USE_CATALOG", "USE_SCHEMA", "READ_METADATA"):
            await admin.grants.create(user.name, privilege, catalog)

        async def seen() -> bool:
            try:
                return len(await user.client.models.list(schema_id=deleted.id).collect()) == 1
            except errors.PermissionDenied:
                return False

        await eventually(seen)
