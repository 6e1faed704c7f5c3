"""Numbers of Envoy, which begin anew, become numbers that only grow."""

from __future__ import annotations

from modelyard_gateway.figures import Counted, Figures, Ledger


def counted(answered: dict[str, int], failed: dict[str, int], *latencies: int) -> dict[str, Counted]:
    return {"g": Counted(answered, failed, dict(zip((1.0, 2.0), latencies, strict=False)))}


def test_replicas_are_added_up() -> None:
    found = Ledger().note(counted({"a": 3, "b": 4}, {"a": 1, "b": 0}, 5, 3))
    assert found == {"g": Figures(7, 1, {1.0: 5, 2.0: 3})}


def test_a_replica_that_is_counted_anew_loses_nothing_that_was_seen() -> None:
    ledger = Ledger()
    ledger.note(counted({"a": 10, "b": 1}, {"a": 2}, 13, 0))
    found = ledger.note(counted({"a": 4, "b": 3}, {"a": 0}, 19, 1))
    assert found == {"g": Figures(10 + 1 + 4 + 2, 2, {1.0: 19, 2.0: 1})}
    again = ledger.note(counted({"b": 3, "c": 5}, {}, 2, 0))  # Envoy was restarted, `a` is gone
    assert again == {"g": Figures(17 + 5, 2, {1.0: 21, 2.0: 1})}


def test_groups_that_nobody_asks_about_are_forgotten() -> None:
    ledger = Ledger()
    ledger.note(counted({"a": 10}, {}))
    assert ledger.note({}) == {}
    assert ledger.note(counted({"a": 12}, {}))["g"].answered == 12
