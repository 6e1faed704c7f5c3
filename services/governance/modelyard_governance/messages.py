"""Between protobuf messages and the values of the rules. Every check of a request's shape is here and names its field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from modelyard.api.common.v1 import event_pb2
from modelyard.api.governance.v1 import approval_pb2, identity_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard_governance.canonical import canonical_json
from modelyard_governance.models import (
    GRANTABLE,
    POLICED,
    TRUSTED_ON,
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
from modelyard_kit import idempotency, limits
from modelyard_kit.access import Effect, Privilege, ResourceType
from modelyard_kit.errors import InvalidField, NotFound
from modelyard_kit.protos import (
    chain_from_proto,
    effect_from_proto,
    link_from_proto,
    moment,
    privilege_from_proto,
    resource_type_from_proto,
)

MAX_EVENTS = 1_000
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,128}")
_TRUST_ROOT_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_TEXT_LENGTH = 255
_CHAIN_OF_VERSION = ["model_version", "model", "schema", "catalog", "system"]


def _text(value: str, field: str, *, maximum: int = _TEXT_LENGTH) -> str:
    if len(value) > maximum:
        raise InvalidField(field, f"has {len(value)} characters; {maximum} are the most")
    if "\0" in value:
        raise InvalidField(field, "holds a zero character, which cannot be stored")
    return value


def _required(value: str, field: str) -> str:
    if not value:
        raise InvalidField(field, "is required")
    return _text(value, field, maximum=1_024)


def _known_name(value: str, field: str) -> str:
    """Return the name of a principal that should exist; one of the wrong form cannot."""
    if not value:
        raise InvalidField(field, "is required: the name of a principal")
    if not _NAME.fullmatch(value):
        raise NotFound("principal", value)
    return value


def _optional_name(value: str) -> str:
    return _known_name(value, "principal") if value else ""


def _moment(message: Timestamp, field: str) -> datetime:
    try:
        return moment(message)
    except (ValueError, OverflowError) as error:
        raise InvalidField(field, "is not a time between the years 1 and 9999") from error


def parse_api_token(request: pb.ExchangeTokenRequest) -> str:
    """Return the API token to exchange."""
    return _required(request.api_token.strip(), "api_token")


def parse_create_principal(request: pb.CreatePrincipalRequest) -> CreatePrincipal:
    """Return the wanted principal."""
    wanted = request.principal
    if not _NAME.fullmatch(wanted.name):
        raise InvalidField("principal.name", "must be 1 to 128 letters, digits or characters of '._@-'")
    kinds = identity_pb2.Principal
    match wanted.kind:
        case kinds.KIND_USER:
            kind = "user"
        case kinds.KIND_SERVICE_ACCOUNT:
            kind = "service_account"
        case kinds.KIND_SERVICE:
            raise InvalidField(
                "principal.kind", "services are made by the installation; say USER or SERVICE_ACCOUNT"
            )
        case _:
            raise InvalidField("principal.kind", "is required: USER or SERVICE_ACCOUNT")
    return CreatePrincipal(
        name=wanted.name,
        kind="user" if kind == "user" else "service_account",
        display_name=_text(wanted.display_name, "principal.display_name"),
        request_id=_text(request.request_id, "request_id"),
        fingerprint=_fingerprint(request),
    )


def parse_create_token(request: pb.CreateTokenRequest) -> CreateToken:
    """Return the wanted API token."""
    return CreateToken(
        principal=_optional_name(request.principal),
        description=_text(request.description, "description"),
        expire_time=_moment(request.expire_time, "expire_time") if request.HasField("expire_time") else None,
        request_id=_text(request.request_id, "request_id"),
        fingerprint=_fingerprint(request),
    )


def _fingerprint(
    request: pb.CreatePrincipalRequest | pb.CreateTokenRequest | pb.CreateTrustRootRequest,
) -> str:
    content = type(request)()
    content.CopyFrom(request)  # type: ignore[arg-type]
    content.ClearField("request_id")
    return idempotency.fingerprint(content.SerializeToString(deterministic=True))


def parse_principal_name(request: pb.GetPrincipalRequest) -> str:
    """Return the name of the wanted principal."""
    return _known_name(request.name, "name")


def parse_token_owner(request: pb.ListTokensRequest) -> str:
    """Return the name of whose tokens are wanted; empty for the caller."""
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
    pb.CreateGrantRequest | pb.DeleteGrantRequest | pb.ListGrantsRequest | pb.CheckPermissionRequest
)
_OnPoliced = pb.SetApprovalPolicyRequest | pb.GetApprovalPolicyRequest
_OnVersion = (
    pb.ReviewVersionRequest
    | pb.GetApprovalRequest
    | pb.ListActivityRequest
    | pb.DraftModelCardRequest
    | pb.SetModelCardRequest
    | pb.GetModelCardRequest
    | pb.ListModelCardRevisionsRequest
    | pb.DiffModelCardsRequest
    | pb.RenderModelCardRequest
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
    )


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
    if request.action == approval_pb2.GATED_ACTION_MOVE_ALIAS:
        action = GatedAction.MOVE_ALIAS
    elif request.action == approval_pb2.GATED_ACTION_DEPLOY:
        action = GatedAction.DEPLOY
    else:
        raise InvalidField("action", "is required: MOVE_ALIAS or DEPLOY")
    if action is GatedAction.MOVE_ALIAS and not request.aliases:
        raise InvalidField("aliases", "are required for MOVE_ALIAS")
    author_id = _required(request.author_id, "author_id")
    return GateQuestion(chain, author_id, action, _aliases(request.aliases, "aliases"))


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
        canonical_json(document)
    except (ValueError, json_format.Error) as error:
        raise InvalidField(field, f"has no JSON form: {error}") from error
    return RecordedEvent(event.id, event.type, link, document)


def parse_resource_id(request: pb.ListAuditEntriesRequest) -> str:
    """Return the id of the resource whose entries are wanted; empty for all."""
    return _text(request.resource_id, "resource_id", maximum=1_024)
