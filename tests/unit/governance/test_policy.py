"""Which policy applies, where a version stands, and what a gate says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelyard_governance.models import Approval, ApprovalState, GatedAction, Policy, Review, Verdict
from modelyard_governance.policy import approval_conditions, covers, nearest, standing
from modelyard_kit.access import SYSTEM, Link, ResourceType

VERSION = Link(ResourceType.MODEL_VERSION, "v", "prod.ml.iris/1")
MODEL = Link(ResourceType.MODEL, "m", "prod.ml.iris")
SCHEMA = Link(ResourceType.SCHEMA, "s", "prod.ml")
CATALOG = Link(ResourceType.CATALOG, "c", "prod")
CHAIN = (VERSION, MODEL, SCHEMA, CATALOG, SYSTEM)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
AUTHOR = "ada"


def policy(
    on: Link = CATALOG,
    *,
    required: int = 1,
    self_approval: bool = False,
    aliases: tuple[str, ...] = (),
    deployments: bool = False,
    group: str = "",
    lifetime: timedelta | None = None,
) -> Policy:
    return Policy(
        f"p-{on.id}", on, required, self_approval, aliases, deployments, NOW, group or None, group, lifetime
    )


def review(who: str, verdict: Verdict = Verdict.APPROVE, comment: str = "", minute: int = 0) -> Review:
    return Review(who, who, verdict, comment, NOW + timedelta(minutes=minute))


def where(reviews: Sequence[Review], rule: Policy | None, **more: Any) -> Approval:
    return standing(VERSION, AUTHOR, reviews, rule, **{"now": NOW, **more})


def unmet(rule: Policy, *reviews: Review) -> list[str]:
    results = approval_conditions(where(reviews, rule), rule)
    return [f"{one.name}: {one.problem}" if one.problem else one.name for one in results if not one.met]


@pytest.mark.parametrize(
    ("on", "wanted"),
    [([], None), ([CATALOG], CATALOG), ([SCHEMA, CATALOG], SCHEMA), ([CATALOG, MODEL, SCHEMA], MODEL)],
)
def test_the_nearest_policy_applies_alone(on: list[Link], wanted: Link | None) -> None:
    policies: Mapping[str, Policy] = {link.id: policy(link) for link in on}
    found = nearest(CHAIN, policies)
    assert (found.resource if found else None) == wanted


def test_a_policy_is_not_looked_for_on_versions_and_the_system() -> None:
    assert nearest(CHAIN, {VERSION.id: policy(VERSION), SYSTEM.id: policy(SYSTEM)}) is None


def test_without_a_policy_one_approval_counts_even_the_authors() -> None:
    pending = where([], None)
    assert (pending.state, pending.required_approvals) == (ApprovalState.PENDING, 1)
    assert where([review(AUTHOR)], None).state is ApprovalState.APPROVED


def test_the_author_counts_only_where_the_policy_lets_it() -> None:
    strict, lax = policy(), policy(self_approval=True)
    assert where([review(AUTHOR)], strict).approvals == 0
    assert where([review(AUTHOR)], lax).state is ApprovalState.APPROVED


def test_enough_different_reviewers_are_needed_and_one_rejection_is_enough() -> None:
    two = policy(required=2)
    assert where([review("bob")], two).state is ApprovalState.PENDING
    assert where([review("bob"), review("eve")], two).state is ApprovalState.APPROVED
    rejected = [review("bob"), review("eve"), review("max", Verdict.REJECT, "biased")]
    assert where(rejected, two).state is ApprovalState.REJECTED


def test_the_author_may_reject() -> None:
    assert where([review(AUTHOR, Verdict.REJECT, "broken")], policy()).state is ApprovalState.REJECTED


def test_reviews_are_told_in_order() -> None:
    told = where([review("late", minute=2), review("early", minute=1)], None)
    assert [item.reviewer for item in told.reviews] == ["early", "late"]


def test_only_members_of_the_group_count() -> None:
    rule = policy(group="reviewers", required=2)
    reviews = [review("bob"), review("eve"), review("max")]
    told = where(reviews, rule, approves={"bob", "max"}.__contains__)
    assert (told.state, told.approvals) == (ApprovalState.APPROVED, 2)
    assert where(reviews, rule, approves={"bob"}.__contains__).state is ApprovalState.PENDING


def test_approvals_expire_and_rejections_do_not() -> None:
    rule = policy(lifetime=timedelta(hours=1))
    reviews = [review("bob", minute=0), review("eve", minute=30)]
    fresh = where(reviews, rule, now=NOW + timedelta(minutes=31))
    assert (fresh.approvals, fresh.expire_time) == (2, NOW + timedelta(hours=1))
    one = where(reviews, rule, now=NOW + timedelta(hours=1))
    assert (one.approvals, one.expire_time) == (1, NOW + timedelta(minutes=90))
    old = where(reviews, rule, now=NOW + timedelta(minutes=90))
    assert (old.state, old.approvals, old.expire_time) == (ApprovalState.PENDING, 0, None)
    rejected = where([review("bob", Verdict.REJECT, "no")], rule, now=NOW + timedelta(days=9))
    assert rejected.state is ApprovalState.REJECTED


@pytest.mark.parametrize(
    ("protected", "moved", "held_back"),
    [
        ((), ("champion",), False),
        (("champion",), ("champion",), True),
        (("champion",), ("challenger",), False),
        (("champion",), ("challenger", "champion"), True),
        (("*",), ("anything",), True),
    ],
)
def test_only_protected_aliases_are_held_back(
    protected: tuple[str, ...], moved: tuple[str, ...], *, held_back: bool
) -> None:
    assert covers(policy(aliases=protected), GatedAction.MOVE_ALIAS, moved) is held_back


@pytest.mark.parametrize("protect", [True, False])
def test_deployments_are_held_back_where_protected(*, protect: bool) -> None:
    rule = policy(MODEL, deployments=protect, aliases=("*",))
    assert covers(rule, GatedAction.DEPLOY, ()) is protect


def test_every_unmet_condition_is_a_sentence() -> None:
    assert unmet(policy()) == ["needs 1 approval by somebody other than the author; has 0"]
    assert unmet(policy(), review("bob")) == []
    two = policy(required=2, self_approval=True)
    assert unmet(two, review(AUTHOR), review("bob", Verdict.REJECT, "wrong data")) == [
        "was rejected by bob: wrong data",
        "needs 2 approvals; has 1",
    ]
    strict = policy(required=2, group="reviewers", lifetime=timedelta(days=7))
    assert unmet(strict) == [
        "needs 2 approvals by members of 'reviewers' other than the author within 7 days, 0:00:00; has 0"
    ]
