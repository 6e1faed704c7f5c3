"""Model cards of a running governance: drafted from the catalog, written as revisions, compared, rendered, permitted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from modelyard.api.catalog.v1.lineage_pb2 import LineageEdge, LineageNode
from modelyard.api.governance.v1 import card_pb2
from modelyard_governance.cards import rules
from modelyard_kit.access import SYSTEM, Link, ResourceType
from modelyard_kit.errors import EtagMismatch, InvalidField, LimitExceeded, NotFound, PermissionDenied
from modelyard_kit.limits import LIMITS, Limit
from tests.framework.waiting import eventually

from .governance_stack import IRIS_1, Stack, stack
from .test_governance_service import see

VERSION = {"model_version": IRIS_1.name}
SECRET = Link(ResourceType.CATALOG, "c-secret", "secret")
BASE = (
    Link(ResourceType.MODEL_VERSION, "v-base", "secret.ml.base/1"),
    Link(ResourceType.MODEL, "m-base", "secret.ml.base"),
    Link(ResourceType.SCHEMA, "s-secret", "secret.ml"),
    SECRET,
    SYSTEM,
)
KNOWN: dict[str, Any] = {
    "model": "prod.ml.iris",
    "number": 1,
    "artifactDigest": "sha256:ab",
    "authorName": "ada",
    "metrics": {"accuracy": 0.97, "confusion": [[5, 0], [1, 4]]},
    "metadata": {"algorithm": "logistic regression", "hyperparameters": {"C": 1}},
    "provenance": {"gitCommit": "c0ffee", "datasets": [{"name": "s3://lake/iris", "version": "7"}]},
    "tags": {"team": "ml"},
}


@pytest.fixture
async def running_stack(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(fresh_database("modelyard_governance"), tmp_path) as started:
        json_format.ParseDict(KNOWN, started.catalog.known)
        yield started


def card(**uses: str) -> str:
    return json.dumps({"intended_uses": uses})


async def test_drafted_from_what_the_catalog_knows(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    running_stack.catalog.author_id = (await admin("GetCaller")).principal.id
    drafted = (await admin("DraftModelCard", **VERSION)).card
    content = json.loads(drafted.content)
    assert (drafted.revision, drafted.etag) == (0, "")
    assert content["model_overview"] == {
        "model_id": IRIS_1.id,
        "model_name": "prod.ml.iris",
        "model_version": 1,
        "model_creator": "ada",
        "model_owner": "admin",
        "model_artifact": ["sha256:ab"],
        "algorithm_type": "logistic regression",
    }
    assert content["training_details"]["training_job_details"]["training_datasets"] == ["s3://lake/iris@7"]
    assert content["evaluation_details"][0]["metric_groups"][0]["metric_data"][0]["type"] == "matrix"
    assert content["additional_information"]["custom_details"]["git_commit"] == "c0ffee"
    assert "intended_uses.purpose_of_model" in drafted.missing
    stored = (await admin("SetModelCard", **VERSION, content=drafted.content)).card
    assert (stored.revision, stored.content) == (1, drafted.content)
    own = json.dumps({"model_overview": {"model_owner": "herbarium"}})
    await admin("SetModelCard", **VERSION, content=own)
    again = (await admin("DraftModelCard", **VERSION)).card
    assert json.loads(again.content)["model_overview"]["model_owner"] == "herbarium"
    assert (again.etag, again.completeness) == ("2", drafted.completeness)


async def test_a_draft_names_no_neighbour_that_the_caller_may_not_see(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    ada = await running_stack.user("ada", admin)
    await see(admin, "ada", "READ_METADATA")
    running_stack.catalog.chains.append(BASE)
    version = LineageNode(kind=LineageNode.KIND_MODEL_VERSION, id=IRIS_1.id, name=IRIS_1.name)
    base = LineageNode(kind=LineageNode.KIND_MODEL_VERSION, id=BASE[0].id, name=BASE[0].name)
    run = LineageNode(kind=LineageNode.KIND_RUN, name="nightly-7")
    running_stack.catalog.edges = [
        LineageEdge(source=base, target=version),
        LineageEdge(source=run, target=version),
    ]
    running_stack.catalog.also_versions = {BASE[0].name: BASE[0].id}

    async def made_from(caller: Any) -> str:
        content = json.loads((await caller("DraftModelCard", **VERSION)).card.content)
        return str(content["additional_information"]["custom_details"]["made_from"])

    assert await made_from(admin) == "model version secret.ml.base/1, run nightly-7"
    assert await made_from(ada) == "run nightly-7"


async def test_revisions_are_written_read_compared(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    with pytest.raises(NotFound) as nothing:
        await admin("GetModelCard", **VERSION)
    assert nothing.value.metadata["resource_type"] == "model_card"
    first = (await admin("SetModelCard", **VERSION, content=card(risk_rating="Low"), comment="first")).card
    assert (first.revision, first.author_name, first.model_version) == (1, "admin", IRIS_1.name)
    same = (await admin("SetModelCard", **VERSION, content=card(risk_rating="Low"), etag="9")).card
    assert same == first
    content = card(risk_rating="High", purpose_of_model="sort")
    second = (await admin("SetModelCard", **VERSION, content=content, etag=first.etag)).card
    assert second.revision == 2
    with pytest.raises(EtagMismatch) as lost:
        await admin("SetModelCard", **VERSION, content=card(), etag=first.etag)
    assert (lost.value.metadata["expected"], lost.value.metadata["actual"]) == ("1", "2")
    assert (await admin("GetModelCard", **VERSION)).card == second
    assert (await admin("GetModelCard", **VERSION, revision=1)).card == first
    with pytest.raises(NotFound):
        await admin("GetModelCard", **VERSION, revision=3)
    listed = (await admin("ListModelCardRevisions", **VERSION, order_by="revision desc")).cards
    assert [(item.revision, item.comment, item.content) for item in listed] == [(2, "", ""), (1, "first", "")]
    only = (await admin("ListModelCardRevisions", **VERSION, filter="comment = 'first'")).cards
    assert [item.revision for item in only] == [1]
    changes = await admin("DiffModelCards", **VERSION)
    assert (changes.from_revision, changes.to_revision) == (1, 2)
    assert [(item.path, item.before, item.after) for item in changes.changes] == [
        ("intended_uses.purpose_of_model", "", '"sort"'),
        ("intended_uses.risk_rating", '"Low"', '"High"'),
    ]
    whole = await admin("DiffModelCards", **VERSION, to_revision=1)
    assert (whole.from_revision, [item.before for item in whole.changes]) == (0, [""])
    back = await admin("DiffModelCards", **VERSION, from_revision=2, to_revision=1)
    assert back.changes[1].after == '"Low"'


async def test_each_revision_is_in_the_activity_of_the_version(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    for risk in ("Low", "High"):
        await admin("SetModelCard", **VERSION, content=card(risk_rating=risk), comment=risk)
    found: list[Any] = []

    async def arrived() -> bool:
        found[:] = (
            await admin("ListActivity", **VERSION, filter="type = 'governance.card.revised'")
        ).activities
        return len(found) == 2

    await eventually(arrived)
    assert [(item.before["revision"], item.after["revision"]) for item in found] == [(0, 1), (1, 2)]
    assert [item.details["comment"] for item in found] == ["Low", "High"]


async def test_rendered(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    await admin("SetModelCard", **VERSION, content=card(risk_rating="Low"))
    await admin("SetModelCard", **VERSION, content=card(risk_rating="High"))
    page = await admin("RenderModelCard", **VERSION, format=card_pb2.ModelCard.FORMAT_HTML)
    assert page.media_type == "text/html; charset=utf-8"
    assert b"High risk" in page.document
    older = await admin("RenderModelCard", **VERSION, revision=1, format=card_pb2.ModelCard.FORMAT_HTML)
    assert b"Low risk" in older.document
    paper = await admin("RenderModelCard", **VERSION, format=card_pb2.ModelCard.FORMAT_PDF)
    assert (paper.media_type, paper.document[:5]) == ("application/pdf", b"%PDF-")
    with pytest.raises(InvalidField) as unsaid:
        await admin("RenderModelCard", **VERSION)
    assert unsaid.value.metadata["field"] == "format"


async def test_cards_stay_with_a_version_that_is_renamed(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    await admin("SetModelCard", **VERSION, content=card(risk_rating="Low"))
    renamed = (Link(IRIS_1.type, IRIS_1.id, "prod.ml.flower/1"), *running_stack.catalog.chains[3][1:])
    running_stack.catalog.chains[3] = renamed
    running_stack.catalog.called = "prod.ml.flower/1"
    found = (await admin("GetModelCard", model_version="prod.ml.flower/1")).card
    assert (found.revision, found.model_version) == (1, "prod.ml.flower/1")


async def test_refusals_name_their_field(running_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await running_stack.admin()
    artifacts = json.dumps({"model_overview": {"model_artifact": ["a"] * 31}})
    with pytest.raises(InvalidField) as many:
        await admin("SetModelCard", **VERSION, content=artifacts)
    assert [item.field for item in many.value.violations] == ["model_overview.model_artifact"]
    for fields, field in (
        ({"content": ""}, "content"),
        ({"content": "{}", "comment": "x" * 1_025}, "comment"),
        ({"content": "{}", "model_version": ""}, "model_version"),
    ):
        with pytest.raises(InvalidField) as wrong:
            await admin("SetModelCard", **(VERSION | fields))
        assert wrong.value.metadata["field"] == field
    with pytest.raises(InvalidField):
        await admin("GetModelCard", **VERSION, revision=-1)
    few = Limit("card_revisions", 2, "revisions", "few")
    monkeypatch.setitem(LIMITS, "card_revisions", few)
    assert rules.limits.LIMITS["card_revisions"] is few
    for risk in ("Low", "High"):
        await admin("SetModelCard", **VERSION, content=card(risk_rating=risk))
    with pytest.raises(LimitExceeded):
        await admin("SetModelCard", **VERSION, content=card(risk_rating="Medium"))


async def test_reading_and_writing_need_their_privileges(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    await admin("SetModelCard", **VERSION, content=card(risk_rating="Low"))
    ada = await running_stack.user("ada", admin)
    calls = ("DraftModelCard", "GetModelCard", "ListModelCardRevisions", "DiffModelCards")
    for method in (*calls, "SetModelCard", "RenderModelCard"):
        with pytest.raises(PermissionDenied):
            await ada(method, **VERSION)
    await see(admin, "ada", "READ_METADATA")
    for method in calls:
        await ada(method, **VERSION)
    with pytest.raises(PermissionDenied):
        await ada("SetModelCard", **VERSION, content=card())
    await see(admin, "ada", "EDIT")
    assert (await ada("SetModelCard", **VERSION, content=card())).card.author_name == "ada"
