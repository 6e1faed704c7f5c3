"""What governance knows, as frozen values; and what it asks of the services that know resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol

from modelyard.types import AuditCheckpoint
from modelyard_kit.access import Chain, Effect, Link, Privilege, ResourceGrant, ResourceType, Scope
from modelyard_kit.auth import Kind

AccountKind = Kind | Literal["group"]
PRINCIPAL_NAME = r"[A-Za-z0-9._@-]{1,128}"


@dataclass(frozen=True)
class Account:
    """A principal as stored; `issuer_id` and `subject` say who it is to an external issuer, if it comes from one."""

    id: str
    name: str
    kind: AccountKind
    display_name: str
    create_time: datetime
    disable_time: datetime | None = None
    issuer_id: str | None = None
    issuer: str | None = None
    subject: str | None = None


@dataclass(frozen=True)
class ApiToken:
    """An API token without its secret; `principal` is the name of whom it belongs to."""

    id: str
    principal_id: str
    principal: str
    description: str
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    privileges: tuple[Privilege, ...] = ()
    last_use_time: datetime | None = None


@dataclass(frozen=True)
class StoredSecret:
    """What an exchange needs of a token: whom it belongs to, its hash, and whether it still works."""

    account: Account
    secret_hash: bytes
    token: ApiToken


@dataclass(frozen=True)
class Grant:
    """One privilege given to (or taken from) one principal on one resource."""

    id: str
    principal_id: str
    principal: str
    privilege: Privilege
    effect: Effect
    resource: Link
    create_time: datetime


@dataclass(frozen=True)
class HeldGrants:
    """Everything decided about one principal or group, as of a revision; `groups` are ids of those it is directly in."""

    principal_id: str
    principal: str
    grants: tuple[ResourceGrant, ...]
    groups: tuple[str, ...] = ()
    disabled: bool = False
    is_group: bool = False


@dataclass(frozen=True)
class Condition:
    """Required evidence: an expression in CEL, and what a refusal calls it."""

    name: str
    expression: str


@dataclass(frozen=True)
class Policy:
    """What a version needs before it may be used; without a group of approvers everybody's approval counts, for ever."""

    id: str
    resource: Link
    required_approvals: int
    allow_self_approval: bool
    protected_aliases: tuple[str, ...]
    protect_deployments: bool
    update_time: datetime
    approver_group_id: str | None = None
    approver_group: str = ""
    approval_lifetime: timedelta | None = None
    conditions: tuple[Condition, ...] = ()


class Verdict(StrEnum):
    """What one reviewer said of a version."""

    APPROVE = "APPROVE"
    REJECT = "REJECT"


@dataclass(frozen=True)
class Review:
    """One reviewer's word; a later one of the same reviewer replaces it."""

    reviewer_id: str
    reviewer: str
    verdict: Verdict
    comment: str
    create_time: datetime


class ApprovalState(StrEnum):
    """Where a version stands."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


@dataclass(frozen=True)
class Approval:
    """Where a version stands, computed from its reviews and the policy that applies, until `expire_time`."""

    version: Link
    state: ApprovalState
    approvals: int
    required_approvals: int
    reviews: tuple[Review, ...]
    expire_time: datetime | None = None


@dataclass(frozen=True)
class StateChange:
    """Where a version stands, as the catalog is told; `sequence` grows with every change of the version."""

    version_id: str
    state: ApprovalState
    sequence: int


@dataclass(frozen=True)
class MarkedStanding:
    """A standing to look at again; `look_up` when the catalog must be asked what and where the version is."""

    version_id: str
    marks: int
    look_up: bool


@dataclass(frozen=True)
class KnownStanding:
    """What is written of a version: marks so far, its name, the ids of its containers, who created it."""

    marks: int
    name: str
    model_id: str
    schema_id: str
    catalog_id: str
    author_id: str


@dataclass(frozen=True)
class Visible:
    """What a caller may see in a list: the privilege itself, and the reach into schema and catalog that it needs."""

    read: Scope
    use_schema: Scope
    use_catalog: Scope


class GatedAction(StrEnum):
    """What a policy can hold back."""

    MOVE_ALIAS = "MOVE_ALIAS"
    DEPLOY = "DEPLOY"


@dataclass(frozen=True)
class Gate:
    """Whether policies let a version be used; `policy` is the name of the resource whose policy was applied."""

    allowed: bool
    unmet: tuple[str, ...]
    policy: str


@dataclass(frozen=True)
class RecordedEvent:
    """An event on its way into the audit chain: all of it in the JSON form of its protobuf message, and that in canonical form."""

    id: str
    type: str
    resource: Link
    document: Mapping[str, Any]
    canonical: str


@dataclass(frozen=True)
class Entry:
    """One link of the audit chain."""

    sequence: int
    event_id: str
    resource_id: str
    canonical_event: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True)
class Verification:
    """Outcome of recomputing the chain; `broken_sequence` is 0 when all of it holds."""

    valid: bool
    entries: int
    head_hash: bytes
    broken_sequence: int
    problem: str
    anchor_sequence: int = 0
    checkpoints: int = 0
    checkpoint: AuditCheckpoint | None = None


@dataclass(frozen=True)
class ChainEnds:
    """Where the chain begins and ends: the entry before the first that is kept, and the last one."""

    anchor: tuple[int, bytes]
    head: tuple[int, bytes]


@dataclass(frozen=True)
class Version:
    """What the catalog says of a model version."""

    chain: Chain
    author_id: str
    author: str
    state: str


GRANTABLE = (
    ResourceType.SYSTEM,
    ResourceType.CATALOG,
    ResourceType.SCHEMA,
    ResourceType.MODEL,
    ResourceType.DEPLOYMENT,
)
"""Kinds of resources that grants stand on."""

POLICED = (ResourceType.CATALOG, ResourceType.SCHEMA, ResourceType.MODEL)
"""Kinds of resources that policies stand on."""

TRUSTED_ON = (ResourceType.SYSTEM, ResourceType.CATALOG, ResourceType.SCHEMA, ResourceType.MODEL)
"""Kinds of resources that trust roots stand on."""

OWNABLE = (ResourceType.CATALOG, ResourceType.SCHEMA, ResourceType.MODEL, ResourceType.DEPLOYMENT)
"""Kinds of resources whose owner every service must know, because other resources lie inside or beside them."""


class TrustRootKind(StrEnum):
    """What a trust root is."""

    PUBLIC_KEY = "PUBLIC_KEY"
    CERTIFICATE = "CERTIFICATE"


@dataclass(frozen=True)
class TrustRoot:
    """A key or certificate whose model signatures count inside a resource."""

    id: str
    resource: Link
    name: str
    kind: TrustRootKind
    pem: str
    fingerprint: str
    expire_time: datetime | None
    create_time: datetime


@dataclass(frozen=True)
class CreateTrustRoot:
    """Put a trust root on a resource."""

    resource_type: ResourceType
    resource: str
    name: str
    pem: str
    request_id: str
    fingerprint: str


class Directory(Protocol):
    """Finds resources that other services keep."""

    async def chain(self, resource_type: ResourceType, name: str) -> Chain:
        """Return the resource and its containers.

        Raises:
            NotFound: there is none of that name.
            PeerUnavailable: the service that knows cannot be reached.
        """

    async def chain_or_phantom(self, resource_type: ResourceType, name: str) -> Chain:
        """Return the chain of a resource, or if there is none the chain that it would have."""

    async def chain_of_id(self, resource_type: ResourceType, resource_id: str) -> Chain:
        """Return the chain of something in the catalog, by its id; errors as `chain`."""

    async def version(self, reference: str) -> Version:
        """Return the version that a reference means now; errors as `chain`."""

    async def version_of_id(self, version_id: str) -> Version:
        """Return the version with this id; errors as `chain`."""


@dataclass(frozen=True)
class CreatePrincipal:
    """A wanted principal; `issuer` and `subject` are empty unless it comes from an external issuer."""

    name: str
    kind: AccountKind
    display_name: str
    request_id: str
    fingerprint: str
    issuer: str = ""
    subject: str = ""


@dataclass(frozen=True)
class CreateToken:
    """A wanted API token; an empty principal means the caller, no privileges mean all."""

    principal: str
    description: str
    expire_time: datetime | None
    request_id: str
    fingerprint: str
    privileges: tuple[Privilege, ...] = ()


@dataclass(frozen=True)
class GrantContent:
    """A grant by its content: principal and resource by name."""

    principal: str
    privilege: Privilege
    effect: Effect
    resource_type: ResourceType
    resource: str


@dataclass(frozen=True)
class SetPolicy:
    """A wanted policy."""

    resource_type: ResourceType
    resource: str
    required_approvals: int
    allow_self_approval: bool
    protected_aliases: tuple[str, ...]
    protect_deployments: bool
    approver_group: str = ""
    approval_lifetime: timedelta | None = None
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class ReviewVersion:
    """A wanted review."""

    reference: str
    verdict: Verdict
    comment: str


@dataclass(frozen=True)
class GateQuestion:
    """One use of one version: its chain, who created it, what is about to be done."""

    chain: Chain
    author_id: str
    action: GatedAction
    aliases: tuple[str, ...]
