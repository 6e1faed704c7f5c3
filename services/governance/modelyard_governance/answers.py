"""From the values of the rules to the messages of the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration

from modelyard.api.common.v1 import event_pb2
from modelyard.api.governance.v1 import access_pb2, approval_pb2, audit_pb2, identity_pb2, trust_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard_governance.models import (
    Account,
    AccountKind,
    ApiToken,
    Approval,
    Entry,
    Grant,
    Policy,
    Review,
    TrustRoot,
)
from modelyard_governance.permissions import PermissionStep
from modelyard_kit.access import Decision, Privilege
from modelyard_kit.protos import (
    effect_to_proto,
    grant_to_proto,
    link_to_proto,
    privilege_to_proto,
    timestamp,
)

KINDS: Mapping[AccountKind, identity_pb2.Principal.Kind.ValueType] = {
    "user": identity_pb2.Principal.KIND_USER,
    "service_account": identity_pb2.Principal.KIND_SERVICE_ACCOUNT,
    "service": identity_pb2.Principal.KIND_SERVICE,
    "group": identity_pb2.Principal.KIND_GROUP,
}


def principal_out(account: Account) -> identity_pb2.Principal:
    """Return the message of a principal."""
    return identity_pb2.Principal(
        id=account.id,
        name=account.name,
        kind=KINDS[account.kind],
        display_name=account.display_name,
        create_time=timestamp(account.create_time),
        disable_time=timestamp(account.disable_time),
        issuer=account.issuer or "",
        subject=account.subject or "",
    )


def token_out(token: ApiToken) -> identity_pb2.ApiToken:
    """Return the message of an API token."""
    return identity_pb2.ApiToken(
        id=token.id,
        principal=token.principal,
        description=token.description,
        expire_time=timestamp(token.expire_time),
        revoke_time=timestamp(token.revoke_time),
        create_time=timestamp(token.create_time),
        privileges=map(privilege_to_proto, token.privileges),
        last_use_time=timestamp(token.last_use_time),
    )


def grant_out(grant: Grant) -> access_pb2.Grant:
    """Return the message of a grant."""
    return access_pb2.Grant(
        id=grant.id,
        principal=grant.principal,
        principal_id=grant.principal_id,
        privilege=privilege_to_proto(grant.privilege),
        effect=effect_to_proto(grant.effect),
        resource=link_to_proto(grant.resource),
        create_time=timestamp(grant.create_time),
    )


def effective_out(privilege: Privilege, decision: Decision) -> access_pb2.EffectivePrivilege:
    """Return the message of what comes of all grants for one privilege."""
    return access_pb2.EffectivePrivilege(
        privilege=privilege_to_proto(privilege), allowed=decision.allowed, explanation=decision.explanation
    )


def step_out(step: PermissionStep) -> pb.WatchPermissionsResponse:
    """Return the message of a step of the watch."""
    return pb.WatchPermissionsResponse(
        revision=step.revision,
        changed=[
            access_pb2.PrincipalGrants(
                principal_id=held.principal_id,
                principal_name=held.principal,
                grants=map(grant_to_proto, held.grants),
                group_ids=held.groups,
                disabled=held.disabled,
                is_group=held.is_group,
            )
            for held in step.changed
        ],
        complete=step.complete,
    )


def policy_out(policy: Policy) -> approval_pb2.ApprovalPolicy:
    """Return the message of a policy."""
    return approval_pb2.ApprovalPolicy(
        id=policy.id,
        resource=link_to_proto(policy.resource),
        required_approvals=policy.required_approvals,
        allow_self_approval=policy.allow_self_approval,
        protected_aliases=policy.protected_aliases,
        protect_deployments=policy.protect_deployments,
        update_time=timestamp(policy.update_time),
        approver_group=policy.approver_group,
        approval_lifetime=_duration(policy.approval_lifetime),
        conditions=[
            approval_pb2.Condition(name=one.name, expression=one.expression) for one in policy.conditions
        ],
    )


def _duration(value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    message = Duration()
    message.FromTimedelta(value)
    return message


def _review_out(review: Review) -> approval_pb2.Review:
    return approval_pb2.Review(
        reviewer=review.reviewer,
        reviewer_id=review.reviewer_id,
        decision=approval_pb2.Review.Decision.Value(f"DECISION_{review.verdict}"),
        comment=review.comment,
        create_time=timestamp(review.create_time),
    )


def approval_out(approval: Approval) -> approval_pb2.Approval:
    """Return the message of where a version stands."""
    return approval_pb2.Approval(
        model_version=link_to_proto(approval.version),
        state=approval_pb2.Approval.State.Value(f"STATE_{approval.state}"),
        approvals=approval.approvals,
        required_approvals=approval.required_approvals,
        reviews=map(_review_out, approval.reviews),
    )


def trust_root_out(root: TrustRoot) -> trust_pb2.TrustRoot:
    """Return the message of a trust root."""
    return trust_pb2.TrustRoot(
        id=root.id,
        resource=link_to_proto(root.resource),
        name=root.name,
        kind=trust_pb2.TrustRoot.Kind.Value(f"KIND_{root.kind}"),
        pem=root.pem,
        fingerprint=root.fingerprint,
        expire_time=timestamp(root.expire_time),
        create_time=timestamp(root.create_time),
    )


def entry_out(entry: Entry) -> audit_pb2.AuditEntry:
    """Return the message of a link of the audit chain."""
    event = json_format.ParseDict(
        json.loads(entry.canonical_event), event_pb2.Event(), ignore_unknown_fields=True
    )
    return audit_pb2.AuditEntry(
        sequence=entry.sequence,
        event=event,
        canonical_event=entry.canonical_event,
        previous_hash=entry.previous_hash.hex(),
        hash=entry.hash.hex(),
    )
