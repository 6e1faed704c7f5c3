"""What callers did to a deployment, and the way back, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import history, notes, tables
from modelyard_inference.batching_policy import Batching
from modelyard_inference.canary import RolloutPolicy
from modelyard_inference.commands import ListRevisions, RollbackDeployment, SetActive, UpdateDeployment
from modelyard_inference.environment_policy import OF_ARTIFACT, Environment, EnvironmentSource
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.models import Change, DeploymentState, Revision
from modelyard_inference.planner.desired import key_of
from modelyard_inference.scaling import Autoscaling
from modelyard_inference.strategies import UpdateStrategy
from modelyard_inference.traffic_limits import TrafficLimits
from modelyard_kit import migrate
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege
from modelyard_kit.auth import Principal
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidField, InvalidState, NotFound, PermissionDenied, PolicyUnmet
from modelyard_kit.filters import Asked
from modelyard_kit.limits import LIMITS
from tests.conformance.test_inference_store import Rig
from tests.framework.inference import ADA, all_grants, call, creation, spec

NAME = "prod.ml.iris"
BOB = Principal("u-bob", "bob", "user")


@pytest.fixture
async def rig(fresh_database: Callable[[str], str]) -> AsyncIterator[Rig]:
    db = Database.connect(fresh_database("modelyard_inference"))
    yield Rig(db, await all_grants())
    await db.close()


async def revisions(rig: Rig, **asked: str) -> list[Revision]:
    _, found, _ = await rig.lookups.revisions(ListRevisions(NAME, Asked(size=50, **asked)))
    return found


async def retarget(rig: Rig, reference: str, reason: str = "") -> None:
    update = UpdateDeployment(NAME, "", targets=(spec(reference),), reason=reason)
    await rig.rules.update(call(), update)


async def test_every_change_by_a_caller_is_a_revision(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation(reason="first"))
    await retarget(rig, "prod.ml.iris/2", "second")
    await rig.rules.deactivate(call(), SetActive(NAME, reason="quiet time"))
    await rig.rules.deactivate(call(), SetActive(NAME, reason="again"))  # changes nothing
    await rig.rules.activate(call(), SetActive(NAME))
    found = await revisions(rig)
    assert [(r.number, r.change, r.reason) for r in found] == [
        (4, Change.ACTIVATED, ""),
        (3, Change.DEACTIVATED, "quiet time"),
        (2, Change.UPDATED, "second"),
        (1, Change.CREATED, "first"),
    ]
    assert [r.settings.active for r in found] == [True, False, True, True]
    assert [r.settings.targets[0].model_version for r in found] == ["prod.ml.iris/2"] * 3 + ["prod.ml.iris/1"]
    assert {(r.actor_id, r.actor_name, r.deployment_id) for r in found} == {(ADA.id, ADA.name, made.id)}
    assert [r.changed_fields for r in found] == [(), (), ("targets",), ()]
    asked = await revisions(rig, filter="change = 'UPDATED' AND actor = 'ada'", order_by="create_time")
    assert [r.number for r in asked] == [2]
    with pytest.raises(NotFound):
        await rig.lookups.revisions(ListRevisions("prod.ml.none", Asked(size=50)))


async def test_rollback_brings_back_settings_and_nothing_else(rig: Rig) -> None:
    await rig.rules.create(call(), creation(description="old", replicas=3))
    rig.grant(BOB)
    update = UpdateDeployment(NAME, "", description="new", replicas=1, timeout_ms=5, owner_id=BOB.id)
    await rig.rules.update(call(), update)
    await rig.rules.deactivate(call(), SetActive(NAME))
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=1, reason="as it was"))
    assert (back.description, back.replicas, back.timeout_ms) == ("old", 3, 60_000)
    assert (back.owner_id, back.active, back.revision) == (BOB.id, False, 4)
    newest = (await revisions(rig))[0]
    assert (newest.change, newest.rolled_back_to, newest.reason) == (Change.ROLLED_BACK, 1, "as it was")
    assert newest.changed_fields == ("description", "replicas", "timeout")
    assert (await rig.events())[-1] == "inference.deployment.rolled_back"


async def test_stickiness_reaches_the_routes_and_comes_back(rig: Rig) -> None:
    await rig.rules.create(call(), creation(sticky_header="x-customer"))
    before = await rig.db.read(rig.store.table_version)
    changed = await rig.rules.update(call(), UpdateDeployment(NAME, "", sticky_header=""))
    assert changed.sticky_header == ""
    assert await rig.db.read(rig.store.table_version) > before
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME))
    assert back.sticky_header == "x-customer"


async def test_limits_and_listener_reach_the_routes_and_no_replica_and_come_back(rig: Rig) -> None:
    limits = TrafficLimits(requests_per_second=7, bandwidth_mbps=8, concurrent_per_replica=9)
    made = await rig.rules.create(call(), creation(traffic_limits=limits))
    found = await rig.lookups.get(NAME)
    assert (found.traffic_limits, found.private) == (limits, False)
    before = await rig.db.read(rig.store.table_version)
    update = UpdateDeployment(NAME, "", traffic_limits=TrafficLimits(5), private=True)
    changed = await rig.rules.update(call(), update)
    assert changed.private
    assert await rig.db.read(rig.store.table_version) > before
    assert key_of(changed, changed.targets[0]) == key_of(made, made.targets[0])
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME))
    assert (back.traffic_limits, back.private) == (limits, False)


async def test_batching_and_variables_make_other_replicas_and_come_back(rig: Rig) -> None:
    first = Batching(max_batch_rows=8, max_delay_us=500)
    made = await rig.rules.create(call(), creation(batching=first, environment_variables=(("LEVEL", "3"),)))
    assert await rig.lookups.get(NAME) == made
    for change in (
        UpdateDeployment(NAME, "", batching=Batching()),
        UpdateDeployment(NAME, "", environment_variables=(("LEVEL", "4"),)),
    ):
        before = await rig.lookups.get(NAME)
        changed = await rig.rules.update(call(), change)
        assert key_of(changed, changed.targets[0]) != key_of(before, before.targets[0])
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=1))
    assert (back.batching, back.environment_variables) == (first, (("LEVEL", "3"),))
    assert key_of(back, back.targets[0]) == key_of(made, made.targets[0])
    newest, before, *_ = await revisions(rig)
    assert (newest.settings.environment_variables, before.settings.environment_variables) == (
        (("LEVEL", "3"),),
        (("LEVEL", "4"),),
    )


async def test_the_environment_makes_other_replicas_and_comes_back(rig: Rig) -> None:
    rig.rules._builds = True
    own = Environment(EnvironmentSource.REQUIREMENTS, ("numpy==2.1.0", "pillow>=10"), "3.12")
    made = await rig.rules.create(call(), creation(environment=own))
    assert await rig.lookups.get(NAME) == made
    for other in (Environment(EnvironmentSource.DEFAULT), OF_ARTIFACT):
        before = await rig.lookups.get(NAME)
        changed = await rig.rules.update(call(), UpdateDeployment(NAME, "", environment=other))
        assert key_of(changed, changed.targets[0]) != key_of(before, before.targets[0])
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=1))
    assert back.environment == own
    assert key_of(back, back.targets[0]) == key_of(made, made.targets[0])
    assert [revision.settings.environment.source for revision in await revisions(rig)] == [
        EnvironmentSource.REQUIREMENTS,
        EnvironmentSource.ARTIFACT,
        EnvironmentSource.DEFAULT,
        EnvironmentSource.REQUIREMENTS,
    ]


async def test_an_environment_that_nobody_builds_is_refused(rig: Rig) -> None:
    own = Environment(EnvironmentSource.REQUIREMENTS, ("numpy==2.1.0",))
    with pytest.raises(InvalidField, match="MODELYARD_BUILD_ENVIRONMENTS=true"):
        await rig.rules.create(call(), creation(environment=own))
    rig.rules._builds = True
    await rig.rules.create(call(), creation(environment=own))
    rig.rules._builds = False  # by whoever runs it, later
    changed = await rig.rules.update(call(), UpdateDeployment(NAME, "", environment=OF_ARTIFACT, replicas=2))
    assert (changed.environment, changed.replicas) == (OF_ARTIFACT, 2)
    with pytest.raises(InvalidField, match=r"deployment\.environment"):
        await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=1))


async def test_settings_that_exclude_each_other_are_refused(rig: Rig) -> None:
    sparing = UpdateStrategy.RESOURCE_PRESERVING
    scaled, stepped = Autoscaling(1, 2, 2.0, 0), RolloutPolicy((5, 100))
    for changes in ({"autoscaling": scaled}, {"rollout_policy": stepped}):
        with pytest.raises(InvalidField, match="RESOURCE_PRESERVING"):
            await rig.rules.create(call(), creation(update_strategy=sparing, **changes))
    made = await rig.rules.create(call(), creation(update_strategy=sparing))
    assert (await rig.lookups.get(NAME)).update_strategy is sparing
    with pytest.raises(InvalidField, match="take autoscaling away"):
        await rig.rules.update(call(), UpdateDeployment(NAME, "", autoscaling=scaled))
    usual = UpdateStrategy.AVAILABILITY_PRESERVING
    both = UpdateDeployment(NAME, "", autoscaling=scaled, update_strategy=usual)
    changed = await rig.rules.update(call(), both)
    assert (changed.autoscaling, changed.update_strategy) == (scaled, usual)
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME))
    assert (back.autoscaling, back.update_strategy) == (made.autoscaling, sparing)


async def test_events_name_variables_without_their_values(rig: Rig) -> None:
    made = creation(environment_variables=(("LEVEL", "a-secret"),))
    await rig.rules.create(call(), made)
    outbox = tables.metadata.tables["outbox"].c

    async def told(connection: AsyncConnection) -> dict[str, object]:
        data: dict[str, object] = (await connection.execute(sa.select(outbox.data))).scalar_one()
        return data

    data = await rig.db.read(told)
    assert data["after"]["environment_variables"] == ["LEVEL"]  # type: ignore[index]
    assert "a-secret" not in str(data)


async def test_a_shadow_comes_back_unless_it_means_what_answers(rig: Rig) -> None:
    rig.upstream.aliases = {f"{NAME}@old": f"{NAME}/1", f"{NAME}@new": f"{NAME}/2"}
    shadow = replace(spec(f"{NAME}@new", 0), shadow_percent=10)
    await rig.rules.create(call(), creation(NAME, spec(f"{NAME}@old"), shadow))
    await retarget(rig, f"{NAME}/2")
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=1))
    assert [(t.spec.reference, t.spec.weight, t.spec.shadow_percent) for t in back.targets] == [
        (f"{NAME}@old", 1, 0),
        (f"{NAME}@new", 0, 10),
    ]
    rig.upstream.aliases[f"{NAME}@new"] = f"{NAME}/1"
    await rig.rules.delete(call(), NAME, "")
    await rig.db.in_tx(lambda connection: rig.store.delete_deployment(connection, back.id))
    await rig.rules.create(call(), creation(NAME, spec(f"{NAME}@old"), shadow))
    await retarget(rig, f"{NAME}/2")
    pinned = await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=1, pin_versions=True))
    assert [(t.spec.reference, t.spec.shadow_percent) for t in pinned.targets] == [(f"{NAME}/1", 0)]


async def test_rollback_without_a_number_goes_to_what_was_before(rig: Rig) -> None:
    await rig.rules.create(call(), creation())
    with pytest.raises(InvalidField, match="other settings"):
        await rig.rules.rollback(call(), RollbackDeployment(NAME))
    await retarget(rig, "prod.ml.iris/2")
    await rig.rules.deactivate(call(), SetActive(NAME))
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME))
    assert back.targets[0].wanted.name == "prod.ml.iris/1"
    again = await rig.rules.rollback(call(), RollbackDeployment(NAME))  # and there again
    assert again.targets[0].wanted.name == "prod.ml.iris/2"
    with pytest.raises(NotFound, match="revision 77"):
        await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=77))


async def test_rollback_of_what_followed_an_alias_follows_or_pins(rig: Rig) -> None:
    rig.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/1"
    made = await rig.rules.create(call(), creation(NAME, spec("prod.ml.iris@champion")))
    rig.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/2"
    moved = replace(made.targets[0], wanted=rig.upstream.versions["prod.ml.iris/2"])
    await rig.db.in_tx(lambda connection: rig.store.replace_targets(connection, made.id, [moved]))
    with pytest.raises(InvalidField):  # the settings are those of revision 1
        await rig.rules.rollback(call(), RollbackDeployment(NAME))
    pinned = await rig.rules.rollback(call(), RollbackDeployment(NAME, pin_versions=True))
    assert [(t.spec.reference, t.spec.follows) for t in pinned.targets] == [("prod.ml.iris/1", False)]
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=1))
    assert back.targets[0].spec.follows
    assert back.targets[0].wanted.name == "prod.ml.iris/2"


async def test_rollback_finds_a_model_under_its_new_name(rig: Rig) -> None:
    await rig.rules.create(call(), creation("prod.ml.live", spec("prod.ml.iris/1")))
    await rig.rules.update(call(), UpdateDeployment("prod.ml.live", "", targets=(spec("prod.ml.iris/2"),)))
    rig.upstream.rename("prod.ml.iris", "prod.ml.flower")
    back = await rig.rules.rollback(call(), RollbackDeployment("prod.ml.live", revision=1))
    assert back.targets[0].spec.reference == "prod.ml.flower/1"
    assert back.targets[0].wanted.id == "v-prod.ml.iris/1"


async def test_rollback_needs_what_an_update_needs(rig: Rig) -> None:
    await rig.rules.create(call(), creation())
    await retarget(rig, "prod.ml.iris/2")
    back = RollbackDeployment(NAME, revision=1)
    with pytest.raises(PermissionDenied):
        await rig.rules.rollback(call(BOB), back)
    rig.upstream.refused["prod.ml.iris/1"] = ["an approval"]
    with pytest.raises(PolicyUnmet):
        await rig.rules.rollback(call(), back)
    rig.upstream.refused.clear()
    await rig.rules.delete(call(), NAME, "")
    with pytest.raises(InvalidState):
        await rig.rules.rollback(call(), back)


async def test_the_owner_is_changed_by_who_may_manage(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation())
    now = made.update_time
    await rig.db.in_tx(lambda connection: notes.answering(connection, made, ["v"], now))
    (note,) = await rig.db.read(lambda connection: notes.pending(connection, 10))
    await rig.db.in_tx(lambda connection: notes.told(connection, note))
    with pytest.raises(InvalidField, match="no principal"):
        await rig.rules.update(call(), UpdateDeployment(NAME, "", owner_id="u-nobody"))
    rights = (Privilege.DEPLOY, Privilege.USE_CATALOG, Privilege.USE_SCHEMA)
    rig.grant(BOB, *((SYSTEM_ID, right, Effect.ALLOW) for right in rights))
    with pytest.raises(PermissionDenied):
        await rig.rules.update(call(BOB), UpdateDeployment(NAME, "", owner_id=BOB.id))
    before = await rig.db.read(rig.store.table_version)
    given = await rig.rules.update(call(), UpdateDeployment(NAME, "", owner_id=BOB.id))
    assert (given.owner_id, given.state) == (BOB.id, DeploymentState.CREATING)
    assert await rig.db.read(rig.store.table_version) > before  # gateways decide by owners
    (told,) = await rig.db.read(lambda connection: notes.pending(connection, 10))
    assert (told.owner_id, told.version_ids) == (BOB.id, ("v",))
    await rig.rules.update(call(BOB), UpdateDeployment(NAME, "", owner_id=ADA.id))  # who owns may give


async def test_the_oldest_revisions_are_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = LIMITS["revisions_per_deployment"]
    monkeypatch.setitem(LIMITS, limit.name, replace(limit, maximum=2))
    await rig.rules.create(call(), creation())
    for number in (2, 1, 2):
        await retarget(rig, f"prod.ml.iris/{number}")
    assert [r.number for r in await revisions(rig)] == [4, 3]


async def test_history_goes_with_its_deployment(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation())
    await rig.db.in_tx(lambda connection: rig.store.delete_deployment(connection, made.id))

    async def count(connection: AsyncConnection) -> int:
        return int(
            (await connection.execute(sa.select(sa.func.count()).select_from(tables.revisions))).scalar_one()
        )

    assert await rig.db.read(count) == 0


async def test_history_begins_with_what_was_there_before_it_was_kept(rig: Rig) -> None:
    """A deployment of a release without history can be brought back to what it was at the upgrade."""
    await rig.rules.create(call(), creation(description="old"))
    await retarget(rig, "prod.ml.iris/2")
    async with rig.db.engine.connect() as connection:
        for statement in (
            "DROP TABLE log_switches",
            "DROP TABLE log_marks",
            "DROP TABLE deployment_revisions",
            (
                "ALTER TABLE deployments DROP COLUMN conditions, DROP COLUMN sticky_header,"
                " DROP COLUMN rollout_policy, DROP COLUMN rollout, DROP COLUMN rejection, DROP COLUMN resources, DROP COLUMN autoscaling,"
                " DROP COLUMN traffic_limits, DROP COLUMN private, DROP COLUMN log_policy, DROP COLUMN batching, DROP COLUMN environment_variables, DROP COLUMN environment, DROP COLUMN update_strategy"
            ),
            "DROP TABLE rollout_origins",
            "ALTER TABLE targets DROP COLUMN shadow_percent",
            (
                "ALTER TABLE replica_groups DROP COLUMN shadow, DROP COLUMN resources, DROP COLUMN scale,"
                " DROP COLUMN batching, DROP COLUMN environment_variables, DROP COLUMN environment"
            ),
            "DROP TABLE shadow_counts",
            "UPDATE alembic_version SET version_num = '0005'",
        ):
            await connection.execute(sa.text(statement))
    await migrate.upgrade(rig.db.dsn, "modelyard_inference")
    (first,) = await revisions(rig)
    assert (first.number, first.change, first.actor_name) == (2, Change.UPDATED, "")
    assert first.settings == history.settings_of(await rig.lookups.get(NAME))
    await retarget(rig, "prod.ml.iris/1")
    back = await rig.rules.rollback(call(), RollbackDeployment(NAME))
    assert back.targets[0].wanted.name == "prod.ml.iris/2"


async def test_what_revisions_changed_is_found_out_at_the_upgrade(rig: Rig) -> None:
    await rig.rules.create(call(), creation(description="old"))
    await retarget(rig, "prod.ml.iris/2")
    await rig.rules.update(
        call(), UpdateDeployment(NAME, "", timeout_ms=5, replicas=3, log_policy=LogPolicy(access_log=True))
    )
    await rig.rules.deactivate(call(), SetActive(NAME))
    await rig.rules.rollback(call(), RollbackDeployment(NAME, revision=1))
    before = [r.changed_fields for r in await revisions(rig)]
    assert before[2] == ("logging", "replicas", "timeout")
    async with rig.db.engine.connect() as connection:
        # Settings that came with a later release are in no revision of an earlier one.
        await connection.execute(
            sa.text("UPDATE deployment_revisions SET settings = settings - 'environment' WHERE number < 3")
        )
        await connection.execute(sa.text("ALTER TABLE deployment_revisions DROP COLUMN changed_fields"))
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0017'"))
    await migrate.upgrade(rig.db.dsn, "modelyard_inference")
    assert [r.changed_fields for r in await revisions(rig)] == before
