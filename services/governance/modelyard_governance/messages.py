"""Between protobuf messages and the values of the rules. Every check of a request's shape is here and names its field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta

from google.protobuf import json_format

from modelyard.api.common.v1 import event_pb2
from modelyard.api.governance.v1 import approval_pb2, identity_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard_governance import conditions
from modelyard_governance.canonical import canonical_json
from modelyard_governance.models import (
    GRANTABLE,
    POLICED,
    PRINCIPAL_NAME,
    TRUSTED_ON,
    AccountKind,
    Condition,
    CreatePrincipal,
    CreateToken,
    CreateTrustRoot,
    GatedAction,
    GateQuestion,
    GrantContent,
    RecordedEvent,
    ReviewVersion,
    SetPolicy,
    Verdict,
)
from modelyard_governance.policy import EVERY_ALIAS
from modelyard_governance.shapes import TEXT_LENGTH
from modelyard_governance.shapes import fingerprint as _fingerprint
from modelyard_governance.shapes import known_name as _known_name
from modelyard_governance.shapes import optional_name as _optional_name
from modelyard_governance.shapes import required as _required
from modelyard_governance.shapes import text as _text
from modelyard_governance.shapes import time as _moment
from modelyard_kit import limits
from modelyard_kit.access import Effect, Privilege, ResourceType
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import (
    chain_from_proto,
    effect_from_proto,
    link_from_proto,
    privilege_from_proto,
    resource_type_from_proto,
)

MAX_EVENTS = 1_000
_NAME = re.compile(PRINCIPAL_NAME)
_TRUST_ROOT_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_TEXT_LENGTH = TEXT_LENGTH
_LONGEST_LIFETIME_SECONDS = 100 * 366 * 86_400
_CHAIN_OF_VERSION = ["model_version", "model", "schema", "catalog", "system"]


def parse_exchange(request: pb.ExchangeTokenRequest) -> tuple[str, str]:
    """Return the API token or the token of an external issuer to exchange; the other one is empty."""
    api_token, id_token = request.api_token.strip(), request.id_token.strip()
    if api_token and id_token:
        raise InvalidField("id_token", "send an api_token or an id_token, not both")
    if id_token:
        return "", _text(id_token, "id_token", maximum=limits.LIMITS["id_token_length"].maximum)
    return _required(api_token, "api_token"), ""


def parse_create_principal(request: pb.CreatePrincipalRequest) -> CreatePrincipal:
    """Return the wanted principal."""
    wanted = request.principal
    if not _NAME.fullmatch(wanted.name):
        raise InvalidField("principal.name", "must be 1 to 128 letters, digits or characters of '._@-'")
    kinds = identity_pb2.Principal
    kind: AccountKind
    match wanted.kind:
        case kinds.KIND_USER:
            kind = "user"
        case kinds.KIND_SERVICE_ACCOUNT:
            kind = "service_account"
        case kinds.KIND_GROUP:
            kind = "group"
        case kinds.KIND_SERVICE:
            raise InvalidField(
                "principal.kind", "services are made by the installation; say USER, SERVICE_ACCOUNT or GROUP"
            )
        case _:
            raise InvalidField("principal.kind", "is required: USER, SERVICE_ACCOUNT or GROUP")
    if bool(wanted.issuer) != bool(wanted.subject):
        raise InvalidField("principal.subject", "belongs to principal.issuer: say both or neither")
    if wanted.issuer and kind == "group":
        raise InvalidField("principal.issuer", "is for users and service accounts: groups do not log in")
    return CreatePrincipal(
        name=wanted.name,
        kind=kind,
        display_name=_text(wanted.display_name, "principal.display_name"),
        issuer=_text(wanted.issuer, "principal.issuer"),
        subject=_text(wanted.subject, "principal.subject"),
        request_id=_text(request.request_id, "request_id"),
        fingerprint=_fingerprint(request),
    )


def parse_create_token(request: pb.CreateTokenRequest) -> CreateToken:
    """Return the wanted API token."""
    return CreateToken(
        principal=_optional_name(request.principal),
        description=_text(request.description, "description"),
        privileges=_privileges(request.privileges),
        expire_time=_moment(request.expire_time, "expire_time") if request.HasField("expire_time") else None,
        request_id=_text(request.request_id, "request_id"),
        fingerprint=_fingerprint(request),
    )


def _privileges(values: Iterable[int]) -> tuple[Privilege, ...]:
    wanted = {privilege_from_proto(value, "privileges") for value in values}
    if Privilege.OWNERSHIP in wanted:
        raise InvalidField(
            "privileges",
            "OWNERSHIP is more than a privilege; leave all out for a token that gives everything",
        )
    return tuple(sorted(wanted))


def parse_principal_name(
    request: pb.GetPrincipalRequest | pb.DisablePrincipalRequest | pb.EnablePrincipalRequest,
) -> str:
    """Return the name of the wanted principal."""
    return _known_name(request.name, "name")


def parse_owner(request: pb.ListTokensRequest | pb.ListPrincipalGrantsRequest) -> str:
    """Return the name of whose tokens or grants are wanted; empty for the caller."""
    return _optional_name(request.principal)


def parse_token_id(request: pb.RevokeTokenRequest) -> str:
    """Return the id of the token."""
    return _required(request.token_id, "token_id")


def parse_grant(request: pb.CreateGrantRequest | pb.DeleteGrantRequest) -> GrantContent:
    """Return the grant to make or to take back."""
    privilege = privilege_from_proto(request.privilege)
    if privilege is Privilege.OWNERSHIP:
        raise InvalidField("privilege", "OWNERSHIP is transferred, not granted or taken")
    resource_type, resource = parse_grantable(request)
    return GrantContent(
        principal=_known_name(request.principal, "principal"),
        privilege=privilege,
        effect=effect_from_proto(request.effect),
        resource_type=resource_type,
        resource=resource,
    )


def parse_effective(request: pb.ExplainPrivilegesRequest) -> tuple[str, ResourceType, str]:
    """Return whom and which resource it is about; an empty principal means the caller."""
    return _optional_name(request.principal), *parse_grantable(request)


def parse_check(request: pb.CheckPermissionRequest) -> GrantContent:
    """Return what is asked about."""
    resource_type, resource = parse_grantable(request)
    return GrantContent(
        principal=_optional_name(request.principal),
        privilege=privilege_from_proto(request.privilege),
        effect=Effect.ALLOW,
        resource_type=resource_type,
        resource=resource,
    )


_OnGrantable = (
    pb.CreateGrantRequest
    | pb.DeleteGrantRequest
    | pb.ListGrantsRequest
    | pb.CheckPermissionRequest
    | pb.ExplainPrivilegesRequest
)
_OnPoliced = pb.SetApprovalPolicyRequest | pb.GetApprovalPolicyRequest
_OnVersion = (
    pb.ReviewVersionRequest
    | pb.GetApprovalRequest
    | pb.ExplainGateRequest
    | pb.OverrideGateRequest
    | pb.ListActivityRequest
    | pb.DraftModelCardRequest
    | pb.SetModelCardRequest
    | pb.GetModelCardRequest
    | pb.ListModelCardRevisionsRequest
    | pb.DiffModelCardsRequest
    | pb.RenderModelCardRequest
    | pb.DescribeVersionForExportRequest
)
_OnTrusted = pb.CreateTrustRootRequest | pb.DeleteTrustRootRequest | pb.FindTrustRootsRequest


def parse_grantable(request: _OnGrantable) -> tuple[ResourceType, str]:
    """Return type and name of a resource that grants can stand on."""
    return _resource(request, GRANTABLE, "grants stand on")


def parse_policed(request: _OnPoliced) -> tuple[ResourceType, str]:
    """Return type and name of a resource that policies can stand on."""
    return _resource(request, POLICED, "policies stand on")


def parse_trusted(request: _OnTrusted) -> tuple[ResourceType, str]:
    """Return type and name of a resource that trust roots can stand on."""
    return _resource(request, TRUSTED_ON, "trust roots stand on")


def _resource(
    request: _OnGrantable | _OnPoliced | _OnTrusted, allowed: Iterable[ResourceType], what: str
) -> tuple[ResourceType, str]:
    resource_type = resource_type_from_proto(request.resource_type)
    if resource_type not in allowed:
        raise InvalidField("resource_type", f"{what} {', '.join(allowed)}; not on a {resource_type}")
    if resource_type is ResourceType.SYSTEM:
        if request.resource:
            raise InvalidField("resource", "must be empty: the system has no name")
        return resource_type, ""
    return resource_type, _required(request.resource, "resource")


def parse_create_trust_root(request: pb.CreateTrustRootRequest) -> CreateTrustRoot:
    """Return the wanted trust root."""
    resource_type, resource = parse_trusted(request)
    limits.check("trust_root_bytes", len(request.trust_root.pem.encode()))
    return CreateTrustRoot(
        resource_type=resource_type,
        resource=resource,
        name=parse_trust_root_name(request.trust_root.name, "trust_root.name"),
        pem=request.trust_root.pem,
        request_id=_text(request.request_id, "request_id"),
        fingerprint=_fingerprint(request),
    )


def parse_trust_root_name(value: str, field: str = "name") -> str:
    """Return the name of a trust root."""
    if not _TRUST_ROOT_NAME.fullmatch(value):
        raise InvalidField(field, "must be 1 to 64 lower-case letters, digits, '_' or '-'")
    return value


def parse_set_policy(request: pb.SetApprovalPolicyRequest) -> SetPolicy:
    """Return the wanted policy."""
    resource_type, resource = parse_policed(request)
    policy = request.policy
    if policy.required_approvals < 1:
        raise InvalidField(
            "policy.required_approvals", f"must be at least 1; it is {policy.required_approvals}"
        )
    limits.check("required_approvals", policy.required_approvals)
    limits.check("protected_aliases", len(policy.protected_aliases))
    return SetPolicy(
        resource_type=resource_type,
        resource=resource,
        required_approvals=policy.required_approvals,
        allow_self_approval=policy.allow_self_approval,
        protected_aliases=_aliases(policy.protected_aliases, "policy.protected_aliases"),
        protect_deployments=policy.protect_deployments,
        approver_group=_optional_name(policy.approver_group, "policy.approver_group"),
        approval_lifetime=_lifetime(policy),
        conditions=_conditions(policy),
    )


def _lifetime(policy: approval_pb2.ApprovalPolicy) -> timedelta | None:
    seconds = policy.approval_lifetime.seconds
    if not 0 <= seconds <= _LONGEST_LIFETIME_SECONDS:
        raise InvalidField("policy.approval_lifetime", "must be positive and at most 100 years")
    return policy.approval_lifetime.ToTimedelta() or None


def _conditions(policy: approval_pb2.ApprovalPolicy) -> tuple[Condition, ...]:
    limits.check("conditions_per_policy", len(policy.conditions))
    found = []
    for position, given in enumerate(policy.conditions):
        field = f"policy.conditions[{position}]"
        limits.check("condition_length", len(given.expression))
        name = _text(_required(given.name, f"{field}.name"), f"{field}.name")
        if not given.expression.strip():
            raise InvalidField(f"{field}.expression", "is required: an expression in CEL of type bool")
        expression = _text(given.expression, f"{field}.expression", maximum=len(given.expression))
        condition = Condition(name, expression)
        conditions.check(condition, f"{field}.expression")
        found.append(condition)
    return tuple(found)


def _aliases(values: Iterable[str], field: str) -> tuple[str, ...]:
    aliases = tuple(sorted(set(values)))
    for alias in aliases:
        if not alias or "\0" in alias or len(alias) > _TEXT_LENGTH:
            raise InvalidField(field, f"{alias!r} is not an alias, nor {EVERY_ALIAS!r} for every alias")
    return aliases


def parse_review(request: pb.ReviewVersionRequest) -> ReviewVersion:
    """Return the review."""
    if request.decision == approval_pb2.Review.DECISION_APPROVE:
        verdict = Verdict.APPROVE
    elif request.decision == approval_pb2.Review.DECISION_REJECT:
        verdict = Verdict.REJECT
    else:
        raise InvalidField("decision", "is required: APPROVE or REJECT")
    comment = _text(request.comment, "comment", maximum=limits.LIMITS["comment_length"].maximum)
    if verdict is Verdict.REJECT and not comment.strip():
        raise InvalidField("comment", "is required for a rejection: say why")
    return ReviewVersion(parse_reference(request), verdict, comment)


def parse_reference(request: _OnVersion) -> str:
    """Return the version reference."""
    return _required(request.model_version, "model_version")


def parse_gate(request: pb.EvaluateGateRequest) -> GateQuestion:
    """Return the question to the gate."""
    chain = chain_from_proto(request.model_version, "model_version")
    if [str(link.type) for link in chain] != _CHAIN_OF_VERSION or not all(link.id for link in chain):
        raise InvalidField(
            "model_version", f"must be a chain of {', '.join(_CHAIN_OF_VERSION)}, each with its id"
        )
    action, aliases = parse_gated(request)
    return GateQuestion(chain, _required(request.author_id, "author_id"), action, aliases)


def parse_gated(
    request: pb.EvaluateGateRequest | pb.ExplainGateRequest | pb.OverrideGateRequest,
) -> tuple[GatedAction, tuple[str, ...]]:
    """Return what is about to be done, and to which aliases."""
    if request.action == approval_pb2.GATED_ACTION_MOVE_ALIAS:
        action = GatedAction.MOVE_ALIAS
    elif request.action == approval_pb2.GATED_ACTION_DEPLOY:
        action = GatedAction.DEPLOY
    else:
        raise InvalidField("action", "is required: MOVE_ALIAS or DEPLOY")
    if action is GatedAction.MOVE_ALIAS and not request.aliases:
        raise InvalidField("aliases", "are required for MOVE_ALIAS")
    return action, _aliases(request.aliases, "aliases")


def parse_events(request: pb.RecordEventsRequest) -> list[RecordedEvent]:
    """Return the events in their order."""
    if len(request.events) > MAX_EVENTS:
        raise InvalidField("events", f"has {len(request.events)}; {MAX_EVENTS} are the most at once")
    return [parse_event(event, f"events[{position}]") for position, event in enumerate(request.events)]


def parse_event(event: event_pb2.Event, field: str = "event") -> RecordedEvent:
    """Return an event as the chain keeps it: its canonical form is its protobuf JSON form with sorted keys (RFC 8785)."""
    _required(event.id, f"{field}.id")
    _required(event.type, f"{field}.type")
    _text(event.resource.id, f"{field}.resource.id", maximum=1_024)
    if not event.HasField("time"):
        raise InvalidField(f"{field}.time", "is required")
    link = link_from_proto(event.resource, f"{field}.resource")
    try:
        document = json_format.MessageToDict(event, always_print_fields_with_no_presence=True)
        canonical = canonical_json(document)
    except (ValueError, json_format.Error) as error:
        raise InvalidField(field, f"has no JSON form: {error}") from error
    return RecordedEvent(event.id, event.type, link, document, canonical)


def parse_resource_id(request: pb.ListAuditEntriesRequest) -> str:
    """Return the id of the resource whose entries are wanted; empty for all."""
    return _text(request.resource_id, "resource_id", maximum=1_024)
