"""What was made from what, as users of the Python client and the command line meet it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard import Dataset, LineageEdge, LineageNode, contexts, errors
from modelyard.aio import AsyncClient
from modelyard.contexts import Context
from modelyard.types import Lineage, LineageKind
from tests.framework.cli import Cli
from tests.framework.deployed import deployed
from tests.framework.gateway import some_gateway
from tests.framework.stack import Processes, Stack
from tests.framework.waiting import eventually

RAW = LineageNode.dataset("s3://lake/raw", version="1")
JOB = LineageNode.batch_job("airflow://scoring/nightly", run="2026-01-01", digest="sha256:aa")


def shown(lineage: Lineage) -> set[tuple[str, str, str]]:
    return {(edge.source.name, edge.relation, edge.target.name) for edge in lineage.edges}


async def test_a_deployment_knows_what_it_came_of_and_outlives_itself_in_the_graph(
    stack: Stack, admin: AsyncClient
) -> None:
    async with some_gateway(stack):
        async with deployed(stack) as one:
            await admin.log_input(f"{one.name}/1", Dataset("s3://lake/iris", role="training"))
            node = LineageNode.deployment(one.name)

            async def answers(version: int) -> bool:
                edge = (f"{one.name}/{version}", "deployed_as", one.name)
                return edge in shown(await admin.lineage.upstream(node))

            await eventually(lambda: answers(1), seconds=60)
            found = await admin.lineage.upstream(node)
            assert ("s3://lake/iris", "trained_on", f"{one.name}/1") in shown(found)
            (own,) = [edge for edge in found.edges if edge.relation == "deployed_as"]
            assert (own.recorded_by, own.target, own.source.kind) == (
                "inference",
                found.node,
                LineageKind.MODEL_VERSION,
            )
            assert found.node.id == (await admin.deployments.get(one.name)).id
            await admin.aliases.set(one.name, {"champion": 2})
            await eventually(lambda: answers(2), seconds=60)
            down = await admin.lineage.downstream(f"{one.name}@champion")
            assert shown(down) == {(f"{one.name}/2", "deployed_as", one.name)}
            # A version trained on what the others answered is no circle.
            logs = LineageNode.dataset("s3://lake/answers")
            await admin.lineage.record(LineageEdge(source=node, target=logs, relation="logged"))
            await admin.log_input(f"{one.name}/2", Dataset("s3://lake/answers"))
            async with stack.user() as user:
                for privilege in ("USE_CATALOG", "USE_SCHEMA"):
                    await admin.grants.create(user.name, privilege, one.name.partition(".")[0])
                await admin.grants.create(user.name, "READ_METADATA", one.name, resource_type="MODEL")

                async def may_read() -> bool:
                    try:
                        return bool((await user.client.lineage.query(f"{one.name}/1")).edges)
                    except errors.PermissionDenied:
                        return False

                await eventually(may_read)
                seen = await user.client.lineage.downstream(f"{one.name}/1", depth=1)
                assert shown(seen) == {(f"{one.name}/1", "deployed_as", "")}
                with pytest.raises(errors.PermissionDenied):
                    await user.client.lineage.query(node)

        async def gone() -> bool:
            lineage = await admin.lineage.query(LineageNode.deployment(id=found.node.id))
            return lineage.node.delete_time is not None

        await eventually(gone, seconds=60)
        after = await admin.lineage.downstream(f"{one.name}/1", depth=1)
        assert [(edge.target.name, edge.target.delete_time is not None) for edge in after.edges] == [
            (one.name, True)
        ]
        with pytest.raises(errors.NotFound):
            await admin.lineage.query(node)


async def test_editors_of_a_model_record_and_remove_its_lineage(
    stack: Stack, admin: AsyncClient, schema: str
) -> None:
    model = f"{schema}.iris"
    await admin.models.create(model)
    made = await admin.versions.create(model)
    version = made.name
    node = LineageNode.model_version(version)
    run = LineageNode.run("train-42")
    edges = (
        LineageEdge(source=RAW, target=run, relation="read_by"),
        LineageEdge(source=run, target=node, relation="produced"),
        LineageEdge(source=node, target=JOB, relation="scored_by"),
        LineageEdge(source=JOB, target=LineageNode.dataset("s3://lake/scores"), relation="wrote"),
    )
    async with stack.user() as user:
        for privilege, name in (("USE_CATALOG", schema.partition(".")[0]), ("USE_SCHEMA", schema)):
            await admin.grants.create(user.name, privilege, name)
        for privilege in ("READ_METADATA", "EDIT"):
            await admin.grants.create(user.name, privilege, model, resource_type="MODEL")

        async def may_edit() -> bool:
            try:
                await user.client.log_input(version, Dataset("s3://lake/iris", role="training"))
            except errors.PermissionDenied:
                return False
            return True

        await eventually(may_edit)
        await user.client.lineage.record(*edges)
        assert shown(await user.client.lineage.downstream(RAW)) == {
            ("s3://lake/raw", "read_by", "train-42"),
            ("train-42", "produced", version),
            (version, "scored_by", JOB.name),
            (JOB.name, "wrote", "s3://lake/scores"),
        }
        assert (await user.client.lineage.upstream(JOB, depth=1)).node.version == "2026-01-01"
        alone = LineageEdge(source=RAW, target=LineageNode.dataset("s3://lake/elsewhere"))
        for anchor in ("", schema):
            with pytest.raises(errors.PermissionDenied):
                await user.client.lineage.record(alone, anchor=anchor)
        await admin.lineage.record(alone, anchor=schema)
        with pytest.raises(errors.PermissionDenied):
            await user.client.lineage.delete(alone)
        with pytest.raises(errors.LineageCycle):
            await user.client.lineage.record(LineageEdge(source=node, target=RAW), anchor=model)
        for _ in range(2):
            await user.client.lineage.delete(*edges)
        assert shown(await user.client.lineage.query(version, depth=20)) == {
            ("s3://lake/iris", "trained_on", version)
        }
        types = ["catalog.lineage.*"]
        watch = user.client.events.watch(model, types=types, from_beginning=True)
        told = [await anext(watch) for _ in range(4)]
        await watch.aclose()
    assert [event.type for event in told].count("catalog.lineage.deleted") >= 1

    async def audited() -> bool:
        entries = await admin.audit.list(resource_id=made.id).collect(100)
        return "catalog.lineage.deleted" in {entry.event.type for entry in entries}

    await eventually(audited)


async def test_the_command_line_records_shows_and_removes(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    contexts.save("test", Context(processes.target, processes.admin_token))
    cli = Cli(tmp_path)
    async with processes.admin() as admin:
        catalog = f"c{tmp_path.name[-8:]}".replace("-", "_")
        await admin.catalogs.create(catalog)
        await admin.schemas.create(f"{catalog}.ml")
        await admin.models.create(f"{catalog}.ml.iris")
        version = (await admin.versions.create(f"{catalog}.ml.iris")).name
    into = ("job:airflow://etl", f"{version}", "--source-version", "7", "--relation", "produced")
    cli.ok(
        "lineage",
        "record",
        "dataset:raw",
        "job:airflow://etl",
        "--target-version",
        "7",
        "--anchor",
        f"{catalog}.ml",
    )
    cli.ok("lineage", "record", *into)
    tree = cli.ok("lineage", "upstream", version).out
    assert [line.strip(" │├└─") for line in tree.splitlines()] == [
        f"model version {version}",
        "made from",
        "batch job airflow://etl 7  produced",
        "dataset raw",
    ]
    found = cli.json("lineage", "downstream", "job:airflow://etl", "--version", "7")
    assert [edge["target"]["name"] for edge in found["edges"]] == [version]
    cli.ok("lineage", "delete", *into, "--yes")
    assert cli.json("lineage", "show", version)["edges"] == []
