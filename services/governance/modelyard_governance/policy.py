"""Which policy applies to a version, and what it still lacks. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from modelyard_governance.models import (
    POLICED,
    Approval,
    ApprovalState,
    Gate,
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


def standing(version: Link, author_id: str, reviews: Iterable[Review], policy: Policy | None) -> Approval:
    """Compute where a version stands: one rejection is enough, approvals are counted."""
    said = tuple(sorted(reviews, key=lambda review: (review.create_time, review.reviewer_id)))
    required = policy.required_approvals if policy else 1
    approvals = sum(_counts(review, author_id, policy) for review in said)
    if any(review.verdict is Verdict.REJECT for review in said):
        state = ApprovalState.REJECTED
    elif approvals >= required:
        state = ApprovalState.APPROVED
    else:
        state = ApprovalState.PENDING
    return Approval(version, state, approvals, required, said)


def gate(approval: Approval, policy: Policy | None, action: GatedAction, aliases: Collection[str]) -> Gate:
    """Decide whether a version may be used, naming every condition that is not met."""
    if policy is None:
        return Gate(allowed=True, unmet=(), policy="")
    if not _covers(policy, action, aliases) or approval.state is ApprovalState.APPROVED:
        return Gate(allowed=True, unmet=(), policy=policy.resource.name)
    return Gate(allowed=False, unmet=tuple(_unmet(approval, policy)), policy=policy.resource.name)


def _counts(review: Review, author_id: str, policy: Policy | None) -> bool:
    own = review.reviewer_id == author_id
    return review.verdict is Verdict.APPROVE and (not own or policy is None or policy.allow_self_approval)


def _covers(policy: Policy, action: GatedAction, aliases: Collection[str]) -> bool:
    if action is GatedAction.DEPLOY:
        return policy.protect_deployments
    if EVERY_ALIAS in policy.protected_aliases:
        return bool(aliases)
    return not set(aliases).isdisjoint(policy.protected_aliases)


def _unmet(approval: Approval, policy: Policy) -> Iterable[str]:
    for review in approval.reviews:
        if review.verdict is Verdict.REJECT:
            yield f"was rejected by {review.reviewer}: {review.comment}"
    if approval.approvals < approval.required_approvals:
        needed = approval.required_approvals
        noun = "approval" if needed == 1 else "approvals"
        who = "" if policy.allow_self_approval else " by somebody other than the author"
        yield f"needs {needed} {noun}{who}; has {approval.approvals}"
