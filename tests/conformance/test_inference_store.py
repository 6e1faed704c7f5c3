"""The use cases of deployments and their tables, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import notes, shadow_rows, tables
from modelyard_inference.commands import ListDeployments, ListReplicas, SetActive, UpdateDeployment
from modelyard_inference.deployments import Deployments
from modelyard_inference.log_policy import SILENT
from modelyard_inference.lookups import Lookups
from modelyard_inference.models import (
    DeploymentState,
    Group,
    GroupState,
    Replica,
    ReplicaState,
    TargetSpec,
)
from modelyard_inference.shadow_counts import ShadowCounts
from modelyard_inference.store import InferenceStore, Visible
from modelyard_kit import migrate
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant, Scope
from modelyard_kit.auth import Principal
from modelyard_kit.authorization import Missing
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import (
    AlreadyExists,
    EtagMismatch,
    InvalidField,
    InvalidState,
    NotFound,
    PermissionDenied,
    PolicyUnmet,
    RequestIdReused,
)
from modelyard_kit.filters import Asked
from modelyard_kit.grants import Grants
from tests.framework.inference import ADA, FakeUpstream, all_grants, call, creation, spec
from tests.framework.plans import read_from_end_to_end

BOB = Principal("u-bob", "bob", "user")
ALLOW, DENY = Effect.ALLOW, Effect.DENY


class Rig:
    def __init__(self, db: Database, grants: Grants) -> None:
        self.db, self.grants, self.store, self.upstream = db, grants, InferenceStore(), FakeUpstream()
        self.wakes = 0
        self.lookups = Lookups(db, self.store, self.upstream, grants)
        self.rules = Deployments(db, self.store, self.lookups, self.upstream, grants, utc_now, self._wake)
        for number in (1, 2):
            self.upstream.add(number)

    def _wake(self) -> None:
        self.wakes += 1

    def grant(self, principal: Principal, *grants: tuple[str, Privilege, Effect]) -> None:
        self.grants.replace(principal.id, principal.name, [ResourceGrant(*grant) for grant in grants])

    async def events(self) -> list[str]:
        query = sa.select(tables.metadata.tables["outbox"].c.type).order_by(sa.text("position"))

        async def work(connection: sa.ext.asyncio.AsyncConnection) -> Sequence[str]:
            return (await connection.execute(query)).scalars().all()

        return list(await self.db.read(work))


@pytest.fixture
async def rig(fresh_database: Callable[[str], str]) -> AsyncIterator[Rig]:
    db = Database.connect(fresh_database("modelyard_inference"))
    yield Rig(db, await all_grants())
    await db.close()


async def test_tables_are_those_of_the_migration(rig: Rig) -> None:
    def difference(connection: sa.Connection) -> object:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        found = compare_metadata(MigrationContext.configure(connection), tables.metadata)
        return [change for change in found if "alembic_version" not in str(change)]

    async with rig.db.engine.connect() as connection:
        assert await connection.run_sync(difference) == []


async def test_created_deployment_is_read_back_whole(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation(description="about", replicas=3))
    assert await rig.lookups.get("prod.ml.iris") == made
    assert made.state is DeploymentState.CREATING
    assert made.targets[0].wanted == rig.upstream.versions["prod.ml.iris/1"]
    assert [link.name for link in made.chain] == ["prod.ml.iris", "prod.ml", "prod", ""]
    assert await rig.lookups.chain(deployment_id=made.id) == made.chain
    assert rig.wakes == 1
    assert await rig.events() == ["inference.deployment.created"]


async def test_name_is_taken_once(rig: Rig) -> None:
    results = await asyncio.gather(
        *(rig.rules.create(call(), creation()) for _ in range(4)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists"] * 3 + ["Deployment"]
    with pytest.raises(AlreadyExists):
        await rig.rules.create(call(), creation())


async def test_same_request_id_returns_the_first_answer(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation(request_id="r"))
    rig.upstream.versions.clear()  # nothing is looked up again
    assert await rig.rules.create(call(), creation(request_id="r")) == made
    with pytest.raises(RequestIdReused):
        await rig.rules.create(call(), creation(request_id="r", fingerprint="other"))
    assert await rig.events() == ["inference.deployment.created"]


@pytest.mark.parametrize(
    ("reference", "error"),
    [("prod.ml.iris/9", NotFound), ("prod.ml.iris@none", NotFound), ("prod.ml.none/1", NotFound)],
)
async def test_target_must_exist(rig: Rig, reference: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await rig.rules.create(call(), creation("prod.ml.iris", spec(reference)))


async def test_target_must_be_ready_and_let_by_policies(rig: Rig) -> None:
    rig.upstream.pending.add("prod.ml.iris/1")
    with pytest.raises(InvalidState):
        await rig.rules.create(call(), creation())
    rig.upstream.pending.clear()
    rig.upstream.refused["prod.ml.iris/1"] = ["1 approval of 1", "a card"]
    with pytest.raises(PolicyUnmet) as refused:
        await rig.rules.create(call(), creation())
    assert [violation.description for violation in refused.value.violations] == ["1 approval of 1", "a card"]
    assert await rig.events() == []


async def test_caller_needs_deploy_on_the_model(rig: Rig) -> None:
    rig.grant(BOB, ("m-prod.ml.iris", Privilege.READ_METADATA, ALLOW))
    for reference in (
        "prod.ml.iris/1",
        "prod.ml.iris/9",
        "prod.ml.none/1",
    ):  # all the same to who may not know
        with pytest.raises(PermissionDenied):
            await rig.rules.create(call(BOB), creation("prod.ml.iris", spec(reference)))
    reach = (("c1", Privilege.USE_CATALOG, ALLOW), ("s1", Privilege.USE_SCHEMA, ALLOW))
    rig.grant(BOB, *reach, ("m-prod.ml.iris", Privilege.DEPLOY, ALLOW))
    made = await rig.rules.create(call(BOB), creation())
    assert made.owner_id == BOB.id


async def test_update_changes_what_is_given_and_nothing_else(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation(description="about"))
    changed = await rig.rules.update(call(), UpdateDeployment("prod.ml.iris", made.etag, replicas=4))
    assert (changed.replicas, changed.description, changed.targets) == (4, "about", made.targets)
    assert changed.etag != made.etag
    assert await rig.lookups.get("prod.ml.iris") == changed
    with pytest.raises(EtagMismatch):
        await rig.rules.update(call(), UpdateDeployment("prod.ml.iris", made.etag, replicas=5))
    assert await rig.events() == ["inference.deployment.created", "inference.deployment.updated"]


async def test_only_one_of_two_conditional_updates_wins(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation())
    change = UpdateDeployment("prod.ml.iris", made.etag, replicas=4)
    results = await asyncio.gather(
        *(rig.rules.update(call(), change) for _ in range(3)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == [
        "Deployment",
        "EtagMismatch",
        "EtagMismatch",
    ]


async def test_kept_targets_are_not_checked_again(rig: Rig) -> None:
    await rig.rules.create(call(), creation())
    rig.upstream.refused["prod.ml.iris/1"] = ["expired"]
    both = (spec("prod.ml.iris/1", 9), spec("prod.ml.iris/2"))
    changed = await rig.rules.update(call(), UpdateDeployment("prod.ml.iris", "", targets=both))
    assert [(target.wanted.number, target.spec.weight) for target in changed.targets] == [(1, 9), (2, 1)]
    rig.upstream.refused["prod.ml.iris/2"] = ["no"]
    await rig.rules.update(call(), UpdateDeployment("prod.ml.iris", "", targets=both[:1]))
    with pytest.raises(PolicyUnmet):
        await rig.rules.update(call(), UpdateDeployment("prod.ml.iris", "", targets=both))


async def test_gateways_learn_why_nothing_answers(rig: Rig) -> None:
    async def learned() -> tuple[int, list[str]]:
        table = await rig.db.read(rig.store.routes)
        assert not any(route.targets for route in table.routes)
        return table.version, [route.idle for route in table.routes]

    assert await learned() == (1, [])
    await rig.rules.create(call(), creation())
    assert await learned() == (2, [DeploymentState.CREATING])
    await rig.rules.deactivate(call(), SetActive("prod.ml.iris"))
    assert await learned() == (3, [DeploymentState.INACTIVE])
    await rig.rules.activate(call(), SetActive("prod.ml.iris"))
    assert await learned() == (4, [DeploymentState.CREATING])
    await rig.rules.delete(call(), "prod.ml.iris", "")
    assert await learned() == (5, [])


async def test_limits_of_a_route_make_a_new_table(rig: Rig) -> None:
    await rig.rules.create(call(), creation())
    before = await rig.db.read(rig.store.table_version)
    await rig.rules.update(call(), UpdateDeployment("prod.ml.iris", "", description="x", replicas=2))
    assert await rig.db.read(rig.store.table_version) == before
    await rig.rules.update(call(), UpdateDeployment("prod.ml.iris", "", timeout_ms=5))
    assert await rig.db.read(rig.store.table_version) == before + 1


async def test_delete_is_repeatable_and_final(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation())
    with pytest.raises(EtagMismatch):
        await rig.rules.delete(call(), "prod.ml.iris", "99")
    deleted = await rig.rules.delete(call(), "prod.ml.iris", made.etag)
    assert deleted.state is DeploymentState.DELETING
    assert await rig.rules.delete(call(), "prod.ml.iris", made.etag) == deleted
    with pytest.raises(InvalidState):
        await rig.rules.update(call(), UpdateDeployment("prod.ml.iris", "", replicas=2))
    with pytest.raises(AlreadyExists):
        await rig.rules.create(call(), creation())
    assert await rig.events() == ["inference.deployment.created", "inference.deployment.deleted"]


async def test_missing_deployment_names_its_nearest_container(rig: Rig) -> None:
    for name, nearest in (("prod.ml.none", "prod.ml"), ("prod.none.x", "prod"), ("none.x.y", "")):
        with pytest.raises(Missing) as missing:
            await rig.lookups.access_chain(name)
        assert missing.value.nearest[0].name == nearest
        assert isinstance(missing.value.error, NotFound)


class TestLists:
    """Pages hold what the caller may see, no more and no less."""

    async def _names(self, rig: Rig, principal: Principal, schema: str = "", limit: int = 50) -> list[str]:
        names, token = [], ""
        while True:
            asked = ListDeployments(schema, Asked(size=limit, page_token=token))
            found, token = await rig.lookups.page(call(principal), asked)
            assert len(found) <= limit
            names += [deployment.name for deployment in found]
            if not token:
                return names

    @pytest.fixture
    async def names(self, rig: Rig) -> list[str]:
        names = [f"prod.ml.d{number}" for number in range(5)]
        for name in names:
            await rig.rules.create(call(), creation(name))
        return names

    async def test_pages_are_complete_and_in_order(self, rig: Rig, names: list[str]) -> None:
        assert await self._names(rig, ADA, limit=2) == names
        assert await self._names(rig, ADA, "prod.ml", limit=5) == names

    async def test_filters_and_orders(self, rig: Rig, names: list[str]) -> None:
        rig.upstream.add(3)
        await rig.rules.create(call(), creation("prod.ml.big", replicas=3))

        async def found(asked: str, order_by: str = "") -> list[str]:
            listed = ListDeployments("", Asked(size=50, filter=asked, order_by=order_by))
            rows, _ = await rig.lookups.page(call(ADA), listed)
            return [row.name.rpartition(".")[2] for row in rows]

        assert await found("replicas > 2") == ["big"]
        assert await found("name LIKE '%d_' AND state = 'creating'", "name desc") == [
            "d4",
            "d3",
            "d2",
            "d1",
            "d0",
        ]
        assert await found("name = 'prod.ml.d1' AND timeout = 60 AND model = 'prod.ml.iris'") == ["d1"]
        assert await found("target = 'prod.ml.iris/1' AND model_version IS NULL", "replicas desc, name") == [
            "big",
            *(name.rpartition(".")[2] for name in names),
        ]
        rig.grant(ADA, (SYSTEM_ID, Privilege.OWNERSHIP, ALLOW))
        assert len(await found("owner = 'ada'")) == 6
        for wrong, problem in {
            "owner = 'eve'": "column 9: there is no principal called 'eve'",
            "state = 'GONE'": "column 9: found text 'GONE', expected a value: state is ENUM",
        }.items():
            with pytest.raises(InvalidField, match=problem):
                await found(wrong)

    async def test_large_lists_read_indexes(self, rig: Rig) -> None:
        columns = ", ".join(column.name for column in tables.deployments.c)
        fill = (
            f"INSERT INTO deployments ({columns}) SELECT 'i' || n, 'prod.ml.d' || n, 's' || n % 997, 'x', 'x', 'x', '', 1, 1, 1, "
            "'ACTIVE', '', 'x', 1, now(), now(), false, true, '[]', '', '{}', NULL, NULL, '{}', '{}', '{}', false, '{}',"
            " '{}', '{}', '{}', 'AVAILABILITY_PRESERVING'"
            " FROM generate_series(1, 20000) n"
        )
        async with rig.db.engine.connect() as connection:
            await connection.exec_driver_sql(fill)
            await connection.exec_driver_sql("VACUUM ANALYZE")
        searches = [
            ("", Asked(size=50)),
            ("s7", Asked(size=7)),
            ("", Asked(size=5, filter="name LIKE 'prod.ml.d777%'")),
            ("", Asked(size=50, filter="name > 'prod.ml.d5'", order_by="name")),
            ("", Asked(size=50, filter="state = 'ACTIVE'", order_by="id desc")),
        ]
        visible = Visible(*[Scope("", frozenset(), frozenset(), everything=True)] * 3)
        for schema, asked in searches:

            async def scanned(
                connection: AsyncConnection, schema: str = schema, first: Asked = asked
            ) -> set[str]:
                token = ""

                async def page() -> None:
                    nonlocal token
                    asked = replace(first, page_token=token)
                    rows, token = await rig.store.page(connection, asked, schema_id=schema, visible=visible)
                    assert rows

                found = await read_from_end_to_end(connection, page)
                assert token
                return found | await read_from_end_to_end(connection, page)

            assert "deployments" not in await rig.db.read(scanned), asked

    async def test_only_what_is_granted(self, rig: Rig, names: list[str]) -> None:
        reach = (("c1", Privilege.USE_CATALOG, ALLOW), ("s1", Privilege.USE_SCHEMA, ALLOW))
        read = Privilege.READ_METADATA
        one, two = [(await rig.lookups.get(name)).id for name in names[:2]]
        for grants, seen in (
            ((), []),
            (((one, read, ALLOW),), []),  # without reach into catalog and schema
            ((*reach, (one, read, ALLOW)), names[:1]),
            ((*reach, ("c1", read, ALLOW)), names),
            ((*reach, ("system", read, ALLOW), (two, read, DENY)), [names[0], *names[2:]]),
            ((*reach, ("s1", read, ALLOW), ("system", read, DENY)), []),
            ((("s1", Privilege.OWNERSHIP, ALLOW), ("c1", Privilege.USE_CATALOG, ALLOW)), names),
            ((("c1", Privilege.OWNERSHIP, ALLOW),), names),
        ):
            rig.grant(BOB, *grants)
            assert await self._names(rig, BOB, limit=2) == seen

    async def test_list_agrees_with_single_decisions(self, rig: Rig, names: list[str]) -> None:
        deployments = [await rig.lookups.get(name) for name in names]
        ids = [deployments[0].id, "s1", "c1", "system"]
        privileges = (Privilege.READ_METADATA, Privilege.USE_SCHEMA, Privilege.USE_CATALOG)
        for read_on in ids:
            for denied_on in (None, *ids):
                for denied in privileges:
                    grants = [(read_on, Privilege.READ_METADATA, ALLOW)]
                    grants += [("system", privilege, ALLOW) for privilege in privileges[1:]]
                    grants += [(denied_on, denied, DENY)] if denied_on else []
                    rig.grant(BOB, *grants)
                    expected = [
                        d.name
                        for d in deployments
                        if rig.grants.decide(BOB.id, Privilege.READ_METADATA, d.chain).allowed
                    ]
                    assert await self._names(rig, BOB) == expected, grants

    async def test_own_deployments_are_seen(self, rig: Rig) -> None:
        reach = (("c1", Privilege.USE_CATALOG, ALLOW), ("s1", Privilege.USE_SCHEMA, ALLOW))
        rig.grant(BOB, *reach, ("s1", Privilege.DEPLOY, ALLOW))
        await rig.rules.create(call(BOB), creation())
        assert await self._names(rig, BOB) == ["prod.ml.iris"]

    async def test_missing_schema_is_told_only_to_who_may_know(self, rig: Rig) -> None:
        with pytest.raises(NotFound):
            await self._names(rig, ADA, "prod.none")
        for schema in ("prod.none", "prod.ml", "none.x"):
            with pytest.raises(PermissionDenied):
                await self._names(rig, BOB, schema)


async def test_route_table_follows_from_the_rows(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation())
    version = rig.upstream.versions["prod.ml.iris/1"]
    group = Group("g", "iris-v1-g", made.id, version, 2**20, GroupState.SERVING, 3, 2, utc_now())
    other = replace(group, id="h", name="iris-v1-h", state=GroupState.STARTING)
    replica = Replica(
        "r0", "g", made.id, 0, "unix:/s/0", ReplicaState.READY, True, 2, 1, "x", 0, 0, "", utc_now()
    )
    joining = replace(replica, id="r1", ordinal=1, address="unix:/s/1", routed=False)

    async def fill(connection: sa.ext.asyncio.AsyncConnection) -> None:
        await rig.store.insert_group(connection, group)
        await rig.store.insert_group(connection, other)
        await rig.store.insert_replicas(connection, [replica, joining])
        await rig.store.next_table(connection)

    await rig.db.in_tx(fill)
    table = await rig.db.read(rig.store.routes)
    (route,) = table.routes
    (target,) = route.targets
    assert (target.group, target.version, target.weight) == ("iris-v1-g", "prod.ml.iris/1", 3)
    assert target.addresses == ("unix:/s/0",)
    assert route.chain == made.chain
    assert table.version == 3
    world = await rig.db.read(rig.store.world)
    assert world.groups == (group, other)
    assert world.replicas == (replica, joining)
    assert (await rig.lookups.get("prod.ml.iris")).ready == {"prod.ml.iris/1": 2}
    listed, _ = await rig.lookups.replicas(ListReplicas("prod.ml.iris", Asked(size=50)))
    assert [one[1:] for one in listed] == [(replica, group), (joining, group)]


async def test_report_does_not_overwrite_a_callers_change(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation())
    await rig.rules.delete(call(), "prod.ml.iris", "")
    written = await rig.db.in_tx(
        lambda connection: rig.store.set_state(connection, made, DeploymentState.ACTIVE, "", ())
    )
    assert not written
    assert (await rig.lookups.get("prod.ml.iris")).state is DeploymentState.DELETING


async def test_migrations_take_what_runs_along(rig: Rig) -> None:
    """Of a database of the first release: what answers is noted for the lineage graph, and was loaded without a requirement."""
    made = await rig.rules.create(call(), creation())
    version = made.targets[0].wanted
    groups = [
        Group(f"g{n}", f"g{n}", made.id, replace(version, id=f"v{n}"), 1, state, 1, 1, utc_now())
        for n, state in enumerate((GroupState.SERVING, GroupState.STARTING, GroupState.DRAINING))
    ]

    async def as_before(connection: sa.ext.asyncio.AsyncConnection) -> None:
        for group in groups:
            await rig.store.insert_group(connection, group)
        await connection.execute(sa.text("DROP TABLE lineage_notes"))
        later = "deployments_order, deployments_order_in_schema, deployments_name, replicas_order"
        await connection.execute(sa.text(f"DROP INDEX {later}"))
        await connection.execute(sa.text("CREATE INDEX deployments_page ON deployments (schema_id, id)"))
        await connection.execute(sa.text("DROP TABLE signature_evidence"))
        for table in ("deployments", "replica_groups"):
            await connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN require_signature"))
        await connection.execute(
            sa.text(
                "ALTER TABLE deployments DROP COLUMN active, DROP COLUMN conditions, DROP COLUMN sticky_header,"
                " DROP COLUMN rollout_policy, DROP COLUMN rollout, DROP COLUMN rejection, DROP COLUMN resources, DROP COLUMN autoscaling,"
                " DROP COLUMN traffic_limits, DROP COLUMN private, DROP COLUMN log_policy, DROP COLUMN batching, DROP COLUMN environment_variables, DROP COLUMN environment, DROP COLUMN update_strategy"
            )
        )
        await connection.execute(sa.text("DROP TABLE log_switches"))
        await connection.execute(sa.text("DROP TABLE log_marks"))
        await connection.execute(sa.text("DROP TABLE deployment_revisions"))
        await connection.execute(sa.text("DROP TABLE shadow_counts"))
        await connection.execute(sa.text("DROP TABLE rollout_origins"))
        await connection.execute(sa.text("ALTER TABLE targets DROP COLUMN shadow_percent"))
        await connection.execute(
            sa.text(
                "ALTER TABLE replica_groups DROP COLUMN shadow, DROP COLUMN resources, DROP COLUMN scale,"
                " DROP COLUMN batching, DROP COLUMN environment_variables, DROP COLUMN environment"
            )
        )
        for column in ("signature_state", "signer", "trust_root"):
            await connection.execute(sa.text(f"ALTER TABLE replicas DROP COLUMN {column}"))
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))

    await rig.db.in_tx(as_before)
    await migrate.upgrade(rig.db.dsn, "modelyard_inference")
    (note,) = await rig.db.read(lambda connection: notes.pending(connection, 10))
    assert (note.deployment_id, note.name, note.version_ids, note.delete_time) == (
        made.id,
        made.name,
        ("v0",),
        None,
    )
    after = await rig.lookups.get(made.name)
    assert (after.require_signature, after.active) == (False, True)
    kept = await rig.db.read(lambda connection: connection.scalar(sa.select(tables.deployments.c.log_policy)))
    assert kept == asdict(SILENT)  # as it is written now: what replicas were told is compared with it


async def test_the_end_of_a_replica_is_noted_once(rig: Rig) -> None:
    """As of one that was found gone just before its abort noted why."""
    made = await rig.rules.create(call(), creation())
    group = Group("g", "g", made.id, made.targets[0].wanted, 1, GroupState.STARTING, 0, 0, utc_now())
    found = Replica(
        id="r", group_id="g", deployment_id=made.id, ordinal=0, address="unix:/s/r", state=ReplicaState.STARTING,
        routed=False, table_version=0, process_id=7, process_started="x", restarts=0, failures=0, message="",
        create_time=utc_now(),
    )  # fmt: skip
    ended = {"state": ReplicaState.STOPPED, "process_id": 0}

    async def twice(connection: sa.ext.asyncio.AsyncConnection) -> list[bool]:
        await rig.store.insert_group(connection, group)
        await rig.store.insert_replicas(connection, [found])
        return [
            await rig.store.end_replica(connection, found, **ended, message=message)
            for message in ("not ready within 1 s", "its process ended with exit code 0")
        ]

    assert await rig.db.in_tx(twice) == [True, False]
    world = await rig.db.read(rig.store.world)
    assert [replica.message for replica in world.replicas] == ["not ready within 1 s"]


async def test_a_change_lets_what_is_in_a_crash_loop_begin_anew(rig: Rig) -> None:
    made = await rig.rules.create(call(), creation())
    group = Group("g", "g", made.id, made.targets[0].wanted, 1, GroupState.SERVING, 1, 0, utc_now())
    looping = Replica(
        id="r", group_id="g", deployment_id=made.id, ordinal=0, address="unix:/s/r", state=ReplicaState.CRASH_LOOP,
        routed=True, table_version=0, process_id=0, process_started="", restarts=3, failures=4, message="no module",
        create_time=utc_now(), not_before=utc_now() + timedelta(seconds=60),
    )  # fmt: skip

    async def run(connection: sa.ext.asyncio.AsyncConnection) -> None:
        await rig.store.insert_group(connection, group)
        await rig.store.insert_replicas(connection, [looping])

    await rig.db.in_tx(run)
    asked = Asked(size=10, filter="state = 'CRASH_LOOP' AND failures >= 3 AND next_start_time IS NOT NULL")
    found, _ = await rig.db.read(lambda connection: rig.store.page_of_replicas(connection, asked, made.id))
    assert found == [looping]
    await rig.db.in_tx(lambda connection: rig.store.try_again(connection, made.id))
    (replica,) = (await rig.db.read(rig.store.world)).replicas
    again = replace(looping, state=ReplicaState.STOPPED, failures=0, message="", not_before=None)
    assert replica == again


def shadow(reference: str, percent: int = 10) -> TargetSpec:
    return replace(spec(reference, 0), shadow_percent=percent)


async def test_shadows_are_found_with_both_sides_and_counted_as_long_as_they_are_there(rig: Rig) -> None:
    made = await rig.rules.create(
        call(), creation("prod.ml.iris", spec("prod.ml.iris/1"), shadow("prod.ml.iris/2"))
    )
    one, two = (target.wanted for target in made.targets)
    groups = (
        Group("g1", "g1", made.id, one, 1, GroupState.SERVING, 1, 1, utc_now()),
        Group("g2", "g2", made.id, two, 1, GroupState.SERVING, 10, 1, utc_now(), shadow=True),
        Group("g3", "g3", made.id, two, 1, GroupState.STOPPING, 10, 1, utc_now(), shadow=True),
    )

    async def run(connection: sa.ext.asyncio.AsyncConnection) -> None:
        for group in groups:
            await rig.store.insert_group(connection, group)
            replica = Replica(
                id=f"r-{group.id}", group_id=group.id, deployment_id=made.id, ordinal=0, address=f"unix:/s/{group.id}",
                state=ReplicaState.READY, routed=True, table_version=1, process_id=7, process_started="x", restarts=0,
                failures=0, message="", create_time=utc_now(),
            )  # fmt: skip
            await rig.store.insert_replicas(connection, [replica])
        for group_id in ("g2", "g2", "gone"):
            await shadow_rows.count(connection, group_id, ShadowCounts(mirrored=2, compared=1, different=1))

    await rig.db.in_tx(run)
    assert await rig.db.read(shadow_rows.shadowed) == [
        shadow_rows.Shadowed(made.name, "g2", 60.0, ("unix:/s/g1",), ("unix:/s/g2",))
    ]
    table = await rig.db.read(rig.store.routes)
    assert [(t.group, t.weight, t.shadow_percent, t.shadow) for t in table.routes[0].targets] == [
        ("g1", 1, 0, False),
        ("g2", 0, 10, True),
    ]
    found = await rig.lookups.get(made.name)
    assert found.shadow_counts == ShadowCounts(mirrored=4, compared=2, different=2)
    assert found.targets[1].spec.shadow_percent == 10

    async def remove(connection: sa.ext.asyncio.AsyncConnection) -> None:
        await rig.store.delete_replica(connection, "r-g2")
        await rig.store.delete_group(connection, "g2")

    await rig.db.in_tx(remove)
    assert (await rig.lookups.get(made.name)).shadow_counts is None
