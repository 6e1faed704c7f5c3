"""Shares and bundles of a running governance: who may, what is told of a version and what is not, what is signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from modelyard import bundles as formats
from modelyard.api.common.v1 import event_pb2
from modelyard.auditing import AuditKeys
from modelyard.bundles import BundledModel, BundledVersion, BundleManifest
from modelyard.types import FileEntry
from modelyard_kit.access import Link
from modelyard_kit.errors import (
    AlreadyExists,
    DomainError,
    InvalidField,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    RequestIdReused,
)
from modelyard_kit.limits import LIMITS, Limit
from modelyard_kit.protos import link_to_proto
from tests.framework.waiting import eventually

from .governance_stack import DIGEST, IRIS, IRIS_1, ML, SERVED, Caller, Stack, stack
from .test_governance_service import audited, see

READ = ("READ_METADATA", "READ_ARTIFACT")
MODEL_MEMBER = {"type": "RESOURCE_TYPE_MODEL", "name": IRIS.name}
SCHEMA_MEMBER = {"type": "RESOURCE_TYPE_SCHEMA", "name": ML.name}
KNOWN: dict[str, Any] = {
    "modelId": IRIS.id,
    "authorName": "ada.secretive@example.com",
    "aliases": ["champion", "for-secretive"],
    "copiedFrom": "secretive.ml.base/7",
    "copiedFromId": "v-secretive",
    "etag": "secretive",
    "approvalState": "APPROVAL_STATE_APPROVED",
    "stateMessage": "secretive",
    "metrics": {"accuracy": 0.97},
    "metadata": {"algorithm": "logistic regression"},
    "tags": {"team": "ml"},
    "label": "1.4.0",
}


@pytest.fixture
async def running_stack(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(fresh_database("modelyard_governance"), tmp_path) as started:
        json_format.ParseDict(KNOWN, started.catalog.known)
        yield started


async def document(caller: Caller) -> tuple[list[dict[str, Any]], str, str]:
    """The parts of the document of version 1, its SHA-256, and its seal."""
    request = {"model_version": IRIS_1.name}
    lines, seal = await described(caller, **request)
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    return [json.loads(line) for line in lines], digest, seal


async def described(caller: Caller, **request: Any) -> tuple[list[str], str]:
    from modelyard.api.governance.v1 import governance_service_pb2 as pb

    call = caller.stub.DescribeVersionForExport(
        pb.DescribeVersionForExportRequest(**request),
        metadata=[("authorization", f"Bearer {caller.token}")],
        timeout=20,
    )
    lines: list[str] = []
    seal = ""
    async for answer in call:
        lines += answer.lines
        seal = answer.seal
    return lines, seal


async def manifest(caller: Caller) -> BundleManifest:
    """The manifest of an honest bundle of version 1."""
    _, digest, seal = await document(caller)
    version = BundledVersion(IRIS_1.id, IRIS.id, 1, DIGEST, seal)
    model = BundledModel(IRIS.id, IRIS.name, "", {}, {})
    documents = (FileEntry(version.document, 1, digest), FileEntry(version.artifact, 1, "a" * 64))
    return BundleManifest(True, (model,), (version,), (), documents)


def happened(number: int, kind: str, resource: Link, data: dict[str, Any]) -> event_pb2.Event:
    event = event_pb2.Event(
        id=f"e-{number}",
        type=kind,
        resource=link_to_proto(resource),
        actor_id="p-ada",
        actor_name="ada.secretive@example.com",
    )
    event.time.FromJsonString(f"2026-01-0{number}T00:00:00Z")
    event.data.update(data)
    return event


async def test_a_share_lives(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    await running_stack.user("ada", admin)
    await admin("CreatePrincipal", principal={"name": "partners", "kind": "KIND_GROUP"})
    wanted = {
        "name": "acme",
        "members": [MODEL_MEMBER, MODEL_MEMBER],
        "recipient": "Acme",
        "exporters": ["ada"],
    }
    made = (await admin("CreateShare", share=wanted, request_id="1")).share
    assert [(member.id, member.name) for member in made.members] == [(IRIS.id, IRIS.name)]
    assert (made.recipient, list(made.exporters), made.creator) == ("Acme", ["ada"], "admin")
    assert (await admin("CreateShare", share=wanted, request_id="1")).share == made
    with pytest.raises(RequestIdReused):
        await admin("CreateShare", share={**wanted, "recipient": "Other"}, request_id="1")
    with pytest.raises(AlreadyExists):
        await admin("CreateShare", share=wanted)
    assert list((await admin("ListShares", filter="recipient = 'Acme'")).shares) == [made]
    changed = {"members": [SCHEMA_MEMBER], "exporters": ["partners"], "recipient": "not asked to be changed"}
    mask = {"paths": ["members", "exporters"]}
    updated = (await admin("UpdateShare", name="acme", share=changed, update_mask=mask)).share
    assert [member.name for member in updated.members] == [ML.name]
    assert (updated.recipient, list(updated.exporters)) == ("Acme", ["partners"])
    again = (await admin("UpdateShare", name="acme", share=changed, update_mask=mask)).share
    assert again == updated, "nothing was changed the second time"
    assert (await admin("DeleteShare", name="acme")).deleted
    assert not (await admin("DeleteShare", name="acme")).deleted
    kinds = [f"governance.share.{verb}" for verb in ("created", "updated", "deleted")]
    told = [entry.event for entry in await audited(admin, *kinds) if entry.event.type in kinds]
    assert [event.type for event in told] == kinds
    assert told[1].data["before"]["members"][0]["id"] == IRIS.id
    assert told[1].data["after"]["members"][0]["id"] == ML.id


async def test_a_share_shows_what_its_members_are_called_now(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    await admin("CreateShare", share={"name": "acme", "members": [MODEL_MEMBER]})
    chains = running_stack.catalog.chains
    chains[:] = [
        tuple(replace(link, name="prod.ml.lily") if link.id == IRIS.id else link for link in chain)
        for chain in chains
    ]
    assert (await admin("GetShare", name="acme")).share.members[0].name == "prod.ml.lily"
    chains[:] = [chain for chain in chains if chain[0].id != IRIS.id]
    assert (await admin("GetShare", name="acme")).share.members[0].name == IRIS.name


async def test_a_refusal_names_the_field(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    catalog = {"type": "RESOURCE_TYPE_CATALOG", "name": "prod"}
    good = {"name": "acme", "members": [MODEL_MEMBER]}
    for field, wrong in {
        "share.name": {"name": "Acme"},
        "share.members": {"members": []},
        "share.members[0].type": {"members": [catalog]},
        "share.members[0].name": {"members": [{"type": "RESOURCE_TYPE_MODEL"}]},
        "share.exporters[0]": {"exporters": [""]},
        "share.recipient": {"recipient": "a" * 256},
    }.items():
        with pytest.raises(InvalidField) as caught:
            await admin("CreateShare", share={**good, **wrong})
        assert [violation.field for violation in caught.value.violations] == [field]


async def test_what_is_unknown_and_the_mask(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    for unknown in (
        {"members": [{**MODEL_MEMBER, "name": "prod.ml.none"}]},
        {"members": [MODEL_MEMBER], "exporters": ["nobody"]},
    ):
        with pytest.raises(NotFound):
            await admin("CreateShare", share={"name": "acme", **unknown})
    await admin("CreateShare", share={"name": "acme", "members": [MODEL_MEMBER]})
    for paths in ([], ["name"]):
        with pytest.raises(InvalidField):
            await admin("UpdateShare", name="acme", share={}, update_mask={"paths": paths})
    with pytest.raises(InvalidField):
        await admin("UpdateShare", name="acme", share={}, update_mask={"paths": ["members"]})
    with pytest.raises(NotFound):
        await admin("UpdateShare", name="none", share={}, update_mask={"paths": ["recipient"]})


async def test_limits(running_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await running_stack.admin()
    for name in ("shares", "members_per_share", "exporters_per_share"):
        monkeypatch.setitem(LIMITS, name, Limit(name, 1, "", ""))
    await admin("CreateShare", share={"name": "one", "members": [MODEL_MEMBER], "exporters": ["admin"]})
    for more in (
        {"members": [MODEL_MEMBER]},
        {"members": [MODEL_MEMBER, SCHEMA_MEMBER]},
        {"members": [MODEL_MEMBER], "exporters": ["admin", "admin"]},
    ):
        with pytest.raises(LimitExceeded):
            await admin("CreateShare", share={"name": "two", **more})
    text = (await manifest(admin)).to_json()
    size = len(text.encode())
    monkeypatch.setitem(LIMITS, "bundle_manifest_bytes", Limit("bundle_manifest_bytes", size, "", ""))
    assert (await admin("SignBundle", manifest=text)).signature
    monkeypatch.setitem(LIMITS, "bundle_manifest_bytes", Limit("bundle_manifest_bytes", size - 1, "", ""))
    with pytest.raises(LimitExceeded):
        await admin("SignBundle", manifest=text)


async def test_a_share_is_for_those_who_may_export_it(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    ada = await running_stack.user("ada", admin)
    await admin("CreatePrincipal", principal={"name": "partners", "kind": "KIND_GROUP"})
    share = {"name": "acme", "members": [MODEL_MEMBER], "exporters": ["partners"]}
    await admin("CreateShare", share=share)
    refusals = []
    for name in ("acme", "none"):
        with pytest.raises(PermissionDenied) as caught:
            await ada("GetShare", name=name)
        refusals.append(str(caught.value))
    assert refusals[0] == refusals[1]
    for method, request in (
        ("ListShares", {}),
        ("CreateShare", {"share": share}),
        ("DeleteShare", {"name": "acme"}),
        ("UpdateShare", {"name": "acme"}),
    ):
        with pytest.raises(PermissionDenied):
            await ada(method, **request)
    await admin("AddGroupMember", group="partners", member="ada")
    assert (await ada("GetShare", name="acme")).share.name == "acme"


async def test_a_document_tells_of_the_version_and_of_nothing_else(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    ada = await running_stack.user("ada.secretive@example.com", admin)
    await see(admin, "ada.secretive@example.com", "READ_METADATA", "APPROVE", "EDIT")
    await ada("ReviewVersion", model_version=IRIS_1.name, decision="DECISION_APPROVE", comment="good")
    await admin(
        "SetModelCard", model_version=IRIS_1.name, content='{"intended_uses": {"risk_rating": "Low"}}'
    )
    large = {"name": "samples", "type": "number", "value": 2**60 + 1}  # more than a double can tell
    groups = [{"name": "size", "metric_data": [large]}]
    card = json.dumps({"evaluation_details": [{"name": "all", "metric_groups": groups}]})
    await ada("SetModelCard", model_version=IRIS_1.name, content=card, comment="worse")
    catalog = await running_stack.login(running_stack.secret("catalog"))
    events = [
        happened(1, "catalog.model_version.created", IRIS_1, {"copied_from": "secretive.ml.base/7"}),
        happened(2, "catalog.alias.moved", IRIS, {"alias": "secretive", "after": {"version_id": IRIS_1.id}}),
        happened(
            3,
            "inference.deployment.created",
            SERVED,
            {"after": {"targets": [{"model_version": IRIS_1.name}]}},
        ),
        happened(4, "catalog.access.denied", IRIS_1, {"count": 2}),
        happened(5, "catalog.model.updated", IRIS, {"before": {"owner": "secretive"}}),
        happened(6, "governance.grant.created", IRIS, {"principal": "secretive"}),
    ]
    await catalog("RecordEvents", events=events)
    await audited(admin, "governance.version.reviewed", "governance.card.revised", "governance.card.revised")
    parts, _, seal = await document(ada)
    assert seal
    assert [part["kind"] for part in parts][:4] == ["version", "approval", "card", "card"]
    version, approval, first, second = parts[:4]
    assert set(version) == {
        *("kind", "id", "modelId", "number", "artifactDigest", "metrics", "metadata", "tags", "label")
    }
    assert (version["metrics"], version["label"]) == ({"accuracy": 0.97}, "1.4.0")
    (review,) = approval["reviews"]
    assert (approval["state"], review["decision"], review["comment"]) == ("APPROVED", "APPROVE", "good")
    assert (first["revision"], json.loads(second["content"])) == (1, json.loads(card))
    audit = {part["type"]: part for part in parts if part["kind"] == "audit"}
    assert set(audit) == {
        "catalog.model_version.created",
        "catalog.alias.moved",
        "governance.version.reviewed",
        "governance.card.revised",
    }
    entries = (await admin("ListAuditEntries", page_size=1000)).entries
    chain = {entry.sequence: entry for entry in entries}
    for told in audit.values():
        entry = chain[told["sequence"]]
        assert (told["hash"], told["previous_hash"], told["event_id"]) == (
            entry.hash,
            entry.previous_hash,
            entry.event.id,
        )
        assert set(told) == {
            *(
                "kind",
                "sequence",
                "event_id",
                "type",
                "time",
                "resource_id",
                "actor_id",
                "previous_hash",
                "hash",
            )
        }
    assert "secretive" not in json.dumps(parts)


async def test_who_may_have_a_version_described(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    ada = await running_stack.user("ada", admin)
    await see(admin, "ada")
    with pytest.raises(Exception, match="READ_METADATA"):
        await document(ada)
    running_stack.catalog.state = running_stack.catalog.known.State.STATE_PENDING
    with pytest.raises(Exception, match="is PENDING"):
        await document(admin)


async def test_signed_for_those_who_manage_and_for_exporters_of_a_share(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    ada = await running_stack.user("ada", admin)
    text = (await manifest(admin)).to_json()
    await admin("CreateShare", share={"name": "acme", "members": [SCHEMA_MEMBER], "exporters": ["ada"]})
    await admin("CreateShare", share={"name": "others", "members": [SCHEMA_MEMBER]})
    await admin("CreateGrant", principal="ada", privilege="PRIVILEGE_USE_CATALOG", **on("catalog", "prod"))
    await admin("CreateGrant", principal="ada", privilege="PRIVILEGE_USE_SCHEMA", **on("schema", ML.name))
    for missing in READ:
        with pytest.raises(PermissionDenied, match=missing):
            await ada("SignBundle", manifest=text, share="acme")
        await admin(
            "CreateGrant", principal="ada", privilege=f"PRIVILEGE_{missing}", **on("model", IRIS.name)
        )
    for share in ("", "none", "others"):
        with pytest.raises(PermissionDenied, match="MANAGE"):
            await ada("SignBundle", manifest=text, share=share)
    signed = await ada("SignBundle", manifest=text, share="acme")
    told = formats.parse_statement(signed.statement)
    assert (told.bundle, told.installation) == (formats.bundle_digest(text), "modelyard")
    keys = AuditKeys((await ada("GetAuditKeys")).keys)
    assert keys.refuse("it", told.key_id, signed.signature, signed.statement.encode()) == ""
    assert "is wrong" in keys.refuse("it", told.key_id, signed.signature, signed.statement.encode() + b" ")
    entries = await audited(admin, "governance.bundle.signed")
    (event,) = (entry.event for entry in entries if entry.event.type == "governance.bundle.signed")
    assert (event.resource.id, event.actor_name, event.data["share"]) == (IRIS.id, "ada", "acme")
    assert (event.data["bundle"], list(event.data["versions"])) == (told.bundle, [1])
    await admin("CreateGrant", principal="ada", privilege="PRIVILEGE_MANAGE", **on("model", IRIS.name))
    assert (await ada("SignBundle", manifest=text)).signature


def on(kind: str, name: str) -> dict[str, Any]:
    return {"resource_type": f"RESOURCE_TYPE_{kind.upper()}", "resource": name}


async def test_nothing_is_signed_that_was_not_told_here(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    honest = await manifest(admin)
    (version,), (model,) = honest.versions, honest.models
    other_digest = f"sha256:{'2' * 64}"
    changed = replace(version, artifact_digest=other_digest)
    lies = [
        replace(honest, documents=(replace(honest.documents[0], sha256="b" * 64), honest.documents[1])),
        replace(
            honest,
            versions=(changed,),
            documents=(honest.documents[0], replace(honest.documents[1], path=changed.artifact)),
        ),
        replace(honest, versions=(replace(version, number=2),)),
        replace(honest, versions=(replace(version, seal=""),)),
        replace(honest, versions=(replace(version, seal=f"{'0' * 16}.{version.seal.partition('.')[2]}"),)),
        replace(honest, models=(replace(model, id="m-2"),), versions=(replace(version, model_id="m-2"),)),
    ]
    for lie in lies:
        with pytest.raises(InvalidField):
            await admin("SignBundle", manifest=lie.to_json())
    for text in ("", "[]", "{", honest.to_json()[:-1] + ',"format":"modelyard.bundle/1"}'):
        with pytest.raises(InvalidField):
            await admin("SignBundle", manifest=text)
    unknown = replace(honest, models=(replace(model, name="prod.ml.none"),))
    with pytest.raises(DomainError):
        await admin("SignBundle", manifest=unknown.to_json())
    assert (await admin("SignBundle", manifest=honest.to_json())).signature

    async def once() -> bool:
        entries = (await admin("ListAuditEntries", page_size=1000)).entries
        return [entry.event.type for entry in entries].count("governance.bundle.signed") == 1

    await eventually(once)
