"""Deployments follow models and owners by id, whatever these are called; and who uses a version can be found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.commands import UpdateDeployment
from modelyard_inference.deployments import Deployments
from modelyard_inference.followers import Followers
from modelyard_inference.lookups import Lookups
from modelyard_inference.models import Group, GroupState, Target, TargetSpec
from modelyard_inference.owners import Owners
from modelyard_inference.store import InferenceStore
from modelyard_kit.access import SYSTEM
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import NotFound
from modelyard_kit.grants import Grants
from tests.framework.inference import CATALOG, SCHEMA, FakeUpstream, all_grants, call, creation, spec

NAME = "prod.ml.live"
OLD, NEW = "prod.ml.iris", "prod.ml.flower"


class Rig:
    def __init__(self, db: Database, grants: Grants, upstream: FakeUpstream) -> None:
        self.db, self.upstream = db, upstream
        self.store = InferenceStore()
        self.lookups = Lookups(db, self.store, upstream, grants)
        self.rules = Deployments(db, self.store, self.lookups, upstream, grants, utc_now, lambda: None)
        self.followers = Followers(db, self.store, upstream, lambda: None, lambda: ())
        self.owners = Owners(db, self.store, upstream, lambda: None, lambda: ())
        for number in (1, 2):
            upstream.add(number)
        upstream.aliases[f"{OLD}@champion"] = f"{OLD}/1"

    async def follow(self) -> bool:
        return await self.followers.follow([await self.lookups.get(NAME)])

    async def targets(self) -> tuple[Target, ...]:
        return (await self.lookups.get(NAME)).targets

    async def retarget(self, *targets: TargetSpec) -> tuple[Target, ...]:
        return (await self.rules.update(call(), UpdateDeployment(NAME, "", targets=targets))).targets


@pytest.fixture
async def rig(fresh_database: Callable[[str], str]) -> AsyncIterator[Rig]:
    db = Database.connect(fresh_database("modelyard_inference"))
    upstream = FakeUpstream()
    yield Rig(db, await all_grants(), upstream)
    await db.close()


async def test_rename_of_a_model_changes_only_the_references(rig: Rig) -> None:
    targets = (spec(f"models:/{OLD}@champion"), spec(f"{OLD}/2"), spec(OLD))
    rig.upstream.aliases[OLD] = f"{OLD}/2"
    made = await rig.rules.create(call(), creation(NAME, *targets))
    rig.upstream.rename(OLD, NEW)
    assert await rig.follow()
    after = await rig.targets()
    assert [target.spec.reference for target in after] == [f"models:/{NEW}@champion", f"{NEW}/2", NEW]
    assert [target.spec.model for target in after] == [NEW] * 3
    assert [target.wanted.id for target in after] == [target.wanted.id for target in made.targets]
    assert not await rig.follow()
    rig.upstream.aliases[f"{NEW}@champion"] = f"{NEW}/2"
    assert await rig.follow()
    assert (await rig.targets())[0].wanted.name == f"{NEW}/2"


async def test_another_model_under_the_old_name_is_not_followed(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation(NAME, spec(f"{OLD}@champion")))
    rig.upstream.rename(OLD, NEW)
    other = rig.upstream.add(7, model=OLD, model_id="m-other")
    rig.upstream.aliases[f"{OLD}@champion"] = other.name
    assert await rig.follow()
    (target,) = await rig.targets()
    assert (target.wanted, target.spec.reference) == (made.targets[0].wanted, f"{NEW}@champion")


async def test_deleted_model_is_a_problem_and_what_answers_stays(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation(NAME, spec(f"{OLD}@champion")))
    rig.upstream.versions.clear()
    assert await rig.follow()
    (target,) = await rig.targets()
    assert target.wanted == made.targets[0].wanted
    assert "does not exist" in target.problem


async def test_what_serves_by_now_is_not_overwritten_by_who_follows(rig: Rig) -> None:
    await rig.rules.create(call(), creation(NAME, spec(f"{OLD}@champion")))
    seen = await rig.lookups.get(NAME)
    serving = replace(seen.targets[0], serving=f"{OLD}/1", serving_weight=1)
    await rig.db.in_tx(lambda connection: rig.store.replace_targets(connection, seen.id, [serving]))
    rig.upstream.aliases[f"{OLD}@champion"] = f"{OLD}/2"
    assert await rig.followers.follow([seen])  # looked at before it served
    assert await rig.targets() == (replace(serving, wanted=rig.upstream.versions[f"{OLD}/2"]),)


async def test_old_reference_in_an_update_means_what_is_called_so_now(rig: Rig) -> None:
    reference = spec(f"{OLD}/1")
    made = await rig.rules.create(call(), creation(NAME, reference))
    assert (await rig.retarget(replace(reference, weight=2)))[0].wanted == made.targets[0].wanted
    rig.upstream.rename(OLD, NEW)
    with pytest.raises(NotFound):
        await rig.retarget(reference)
    other = rig.upstream.add(1, model=OLD, model_id="m-other")
    assert (await rig.retarget(reference))[0].wanted.id == other.id


async def test_new_owners_reach_deployments_and_gateways(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation(NAME))
    deployments = [made]
    assert not await rig.owners.refresh(deployments)
    before = await rig.db.read(rig.store.table_version)
    renamed = replace(SCHEMA, name="live.team", owner_id="u-bob")
    rig.upstream.schema = (renamed, replace(CATALOG, name="live", owner_id="u-eve"), SYSTEM)
    assert await rig.owners.refresh(deployments)
    found = await rig.lookups.get(NAME)
    assert (found.schema_owner_id, found.catalog_owner_id) == ("u-bob", "u-eve")
    assert (found.name, found.revision) == (NAME, made.revision)
    assert await rig.db.read(rig.store.table_version) > before
    assert not await rig.owners.refresh(deployments)
    rig.upstream.schema = ()
    assert not await rig.owners.refresh([replace(made, schema_id="gone")])


async def test_users_of_versions_are_found_by_what_they_want_and_run(rig: Rig) -> None:
    one, two = (rig.upstream.versions[f"{OLD}/{number}"] for number in (1, 2))
    await rig.rules.create(call(), creation("prod.ml.b", spec(f"{OLD}/1")))
    made = await rig.rules.create(call(), creation("prod.ml.a", spec(f"{OLD}@champion")))

    async def found(*ids: str) -> list[str]:
        return [link.name for link in await rig.lookups.using(ids)]

    assert await found(one.id) == ["prod.ml.a", "prod.ml.b"]
    assert await found(two.id, "gone") == []
    group = Group("g", "a-v2-g", made.id, two, 2**20, GroupState.DRAINING, 0, 0, utc_now())

    async def insert(connection: AsyncConnection) -> None:
        await rig.store.insert_group(connection, group)

    await rig.db.in_tx(insert)
    assert await found(two.id) == ["prod.ml.a"]
