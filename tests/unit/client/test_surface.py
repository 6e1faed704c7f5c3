from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard import AsyncClient, Client, types
from modelyard._sync import Blocking

from .fake import MODULES, Fake

INTERNAL = {
    "ResolveResource",
    "RecordDeployment",
    "WatchPermissions",
    "EvaluateGate",
    "RecordEvents",
    "WatchRoutes",
    "ConfirmRoutes",
    "FindDeployments",
    "AcquireReference",
    "FindArtifactUses",
    "SetApprovalStates",
    "SetArtifactTests",
}
MODEL, VERSION = "prod.ml.iris", "prod.ml.iris/1"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
CALLS: dict[str, Callable[[Client], Any]] = {
    "CreateCatalog": lambda c: c.catalogs.create("prod"),
    "GetCatalog": lambda c: c.catalogs.get("prod"),
    "ListCatalogs": lambda c: c.catalogs.list().collect(),
    "CreateSchema": lambda c: c.schemas.create("prod.ml"),
    "GetSchema": lambda c: c.schemas.get("prod.ml"),
    "ListSchemas": lambda c: c.schemas.list("prod").collect(),
    "CreateModel": lambda c: c.models.create(MODEL, tags={"a": "b"}),
    "GetModel": lambda c: c.models.get(MODEL),
    "ListModels": lambda c: c.models.list("prod.ml").collect(),
    "CreateModelVersion": lambda c: c.versions.create(MODEL, "sha256:00", metrics={"a": 1}),
    "FinalizeModelVersion": lambda c: c.versions.finalize(VERSION, "sha256:00"),
    "FailModelVersion": lambda c: c.versions.fail(VERSION, "gone"),
    "GetModelVersion": lambda c: c.versions.get("models:/prod.ml.iris@champion"),
    "ListModelVersions": lambda c: c.versions.list(MODEL).collect(),
    "UpdateCatalog": lambda c: c.catalogs.rename("prod", "live"),
    "UpdateSchema": lambda c: c.schemas.update("prod.ml", description="a"),
    "UpdateModel": lambda c: c.models.move(MODEL, "prod.research"),
    "UpdateModelVersion": lambda c: c.versions.update(VERSION, label="1.0.0"),
    "DeleteCatalog": lambda c: c.catalogs.delete("prod", force=True),
    "DeleteSchema": lambda c: c.schemas.delete("prod.ml"),
    "DeleteModel": lambda c: c.models.delete(MODEL),
    "DeleteModelVersion": lambda c: c.versions.delete(VERSION),
    "UndeleteResource": lambda c: c.versions.undelete("0198"),
    "CopyModelVersion": lambda c: c.versions.copy(VERSION, "live.ml.iris"),
    "ListAliasHistory": lambda c: c.aliases.history(MODEL).collect(),
    "GetAliasAt": lambda c: c.aliases.at(MODEL, "champion", NOON),
    "RollbackAlias": lambda c: c.aliases.rollback(MODEL, "champion"),
    "RecordLineage": lambda c: c.log_input(VERSION, types.Dataset("s3://lake/iris")),
    "DeleteLineage": lambda c: c.lineage.delete(
        types.LineageEdge(source=types.LineageNode.run("r"), target=types.LineageNode.batch_job("j"))
    ),
    "QueryLineage": lambda c: c.lineage.query(VERSION),
    "GetLimits": lambda c: c.limits(),
    "SetAliases": lambda c: c.aliases.set(MODEL, {"champion": 2}, expected={"champion": 0}),
    "SetTags": lambda c: c.tags.set(MODEL, {"a": "b"}),
    "SetMetrics": lambda c: c.metrics.set(VERSION, {"a": 1}),
    "WatchEvents": lambda c: next(c.events.watch("prod", types=["catalog.alias.*"])),
    "BeginUpload": lambda c: c.artifacts.begin_upload(MODEL, [types.FileEntry("a", 1, "00")]),
    "UploadBlobs": lambda _: None,  # part of artifacts.upload; see test_transfer
    "GetUpload": lambda c: c.artifacts.get_upload("u"),
    "CommitUpload": lambda c: c.artifacts.commit_upload("u"),
    "SignUploadUrls": lambda c: c.artifacts.sign_upload_urls("u", ["00"]),
    "FinishBlob": lambda c: c.artifacts.finish_blob("u", "00"),
    "CancelUpload": lambda c: c.artifacts.cancel_upload("u"),
    "SignDownloadUrls": lambda c: c.artifacts.sign_download_urls(VERSION, ["a"]),
    "ReadFiles": lambda _: None,  # part of artifacts.download; see test_transfer
    "ReadArchive": lambda c: list(c.artifacts.read_archive(VERSION)),
    "ListArtifacts": lambda c: c.artifacts.list(MODEL, filter="size > 1").collect(),
    "GetArtifact": lambda c: c.artifacts.get("sha256:00", model=MODEL),
    "GetInspection": lambda c: c.inspections.get("sha256:00", model=MODEL),
    "InspectArtifact": lambda c: c.inspections.start("sha256:00", model=MODEL),
    "ListFiles": lambda c: c.artifacts.list_files(VERSION).collect(),
    "ReadFile": lambda c: list(c.artifacts.read_file(VERSION, "a")),
    "AddSignature": lambda c: c.signatures.add("sha256:00", "{}", model=MODEL),
    "GetSbom": lambda c: c.artifacts.sbom(VERSION),
    "RemoveSignature": lambda c: c.signatures.remove(VERSION, "i"),
    "CheckSignatures": lambda c: c.signatures.list(VERSION),
    "GetStorageStatistics": lambda c: c.storage.statistics(),
    "VerifyBlobs": lambda c: list(c.storage.verify()),
    "CollectGarbage": lambda c: c.storage.collect_garbage(dry_run=True),
    "CreateTrustRoot": lambda c: c.trust_roots.create("lab", "-----BEGIN PUBLIC KEY-----", "prod"),
    "DeleteTrustRoot": lambda c: c.trust_roots.delete("lab", "prod"),
    "FindTrustRoots": lambda c: c.trust_roots.list("prod"),
    "ExchangeToken": lambda c: c.access_token(),
    "GetJwks": lambda c: c.tokens.signing_keys(),
    "GetCaller": lambda c: c.whoami(),
    "CreatePrincipal": lambda c: c.principals.create("ada"),
    "GetPrincipal": lambda c: c.principals.get("ada"),
    "ListPrincipals": lambda c: c.principals.list().collect(),
    "CreateToken": lambda c: c.tokens.create(description="ci"),
    "ListTokens": lambda c: c.tokens.list().collect(),
    "RevokeToken": lambda c: c.tokens.revoke("t"),
    "DisablePrincipal": lambda c: c.principals.disable("ada"),
    "EnablePrincipal": lambda c: c.principals.enable("ada"),
    "AddGroupMember": lambda c: c.groups.add("ml", "ada"),
    "RemoveGroupMember": lambda c: c.groups.remove("ml", "ada"),
    "ListMemberships": lambda c: c.groups.list(filter="group = 'ml'").collect(),
    "CreateIssuer": lambda c: c.issuers.create("corp", "https://login.example.com", "modelyard"),
    "DeleteIssuer": lambda c: c.issuers.delete("corp"),
    "ListIssuers": lambda c: c.issuers.list().collect(),
    "RotateSigningKey": lambda c: c.tokens.rotate_signing_key(),
    "ListPrincipalGrants": lambda c: c.grants.held_by("ada").collect(),
    "ExplainPrivileges": lambda c: c.grants.effective("prod.ml"),
    "ListPolicies": lambda c: c.policies.list().collect(),
    "ExplainGate": lambda c: c.policies.explain(VERSION, "move_alias", aliases=["champion"]),
    "OverrideGate": lambda c: c.policies.override(VERSION, "the old one fails"),
    "CreateGrant": lambda c: c.grants.create("ada", "execute", MODEL, resource_type="deployment"),
    "DeleteGrant": lambda c: c.grants.delete("ada", "EXECUTE", "prod"),
    "ListGrants": lambda c: c.grants.list("prod.ml").collect(),
    "CheckPermission": lambda c: c.grants.check("MANAGE"),
    "SetApprovalPolicy": lambda c: c.policies.set("prod", protected_aliases=["*"]),
    "GetApprovalPolicy": lambda c: c.policies.get(MODEL),
    "ReviewVersion": lambda c: c.approvals.review(VERSION, "approve"),
    "GetApproval": lambda c: c.approvals.get(VERSION),
    "ListApprovals": lambda c: c.approvals.list().collect(),
    "ListAuditEntries": lambda c: c.audit.list().collect(),
    "VerifyAudit": lambda c: c.audit.verify(),
    "CheckpointAudit": lambda c: c.audit.checkpoint(),
    "GetAuditKeys": lambda c: c.audit.keys(),
    "ExportAudit": lambda c: c.audit.export(Path(tempfile.mkdtemp()) / "audit.jsonl"),
    "CreateWebhook": lambda c: c.webhooks.create("ops", "https://example.com/hook"),
    "GetWebhook": lambda c: c.webhooks.get("ops"),
    "ListWebhooks": lambda c: c.webhooks.list().collect(),
    "UpdateWebhook": lambda c: c.webhooks.update("ops", types=["catalog.*"]),
    "RotateWebhookSecret": lambda c: c.webhooks.rotate_secret("ops", revoke=True),
    "PauseWebhook": lambda c: c.webhooks.pause("ops"),
    "ResumeWebhook": lambda c: c.webhooks.resume("ops"),
    "DeleteWebhook": lambda c: c.webhooks.delete("ops"),
    "ListWebhookDeliveries": lambda c: c.webhooks.deliveries("ops").collect(),
    "ReplayWebhookDeliveries": lambda c: c.webhooks.replay("ops", since=NOON),
    "CreateShare": lambda c: c.shares.create("acme", [MODEL, "prod.ml"], exporters=["ada"]),
    "GetShare": lambda c: c.shares.get("acme"),
    "ListShares": lambda c: c.shares.list().collect(),
    "UpdateShare": lambda c: c.shares.update("acme", recipient="Acme"),
    "DeleteShare": lambda c: c.shares.delete("acme"),
    "DescribeVersionForExport": lambda c: c.bundles.describe(VERSION),
    "SignBundle": lambda c: c.bundles.sign("{}", share="acme"),
    "DraftModelCard": lambda c: c.cards.draft(VERSION),
    "SetModelCard": lambda c: c.cards.set(VERSION, {"model_overview": {"model_name": MODEL}}),
    "GetModelCard": lambda c: c.cards.get(VERSION),
    "ListModelCardRevisions": lambda c: c.cards.revisions(VERSION).collect(),
    "DiffModelCards": lambda c: c.cards.diff(VERSION),
    "RenderModelCard": lambda c: c.cards.render(VERSION, "pdf"),
    "ListActivity": lambda c: c.audit.activity(VERSION).collect(),
    "CreateDeployment": lambda c: c.deployments.create(MODEL, {"prod.ml.iris/1": 90, "prod.ml.iris/2": 10}),
    "GetDeployment": lambda c: c.deployments.get(MODEL),
    "ListDeployments": lambda c: c.deployments.list().collect(),
    "WatchDeployment": lambda c: next(c.deployments.watch(MODEL), None),
    "ListDeploymentRevisions": lambda c: c.deployments.history(MODEL).collect(),
    "ControlRollout": lambda c: c.deployments.control_rollout(MODEL, "pause", reason="why"),
    "RollbackDeployment": lambda c: c.deployments.rollback(MODEL, 3),
    "UpdateDeployment": lambda c: c.deployments.update(MODEL, replicas=2),
    "ActivateDeployment": lambda c: c.deployments.activate(MODEL),
    "DeactivateDeployment": lambda c: c.deployments.deactivate(MODEL),
    "DeleteDeployment": lambda c: c.deployments.delete(MODEL),
    "GetDeploymentStatistics": lambda c: c.deployments.statistics(MODEL),
    "ReadReplicaLogs": lambda c: list(c.deployments.logs(MODEL)),
    "ListReplicas": lambda c: c.deployments.replicas(MODEL),
    "ServerLive": lambda c: c.endpoints.server_live(),
    "ServerReady": lambda c: c.endpoints.server_ready(),
    "ServerMetadata": lambda c: c.endpoints.server_metadata(),
    "ModelReady": lambda c: c.endpoints.ready(MODEL),
    "ModelMetadata": lambda c: c.endpoints.metadata(MODEL),
    "ModelStatistics": lambda c: c.endpoints.statistics(MODEL),
    "ModelInfer": lambda c: c.predict(MODEL, [[1.0]]),
    "ModelStreamInfer": lambda c: next(c.endpoints.predict_stream(MODEL, [[[1.0]]]), None),
}


def public_rpcs() -> set[str]:
    services = (service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values())
    return {method.name for service in services for method in service.methods} - INTERNAL


def namespaces(client: object) -> Iterator[tuple[str, object]]:
    yield "", client
    for name, value in vars(client).items():
        if not name.startswith("_"):
            yield name, value


def verbs(value: object) -> set[str]:
    return {
        name for name in dir(type(value)) if not name.startswith("_") and callable(getattr(type(value), name))
    }


def test_every_public_rpc_has_a_verb() -> None:
    assert set(CALLS) == public_rpcs()


@pytest.mark.parametrize("rpc", sorted(set(CALLS) - {"UploadBlobs", "ReadFiles"}))
def test_a_verb_makes_its_rpc(rpc: str, fake: Fake, client: Client) -> None:
    CALLS[rpc](client)
    assert fake.requests(rpc)
    bearers = {metadata.get("authorization") for name, _, metadata in fake.calls if name != "ExchangeToken"}
    assert bearers <= {"Bearer jwt-of-secret"}
    assert all(metadata["x-request-id"] for _, _, metadata in fake.calls)


def test_both_clients_have_the_same_verbs_with_the_same_arguments() -> None:
    blocking, asynchronous = dict(namespaces(Client())), dict(namespaces(AsyncClient()))
    assert set(blocking) == set(asynchronous)
    for name, value in asynchronous.items():
        assert verbs(blocking[name]) == verbs(value), name
        for verb in verbs(value):
            theirs, ours = getattr(value, verb), getattr(blocking[name], verb)
            assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters) or (
                list(inspect.signature(theirs).parameters) == list(inspect.signature(ours).parameters)[1:]
            ), (name, verb)
            assert ours.__doc__, (name, verb)


def test_every_group_of_verbs_is_wrapped() -> None:
    assert all(isinstance(value, Blocking) for _, value in namespaces(Client()))


def test_the_public_names_are_there_and_numpy_is_not_needed_for_them() -> None:
    import subprocess
    import sys

    assert all(getattr(modelyard, name) is not None for name in modelyard.__all__)
    code = """
import sys, modelyard, modelyard.cli

names = [name for name in modelyard.__all__ if name != "infer_signature"]
print("grpc" in sys.modules, all(getattr(modelyard, name) for name in names), "grpc" in sys.modules)
print([name for name in ("numpy", "opentelemetry", "sklearn") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["False True True", "[]"]


def test_without_numpy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [m for m in sys.modules if m in {"modelyard.tensors", "modelyard.signature"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(modelyard.MissingExtra, match=r"pip install 'modelyard\[numpy\]'"):
        _ = modelyard.infer_signature


def test_files_stay_short() -> None:
    package = Path(modelyard.__file__).parent
    long = {
        path.name: lines
        for path in package.rglob("*.py")
        if "api" not in path.parts and (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
