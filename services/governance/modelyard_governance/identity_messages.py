"""Groups, issuers and signing keys between protobuf messages and the values of the rules."""

from __future__ import annotations

import re

from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1 import identity_pb2
from modelyard_governance import oidc
from modelyard_governance.answers import KINDS
from modelyard_governance.identity_models import CreateIssuer, Issuer, Membership
from modelyard_governance.shapes import fingerprint, known_name, required, text
from modelyard_governance.signing import SigningKey
from modelyard_kit.auth import ALGORITHM
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import timestamp

_ISSUER_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_PREFIX = re.compile(r"[A-Za-z0-9._@-]{0,64}")


def parse_member(request: pb.AddGroupMemberRequest | pb.RemoveGroupMemberRequest) -> tuple[str, str]:
    """Return the names of group and member."""
    return known_name(request.group, "group"), known_name(request.member, "member")


def parse_create_issuer(request: pb.CreateIssuerRequest) -> CreateIssuer:
    """Return the wanted issuer."""
    wanted = request.issuer
    if not oidc.is_allowed(required(wanted.url, "issuer.url")):
        raise InvalidField(
            "issuer.url", "must be an https address without query, or http for this machine itself"
        )
    for field in ("principal_prefix", "group_prefix"):
        if not _PREFIX.fullmatch(getattr(wanted, field)):
            raise InvalidField(
                f"issuer.{field}", "must be at most 64 letters, digits or characters of '._@-'"
            )
    return CreateIssuer(
        name=parse_issuer_name(wanted.name, "issuer.name"),
        url=wanted.url,
        audience=required(wanted.audience, "issuer.audience"),
        principal_claim=text(wanted.principal_claim, "issuer.principal_claim"),
        principal_prefix=wanted.principal_prefix,
        groups_claim=text(wanted.groups_claim, "issuer.groups_claim"),
        group_prefix=wanted.group_prefix,
        create_principals=wanted.create_principals,
        request_id=text(request.request_id, "request_id"),
        fingerprint=fingerprint(request),
    )


def parse_issuer_name(value: str, field: str = "name") -> str:
    """Return the name of an issuer."""
    if not _ISSUER_NAME.fullmatch(value):
        raise InvalidField(field, "must be 1 to 64 lower-case letters, digits, '_' or '-'")
    return value


def membership_out(membership: Membership) -> identity_pb2.Membership:
    """Return the message of a membership."""
    return identity_pb2.Membership(
        group=membership.group,
        member=membership.member,
        member_kind=KINDS[membership.member_kind],
        issuer=membership.issuer,
        create_time=timestamp(membership.create_time),
    )


def issuer_out(issuer: Issuer) -> identity_pb2.Issuer:
    """Return the message of an issuer."""
    return identity_pb2.Issuer(
        id=issuer.id,
        name=issuer.name,
        url=issuer.url,
        audience=issuer.audience,
        principal_claim=issuer.principal_claim,
        principal_prefix=issuer.principal_prefix,
        groups_claim=issuer.groups_claim,
        group_prefix=issuer.group_prefix,
        create_principals=issuer.create_principals,
        create_time=timestamp(issuer.create_time),
    )


def key_out(key: SigningKey) -> identity_pb2.JsonWebKey:
    """Return the message of the public half of a signing key."""
    return identity_pb2.JsonWebKey(
        kid=key.public.kid,
        alg=ALGORITHM,
        x=key.public.x,
        y=key.public.y,
        sign_time=timestamp(key.sign_time),
        withdraw_time=timestamp(key.withdraw_time),
    )
