"""Which policy applies, where a version stands, and what a gate says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from modelyard_governance.models import ApprovalState, Gate, GatedAction, Policy, Review, Verdict
from modelyard_governance.policy import gate, nearest, standing
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
) -> Policy:
    return Policy(f"p-{on.id}", on, required, self_approval, aliases, deployments, NOW)


def review(who: str, verdict: Verdict = Verdict.APPROVE, comment: str = "", minute: int = 0) -> Review:
    return Review(who, who, verdict, comment, NOW + timedelta(minutes=minute))


def ask(rule: Policy | None, action: GatedAction, *reviews: Review, aliases: tuple[str, ...] = ()) -> Gate:
    return gate(standing(VERSION, AUTHOR, reviews, rule), rule, action, aliases)


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
    pending = standing(VERSION, AUTHOR, [], None)
    assert (pending.state, pending.required_approvals) == (ApprovalState.PENDING, 1)
    assert standing(VERSION, AUTHOR, [review(AUTHOR)], None).state is ApprovalState.APPROVED


def test_the_author_counts_only_where_the_policy_lets_it() -> None:
    strict, lax = policy(), policy(self_approval=True)
    assert standing(VERSION, AUTHOR, [review(AUTHOR)], strict).approvals == 0
    assert standing(VERSION, AUTHOR, [review(AUTHOR)], lax).state is ApprovalState.APPROVED


def test_enough_different_reviewers_are_needed_and_one_rejection_is_enough() -> None:
    two = policy(required=2)
    assert standing(VERSION, AUTHOR, [review("bob")], two).state is ApprovalState.PENDING
    assert standing(VERSION, AUTHOR, [review("bob"), review("eve")], two).state is ApprovalState.APPROVED
    rejected = [review("bob"), review("eve"), review("max", Verdict.REJECT, "biased")]
    assert standing(VERSION, AUTHOR, rejected, two).state is ApprovalState.REJECTED


def test_the_author_may_reject() -> None:
    assert (
        standing(VERSION, AUTHOR, [review(AUTHOR, Verdict.REJECT, "broken")], policy()).state
        is ApprovalState.REJECTED
    )


def test_reviews_are_told_in_order() -> None:
    told = standing(VERSION, AUTHOR, [review("late", minute=2), review("early", minute=1)], None)
    assert [item.reviewer for item in told.reviews] == ["early", "late"]


def test_no_policy_means_an_open_gate() -> None:
    assert ask(None, GatedAction.DEPLOY) == Gate(allowed=True, unmet=(), policy="")


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
    answer = ask(policy(aliases=protected), GatedAction.MOVE_ALIAS, aliases=moved)
    assert answer.allowed is not held_back
    assert answer.policy == "prod"


@pytest.mark.parametrize("protect", [True, False])
def test_deployments_are_held_back_where_protected(*, protect: bool) -> None:
    rule = policy(MODEL, deployments=protect, aliases=("*",))
    assert ask(rule, GatedAction.DEPLOY).allowed is not protect
    assert ask(rule, GatedAction.DEPLOY, review("bob")).allowed


def test_every_unmet_condition_is_a_sentence() -> None:
    one = ask(policy(deployments=True), GatedAction.DEPLOY)
    assert one.unmet == ("needs 1 approval by somebody other than the author; has 0",)
    two = ask(
        policy(deployments=True, required=2, self_approval=True),
        GatedAction.DEPLOY,
        review(AUTHOR),
        review("bob", Verdict.REJECT, "wrong data"),
    )
    assert two.unmet == ("was rejected by bob: wrong data", "needs 2 approvals; has 1")
