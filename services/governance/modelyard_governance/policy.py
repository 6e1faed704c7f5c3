"""Which policy applies to a version, and what it still lacks. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime

from modelyard_governance.gate_models import ConditionResult
from modelyard_governance.models import (
    POLICED,
    Approval,
    ApprovalState,
    GatedAction,
    Policy,
    Review,
    Verdict,
)
from modelyard_kit.access import Chain, Link

EVERY_ALIAS = "*"


def nearest(chain: Chain, policies: Mapping[str, Policy]) -> Policy | None:
    """Return the policy that applies alone: on the model, else its schema, else its catalog, else none.

    Args:
        chain: the resource asked about and its containers, innermost first.
        policies: by the id of the resource they stand on.
    """
    for link in chain:
        if link.type in POLICED and link.id in policies:
            return policies[link.id]
    return None


def everybody(_reviewer_id: str) -> bool:
    """Let every reviewer's approval count."""
    return True


def standing(
    version: Link,
    author_id: str,
    reviews: Iterable[Review],
    policy: Policy | None,
    *,
    now: datetime,
    approves: Callable[[str], bool] = everybody,
) -> Approval:
    """Compute where a version stands: one rejection is enough, approvals are counted.

    Args:
        version: the version.
        author_id: who created it.
        reviews: what was said of it.
        policy: what applies, or None.
        now: the time; approvals may expire.
        approves: whether a principal is in the policy's group of approvers.
    """
    said = tuple(sorted(reviews, key=lambda review: (review.create_time, review.reviewer_id)))
    required = policy.required_approvals if policy else 1
    counted = [review for review in said if _counts(review, author_id, policy, now, approves)]
    if any(review.verdict is Verdict.REJECT for review in said):
        state = ApprovalState.REJECTED
    elif len(counted) >= required:
        state = ApprovalState.APPROVED
    else:
        state = ApprovalState.PENDING
    lifetime = policy.approval_lifetime if policy else None
    expire_time = (
        min((review.create_time + lifetime for review in counted), default=None) if lifetime else None
    )
    return Approval(version, state, len(counted), required, said, expire_time)


def approval_conditions(approval: Approval, policy: Policy) -> tuple[ConditionResult, ...]:
    """Return what the policy wants of reviews, and whether it is so."""
    results = [
        ConditionResult(f"was rejected by {review.reviewer}", met=False, problem=review.comment)
        for review in approval.reviews
        if review.verdict is Verdict.REJECT
    ]
    needed = approval.required_approvals
    noun = "approval" if needed == 1 else "approvals"
    by = f" by members of {policy.approver_group!r}" if policy.approver_group else ""
    if not policy.allow_self_approval:
        by += " other than the author" if by else " by somebody other than the author"
    if policy.approval_lifetime is not None:
        by += f" within {policy.approval_lifetime}"
    wanted = f"needs {needed} {noun}{by}; has {approval.approvals}"
    return (*results, ConditionResult(wanted, met=approval.approvals >= needed))


def _counts(
    review: Review,
    author_id: str,
    policy: Policy | None,
    now: datetime,
    approves: Callable[[str], bool],
) -> bool:
    if review.verdict is not Verdict.APPROVE or policy is None:
        return review.verdict is Verdict.APPROVE
    if review.reviewer_id == author_id and not policy.allow_self_approval:
        return False
    lifetime = policy.approval_lifetime
    return (lifetime is None or review.create_time + lifetime > now) and approves(review.reviewer_id)


def covers(policy: Policy, action: GatedAction, aliases: Collection[str]) -> bool:
    """Return whether a policy holds back an action."""
    if action is GatedAction.DEPLOY:
        return policy.protect_deployments
    if EVERY_ALIAS in policy.protected_aliases:
        return bool(aliases)
    return not set(aliases).isdisjoint(policy.protected_aliases)
