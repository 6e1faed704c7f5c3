"""The state table of versions, and what moves of aliases come down to."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import pytest

from modelyard_catalog.aliases import plan
from modelyard_catalog.commands import AliasChange
from modelyard_catalog.errors import AliasMoved
from modelyard_catalog.models import RESULTS, TRANSITIONS, AliasMove, Model, Transition, VersionState
from modelyard_catalog.recording import changes, compact
from modelyard_kit.access import SYSTEM

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def model(**aliases: int) -> Model:
    return Model(
        id="1",
        name="prod.ml.iris",
        description="",
        owner_id="",
        tags={},
        revision=1,
        create_time=NOW,
        update_time=NOW,
        parents=(SYSTEM,),
        aliases=aliases,
        latest_version=9,
    )


def test_only_pending_versions_change_state() -> None:
    allowed = {
        (state, transition): TRANSITIONS[state].get(transition)
        for state, transition in product(VersionState, Transition)
    }
    assert {key: state for key, state in allowed.items() if state is not None} == {
        (VersionState.PENDING, Transition.FINALIZE): VersionState.READY,
        (VersionState.PENDING, Transition.FAIL): VersionState.FAILED,
    }


def test_results_are_what_the_transitions_lead_to() -> None:
    assert dict(RESULTS) == dict(TRANSITIONS[VersionState.PENDING])


def test_changes_become_moves() -> None:
    asked = [
        AliasChange("a", 2),
        AliasChange("b", 3, 0),
        AliasChange("c", 0, 1),
        AliasChange("d", 4),
        AliasChange("e", 0),
    ]
    assert plan(model(a=1, c=1, d=4), asked) == [
        AliasMove("a", 1, 2),
        AliasMove("b", 0, 3),
        AliasMove("c", 1, 0),
    ]


@pytest.mark.parametrize(
    ("change", "actual"),
    [(AliasChange("a", 2, 3), "1"), (AliasChange("a", 1, 0), "1"), (AliasChange("z", 0, 1), "0")],
)
def test_unexpected_alias_is_refused_even_if_it_would_not_move(change: AliasChange, actual: str) -> None:
    with pytest.raises(AliasMoved) as caught:
        plan(model(a=1), [change])
    assert caught.value.metadata == {
        "name": "prod.ml.iris",
        "alias": change.alias,
        "expected": str(change.expected),
        "actual": actual,
    }
    assert caught.value.code == "ABORTED"


def test_differences_name_what_changed_only() -> None:
    assert changes({"same": "1", "other": "1", "gone": "1"}, {"same": "1", "other": "2", "new": ""}) == {
        "before": {"gone": "1", "other": "1"},
        "after": {"new": "", "other": "2"},
    }


def test_null_is_not_absent() -> None:
    assert changes({}, {"metric": None}) == {"before": {}, "after": {"metric": None}}


def test_large_values_are_told_by_their_digest() -> None:
    assert compact("short") == "short"
    assert compact(False) is False
    assert compact([]) == {
        "bytes": 2,
        "sha256": "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
    }
    long = compact("x" * 1_001)
    assert isinstance(long, dict)
    assert long["bytes"] == 1_003
