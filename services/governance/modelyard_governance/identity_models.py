"""Groups, external issuers and signing keys, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from modelyard_governance.models import AccountKind


@dataclass(frozen=True)
class Membership:
    """That a principal or group is in a group; `issuer` is the name of the external one that says so, or empty."""

    group: str
    member: str
    member_kind: AccountKind
    issuer: str
    create_time: datetime


@dataclass(frozen=True)
class Issuer:
    """An OpenID Connect provider whose tokens are accepted, and what their claims mean here."""

    id: str
    name: str
    url: str
    audience: str
    principal_claim: str
    principal_prefix: str
    groups_claim: str
    group_prefix: str
    create_principals: bool
    create_time: datetime


@dataclass(frozen=True)
class CreateIssuer:
    """A wanted issuer."""

    name: str
    url: str
    audience: str
    principal_claim: str
    principal_prefix: str
    groups_claim: str
    group_prefix: str
    create_principals: bool
    request_id: str
    fingerprint: str


@dataclass(frozen=True)
class StoredKey:
    """A signing key as stored: its private half is encrypted, or None for the key in the file of the installation."""

    kid: str
    sealed: bytes | None
    sign_time: datetime
    withdraw_time: datetime | None
