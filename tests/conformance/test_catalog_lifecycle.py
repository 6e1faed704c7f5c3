"""Renames, moves, deletions, labels and copies in the catalog, on real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import claims, names
from modelyard_catalog.commands import (
    AliasChange,
    Browse,
    ById,
    CopyVersion,
    Delete,
    Once,
    Target,
    Undelete,
    Update,
    UpdateVersion,
    VersionRef,
)
from modelyard_catalog.models import (
    AliasMove,
    Catalog,
    DatasetReference,
    MethodSignature,
    Model,
    ModelMetadata,
    ModelVersion,
    Path,
    Resource,
    Schema,
    Signature,
    TensorSpec,
    VersionState,
    container_kind,
)
from modelyard_kit import faults
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.errors import (
    AlreadyExists,
    Contention,
    DomainError,
    EtagMismatch,
    InvalidField,
    InvalidState,
    NotFound,
    PermissionDenied,
    RequestIdReused,
    ResourceInUse,
)
from modelyard_kit.grants import Grants
from tests.conformance.catalog_stack import ADA, BOB, DIGEST, EVERYTHING, IRIS, CatalogStack

TENSOR = TensorSpec("x", "FP32", (-1,))
SIGNATURE = Signature((MethodSignature("predict", (TENSOR,), (TENSOR,)),))


class Life:
    """Short verbs for what this file is about, done by ada, who owns the system, unless said otherwise."""

    def __init__(self, stack: CatalogStack, grants: Grants) -> None:
        self.stack = stack
        self.grants = grants

    def allow(self, call: Call, *held: tuple[str, Privilege]) -> None:
        given = [ResourceGrant(resource_id, privilege, Effect.ALLOW) for resource_id, privilege in held]
        self.grants.replace(call.principal.id, call.principal.name, given)

    async def update(
        self,
        path: Path,
        *,
        to: Path | None = None,
        description: str | None = None,
        owner: str | None = None,
        etag: str = "",
        by: Call = ADA,
    ) -> Any:
        command = Update(path=path, etag=etag, new_path=to, description=description, owner_id=owner)
        kind = cast("type[Model]", container_kind(path))
        return await self.stack.updates(self.grants).update(by, kind, command)

    async def update_version(self, number: int = 1, *, etag: str = "", **changes: object) -> ModelVersion:
        command = UpdateVersion(VersionRef(IRIS, number), etag, changes)
        return await self.stack.updates(self.grants).update_version(ADA, command)

    async def delete(self, target: Target, *, force: bool = False, etag: str = "") -> Resource:
        kind = ModelVersion if isinstance(target, VersionRef) else container_kind(target)
        return await self.stack.deletions.delete(ADA, kind, Delete(target, etag, force))

    async def undelete(self, resource: Resource) -> Resource:
        return await self.stack.deletions.undelete(ADA, Undelete(resource.kind, resource.id))

    async def copy(
        self, source: str, model: Path, *, label: str = "", request_id: str = "", by: Call = ADA
    ) -> ModelVersion:
        once = Once(request_id, f"{source} {model}")
        command = CopyVersion(names.version("source", source), model, label, once)
        return await self.stack.copies(self.grants).copy(by, command)

    async def rows(self, table: str) -> int:
        async def count(connection: AsyncConnection) -> int:
            return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())

        return await self.stack.db.read(count)

    async def event_types(self) -> list[str]:
        return [type_ for type_, _, _ in await self.stack.events()]


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    yield stack
    await stack.close()


@pytest.fixture
async def life(stack: CatalogStack) -> Life:
    grants = Grants(bound=3_600)
    life = Life(stack, grants)
    life.allow(BOB)
    grants.replace(ADA.principal.id, "ada", [ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)])
    await grants.mark_fresh(1)
    return life


@pytest.fixture
async def iris(stack: CatalogStack) -> Model:
    return await stack.create_model(*IRIS)


# Updates.


async def test_rename_keeps_id_versions_aliases_and_history(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    made = await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    renamed = await life.update(IRIS, to=("prod", "ml", "flower"))
    assert (renamed.id, renamed.name) == (iris.id, "prod.ml.flower")
    found = await stack.get("prod.ml.flower@champion")
    assert (found.id, found.name) == (made.id, "prod.ml.flower/1")
    assert await stack.history(renamed) == [AliasMove("champion", 0, 1)]
    with pytest.raises(NotFound):
        await stack.get("prod.ml.iris/1")
    await life.update(("prod", "ml"), to=("prod", "team"))
    await life.update(("prod",), to=("live",))
    found = await stack.get("live.team.flower/1")
    assert [link.name for link in found.chain] == [
        "live.team.flower/1",
        "live.team.flower",
        "live.team",
        "live",
        "",
    ]
    again = await stack.create_model(*IRIS)
    assert again.id != iris.id
    assert (again.aliases, again.latest_version) == ({}, 0)
    event = next(event for event in await stack.events() if event[0] == "catalog.model.updated")
    assert event[1:] == (
        "prod.ml.flower",
        {"before": {"name": "prod.ml.iris"}, "after": {"name": "prod.ml.flower"}},
    )


async def test_taken_name_is_refused_and_own_name_is_no_change(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_model("prod", "ml", "rose")
    with pytest.raises(AlreadyExists) as caught:
        await life.update(IRIS, to=("prod", "ml", "rose"))
    assert caught.value.metadata == {"resource_type": "model", "name": "prod.ml.rose"}
    before = len(await stack.events())
    assert await life.update(IRIS, to=IRIS, description="") == iris
    assert len(await stack.events()) == before


async def test_etag_makes_an_update_and_a_deletion_conditional(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    changed = await life.update(IRIS, description="new", etag=iris.etag)
    assert (changed.description, changed.revision) == ("new", iris.revision + 1)
    for attempt in (life.update(IRIS, description="newer", etag="1"), life.delete(IRIS, etag="1")):
        with pytest.raises(EtagMismatch):
            await attempt
    assert (await life.delete(IRIS, etag=changed.etag)).delete_time is not None


async def test_move_needs_create_model_on_the_other_schema(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    other = await stack.create(Schema, "prod", "other")
    there = ("prod", "other", "iris")
    reach = [(other.parents[0].id, Privilege.USE_CATALOG), (other.id, Privilege.USE_SCHEMA)]
    life.allow(BOB, *reach)
    with pytest.raises(PermissionDenied, match="CREATE_MODEL on schema 'prod.other'"):
        await life.update(IRIS, to=there, by=BOB)
    with pytest.raises(PermissionDenied, match="CREATE_MODEL on schema 'prod.none'"):
        await life.update(IRIS, to=("prod", "none", "iris"), by=BOB)
    with pytest.raises(NotFound):
        await life.update(IRIS, to=("prod", "none", "iris"))
    life.allow(BOB, *reach, (other.id, Privilege.CREATE_MODEL))
    moved = await life.update(IRIS, to=there, by=BOB)
    assert (moved.id, moved.name, moved.parents[0].id) == (iris.id, "prod.other.iris", other.id)
    assert (await stack.get("prod.other.iris/1")).number == 1


async def test_owner_changes_only_with_manage_and_to_somebody(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    bob = BOB.principal.id
    with pytest.raises(PermissionDenied, match="MANAGE on model"):
        await life.update(IRIS, owner=bob, by=BOB)
    with pytest.raises(InvalidField, match="no principal with the id 'nobody'"):
        await life.update(IRIS, owner="nobody")
    assert (await life.update(IRIS, owner=bob)).owner_id == bob
    assert (await life.update(("prod",), owner=bob)).owner_id == bob


async def test_descriptions_of_a_version_change_and_its_content_does_not(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    made = await stack.create_version()
    changed = await life.update_version(
        description="better",
        label="1.4.0",
        metadata=ModelMetadata(framework="onnx"),
        datasets=(DatasetReference("lake"),),
    )
    assert (changed.description, changed.label, changed.metadata) == (
        "better",
        "1.4.0",
        ModelMetadata(framework="onnx"),
    )
    assert changed.provenance is not None
    assert changed.provenance.datasets == (DatasetReference("lake"),)
    assert (changed.artifact_digest, changed.metrics) == (made.artifact_digest, made.metrics)
    assert await life.update_version(description="better") == changed
    with pytest.raises(EtagMismatch):
        await life.update_version(description="best", etag=made.etag)
    with pytest.raises(InvalidState):
        await life.update_version(signature=SIGNATURE)
    await stack.create_version(digest="")
    assert (await life.update_version(2, signature=SIGNATURE)).signature == SIGNATURE
    cleared = await life.update_version(label="", metadata=None)
    assert (cleared.label, cleared.metadata) == ("", None)


# Labels.


async def test_label_is_a_second_name(stack: CatalogStack, life: Life, iris: Model) -> None:
    await stack.create_version(label="1.4.0")
    assert (await stack.get("models:/prod.ml.iris@1.4.0")).number == 1
    with pytest.raises(AlreadyExists, match=r"prod\.ml\.iris@1\.4\.0"):
        await stack.create_version(label="1.4.0")
    await stack.create_version(label="1.5.0")
    with pytest.raises(AlreadyExists):
        await life.update_version(2, label="1.4.0")
    with pytest.raises(NotFound):
        await stack.get("prod.ml.iris@2.0")
    other = await stack.create_model("prod", "ml", "rose")
    assert (await stack.create_version(("prod", "ml", "rose"), label="1.4.0")).model.id == other.id


async def test_label_and_alias_never_have_the_same_name(stack: CatalogStack, life: Life, iris: Model) -> None:
    await stack.create_version(label="stable")
    with pytest.raises(InvalidField, match="'stable' is the label of version 1") as caught:
        await stack.set_aliases(AliasChange("champion", 1), AliasChange("stable", 1))
    assert caught.value.metadata == {"field": "changes[1].alias"}
    await stack.set_aliases(AliasChange("champion", 1))
    for attempt in (
        stack.create_version(label="champion"),
        life.update_version(label="champion"),
        life.copy("prod.ml.iris/1", IRIS, label="champion"),
    ):
        with pytest.raises(InvalidField, match="'champion' is an alias"):
            await attempt


async def test_label_and_alias_of_one_name_at_the_same_time(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    for round_ in range(4):
        name = f"name{round_}"
        results = await together(stack.set_aliases(AliasChange(name, 1)), life.update_version(label=name))
        model = await stack.namespaces.get(Model, IRIS)
        labelled = (await stack.get("prod.ml.iris/1")).label == name
        assert (name in model.aliases) != labelled, results


# Deletions.


async def test_deleted_version_comes_back_with_its_aliases(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    await stack.create_version()
    await stack.set_aliases(AliasChange("a", 2), AliasChange("b", 2), AliasChange("c", 2))
    await stack.set_aliases(AliasChange("c", 1))
    with pytest.raises(ResourceInUse) as caught:
        await life.delete(VersionRef(IRIS, 2))
    assert [violation.description for violation in caught.value.violations] == ["alias a", "alias b"]
    deleted = await life.delete(VersionRef(IRIS, 2), force=True)
    assert deleted.delete_time is not None
    assert deleted.purge_time == deleted.delete_time + timedelta(days=30)
    with pytest.raises(NotFound):
        await stack.get("prod.ml.iris/2")
    assert (await stack.get("prod.ml.iris")).number == 1
    assert (await stack.create_version()).number == 3
    await stack.set_aliases(AliasChange("b", 3))
    back = await life.undelete(deleted)
    assert (back.id, back.delete_time, back.purge_time) == (deleted.id, None, None)
    assert (await stack.namespaces.get(Model, IRIS)).aliases == {"a": 2, "b": 3, "c": 1}
    assert (await stack.history(iris))[-4:] == [
        AliasMove("a", 2, 0),
        AliasMove("b", 2, 0),
        AliasMove("b", 0, 3),
        AliasMove("a", 0, 2),
    ]


async def test_aliases_that_policies_hold_back_stay_away(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    deleted = await life.delete(VersionRef(IRIS, 1), force=True)
    stack.gates.closed.add(1)
    assert (await life.undelete(deleted)).name == "prod.ml.iris/1"
    assert (await stack.namespaces.get(Model, IRIS)).aliases == {}


async def test_label_given_away_keeps_a_version_from_coming_back(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version(label="1.0")
    deleted = await life.delete(VersionRef(IRIS, 1))
    await stack.create_version(label="1.0")
    assert (await stack.get("prod.ml.iris@1.0")).number == 2
    with pytest.raises(AlreadyExists):
        await life.undelete(deleted)
    await life.update_version(2, label="")
    await life.undelete(deleted)
    assert (await stack.get("prod.ml.iris@1.0")).number == 1


@pytest.mark.parametrize(
    ("path", "use"),
    [
        (("prod",), "schema prod.ml"),
        (("prod", "ml"), "model prod.ml.iris"),
        (IRIS, "model version prod.ml.iris/1"),
    ],
)
async def test_container_goes_and_comes_back_with_what_it_holds(
    stack: CatalogStack, life: Life, iris: Model, path: Path, use: str
) -> None:
    made = await stack.create_version()
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    gone_before = await life.delete(VersionRef(IRIS, 2))
    with pytest.raises(ResourceInUse) as caught:
        await life.delete(path)
    assert [violation.description for violation in caught.value.violations] == [use]
    deleted = await life.delete(path, force=True)
    for missing in (stack.get("prod.ml.iris/1"), stack.namespaces.get(Model, IRIS)):
        with pytest.raises(NotFound):
            await missing
    with pytest.raises(InvalidState, match="is deleted; this needs it undeleted first"):
        await life.undelete(gone_before)
    await life.undelete(deleted)
    assert await stack.get("prod.ml.iris@champion") == made_with_alias(
        made, await stack.get("prod.ml.iris/1")
    )
    with pytest.raises(NotFound):
        await stack.get("prod.ml.iris/2")
    await life.undelete(gone_before)
    assert (await stack.get("prod.ml.iris/2")).number == 2


def made_with_alias(made: ModelVersion, now: ModelVersion) -> ModelVersion:
    assert (made.id, now.aliases) == (now.id, ("champion",))
    return now


async def test_name_given_away_keeps_it_from_coming_back(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    deleted = await life.delete(IRIS, force=True)
    again = await stack.create_model(*IRIS)
    assert (again.aliases, again.latest_version, await stack.history(again)) == ({}, 0, [])
    with pytest.raises(NotFound):
        await stack.get("prod.ml.iris@champion")
    with pytest.raises(AlreadyExists):
        await life.undelete(deleted)
    await life.update(IRIS, to=("prod", "ml", "second"))
    await life.undelete(deleted)
    assert (await stack.get("prod.ml.iris@champion")).model.id == iris.id


async def test_what_is_not_deleted_cannot_come_back(stack: CatalogStack, life: Life, iris: Model) -> None:
    with pytest.raises(InvalidState, match="is not deleted"):
        await life.undelete(iris)
    with pytest.raises(NotFound):
        await stack.deletions.undelete(ADA, Undelete(ResourceType.SCHEMA, iris.id))
    deleted = await life.delete(IRIS)
    stack.shift = timedelta(days=30)
    with pytest.raises(NotFound):
        await life.undelete(deleted)


@pytest.mark.parametrize("target", [VersionRef(IRIS, 1), IRIS, IRIS[:2], IRIS[:1]], ids=str)
async def test_what_is_deployed_is_never_deleted(
    stack: CatalogStack, life: Life, iris: Model, target: Target
) -> None:
    made = await stack.create_version()
    stack.deployments.of_versions = {made.id: "prod.ml.live"}
    with pytest.raises(ResourceInUse) as caught:
        await life.delete(target, force=True)
    assert caught.value.violations[0].description == "deployment prod.ml.live"
    assert (await stack.get("prod.ml.iris/1")).delete_time is None
    stack.deployments.of_versions = {}
    assert (await life.delete(target, force=True)).delete_time is not None


async def test_schema_with_a_deployment_is_never_deleted(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    stack.deployments.in_schemas = {"prod.ml": "prod.ml.live"}
    for target in (IRIS[:1], IRIS[:2]):
        with pytest.raises(
            ResourceInUse, match=r"deployment prod\.ml\.live; delete or change the deployments"
        ):
            await life.delete(target, force=True)
    await life.delete(IRIS)


async def test_many_uses_are_counted(stack: CatalogStack, life: Life, iris: Model) -> None:
    for _ in range(22):
        await stack.create_version()
    with pytest.raises(ResourceInUse) as caught:
        await life.delete(IRIS)
    assert len(caught.value.violations) == 21
    assert caught.value.message.endswith("; delete or move that first, or delete with force")
    assert caught.value.violations[-1].description == "and 2 more"


async def test_lists_show_what_is_deleted_if_asked(stack: CatalogStack, life: Life, iris: Model) -> None:
    await stack.create_model("prod", "ml", "rose")
    await stack.create_version()
    await stack.create_version()
    await life.delete(VersionRef(IRIS, 1))

    async def versions(*, show_deleted: bool) -> list[tuple[int, bool]]:
        rows, _ = await stack.versions.page(IRIS, Browse(size=10, show_deleted=show_deleted))
        return [(row.number, row.delete_time is not None) for row in rows]

    async def models(*, show_deleted: bool) -> list[tuple[str, bool]]:
        asked = Browse(size=10, show_deleted=show_deleted)
        rows, _ = await stack.namespaces.page(Model, IRIS[:2], EVERYTHING, asked)
        return [(row.name, row.delete_time is not None) for row in rows]

    assert await versions(show_deleted=False) == [(2, False)]
    assert await versions(show_deleted=True) == [(2, False), (1, True)]
    await life.delete(IRIS, force=True)
    assert await models(show_deleted=False) == [("prod.ml.rose", False)]
    assert await models(show_deleted=True) == [("prod.ml.iris", True), ("prod.ml.rose", False)]
    with pytest.raises(NotFound):  # deleted since the permission layer found it
        await stack.versions.page(IRIS, Browse(size=10), known=iris.link)
    await life.delete(("prod",), force=True)
    catalogs, _ = await stack.namespaces.page(Catalog, (), EVERYTHING, Browse(size=10, show_deleted=True))
    assert [row.name for row in catalogs] == ["prod"]


async def test_what_a_deleted_container_holds_is_listed_by_its_id(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    """Also where another container has its name now, and inside something else that is deleted."""
    await stack.create_model("prod", "ml", "rose")
    await stack.create_version()
    await stack.create_version()
    await life.delete(VersionRef(IRIS, 1))
    await life.delete(("prod", "ml", "rose"))
    schema = await life.delete(IRIS[:2], force=True)
    await stack.create_model("prod", "ml", "other")
    catalog = await life.delete(("prod",), force=True)

    async def inside(kind: Any, container: Resource, *, show_deleted: bool = False) -> list[str]:
        asked = Browse(size=10, show_deleted=show_deleted)
        if kind is ModelVersion:
            rows, _ = await stack.versions.page(ById(container.id), asked)
        else:
            rows, _ = await stack.namespaces.page(kind, ById(container.id), EVERYTHING, asked)
        return [row.name for row in rows]

    # Without deleted rows: what comes back with the container.
    assert await inside(Model, schema) == ["prod.ml.iris"]
    assert await inside(Model, schema, show_deleted=True) == ["prod.ml.iris", "prod.ml.rose"]
    assert await inside(Schema, catalog) == ["prod.ml"]
    assert await inside(Schema, catalog, show_deleted=True) == ["prod.ml", "prod.ml"]
    assert await inside(ModelVersion, iris) == ["prod.ml.iris/2"]
    assert await inside(ModelVersion, iris, show_deleted=True) == ["prod.ml.iris/2", "prod.ml.iris/1"]
    await life.undelete(catalog)
    with pytest.raises(AlreadyExists):
        await life.undelete(schema)
    for page in (
        stack.versions.page(ById(ADA.principal.id), Browse(size=1)),
        stack.namespaces.page(Model, ById(ADA.principal.id), EVERYTHING, Browse(size=1)),
    ):
        with pytest.raises(NotFound, match="does not exist"):
            await page


async def test_a_model_does_not_move_into_what_is_being_deleted(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    """It may be deployed, and whoever deletes the schema has asked about deployments already."""
    await stack.create(Schema, "prod", "other")
    schema = await stack.namespaces.get(Schema, ("prod", "other"))
    claim = await stack.db.in_tx(
        lambda connection: claims.claim(connection, schema, timedelta(minutes=1)), isolation="READ COMMITTED"
    )
    with pytest.raises(InvalidState, match=r"schema 'prod\.other' is being deleted"):
        await life.update(IRIS, to=("prod", "other", "iris"))
    assert await stack.db.in_tx(lambda connection: claims.give_up(connection, claim))
    await life.update(IRIS, to=("prod", "other", "iris"))


async def test_a_refused_deletion_leaves_no_claim(stack: CatalogStack, life: Life, iris: Model) -> None:
    await stack.create_version()
    with pytest.raises(ResourceInUse):
        await life.delete(IRIS)
    assert await life.rows("deletion_claims") == 0
    await life.delete(IRIS, force=True)
    assert await life.rows("deletion_claims") == 0


async def test_events_tell_of_deletions(stack: CatalogStack, life: Life, iris: Model) -> None:
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    before = len(await stack.events())
    deleted = await life.delete(VersionRef(IRIS, 1), force=True)
    await life.undelete(deleted)
    types = [type_ for type_, _, _ in (await stack.events())[before:]]
    assert types == [
        "catalog.alias.moved",
        "catalog.model_version.deleted",
        "catalog.alias.moved",
        "catalog.model_version.undeleted",
    ]


# The purge.


async def test_purge_removes_every_row_and_nothing_else(stack: CatalogStack, life: Life, iris: Model) -> None:
    for number in range(1, 6):
        await stack.create_version(metrics={"f1": float(number)})
        await stack.set_aliases(AliasChange(f"alias{number}", number))
    await stack.create_model("prod", "ml", "rose")
    await stack.create_version(("prod", "ml", "rose"), metrics={"f1": 1.0})
    await life.delete(IRIS, force=True)
    assert await stack.purge.sweep() == 0
    stack.shift = timedelta(days=30)
    assert await stack.purge.sweep() == 1
    counts = [await life.rows(t) for t in ("models", "model_versions", "metrics", "aliases", "alias_history")]
    assert counts == [1, 1, 1, 0, 0]
    assert (await stack.get("prod.ml.rose/1")).metrics == {"f1": 1.0}
    assert (await stack.events())[-1][:2] == ("catalog.model.purged", "prod.ml.iris")
    assert await stack.purge.sweep() == 0


async def test_purge_takes_whole_trees_and_single_versions(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    await stack.set_aliases(AliasChange("champion", 2))
    await life.delete(VersionRef(IRIS, 1))
    stack.shift = timedelta(days=29)
    await life.delete(("prod",), force=True)
    stack.shift = timedelta(days=31)
    assert await stack.purge.sweep() == 1
    assert await life.rows("model_versions") == 1
    stack.shift = timedelta(days=60)
    assert await stack.purge.sweep() == 1
    for table in ("catalogs", "schemas", "models", "model_versions", "aliases", "alias_history"):
        assert await life.rows(table) == 0, table
    assert (await life.event_types())[-2:] == ["catalog.model_version.purged", "catalog.catalog.purged"]


async def test_what_is_being_purged_does_not_come_back_half(
    stack: CatalogStack, life: Life, iris: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody undeletes in the last moment, and the purge takes the first part away before that is committed."""
    for _ in range(3):
        await stack.create_version()
    deleted = await life.delete(IRIS, force=True)
    change = stack.lifecycle.change

    async def late(*arguments: Any, **values: Any) -> bool:
        if not stack.shift:
            stack.shift = timedelta(days=31)
            faults.configure("catalog.purge.part=error*1")
            with pytest.raises(faults.InjectedFault):
                await stack.purge.sweep()
        return await change(*arguments, **values)

    monkeypatch.setattr(stack.lifecycle, "change", late)
    with pytest.raises(NotFound):
        await life.undelete(deleted)
    assert await life.rows("model_versions") == 1
    assert await stack.purge.sweep() == 1
    assert await life.rows("models") == 0


async def test_number_of_a_purged_version_is_not_given_again(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    await life.delete(VersionRef(IRIS, 1))
    stack.shift = timedelta(days=31)
    await stack.purge.sweep()
    assert (await stack.create_version()).number == 2


# Copies.


async def test_copy_has_the_content_and_tells_where_it_is_from(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    source = await stack.create_version(
        metrics={"f1": 0.5}, datasets=(DatasetReference("lake"),), label="1.0"
    )
    await stack.set_aliases(AliasChange("champion", 1))
    rose = await stack.create_model("prod", "ml", "rose")
    copy = await life.copy("prod.ml.iris@champion", ("prod", "ml", "rose"), label="first-copy")
    assert stack.artifacts.asked[-1] == (DIGEST, "prod.ml.rose")
    assert (copy.name, copy.model.id, copy.state) == ("prod.ml.rose/1", rose.id, VersionState.READY)
    assert (copy.copied_from, copy.copied_from_id) == ("prod.ml.iris/1", source.id)
    for same in ("artifact_digest", "metrics", "tags", "runtime", "description", "provenance", "metadata"):
        assert getattr(copy, same) == getattr(source, same), same
    assert (copy.label, copy.aliases, copy.id == source.id) == ("first-copy", (), False)
    await life.delete(IRIS, force=True)
    assert (await stack.get("prod.ml.rose@first-copy")).copied_from_id == source.id


async def test_copied_artifact_belongs_to_the_other_model_too(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    await stack.create_model("prod", "ml", "rose")
    stack.artifacts.missing.add(DIGEST)  # the artifact service knows it for iris alone
    with pytest.raises(InvalidField):
        await stack.create_version(("prod", "ml", "rose"))
    await life.copy("prod.ml.iris/1", ("prod", "ml", "rose"))
    assert (await stack.create_version(("prod", "ml", "rose"))).artifact_digest == DIGEST


async def test_copy_needs_rights_on_both_sides(stack: CatalogStack, life: Life, iris: Model) -> None:
    await stack.create_version()
    rose = await stack.create_model("prod", "ml", "rose")
    reach = [
        (iris.parents[1].id, Privilege.USE_CATALOG),
        (iris.parents[0].id, Privilege.USE_SCHEMA),
    ]
    for held, missing in (
        ([(iris.id, Privilege.READ_ARTIFACT)], "CREATE_VERSION on model 'prod.ml.rose'"),
        ([(rose.id, Privilege.CREATE_VERSION)], "READ_ARTIFACT on model version 'prod.ml.iris/1'"),
    ):
        life.allow(BOB, *reach, *held)
        with pytest.raises(PermissionDenied, match=missing):
            await life.copy("prod.ml.iris/1", ("prod", "ml", "rose"), by=BOB)
    life.allow(BOB, *reach, (iris.id, Privilege.READ_ARTIFACT), (rose.id, Privilege.CREATE_VERSION))
    made = await life.copy("prod.ml.iris/1", ("prod", "ml", "rose"), by=BOB)
    assert made.author_id == BOB.principal.id


async def test_copy_once_per_request_and_only_of_what_is_ready(
    stack: CatalogStack, life: Life, iris: Model
) -> None:
    await stack.create_version()
    await stack.create_version(digest="")
    first = await life.copy("prod.ml.iris/1", IRIS, request_id="r")
    assert await life.copy("prod.ml.iris/1", IRIS, request_id="r") == first
    with pytest.raises(RequestIdReused):
        await life.copy("prod.ml.iris", IRIS, request_id="r")
    with pytest.raises(InvalidState):
        await life.copy("prod.ml.iris/2", IRIS)
    with pytest.raises(NotFound):
        await life.copy("prod.ml.iris/9", IRIS)
    with pytest.raises(NotFound):
        await life.copy("prod.ml.iris/1", ("prod", "ml", "none"))


# At the same time.


async def together(*work: Coroutine[Any, Any, object]) -> list[object]:
    """Return results and refusals; everything else is a failure of the test."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, DomainError):
            raise result
        assert not isinstance(result, Contention)
    return list(results)


async def test_rename_and_create_give_a_name_once(stack: CatalogStack, life: Life, iris: Model) -> None:
    for round_ in range(5):
        name = ("prod", "ml", f"name{round_}")
        models, _ = await stack.namespaces.page(Model, IRIS[:2], EVERYTHING, Browse(size=1))
        path = models[0].name
        results = await together(
            life.update(cast("Path", tuple(path.split("."))), to=name), stack.create(Model, *name)
        )
        refused = [result for result in results if isinstance(result, AlreadyExists)]
        assert len(refused) == 1, results


async def test_one_of_two_deletions_wins(stack: CatalogStack, life: Life, iris: Model) -> None:
    results = await together(*(life.delete(IRIS) for _ in range(4)))
    assert sorted(type(result).__name__ for result in results) == ["Model"] + ["NotFound"] * 3
    assert (await life.event_types()).count("catalog.model.deleted") == 1


async def test_undelete_and_create_give_a_name_once(stack: CatalogStack, life: Life, iris: Model) -> None:
    for _ in range(5):
        deleted = await life.delete(IRIS)
        results = await together(life.undelete(deleted), stack.create(Model, *IRIS))
        assert len([result for result in results if isinstance(result, AlreadyExists)]) == 1, results


async def test_version_made_during_a_deletion_is_counted_or_hidden(stack: CatalogStack, life: Life) -> None:
    for round_ in range(5):
        path = ("prod", "ml", f"model{round_}")
        await stack.create_model(*path)
        deleted, made = await together(life.delete(path), stack.create_version(path))
        assert isinstance(deleted, ResourceInUse) != isinstance(made, NotFound), (deleted, made)
