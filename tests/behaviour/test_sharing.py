"""The story of a model that leaves an installation as a bundle and comes into one under another name."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard import errors, types
from modelyard.aio import AsyncClient
from tests.framework.cli import Cli
from tests.framework.stack import InProcess, Processes

CARDS = [{"intended_uses": {"risk_rating": "Low"}}, {"intended_uses": {"risk_rating": "High"}}]
FILES = {
    "model.bin": bytes(range(256)) * 2_000,
    "copy/model.bin": bytes(range(256)) * 2_000,
    "readme.md": b"hi",
}


async def made(client: AsyncClient, model: str, folder: Path) -> list[types.ModelVersion]:
    """A model with two versions, the second made from the first, approved, carded and aliased."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    await client.models.create(model, description="irises", tags={"team": "ml"})
    artifact = await client.artifacts.upload(model, folder, progress=False)
    first = await client.versions.create(model, artifact.digest, metrics={"accuracy": 0.5})
    (folder / "readme.md").write_bytes(b"hello")
    artifact = await client.artifacts.upload(model, folder, progress=False)
    second = await client.versions.create(
        model,
        artifact.digest,
        label="1.4.0",
        description="Sorts irises.",
        runtime="sklearn",
        tags={"stage": "final"},
        metrics={"accuracy": 0.97, "confusion": [[10, 0], [1, 9]]},
        metadata=types.ModelMetadata(
            algorithm="logistic regression",
            hyperparameters={"C": 1.5, "max_iter": 500},
            custom=(types.CustomMetadata("gpu", "none"),),
        ),
        provenance=types.Provenance(git_commit="c0ffee", datasets=(types.Dataset("s3://lake/iris", "7"),)),
    )
    for card in CARDS:
        await client.cards.set(second.name, card, comment=card["intended_uses"]["risk_rating"])
    await client.approvals.review(second.name, "APPROVE", comment="good")
    node = types.LineageNode.model_version
    edge = types.LineageEdge(source=node(first.name), target=node(second.name), relation="fine_tuned_to")
    await client.lineage.record(edge)
    await client.aliases.set(model, {"champion": second.number})
    return [first, second]


def told(version: types.ModelVersion) -> types.ModelVersion:
    """What must be the same of a version here and at its origin."""
    custom = tuple(fact for fact in version.metadata.custom if not fact.key.startswith("imported_"))
    return types.ModelVersion(
        name="",
        model="",
        number=0,
        artifact_digest=version.artifact_digest,
        description=version.description,
        runtime=version.runtime,
        signature=version.signature,
        tags=version.tags,
        metrics=version.metrics,
        provenance=version.provenance,
        label=version.label,
        metadata=replace(version.metadata, custom=custom),
    )


async def test_a_model_leaves_and_comes_in_under_another_name(
    processes: Processes, in_process: InProcess, tmp_path: Path
) -> None:
    catalog = f"s{uuid.uuid4().hex[:10]}"
    source, target, bundle = f"{catalog}.ml.iris", f"{catalog}.lab.lily", tmp_path / "iris.bundle"
    async with processes.admin() as client:
        await client.catalogs.create(catalog)
        for schema in ("ml", "lab"):
            await client.schemas.create(f"{catalog}.{schema}")
        origin = await made(client, source, tmp_path / "files")
        await client.models.create(target)
        artifact = await client.artifacts.upload(target, tmp_path / "files", progress=False)
        await client.versions.create(target, artifact.digest)
        await client.shares.create(catalog, [f"{catalog}.ml"], recipient="Acme", exporters=["admin"])
    cli = Cli(tmp_path / "admin")
    cli.ok("login", processes.target, "--token-file", str(processes.home.token_file("admin")))
    key = tmp_path / "key.pem"
    key.write_text(cli.ok("audit", "key").out)
    written = cli.ok("shares", "export", catalog, "--to", str(bundle), "-o", "json").json
    assert written["versions"] == 2
    assert written["blob_bytes"] == len(FILES["model.bin"]) + len(b"hi") + len(b"hello")
    shown = cli.ok("bundles", "show", str(bundle), "--trust", str(key), "-o", "json").json
    assert shown["versions"] == [f"{source}/1 PENDING", f"{source}/2 APPROVED"]
    importing = (
        "bundles",
        "import",
        str(bundle),
        "--as",
        target,
        "--trust",
        str(key),
        "--aliases",
        "-o",
        "json",
    )
    rows = cli.ok(*importing).json
    assert [(row["origin"], row["version"], row["created"]) for row in rows] == [
        (f"{source}/1", f"{target}/2", True),
        (f"{source}/2", f"{target}/3", True),
    ]
    assert [row["created"] for row in cli.ok(*importing).json] == [False, False]
    async with processes.admin() as client:
        here = [await client.versions.get(f"{target}/{number}") for number in (2, 3)]
        assert [told(version) for version in here] == [
            told(await client.versions.get(v.name)) for v in origin
        ]
        facts = {fact.key: fact.value for fact in here[1].metadata.custom}
        assert facts["imported_version"] == f"{source}/2"
        assert facts["imported_version_id"] == origin[1].id
        assert (facts["imported_bundle"], facts["imported_approval"]) == (written["digest"], "APPROVED")
        assert (await client.models.get(target)).aliases["champion"] == 3
        assert (await client.approvals.get(here[1].name)).approvals == 0, "an approval elsewhere is none here"
        revisions = await client.cards.revisions(here[1].name).collect()
        assert [revision.comment for revision in revisions] == ["Low", "High"]
        assert (await client.cards.get(here[1].name)).document == CARDS[1]
        edges = (await client.lineage.upstream(here[1].name)).edges
        assert (here[0].id, "fine_tuned_to") in [(edge.source.id, edge.relation) for edge in edges]
        assert len(await client.versions.list(target).collect()) == 3
        content = await client.artifacts.read(here[0].name, "copy/model.bin")
        assert content == FILES["copy/model.bin"]
        await references_alone(client, source, f"{catalog}.lab", tmp_path)
    async with in_process.admin() as elsewhere:
        await another_installation(elsewhere, bundle, key, [told(version) for version in here])


async def references_alone(client: AsyncClient, source: str, schema: str, folder: Path) -> None:
    """A bundle without blobs comes in where the bytes are, and the same content is the same bundle."""
    keys = await client.audit.keys()
    path = folder / "references.bundle"
    made = await client.bundles.export([f"{source}/1"], path, blobs=False)
    again = await client.bundles.export([f"{source}/1"], path, blobs=False, overwrite=True)
    assert (made.digest, made.blob_bytes) == (again.digest, 0)
    with pytest.raises(errors.ConfigurationError):
        await client.bundles.export([source], path)
    with pytest.raises(errors.InvalidArgument, match="trust"):
        await client.bundles.import_bundle(path, schema)
    (row,) = await client.bundles.import_bundle(path, schema, trust=keys, progress=False)
    assert (row.version, row.created) == (f"{schema}.iris/1", True)
    assert not list(folder.glob(".*")), "nothing is left beside the bundles"


async def another_installation(
    client: AsyncClient, bundle: Path, key: Path, wanted: list[types.ModelVersion]
) -> None:
    """The bundle comes in where nobody knows its origin but by its key."""
    catalog = f"s{uuid.uuid4().hex[:10]}"
    await client.catalogs.create(catalog)
    await client.schemas.create(f"{catalog}.ml")
    target = f"{catalog}.ml.rose"
    with pytest.raises(errors.SignatureInvalid):
        await client.bundles.import_bundle(bundle, target, trust=await client.audit.keys())
    with pytest.raises(errors.NotFound):
        await client.models.get(target)
    made = await client.bundles.import_bundle(bundle, target, trust=[key], progress=False)
    assert [row.version for row in made] == [f"{target}/1", f"{target}/2"]
    here = [await client.versions.get(row.version) for row in made]
    assert [told(version) for version in here] == wanted
    assert (await client.cards.get(here[1].name)).document == CARDS[1]
    assert await client.artifacts.read(here[0].name, "model.bin") == FILES["model.bin"]
    model = await client.models.get(target)
    assert (model.description, model.tags, model.aliases) == ("irises", {"team": "ml"}, {})
