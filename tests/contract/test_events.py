"""Every RPC that changes something names the event that the audit chain gets of it, or why there is none.

The tables are checked both ways: against the access tables, so that a new RPC needs an entry, and against the source of each
service, so that an event which nobody writes, or which nobody knows of, is found.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import chain

import pytest

from .catalogue import SERVICE_NAMES, rpcs, source_files
from .test_rpcs import access_table

_FILLED = "([a-z_.]+)"
EACH_SERVICE = pytest.mark.parametrize("service", SERVICE_NAMES)

READS = re.compile(
    r"(Get|List|Find|Watch|Read|Resolve|Explain|Query|Diff|Render|Draft|Describe|Export)[A-Z]\w*"
    r"|CheckPermission|CheckSignatures|VerifyAudit"
)

EVENTS: dict[str, tuple[str, ...]] = {
    "CreateCatalog": ("catalog.catalog.created",),
    "CreateSchema": ("catalog.schema.created",),
    "CreateModel": ("catalog.model.created",),
    "CreateModelVersion": ("catalog.model_version.created",),
    "FinalizeModelVersion": ("catalog.model_version.finalized",),
    "FailModelVersion": ("catalog.model_version.failed",),
    "SetAliases": ("catalog.alias.moved",),
    "RollbackAlias": ("catalog.alias.moved",),
    "SetTags": tuple(f"catalog.{kind}.tagged" for kind in ("catalog", "schema", "model", "model_version")),
    "SetMetrics": ("catalog.model_version.measured",),
    "UpdateCatalog": ("catalog.catalog.updated",),
    "UpdateSchema": ("catalog.schema.updated",),
    "UpdateModel": ("catalog.model.updated",),
    "UpdateModelVersion": ("catalog.model_version.updated",),
    "DeleteCatalog": ("catalog.catalog.deleted",),
    "DeleteSchema": ("catalog.schema.deleted",),
    "DeleteModel": ("catalog.model.deleted",),
    "DeleteModelVersion": ("catalog.model_version.deleted", "catalog.alias.moved"),
    "UndeleteResource": tuple(
        f"catalog.{kind}.undeleted" for kind in ("catalog", "schema", "model", "model_version")
    ),
    "CopyModelVersion": ("catalog.model_version.created",),
    "RecordLineage": ("catalog.lineage.recorded",),
    "DeleteLineage": ("catalog.lineage.deleted",),
    "RecordDeployment": ("catalog.lineage.recorded",),
    "BeginUpload": ("artifact.upload.begun",),
    "CancelUpload": ("artifact.upload.cancelled",),
    "CommitUpload": ("artifact.artifact.committed", "artifact.artifact.signed"),
    "InspectArtifact": ("artifact.artifact.inspection_requested", "artifact.artifact.inspected"),
    "AddSignature": ("artifact.artifact.signed",),
    "RemoveSignature": ("artifact.artifact.unsigned",),
    "VerifyBlobs": ("artifact.artifact.damaged", "artifact.blob.damaged"),
    "CollectGarbage": ("artifact.artifact.collected", "artifact.blob.condemned"),
    "CreatePrincipal": ("governance.principal.created",),
    "CreateToken": ("governance.token.created",),
    "RevokeToken": ("governance.token.revoked",),
    "DisablePrincipal": ("governance.principal.disabled",),
    "EnablePrincipal": ("governance.principal.enabled",),
    "AddGroupMember": ("governance.group.member_added",),
    "RemoveGroupMember": ("governance.group.member_removed",),
    "CreateIssuer": ("governance.issuer.created",),
    "DeleteIssuer": ("governance.issuer.deleted",),
    "RotateSigningKey": ("governance.signing_key.rotated",),
    "CreateGrant": ("governance.grant.created",),
    "DeleteGrant": ("governance.grant.deleted",),
    "SetApprovalPolicy": ("governance.policy.set",),
    "ReviewVersion": ("governance.version.reviewed",),
    "EvaluateGate": ("governance.gate.override_used",),
    "OverrideGate": ("governance.gate.overridden",),
    "CreateTrustRoot": ("governance.trust_root.created",),
    "DeleteTrustRoot": ("governance.trust_root.deleted",),
    "SetModelCard": ("governance.card.revised",),
    "CreateWebhook": ("governance.webhook.created",),
    "UpdateWebhook": ("governance.webhook.updated",),
    "RotateWebhookSecret": ("governance.webhook.secret_rotated",),
    "PauseWebhook": ("governance.webhook.paused",),
    "ResumeWebhook": ("governance.webhook.resumed",),
    "DeleteWebhook": ("governance.webhook.deleted",),
    "ReplayWebhookDeliveries": ("governance.webhook.replayed",),
    "CreateShare": ("governance.share.created",),
    "UpdateShare": ("governance.share.updated",),
    "DeleteShare": ("governance.share.deleted",),
    "SignBundle": ("governance.bundle.signed",),
    # Of somebody seen for the first time, and of groups that the token of an external issuer names.
    "ExchangeToken": ("governance.principal.created", "governance.principal.groups_changed"),
    "CreateDeployment": ("inference.deployment.created",),
    "UpdateDeployment": ("inference.deployment.updated",),
    "ControlRollout": ("inference.deployment.rollout_controlled", "inference.deployment.rolled_back"),
    "RollbackDeployment": ("inference.deployment.rolled_back",),
    "ActivateDeployment": ("inference.deployment.activated",),
    "DeactivateDeployment": ("inference.deployment.deactivated",),
    "DeleteDeployment": ("inference.deployment.deleted",),
}
"""RPC -> the types of the events that it may write."""

SILENT = {
    "SetApprovalStates": "a copy for lists of what governance.version.reviewed told",
    "SetArtifactTests": "a copy for lists of what artifact.artifact.inspected told",
    "UploadBlobs": "brings bytes of an upload whose begin and end are told",
    "FinishBlob": "proves bytes of an upload whose begin and end are told",
    "SignUploadUrls": "lets bytes come to an upload whose begin and end are told",
    "SignDownloadUrls": "a read",
    "AcquireReference": "for the version about to be made, whose creation is told by the catalog",
    "RecordEvents": "is how events come into the chain",
    "CheckpointAudit": "signs the chain, and is kept with it",
    "ConfirmRoutes": "a gateway tells what it serves; what was to be served is told by inference",
}
"""RPC -> why it writes no event although it is no read."""

ALONE = {
    "catalog": {f"catalog.{kind}.purged" for kind in ("catalog", "schema", "model", "model_version")},
    "artifact": {"artifact.upload.expired"},
    "governance": {"governance.audit.dropped"},
    "inference": {f"inference.deployment.{verb}" for verb in ("shifted", "scaled", "failed", "removed")},
}
"""Events of what a service does by itself."""


@EACH_SERVICE
def test_every_change_has_an_event_or_a_reason(service: str) -> None:
    changing = {name for name in access_table(service) if not READS.fullmatch(name)}
    assert changing <= EVENTS.keys() | SILENT.keys(), "say which event tells of it, or why none does"


def test_the_tables_name_what_there_is() -> None:
    names = {rpc.name for rpc in rpcs()}
    assert EVENTS.keys() <= names
    assert SILENT.keys() <= names
    assert not EVENTS.keys() & SILENT.keys()
    assert all(SILENT.values())


@EACH_SERVICE
def test_the_events_are_written_and_no_others(service: str) -> None:
    told = {each for each in chain.from_iterable(EVENTS.values()) if each.startswith(f"{service}.")}
    told |= ALONE[service]
    for event in told:
        assert any(_makes(form, event, service) for form in forms(service)), f"nobody writes {event}"
    for form in forms(service):
        assert any(_makes(form, event, service) for event in told), f"{form} is in none of the tables"


def _makes(form: str, event: str, service: str) -> bool:
    """Whether a string in the source can be this event: what is filled in must be a word of the source, too."""
    found = re.fullmatch(form, event)
    return found is not None and all(word in words(service) for word in found.groups())


@cache
def forms(service: str) -> frozenset[str]:
    """Types of events in the source of a service, as patterns with a group where something is filled in."""
    types = re.compile(rf"{service}\\\.([a-z_]+\\\.[a-z_]+|[a-z_\\.]*\(\[.*)")
    return frozenset(form for form in strings(service) if types.fullmatch(form))


@cache
def words(service: str) -> frozenset[str]:
    """Strings of a service and of the kit, in small letters."""
    return frozenset(re.sub(r"\\(.)", r"\1", form).lower() for form in (*strings(service), *strings("kit")))


@cache
def strings(service: str) -> frozenset[str]:
    """Strings in the source of a service, as patterns."""
    found = Strings()
    for path in source_files(f"modelyard_{service}"):
        found.visit(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(found.forms)


class Strings(ast.NodeVisitor):
    """Collects what may be, or be part of, the type of an event."""

    def __init__(self) -> None:
        self.forms: set[str] = set()

    def visit_Call(self, node: ast.Call) -> None:
        if getattr(node.func, "id", "") != "failpoint":
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.forms.add(re.escape(node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = (re.escape(part.value) if isinstance(part, ast.Constant) else _FILLED for part in node.values)
        self.forms.add("".join(parts))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)
