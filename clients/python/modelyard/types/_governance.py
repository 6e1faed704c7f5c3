"""Principals, grants, approvals and the audit chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from modelyard.types._common import Event, JsonValue, Resource


class PrincipalKind(StrEnum):
    """Kind of principal; SERVICE is a service of Modelyard itself, GROUP is several principals together."""

    USER = "USER"
    SERVICE_ACCOUNT = "SERVICE_ACCOUNT"
    SERVICE = "SERVICE"
    GROUP = "GROUP"


class Privilege(StrEnum):
    """A right on a resource and on everything inside it, now and later."""

    USE_CATALOG = "USE_CATALOG"
    USE_SCHEMA = "USE_SCHEMA"
    CREATE_CATALOG = "CREATE_CATALOG"
    CREATE_SCHEMA = "CREATE_SCHEMA"
    CREATE_MODEL = "CREATE_MODEL"
    CREATE_VERSION = "CREATE_VERSION"
    READ_METADATA = "READ_METADATA"
    READ_ARTIFACT = "READ_ARTIFACT"
    EXECUTE = "EXECUTE"
    APPLY_TAG = "APPLY_TAG"
    EDIT = "EDIT"
    APPROVE = "APPROVE"
    DEPLOY = "DEPLOY"
    MANAGE = "MANAGE"
    OWNERSHIP = "OWNERSHIP"


class Effect(StrEnum):
    """What a grant does; DENY wins over every ALLOW."""

    ALLOW = "ALLOW"
    DENY = "DENY"


class ReviewDecision(StrEnum):
    """What a reviewer says of a version."""

    APPROVE = "APPROVE"
    REJECT = "REJECT"


class GatedAction(StrEnum):
    """What a policy can hold back."""

    MOVE_ALIAS = "MOVE_ALIAS"
    DEPLOY = "DEPLOY"


class ApprovalState(StrEnum):
    """Where the approval of a version stands."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Somebody or something that can be allowed to do things."""

    id: str = ""
    name: str
    kind: PrincipalKind | None = None
    display_name: str = ""
    create_time: datetime | None = None
    disable_time: datetime | None = None
    issuer: str = ""
    subject: str = ""


@dataclass(frozen=True, kw_only=True)
class Membership:
    """That a principal or group is in a group; `issuer` names the external one that says so, if one does."""

    group: str
    member: str
    member_kind: PrincipalKind | None = None
    issuer: str = ""
    create_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """An OpenID Connect provider whose tokens are accepted, and what their claims mean here."""

    id: str = ""
    name: str
    url: str
    audience: str
    principal_claim: str = ""
    principal_prefix: str = ""
    groups_claim: str = ""
    group_prefix: str = ""
    create_principals: bool = False
    create_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ApiToken:
    """A long-lived secret of a principal, without the secret."""

    id: str
    principal: str = ""
    description: str = ""
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    create_time: datetime | None = None
    privileges: tuple[Privilege, ...] = ()
    last_use_time: datetime | None = None


@dataclass(frozen=True)
class NewToken:
    """An API token just made. `secret` is shown only here; keep it."""

    token: ApiToken
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A public key that verifies the tokens of calls (RFC 7517, EC P-256)."""

    kid: str
    alg: str = ""
    x: str = ""
    y: str = ""
    sign_time: datetime | None = None
    withdraw_time: datetime | None = None


@dataclass(frozen=True)
class SigningKeys:
    """The public keys in use, and the issuer named in every token."""

    issuer: str
    keys: tuple[SigningKey, ...]


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Gives or denies a principal a privilege on a resource."""

    id: str = ""
    principal: str
    principal_id: str = ""
    privilege: Privilege | None = None
    effect: Effect | None = None
    resource: Resource = field(default_factory=Resource)
    create_time: datetime | None = None


@dataclass(frozen=True)
class PermissionDecision:
    """Whether a principal may, and which grant decided."""

    allowed: bool
    explanation: str

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True, kw_only=True)
class EffectivePrivilege:
    """Whether somebody has a privilege on a resource, and which grant or ownership decided."""

    privilege: Privilege | None
    allowed: bool
    explanation: str


@dataclass(frozen=True)
class Condition:
    """Required evidence: an expression in CEL over the facts of docs/policies.md, and what a refusal calls it."""

    name: str
    expression: str


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """What came of one condition: whether it is met, and if not why."""

    name: str
    met: bool
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class GateOverride:
    """Lets one version pass one gate for a while; in the audit chain, as is each use."""

    id: str = ""
    model_version: Resource = field(default_factory=Resource)
    action: GatedAction | None = None
    aliases: tuple[str, ...] = ()
    reason: str = ""
    principal: str = ""
    create_time: datetime | None = None
    expire_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class GateExplanation:
    """What a gate would say and why; `gated` tells whether the policy holds back this action at all."""

    allowed: bool
    policy: ApprovalPolicy | None = None
    gated: bool = False
    conditions: tuple[ConditionResult, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    override: GateOverride | None = None

    def __bool__(self) -> bool:
        return self.allowed


@dataclass(frozen=True, kw_only=True)
class ApprovalPolicy:
    """What a version needs before it may be used; `*` among the aliases means every alias."""

    id: str = ""
    resource: Resource = field(default_factory=Resource)
    required_approvals: int = 1
    allow_self_approval: bool = False
    protected_aliases: tuple[str, ...] = ()
    protect_deployments: bool = False
    update_time: datetime | None = None
    approver_group: str = ""
    approval_lifetime: timedelta | None = None
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Review:
    """What one principal said of a version."""

    reviewer: str
    reviewer_id: str = ""
    decision: ReviewDecision | None = None
    comment: str = ""
    create_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Approval:
    """Where a version stands, from its reviews and the policy that applies."""

    model_version: Resource = field(default_factory=Resource)
    state: ApprovalState | None = None
    approvals: int = 0
    required_approvals: int = 1
    reviews: tuple[Review, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One link of the audit chain; `hash` covers the event and the entry before."""

    sequence: int
    event: Event
    canonical_event: str = ""
    previous_hash: str = ""
    hash: str = ""


class CheckpointPurpose(StrEnum):
    """What the signature of a checkpoint is for."""

    CHECKPOINT = "CHECKPOINT"
    EXPORT = "EXPORT"


@dataclass(frozen=True, kw_only=True)
class AuditCheckpoint:
    """That the chain went from one hash to another, under a signature; `anchor_*` is what lies before the first entry."""

    purpose: CheckpointPurpose | None = None
    anchor_sequence: int = 0
    anchor_hash: str = ""
    sequence: int
    hash: str
    time: datetime
    key_id: str
    signature: str = ""


@dataclass(frozen=True, kw_only=True)
class AuditVerification:
    """Whether the audit chain holds; `broken_sequence` is the first entry that does not fit, or 0.

    `anchor_sequence` is the last entry that retention dropped, `checkpoints` how many signatures were checked, and
    `checkpoint` the last of these.
    """

    valid: bool
    entries: int = 0
    head_hash: str = ""
    broken_sequence: int = 0
    problem: str = ""
    anchor_sequence: int = 0
    checkpoints: int = 0
    checkpoint: AuditCheckpoint | None = None


@dataclass(frozen=True, kw_only=True)
class Activity:
    """One thing that happened to a version: who, when, and what was so before and after, by field."""

    sequence: int
    time: datetime | None = None
    actor: str = ""
    actor_id: str = ""
    type: str = ""
    resource: str = ""
    request_id: str = ""
    before: Mapping[str, JsonValue] = field(default_factory=dict)
    after: Mapping[str, JsonValue] = field(default_factory=dict)
    details: Mapping[str, JsonValue] = field(default_factory=dict)
