"""Filters, orders and pages of the catalog's lists, on real PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import (
    AliasChange,
    ApprovalChange,
    Browse,
    CopyVersion,
    CreateVersion,
    Fail,
    Once,
    SetTags,
    VersionRef,
)
from modelyard_catalog.models import (
    ApprovalState,
    Catalog,
    CustomMetadata,
    Model,
    ModelMetadata,
    ModelVersion,
    Provenance,
    Schema,
)
from modelyard_kit import migrate
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant, Scope
from modelyard_kit.errors import InvalidField, LimitExceeded
from modelyard_kit.grants import Grants
from tests.conformance.catalog_plans import explained, nodes, recorded, rows_read, scanned
from tests.conformance.catalog_stack import ADA, BOB, DIGEST, EVERYTHING, IRIS, CatalogStack
from tests.framework.postgres import TestPostgres


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    yield stack
    await stack.close()


async def numbers(stack: CatalogStack, filter: str = "", order_by: str = "") -> list[int]:  # noqa: A002
    rows, token = await stack.versions.page(IRIS, Browse(size=50, filter=filter, order_by=order_by))
    assert not token
    return [row.number for row in rows]


@pytest.fixture
async def versions(stack: CatalogStack) -> CatalogStack:
    """Three versions: the first with everything, the second with little, the third given up."""
    await stack.create_model(*IRIS)
    full = CreateVersion(
        model=IRIS,
        artifact_digest=DIGEST,
        description="Übung",
        runtime="sklearn",
        signature=None,
        tags={"team": "churn", "cost center": "C-100"},
        metrics={"accuracy": 0.9, "note": "no number", "flag": True},
        provenance=Provenance(git_commit="abc123"),
        metadata=ModelMetadata(
            use_case="Classification",
            framework="PyTorch",
            custom=(CustomMetadata("two words", "x"), CustomMetadata("empty")),
        ),
        once=Once("", ""),
        label="v1.0-rc",
    )
    await stack.versions.create(ADA, full)
    await stack.create_version(metrics={"accuracy": 0.95, "loss": 0.5}, by=BOB)
    await stack.create_version(digest="")
    await stack.versions.fail(ADA, Fail(VersionRef(IRIS, 3), "cut"))
    await stack.set_aliases(AliasChange("champion", 1), AliasChange("old", 1), AliasChange("b", 2))
    return stack


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("", [3, 2, 1]),
        ("state = 'READY'", [2, 1]),
        ("state IN ('failed', 'PENDING') AND state_message = 'cut'", [3]),
        ("number >= 2", [3, 2]),
        ("label LIKE 'v1.%'", [1]),
        ("label = ''", [3, 2]),
        ("description ILIKE '%ÜBUNG%'", [1]),
        ("runtime != 'onnx'", [3, 2, 1]),
        (f"artifact_digest = '{DIGEST}'", [2, 1]),
        ("author_name = 'bob'", [2]),
        (f"author_id = '{ADA.principal.id}'", [3, 1]),
        ("tags.team = 'churn'", [1]),
        ("tags.team = 'churn' AND tags.'cost center' = 'C-100'", [1]),
        ("NOT tags.team = 'churn'", []),
        ("tags.team != 'churn' OR tags.team IS NULL", [3, 2]),
        ("alias = 'champion'", [1]),
        ("alias != 'champion'", [3, 2]),
        ("alias IN ('old', 'b')", [2, 1]),
        ("alias IS NULL", [3]),
        ("metrics.accuracy > 0.9", [2]),
        ("metrics.accuracy >= 0.9 AND metrics.loss IS NULL", [1]),
        ("metrics.note IS NULL AND metrics.flag IS NULL", [3, 2, 1]),
        ("metadata.framework LIKE 'Py%' AND metadata.use_case IS NOT NULL", [1]),
        ("metadata.algorithm IS NULL", [3, 2, 1]),
        ("metadata.'custom.two words' = 'x'", [1]),
        ("metadata.custom.empty = ''", [1]),
        ("metadata.custom.missing IS NULL", [3, 2, 1]),
        ("provenance.git_commit LIKE 'abc%'", [1]),
        ("copied_from = '' AND delete_time IS NULL", [3, 2, 1]),
        ("create_time > '2020-01-01T00:00:00Z' AND update_time > '2020-01-01T00:00:00Z'", [3, 2, 1]),
        ("id = '0198c5f0-7a3b-7c11-9d5e-2f6a1b3c4d5e'", []),
    ],
)
async def test_versions_by_every_field(versions: CatalogStack, filter: str, expected: list[int]) -> None:  # noqa: A002
    assert await numbers(versions, filter) == expected


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("number", [1, 2, 3]),
        ("metrics.accuracy desc", [2, 1, 3]),
        ("metrics.accuracy", [1, 2, 3]),
        ("state, number desc", [3, 2, 1]),
        ("label desc, create_time desc", [1, 3, 2]),
        ("metadata.custom.'two words'", None),
        ("metadata.'custom.two words', tags.team, id", [1, 2, 3]),
    ],
)
async def test_versions_in_order(versions: CatalogStack, order_by: str, expected: list[int] | None) -> None:
    if expected is None:
        with pytest.raises(InvalidField):
            await numbers(versions, order_by=order_by)
        return
    assert await numbers(versions, order_by=order_by) == expected


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("filter", Browse(size=5, filter="nmae = 'x'")),
        ("filter", Browse(size=5, filter="metadata.framwork = 'x'")),
        ("filter", Browse(size=5, filter="number = 1 AND NOT (metadata.custom. IS NULL)")),
        ("filter", Browse(size=5, filter="number = 1 OR NOT metadata.'custom.' IS NULL")),
        ("order_by", Browse(size=5, order_by="metadata.hyperparameters")),
        ("order_by", Browse(size=5, order_by="alias")),
        ("page_token", Browse(size=5, page_token="?")),
    ],
)
async def test_mistakes_name_the_field(versions: CatalogStack, field: str, asked: Browse) -> None:
    with pytest.raises(InvalidField) as caught:
        await versions.versions.page(IRIS, asked)
    assert caught.value.violations[0].field == field


async def test_a_wrong_fact_has_its_column_and_the_right_ones(versions: CatalogStack) -> None:
    with pytest.raises(InvalidField) as caught:
        await versions.versions.page(IRIS, Browse(size=5, filter="number = 1 AND metadata.framwork = 'x'"))
    assert caught.value.violations[0].description == (
        "column 16: unknown field 'metadata.framwork'; known: metadata.use_case, metadata.framework, "
        "metadata.framework_version, metadata.algorithm, metadata.custom.<key>"
    )


async def test_versions_by_approval(versions: CatalogStack) -> None:
    one, two = [await versions.versions.get(VersionRef(IRIS, number)) for number in (1, 2)]
    assert one.approval_state is ApprovalState.NONE

    async def told(version: ModelVersion, state: ApprovalState, sequence: int) -> None:
        await versions.approvals.set([ApprovalChange(version.id, state, sequence)])

    await told(one, ApprovalState.PENDING, 1)
    await told(one, ApprovalState.APPROVED, 3)
    await told(one, ApprovalState.REJECTED, 2)  # late
    await told(one, ApprovalState.REJECTED, 3)  # repeated
    await told(two, ApprovalState.REJECTED, 1)
    await versions.approvals.set([ApprovalChange(ADA.principal.id, ApprovalState.APPROVED, 9)])  # unknown
    await versions.approvals.set([])
    assert await numbers(versions, "approval = 'approved'") == [1]
    assert await numbers(versions, "approval != 'NONE'", "approval, number") == [1, 2]
    assert await numbers(versions, "approval IN ('none', 'Rejected')") == [3, 2]
    after = await versions.versions.get(VersionRef(IRIS, 1))
    assert after.approval_state is ApprovalState.APPROVED
    assert (after.etag, after.update_time) == (one.etag, one.update_time)
    grants = Grants()
    grants.replace(ADA.principal.id, "ada", [ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)])
    await grants.mark_fresh(1)
    copying = CopyVersion(VersionRef(IRIS, 1), IRIS, "", Once("", ""))
    assert (await versions.copies(grants).copy(ADA, copying)).approval_state is ApprovalState.NONE
    with pytest.raises(InvalidField, match="one of 'NONE', 'PENDING', 'APPROVED', 'REJECTED'"):
        await numbers(versions, "approval = 'GOOD'")


async def test_filters_are_bounded_and_as_large_as_the_bounds(versions: CatalogStack) -> None:
    with pytest.raises(LimitExceeded):
        await numbers(versions, " OR ".join(["number = 1"] * 101))
    many = " OR ".join(f"metrics.accuracy{'' if n == 7 else n} > 0.9" for n in range(100))
    assert await numbers(versions, many) == [2]


async def test_tokens_belong_to_their_list(versions: CatalogStack) -> None:
    await versions.create_model("prod", "ml", "rose")
    rows, token = await versions.versions.page(IRIS, Browse(size=1, filter="number > 0"))
    assert ([row.number for row in rows], bool(token)) == ([3], True)
    others = (
        (IRIS, Browse(size=1, page_token=token)),
        (IRIS, Browse(size=1, page_token=token, filter="number > 0", order_by="number")),
        (IRIS, Browse(size=1, page_token=token, filter="number > 0", show_deleted=True)),
        (("prod", "ml", "rose"), Browse(size=1, page_token=token, filter="number > 0")),
    )
    for model, asked in others:
        with pytest.raises(InvalidField, match="another filter"):
            await versions.versions.page(model, asked)
    asked = Browse(size=1, page_token=token, filter="number > 0")
    assert [row.number for row in (await versions.versions.page(IRIS, asked))[0]] == [2]


async def test_containers_by_their_fields(stack: CatalogStack) -> None:
    for name in ("iris", "irma", "rose"):
        await stack.create_model("prod", "ml", name, by=BOB if name == "rose" else ADA)
    await stack.create(Schema, "prod", "other")
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    await stack.namespaces.set_tags(ADA, SetTags(IRIS, {"team": "churn"}, ()))

    async def found(kind: Any, parent: tuple[str, ...], filter: str, order_by: str = "") -> list[str]:  # noqa: A002
        asked = Browse(size=9, filter=filter, order_by=order_by)
        rows, _ = await stack.namespaces.page(kind, parent, EVERYTHING, asked)
        return [row.name.rpartition(".")[2] for row in rows]

    ml = IRIS[:2]
    assert await found(Model, ml, "name LIKE 'ir%'", "name desc") == ["irma", "iris"]
    assert await found(Model, ml, "latest_version > 0 AND alias = 'champion'") == ["iris"]
    assert await found(Model, ml, "tags.team = 'churn'") == ["iris"]
    assert await found(Model, ml, f"owner_id = '{BOB.principal.id}'") == ["rose"]
    assert await found(Model, ml, "owner = 'bob'") == ["rose"]
    assert await found(Model, ml, f"owner != '{BOB.principal.id}'", "name") == ["iris", "irma"]
    assert await found(Model, ml, "owner IN ('ada', 'bob') AND NOT owner = 'ada'") == ["rose"]
    with pytest.raises(InvalidField, match="column 9: there is no principal called 'eve'"):
        await found(Model, ml, "owner = 'eve'")
    assert await found(Model, ml, "delete_time IS NULL", "latest_version desc, name desc") == [
        "iris",
        "rose",
        "irma",
    ]
    assert await found(Schema, ("prod",), "name != 'ml'") == ["other"]
    assert await found(Catalog, (), "name = 'prod' AND description = ''") == ["prod"]
    with pytest.raises(InvalidField, match="number"):
        await found(Model, ml, "number = 1")


async def test_filters_show_no_more_than_the_scope(stack: CatalogStack) -> None:
    for name in ("a", "b", "c"):
        await stack.create_model("prod", "ml", name, by=ADA)
    models = {name: await stack.namespaces.get(Model, ("prod", "ml", name)) for name in ("a", "b", "c")}
    some = Scope(BOB.principal.id, frozenset({models["a"].id, models["b"].id}), frozenset({models["b"].id}))
    for asked in ("", "name >= 'a'", "name = 'b' OR name = 'c' OR name = 'a'", "NOT name = 'z'"):
        rows, _ = await stack.namespaces.page(Model, IRIS[:2], some, Browse(size=9, filter=asked))
        assert [row.name for row in rows] == ["prod.ml.a"]
    nothing = Scope(BOB.principal.id, frozenset({SYSTEM_ID}), frozenset({SYSTEM_ID}))
    rows, _ = await stack.namespaces.page(Model, IRIS[:2], nothing, Browse(size=9, filter="name >= 'a'"))
    assert rows == []


# Pages while others write.


@pytest.mark.parametrize("order_by", ["", "number", "tags.stage, metrics.m desc", "metrics.m", "label desc"])
async def test_pages_stay_whole_while_rows_come_and_go(stack: CatalogStack, order_by: str) -> None:
    model = await stack.create_model(*IRIS)
    await stack.db.in_tx(lambda connection: fill(connection, model.id, 0, 60))
    seen: list[int] = []
    token = ""
    for step in range(100):
        rows, token = await stack.versions.page(IRIS, Browse(size=7, page_token=token, order_by=order_by))
        seen += [row.number for row in rows]
        if not token:
            break
        # Those from 41 on are the ones that come and go: the last one listed among them, so that a page begins where no row is.
        gone = {number for number in (rows[-1].number, step + 42) if number > 40}
        first = 100 + 5 * step

        async def come_and_go(connection: AsyncConnection, gone: set[int] = gone, first: int = first) -> None:
            await forget(connection, model.id, gone)
            await fill(connection, model.id, first, 5)

        await stack.db.in_tx(come_and_go)
    assert not token
    assert len(seen) == len(set(seen))
    assert set(range(1, 41)) <= set(seen)


# Many rows.

MANY = 30_000
BY_TIME = "model_versions_create_time"
SEARCHES = {
    "newest": Browse(size=50),
    "tag": Browse(size=50, filter="tags.rare = '77'"),
    "metric": Browse(size=50, filter="metrics.m >= 0.5", order_by="metrics.m desc"),
    "few by metric": Browse(size=50, filter="metrics.m > 0.999"),
    "state and time": Browse(
        size=50,
        filter="state = 'READY' AND create_time >= '2026-01-02T00:00:00Z' AND create_time < '2026-01-02T00:10:00Z'",
    ),
    "latest created": Browse(size=50, order_by="create_time desc"),
    "common tag": Browse(size=50, filter="tags.stage = '1'"),
    "order of a metric": Browse(size=50, order_by="metrics.m desc"),
    "rising order of a metric": Browse(size=50, order_by="metrics.m"),
    "two metrics": Browse(size=50, filter="metrics.m > 0.99 AND metrics.other > 0.99"),
    "artifact": Browse(size=50, filter="artifact_digest = 'sha256:777'"),
    "commit": Browse(size=50, filter="provenance.git_commit = 'commit-777'"),
    "alias": Browse(size=50, filter="alias = 'champion'"),
    "label": Browse(size=50, filter="label LIKE 'v777%'"),
    "by label": Browse(size=50, filter="label > 'v5'", order_by="label"),
    "approval": Browse(size=50, filter="approval = 'REJECTED'"),
    "tests": Browse(size=50, filter="artifact_tests = 'FAILED'"),
}


async def test_typical_searches_read_indexes_and_few_queries(stack: CatalogStack) -> None:
    model = await stack.create_model(*IRIS)
    await stack.db.in_tx(lambda connection: fill(connection, model.id, 0, MANY))
    await stack.db.in_tx(lambda connection: fill_models(connection, model.id))
    await stack.set_aliases(AliasChange("champion", 77))
    async with stack.db.engine.connect() as connection:
        await connection.execute(
            text("UPDATE model_versions SET approval_state = 'REJECTED' WHERE number % 997 = 0")
        )
        await connection.execute(
            text(
                "INSERT INTO artifact_tests SELECT artifact_digest, CASE number % 997 WHEN 0 THEN 'FAILED' ELSE 'PASSED' END,"
                " '{}', number, now() FROM model_versions WHERE number % 7 = 0 OR number % 997 = 0"
            )
        )
        await connection.execute(text("VACUUM ANALYZE"))
    for name, asked in SEARCHES.items():
        with recorded(stack) as statements:
            rows, token = await stack.versions.page(IRIS, asked)
        assert rows, name
        await assert_no_scans(stack, name, statements)
        if token:
            with recorded(stack) as statements:
                await stack.versions.page(IRIS, replace(asked, page_token=token))
            await assert_no_scans(stack, f"{name}, second page", statements)
    await assert_read_from_the_index_alone(stack, SEARCHES["state and time"])
    with recorded(stack) as statements:
        asked = Browse(size=50, filter="name LIKE 'model77%'", order_by="name")
        models, _ = await stack.namespaces.page(Model, IRIS[:2], EVERYTHING, asked)
    assert len(models) == 50
    await assert_no_scans(stack, "name prefix", statements)


async def assert_read_from_the_index_alone(stack: CatalogStack, asked: Browse) -> None:
    """Check that the rows passed over are not looked up in the table: there can be very many of them."""
    with recorded(stack) as statements:
        await stack.versions.page(IRIS, asked)
    plans = [await explained(stack, *recorded_one) for recorded_one in statements]
    kinds = {node["Node Type"] for plan in plans for node in nodes(plan) if node.get("Index Name") == BY_TIME}
    assert kinds == {"Index Only Scan"}


async def assert_no_scans(stack: CatalogStack, name: str, statements: list[tuple[str, Any]]) -> None:
    """Check that a page took three queries: for the container, the ids and the rows; and that none reads most of a large table."""
    assert len(statements) == 3, name
    for statement, parameters in statements:
        plan = await explained(stack, statement, parameters, carried_out=True)
        large = {"model_versions", "metrics", "models"} & set(scanned(plan))
        assert not large, (name, json.dumps(plan, indent=1))
        most = max(rows_read(node) for node in nodes(plan))
        assert most < MANY / 10, (name, most, json.dumps(plan, indent=1))


async def fill(connection: AsyncConnection, model_id: str, first: int, count: int) -> None:
    """Add versions with numbers after `first`: two metrics each, two tags, a label on every third."""
    parameters = {"model": model_id, "first": first + 1, "last": first + count}
    await connection.execute(
        text(
            """
            INSERT INTO model_versions (
                id, description, tags, revision, create_time, update_time, model_id, number, state, state_message,
                artifact_digest, runtime, author_id, author_name, label, copied_from, copied_from_id, provenance)
            SELECT gen_random_uuid(), '', jsonb_build_object('stage', (n % 3)::text, 'rare', n::text), 1, at, at,
                CAST(:model AS uuid), n, CASE n % 4 WHEN 0 THEN 'FAILED' ELSE 'READY' END, '', 'sha256:' || n,
                'sklearn', 'someone', 'someone', CASE n % 3 WHEN 0 THEN 'v' || n ELSE '' END, '', '',
                jsonb_build_object('git_commit', CASE n % 3 WHEN 0 THEN 'commit-' || n ELSE '' END)
            FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) n,
                LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + n * interval '10 seconds' AS at) t
            """
        ),
        parameters,
    )
    await connection.execute(
        text(
            """
            INSERT INTO metrics (version_id, model_id, name, value, number)
            SELECT id, model_id, name, to_jsonb(number), number
            FROM (
                SELECT v.id, v.model_id, m.name, (v.number * 7919 % 10007) / 10007.0::float8 AS number
                FROM model_versions v, unnest(ARRAY['m', 'other']) m (name)
                WHERE v.model_id = CAST(:model AS uuid)
                    AND v.number BETWEEN CAST(:first AS bigint) AND CAST(:last AS bigint)
            ) filled
            """
        ),
        parameters,
    )


async def fill_models(connection: AsyncConnection, like: str) -> None:
    """Add models next to one."""
    query = """
        INSERT INTO models (
            id, description, tags, revision, create_time, update_time, schema_id, name, owner_id, latest_version)
        SELECT gen_random_uuid(), '', '{}', 1, now(), now(), schema_id, 'model' || n, owner_id, 0
        FROM models, generate_series(1, 10000) n WHERE id = CAST(:like AS uuid)
    """
    await connection.execute(text(query), {"like": like})


async def forget(connection: AsyncConnection, model_id: str, gone: set[int]) -> None:
    """Remove versions as the purge does."""
    parameters = {"model": model_id, "gone": list(gone)}
    of_model = "model_id = CAST(:model AS uuid) AND number = ANY(CAST(:gone AS bigint[]))"
    inner = f"SELECT id FROM model_versions WHERE {of_model}"
    await connection.execute(text(f"DELETE FROM metrics WHERE version_id IN ({inner})"), parameters)
    await connection.execute(text(f"DELETE FROM model_versions WHERE {of_model}"), parameters)


# By hand, because the code of today knows no tables of yesterday. Every id is the same: they are of different kinds.
_BEFORE_0005 = """
INSERT INTO catalogs (id, name, {common}) VALUES (:id, 'prod', {values});
INSERT INTO schemas (id, name, catalog_id, {common}) VALUES (:id, 'ml', :id, {values});
INSERT INTO models (id, name, schema_id, latest_version, {common}) VALUES (:id, 'iris', :id, 1, {values});
INSERT INTO model_versions (id, model_id, number, state, state_message, artifact_digest, runtime, author_id, author_name, label,
    copied_from, copied_from_id, description, tags, revision, create_time, update_time)
    VALUES (:id, :id, 1, 'READY', '', '', '', '', '', '', '', '', '', '{{}}', 1, now(), now());
INSERT INTO metrics (version_id, name, value, number) VALUES (:id, 'm', '1', 1)
""".format(
    common="owner_id, description, tags, revision, create_time, update_time",
    values="'', '', '{}', 1, now(), now()",
)


async def test_migration_tells_metrics_their_model(postgres_server: TestPostgres) -> None:
    dsn = postgres_server.empty()
    upgrade = command.upgrade
    with mock.patch.object(command, "upgrade", lambda config, _: upgrade(config, "0004")):
        await migrate.upgrade(dsn, "modelyard_catalog")
    stack = CatalogStack(dsn)

    async def fill(connection: AsyncConnection) -> None:
        for statement in _BEFORE_0005.split(";"):
            await connection.exec_driver_sql(statement.replace(":id", f"'{ADA.principal.id}'"))

    await stack.db.in_tx(fill)
    await migrate.upgrade(dsn, "modelyard_catalog")
    assert await numbers(stack, "metrics.m = 1 AND approval = 'NONE'") == [1]
    await stack.close()
