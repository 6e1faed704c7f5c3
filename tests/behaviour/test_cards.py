"""The story of a model card on every stack: drafted from a real version, completed, rendered, and at the command line."""

from __future__ import annotations

import json
from pathlib import Path

from modelyard import types
from modelyard.aio import AsyncClient
from tests.framework.cli import Cli
from tests.framework.stack import Processes


async def test_a_card_is_drafted_completed_and_rendered(admin: AsyncClient, schema: str) -> None:
    model = await admin.models.create(f"{schema}.iris", description="irises")
    version = await admin.versions.create(
        model.name,
        description="Sorts irises.",
        metrics={"accuracy": 0.97, "confusion": [[10, 0], [1, 9]]},
        tags={"team": "ml"},
        metadata=types.ModelMetadata(algorithm="logistic regression", hyperparameters={"C": 1.0}),
    )
    await admin.log_input(version.name, types.Dataset("s3://lake/iris", version="7"))
    draft = await admin.cards.draft(version.name)
    card = draft.document
    assert card["model_overview"]["model_description"] == "Sorts irises."
    assert card["model_overview"]["model_owner"] == "admin"
    card["intended_uses"] = {"purpose_of_model": "Sorting.", "risk_rating": "Low"}
    written = await admin.cards.set(version.name, card, etag=draft.etag, comment="first")
    assert written.revision == 1
    assert written.completeness > draft.completeness
    card["intended_uses"]["risk_rating"] = "High"
    await admin.cards.set(version.name, card, etag=written.etag)
    (change,) = await admin.cards.diff(version.name)
    assert (change.path, change.before, change.after) == ("intended_uses.risk_rating", '"Low"', '"High"')
    assert [item.revision for item in await admin.cards.revisions(version.name).collect()] == [1, 2]
    page = (await admin.cards.render(version.name)).decode()
    assert "High risk" in page
    assert page.count("<svg") == 1
    assert (await admin.cards.render(version.name, "pdf", revision=1)).startswith(b"%PDF-")


async def test_at_the_command_line(processes: Processes, tmp_path: Path) -> None:
    async with processes.admin() as client:
        catalog = f"cards{tmp_path.name[-8:].replace('_', '')}"
        await client.catalogs.create(catalog)
        await client.schemas.create(f"{catalog}.ml")
        await client.models.create(f"{catalog}.ml.iris")
        name = (await client.versions.create(f"{catalog}.ml.iris")).name
    cli = Cli(tmp_path / "admin")
    cli.ok("login", processes.target, "--token-file", str(processes.home.token_file("admin")))
    path, page = tmp_path / "card.json", tmp_path / "card.html"
    cli.ok("cards", "draft", name, "--to", str(path))
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"intended_uses": {"risk_rating": "Low"}}))
    assert cli.ok("cards", "set", name, str(path), "-m", "first", "--output", "json").json["revision"] == 1
    shown = cli.ok("cards", "show", name).out
    assert "missing" in shown
    exported = cli.ok("cards", "export", name, "--sagemaker").json
    assert json.loads(exported["Content"])["intended_uses"] == {"risk_rating": "Low"}
    cli.ok("cards", "render", name, str(page))
    assert "Low risk" in page.read_text()
    path.write_text(json.dumps({"model_overview": {"model_artifact": ["a"] * 31}}))
    assert "has 31 items; 15 are the most" in cli.refused("cards", "set", name, str(path))
    assert ".html or .pdf" in cli.refused("cards", "render", name, "card.docx", code=2)
