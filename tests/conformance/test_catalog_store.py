"""The catalog's rules and store on real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import (
    AliasChange,
    Browse,
    Create,
    Fail,
    Finalize,
    Once,
    Resolve,
    SetMetrics,
    SetTags,
    VersionRef,
)
from modelyard_catalog.errors import AliasMoved
from modelyard_catalog.models import AliasMove, Catalog, Json, Model, Schema, VersionState
from modelyard_catalog.tables import metadata
from modelyard_kit.access import SYSTEM_ID, ResourceType, Scope
from modelyard_kit.errors import (
    AlreadyExists,
    InvalidField,
    InvalidState,
    LimitExceeded,
    NotFound,
    PolicyUnmet,
    RequestIdReused,
)
from modelyard_kit.limits import LIMITS
from tests.conformance.catalog_stack import ADA, BOB, DIGEST, EVERYTHING, IRIS, CatalogStack

OTHER_DIGEST = "sha256:" + "b" * 64


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    yield stack
    await stack.close()


@pytest.fixture
async def iris(stack: CatalogStack) -> Model:
    return await stack.create_model(*IRIS)


# The tables.


async def test_migrations_make_exactly_the_tables_of_the_code(stack: CatalogStack) -> None:
    def compare(connection: object) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})  # type: ignore[arg-type]
        return [
            change for change in compare_metadata(context, metadata) if "alembic_version" not in str(change)
        ]

    async def work(connection: AsyncConnection) -> list[object]:
        return await connection.run_sync(compare)

    assert await stack.db.read(work) == []


@pytest.mark.parametrize("statement", ["UPDATE alias_history SET alias = 'x'", "DELETE FROM alias_history"])
async def test_history_of_aliases_refuses_every_change(
    stack: CatalogStack, iris: Model, statement: str
) -> None:
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text(statement))

    with pytest.raises(DBAPIError, match="only ever appended"):
        await stack.db.in_tx(work)
    assert await stack.history(iris) == [AliasMove("champion", 0, 1)]


# Catalogs, schemas, models.


async def test_created_container_is_complete_and_found_by_name(stack: CatalogStack) -> None:
    made = await stack.create(Catalog, "prod", tags={"équipe": "ü"})
    schema = await stack.create(Schema, "prod", "ml")
    model = await stack.create(Model, *IRIS, by=BOB)
    assert (made.name, made.owner_id, made.revision, made.tags) == (
        "prod",
        ADA.principal.id,
        1,
        {"équipe": "ü"},
    )
    assert await stack.namespaces.get(Catalog, ("prod",)) == made
    assert await stack.namespaces.get(Schema, ("prod", "ml")) == schema
    assert await stack.namespaces.get(Model, IRIS) == model
    assert [link.name for link in model.chain] == ["prod.ml.iris", "prod.ml", "prod", ""]
    assert [link.owner_id for link in model.chain] == [
        BOB.principal.id,
        ADA.principal.id,
        ADA.principal.id,
        "",
    ]
    assert (model.aliases, model.latest_version) == ({}, 0)


async def test_name_is_taken_once_per_container(stack: CatalogStack, iris: Model) -> None:
    with pytest.raises(AlreadyExists) as caught:
        await stack.create(Model, *IRIS)
    assert caught.value.metadata == {"resource_type": "model", "name": "prod.ml.iris"}
    await stack.create(Schema, "prod", "other")
    assert (await stack.create(Model, "prod", "other", "iris")).id != iris.id


async def test_container_in_nothing_is_refused(stack: CatalogStack) -> None:
    with pytest.raises(NotFound) as caught:
        await stack.create(Schema, "nowhere", "ml")
    assert caught.value.metadata == {"resource_type": "catalog", "name": "nowhere"}
    with pytest.raises(NotFound):
        await stack.namespaces.get(Model, ("prod", "ml", "nothing"))


async def test_what_is_deleted_frees_its_name_and_hides_what_it_holds(
    stack: CatalogStack, iris: Model
) -> None:
    await stack.create_version()

    async def delete(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE schemas SET delete_time = now()"))

    await stack.db.in_tx(delete)
    for wanted in ((Schema, IRIS[:2]), (Model, IRIS)):
        with pytest.raises(NotFound):
            await stack.namespaces.get(*wanted)
    with pytest.raises(NotFound):
        await stack.get("prod.ml.iris/1")
    assert (await stack.create_model(*IRIS)).id != iris.id


# request_id.


async def test_same_request_twice_is_one_resource(stack: CatalogStack) -> None:
    first = await stack.create(Catalog, "prod", request_id="once")
    assert await stack.create(Catalog, "prod", request_id="once") == first
    assert [kind for kind, _, _ in await stack.events()] == ["catalog.catalog.created"]


async def test_request_id_with_other_content_is_refused(stack: CatalogStack) -> None:
    await stack.create(Catalog, "prod", request_id="once")
    with pytest.raises(RequestIdReused):
        await stack.create(Catalog, "test", request_id="once")


async def test_request_id_belongs_to_its_caller(stack: CatalogStack) -> None:
    await stack.create(Catalog, "prod", request_id="once")
    assert (await stack.create(Catalog, "test", request_id="once", by=BOB)).name == "test"


async def test_same_request_from_many_at_once_is_one_version(stack: CatalogStack, iris: Model) -> None:
    made = await asyncio.gather(*(stack.create_version(request_id="once") for _ in range(6)))
    assert {version.id for version in made} == {made[0].id}
    assert (await stack.namespaces.get(Model, IRIS)).latest_version == 1


# Versions.


async def test_version_with_an_artifact_is_ready(stack: CatalogStack, iris: Model) -> None:
    made = await stack.create_version(metrics={"accuracy": 0.9})
    assert (made.number, made.state, made.artifact_digest) == (1, VersionState.READY, DIGEST)
    assert (made.name, made.model.id, made.author_name) == ("prod.ml.iris/1", iris.id, "ada")
    assert stack.artifacts.asked == [(DIGEST, "prod.ml.iris")]
    assert await stack.get("models:/prod.ml.iris/1") == made
    after = await stack.namespaces.get(Model, IRIS)
    assert (after.latest_version, after.revision) == (1, iris.revision + 1)


async def test_version_with_an_unknown_artifact_is_refused_and_takes_no_number(
    stack: CatalogStack, iris: Model
) -> None:
    stack.artifacts.missing.add(DIGEST)
    with pytest.raises(InvalidField, match="artifact_digest"):
        await stack.create_version()
    assert (await stack.namespaces.get(Model, IRIS)).latest_version == 0


async def test_pending_version_is_finalized_once(stack: CatalogStack, iris: Model) -> None:
    pending = await stack.create_version(digest="")
    assert pending.state is VersionState.PENDING
    assert stack.artifacts.asked == []
    command = Finalize(VersionRef(IRIS, 1), DIGEST)
    ready = await stack.versions.finalize(ADA, command)
    assert (ready.id, ready.state, ready.artifact_digest) == (pending.id, VersionState.READY, DIGEST)
    assert ready.revision == pending.revision + 1
    assert await stack.versions.finalize(ADA, command) == ready
    with pytest.raises(InvalidState) as caught:
        await stack.versions.finalize(ADA, Finalize(VersionRef(IRIS, 1), OTHER_DIGEST))
    assert caught.value.metadata["state"] == "READY"
    with pytest.raises(InvalidState):
        await stack.versions.fail(ADA, Fail(VersionRef(IRIS, 1), "too late"))


async def test_failed_version_stays_failed(stack: CatalogStack, iris: Model) -> None:
    await stack.create_version(digest="")
    failed = await stack.versions.fail(ADA, Fail(VersionRef(IRIS, 1), "disk full"))
    assert (failed.state, failed.state_message) == (VersionState.FAILED, "disk full")
    assert await stack.versions.fail(ADA, Fail(VersionRef(IRIS, 1), "again")) == failed
    with pytest.raises(InvalidState):
        await stack.versions.finalize(ADA, Finalize(VersionRef(IRIS, 1), DIGEST))
    assert (await stack.create_version()).number == 2


async def test_writers_at_once_get_numbers_without_gap(stack: CatalogStack, iris: Model) -> None:
    made = await asyncio.gather(*(stack.create_version() for _ in range(12)))
    assert sorted(version.number for version in made) == list(range(1, 13))
    after = await stack.namespaces.get(Model, IRIS)
    assert (after.latest_version, after.revision) == (12, 13)


async def test_versions_are_listed_newest_first_and_complete(stack: CatalogStack, iris: Model) -> None:
    for number in range(1, 6):
        await stack.create_version(metrics={"n": float(number)})
    await stack.set_aliases(AliasChange("b", 4), AliasChange("a", 4))
    first, token = await stack.versions.page(IRIS, Browse(size=2))
    assert [row.number for row in first] == [5, 4]
    assert (first[1].aliases, first[1].metrics) == (("a", "b"), {"n": 4.0})
    for size, expected in ((2, [3, 2]), (3, [3, 2, 1])):
        rows, end = await stack.versions.page(IRIS, Browse(size=size, page_token=token))
        assert [row.number for row in rows] == expected
        assert bool(end) == (size == 2)


# Metrics and tags.

JSON_VALUES: dict[str, Json] = {
    "null": None,
    "true": True,
    "one": 1.0,
    "smallest": 5e-324,
    "largest": 1.7976931348623157e308,
    "text": 'Größe 🚀 \\ " \u2028',
    "matrix": [[1.0, 0.0], [0.0, 1.0]],
    "nested": {"": {"a": [None, False, {}]}, "ключ": []},
}


async def test_metrics_of_every_json_type_come_back_unchanged(stack: CatalogStack, iris: Model) -> None:
    await stack.create_version(metrics=JSON_VALUES)
    assert (await stack.get("prod.ml.iris/1")).metrics == JSON_VALUES


async def test_metrics_are_written_removed_and_recorded(stack: CatalogStack, iris: Model) -> None:
    made = await stack.create_version(metrics={"a": 1.0, "b": 2.0})
    command = SetMetrics(VersionRef(IRIS), {"a": 1.5, "c": [1.0] * 1000}, ("b", "absent"))
    assert await stack.versions.set_metrics(ADA, command) == {"a": 1.5, "c": [1.0] * 1000}
    after = await stack.get("prod.ml.iris/1")
    assert after.metrics == {"a": 1.5, "c": [1.0] * 1000}
    assert after.revision == made.revision + 1
    kind, name, data = (await stack.events())[-1]
    assert (kind, name) == ("catalog.model_version.measured", "prod.ml.iris/1")
    assert data["before"] == {"a": 1.0, "b": 2.0}
    assert data["after"]["a"] == 1.5
    assert data["after"]["c"].keys() == {"bytes", "sha256"}


async def test_numbers_among_metrics_can_be_compared(stack: CatalogStack, iris: Model) -> None:
    await stack.create_version(metrics={"number": 0.5, "flag": True, "text": "0.5", "list": [0.5]})

    async def work(connection: AsyncConnection) -> list[str]:
        return list(await connection.scalars(text("SELECT name FROM metrics WHERE number = 0.5")))

    assert await stack.db.read(work) == ["number"]


async def test_change_that_changes_nothing_leaves_no_trace(stack: CatalogStack, iris: Model) -> None:
    await stack.create_version(metrics={"a": 1.0})
    before = (await stack.events(), (await stack.get("prod.ml.iris/1")).revision)
    await stack.versions.set_metrics(ADA, SetMetrics(VersionRef(IRIS, 1), {"a": 1.0}, ("absent",)))
    await stack.namespaces.set_tags(ADA, SetTags(VersionRef(IRIS, 1), {"stage": "tëst"}, ("absent",)))
    assert before == (await stack.events(), (await stack.get("prod.ml.iris/1")).revision)


@pytest.mark.parametrize("target", [IRIS[:1], IRIS[:2], IRIS, VersionRef(IRIS, alias="champion")], ids=str)
async def test_tags_of_every_kind_of_resource(
    stack: CatalogStack, iris: Model, target: tuple[str, ...] | VersionRef
) -> None:
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    first = await stack.namespaces.set_tags(ADA, SetTags(target, {"a": "1", "b": ""}, ("stage",)))
    assert first == {"a": "1", "b": ""}
    assert await stack.namespaces.set_tags(BOB, SetTags(target, {"a": "2"}, ("b",))) == {"a": "2"}
    kind, _, data = (await stack.events())[-1]
    assert kind.endswith(".tagged")
    assert data == {"before": {"a": "1", "b": ""}, "after": {"a": "2"}}


async def test_counts_are_limited_over_several_calls(stack: CatalogStack, iris: Model) -> None:
    maximum = LIMITS["tags_per_resource"].maximum
    full = {f"tag {number}": "" for number in range(maximum)}
    await stack.namespaces.set_tags(ADA, SetTags(IRIS, full, ()))
    with pytest.raises(LimitExceeded):
        await stack.namespaces.set_tags(ADA, SetTags(IRIS, {"one more": ""}, ()))
    swapped = await stack.namespaces.set_tags(ADA, SetTags(IRIS, {"one more": ""}, ("tag 0",)))
    assert len(swapped) == maximum


# Aliases.


async def test_aliases_move_together(stack: CatalogStack, iris: Model) -> None:
    await stack.create_version()
    await stack.create_version()
    model = await stack.set_aliases(AliasChange("champion", 1), AliasChange("challenger", 2))
    assert model.aliases == {"champion": 1, "challenger": 2}
    swapped = await stack.set_aliases(AliasChange("champion", 2, 1), AliasChange("challenger", 0, 2))
    assert swapped.aliases == {"champion": 2}
    assert swapped.revision == model.revision + 1
    assert (await stack.get("prod.ml.iris@champion")).number == 2
    assert (await stack.get("prod.ml.iris/2")).aliases == ("champion",)
    assert (await stack.get("prod.ml.iris/1")).aliases == ()
    assert await stack.history(iris) == [
        AliasMove("champion", 0, 1),
        AliasMove("challenger", 0, 2),
        AliasMove("champion", 1, 2),
        AliasMove("challenger", 2, 0),
    ]
    second = await stack.get("prod.ml.iris/2")
    first = await stack.get("prod.ml.iris/1")
    moved = [
        data
        for kind, name, data in await stack.events()
        if (kind, name) == ("catalog.alias.moved", iris.name)
    ]
    assert moved[2:] == [
        {
            "alias": "champion",
            "before": {"version": 1, "version_id": first.id},
            "after": {"version": 2, "version_id": second.id},
        },
        {"alias": "challenger", "before": {"version": 2, "version_id": second.id}, "after": None},
    ]


async def test_one_refused_change_refuses_all(stack: CatalogStack, iris: Model) -> None:
    await stack.create_version()
    await stack.create_version(digest="")
    with pytest.raises(NotFound) as missing:
        await stack.set_aliases(AliasChange("a", 1), AliasChange("b", 9))
    assert missing.value.metadata == {"resource_type": "model_version", "name": "prod.ml.iris/9"}
    with pytest.raises(InvalidState):
        await stack.set_aliases(AliasChange("a", 1), AliasChange("b", 2))
    with pytest.raises(AliasMoved) as moved:
        await stack.set_aliases(AliasChange("a", 1), AliasChange("b", 1, 3))
    assert moved.value.metadata == {"name": "prod.ml.iris", "alias": "b", "expected": "3", "actual": "0"}
    stack.gates.closed.add(1)
    with pytest.raises(PolicyUnmet):
        await stack.set_aliases(AliasChange("a", 1), AliasChange("c", 0))
    assert (await stack.namespaces.get(Model, IRIS)).aliases == {}
    assert await stack.history(iris) == []


async def test_gate_is_asked_once_per_version_and_not_for_removals(stack: CatalogStack, iris: Model) -> None:
    await stack.create_version()
    await stack.create_version()
    await stack.set_aliases(
        AliasChange("a", 1), AliasChange("b", 2), AliasChange("c", 1), AliasChange("d", 0)
    )
    assert sorted(stack.gates.asked) == [(1, ("a", "c")), (2, ("b",))]


async def test_alias_already_there_does_not_move(stack: CatalogStack, iris: Model) -> None:
    await stack.create_version()
    model = await stack.set_aliases(AliasChange("a", 1))
    assert await stack.set_aliases(AliasChange("a", 1, 1), AliasChange("absent", 0, 0)) == model
    assert await stack.history(iris) == [AliasMove("a", 0, 1)]


async def test_of_writers_expecting_the_same_exactly_one_wins(stack: CatalogStack, iris: Model) -> None:
    for _ in range(5):
        await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    answers = await asyncio.gather(
        *(stack.set_aliases(AliasChange("champion", number, 1)) for number in (2, 3, 4, 5)),
        return_exceptions=True,
    )
    winners = [answer for answer in answers if isinstance(answer, Model)]
    assert len(winners) == 1
    assert [type(answer) for answer in answers if answer is not winners[0]] == [AliasMoved] * 3
    assert (await stack.namespaces.get(Model, IRIS)).aliases == winners[0].aliases


async def test_history_of_aliases_moved_by_many_has_no_gap(stack: CatalogStack, iris: Model) -> None:
    async def write(number: int) -> None:
        made = await stack.create_version()
        await stack.set_aliases(
            AliasChange("champion", made.number), AliasChange(f"own-{number}", made.number)
        )

    await asyncio.gather(*(write(number) for number in range(6)))
    moves = [move for move in await stack.history(iris) if move.alias == "champion"]
    assert moves[0].before == 0
    assert all(earlier.after == later.before for earlier, later in pairwise(moves))
    aliases = (await stack.namespaces.get(Model, IRIS)).aliases
    assert aliases["champion"] == moves[-1].after
    assert len(aliases) == 7


async def test_computed_aliases_see_ready_versions_only(stack: CatalogStack, iris: Model) -> None:
    for digest in ("", DIGEST, DIGEST, ""):
        await stack.create_version(digest=digest)
    for reference, number in (("", 3), ("@default", 3), ("@last", 3), ("@first", 2)):
        assert (await stack.get(f"prod.ml.iris{reference}")).number == number
    await stack.create_model("prod", "ml", "empty")
    for reference in ("prod.ml.empty", "prod.ml.empty@first", "prod.ml.iris@latest", "prod.ml.iris@Champion"):
        with pytest.raises(NotFound):
            await stack.get(reference)


# Lists and permission.


async def test_pages_join_to_the_whole_in_creation_order(stack: CatalogStack) -> None:
    await stack.create_model(*IRIS)
    for number in range(5):
        await stack.create(Model, "prod", "ml", f"m{number}")
        await stack.create(Catalog, f"c{number}")
    names = [f"prod.ml.{name}" for name in ("iris", "m0", "m1", "m2", "m3", "m4")]
    assert await stack.names_seen(Model, EVERYTHING, "prod", "ml") == names
    assert await stack.names_seen(Catalog, EVERYTHING) == ["prod", "c0", "c1", "c2", "c3", "c4"]
    assert await stack.names_seen(Schema, EVERYTHING, "prod") == ["prod.ml"]
    with pytest.raises(NotFound):
        await stack.names_seen(Model, EVERYTHING, "prod", "nothing")


async def test_lists_show_what_a_scope_allows(stack: CatalogStack) -> None:
    iris = await stack.create_model(*IRIS)
    other = await stack.create(Model, "prod", "ml", "other")
    _, schema, catalog, _ = iris.chain
    await stack.create(Model, "prod", "ml", "of-bob", by=BOB)

    async def seen(allowed: set[str], denied: set[str], principal: str = "nobody") -> list[str]:
        scope = Scope(principal, frozenset(allowed), frozenset(denied))
        return [name.rpartition(".")[2] for name in await stack.names_seen(Model, scope, "prod", "ml")]

    everything = ["iris", "other", "of-bob"]
    assert await seen(set(), set()) == []
    assert await seen({iris.id}, set()) == ["iris"]
    assert await seen({schema.id}, set()) == everything
    assert await seen({catalog.id, "not an id"}, set()) == everything
    assert await seen({SYSTEM_ID}, set()) == everything
    assert await seen({SYSTEM_ID}, {other.id}) == ["iris", "of-bob"]
    assert await seen({iris.id}, {schema.id}) == []
    assert await seen({iris.id}, {SYSTEM_ID}) == []
    assert await seen(set(), set(), BOB.principal.id) == ["of-bob"]
    assert await seen(set(), set(), ADA.principal.id) == everything
    assert await seen(set(), {iris.id}, ADA.principal.id) == ["other", "of-bob"]
    assert await seen(set(), set(), "") == []


async def test_resource_is_resolved_by_name_and_by_id(stack: CatalogStack, iris: Model) -> None:
    version = await stack.create_version()
    by_name = {
        ResourceType.CATALOG: IRIS[:1],
        ResourceType.SCHEMA: IRIS[:2],
        ResourceType.MODEL: IRIS,
        ResourceType.MODEL_VERSION: VersionRef(IRIS),
    }
    for depth, (kind, target) in enumerate(by_name.items()):
        chain = await stack.namespaces.chain(Resolve(kind, target, ""))
        assert chain == version.chain[-2 - depth :]
        assert await stack.namespaces.chain(Resolve(kind, None, chain[0].id)) == chain
        with pytest.raises(NotFound):
            await stack.namespaces.chain(Resolve(kind, None, "0198c0de-0000-7000-8000-000000000000"))


# Events.


async def test_every_change_leaves_its_event(stack: CatalogStack) -> None:
    await stack.create_model(*IRIS)
    await stack.create_version(digest="")
    await stack.create_version(digest="")
    await stack.versions.finalize(ADA, Finalize(VersionRef(IRIS, 1), DIGEST))
    await stack.versions.fail(ADA, Fail(VersionRef(IRIS, 2), "no"))
    events = await stack.events()
    assert [(kind, name) for kind, name, _ in events] == [
        ("catalog.catalog.created", "prod"),
        ("catalog.schema.created", "prod.ml"),
        ("catalog.model.created", "prod.ml.iris"),
        ("catalog.model_version.created", "prod.ml.iris/1"),
        ("catalog.model_version.created", "prod.ml.iris/2"),
        ("catalog.model_version.finalized", "prod.ml.iris/1"),
        ("catalog.model_version.failed", "prod.ml.iris/2"),
    ]
    assert events[-2][2]["before"] == {"state": "PENDING"}
    assert events[-2][2]["after"]["artifact_digest"] == DIGEST
    assert events[-1][2]["after"]["state_message"] == "no"


async def test_refused_change_leaves_no_event(stack: CatalogStack) -> None:
    await stack.create(Catalog, "prod")
    for path in (("prod",), ("nowhere", "ml")):
        kind = Catalog if len(path) == 1 else Schema
        with pytest.raises((AlreadyExists, NotFound)):
            await stack.namespaces.create(
                ADA, kind, Create(path=path, description="", tags={}, once=Once("", ""))
            )
    assert len(await stack.events()) == 1
