"""Numbers of Envoy, which begin anew, become numbers that only grow."""

from __future__ import annotations

import pytest

from modelyard_gateway.figures import Counted, Figures, Ledger


def counted(
    answered: dict[str, int], failed: dict[str, int], *latencies: int, cluster: str = "1", envoy: str = "1"
) -> dict[str, Counted]:
    return {"g": Counted(answered, failed, dict(zip((1.0, 2.0), latencies, strict=False)), cluster, envoy)}


def test_replicas_are_added_up() -> None:
    found = Ledger().note({"g"}, counted({"a": 3, "b": 4}, {"a": 1, "b": 0}, 5, 3))
    assert found == {"g": Figures(7, 1, {1.0: 5, 2.0: 3})}


def test_only_what_is_new_is_added() -> None:
    ledger = Ledger()
    ledger.note({"g"}, counted({"a": 10, "b": 1}, {"a": 2}, 13, 0))
    found = ledger.note({"g"}, counted({"a": 14, "b": 1}, {"a": 3}, 17, 1))
    assert found == {"g": Figures(15, 3, {1.0: 17, 2.0: 1})}


def test_what_is_counted_anew_loses_nothing_that_was_seen() -> None:
    ledger = Ledger()
    ledger.note({"g"}, counted({"a": 10, "b": 1}, {"a": 2}, 13, 0))
    found = ledger.note({"g"}, counted({"a": 10, "b": 3}, {"a": 0}, 25, 1, cluster="2"))
    assert found == {"g": Figures(11 + 13, 2, {1.0: 25, 2.0: 1})}
    again = ledger.note({"g"}, counted({"b": 5}, {}, 27, 0, cluster="3", envoy="2"))
    assert again == {"g": Figures(24 + 5, 2, {1.0: 25 + 27, 2.0: 1})}


def test_a_group_that_envoy_does_not_know_yet_keeps_its_total() -> None:
    ledger = Ledger()
    ledger.note({"g"}, counted({"a": 10}, {}))
    assert ledger.note({"g"}, {})["g"].answered == 10  # Envoy starts
    assert ledger.note({"g"}, counted({"a": 10}, {}, cluster="2", envoy="2"))["g"].answered == 20


def test_what_is_in_flight_is_averaged() -> None:
    ledger = Ledger()

    def look(in_flight: int) -> float:
        return ledger.note({"g"}, {"g": Counted(in_flight=in_flight)})["g"].in_flight

    assert look(10) == 10
    assert look(0) == pytest.approx(8)
    assert ledger.note({"g"}, {})["g"].in_flight == pytest.approx(8)  # Envoy starts
    for _ in range(20):
        last = look(5)
    assert last == pytest.approx(5, abs=0.1)
    for _ in range(40):
        last = look(0)
    assert last == 0


def test_groups_that_nobody_asks_about_are_forgotten() -> None:
    ledger = Ledger()
    ledger.note({"g"}, counted({"a": 10}, {}))
    assert ledger.note(set(), counted({"a": 11}, {})) == {}
    assert ledger.note({"g"}, counted({"a": 12}, {}))["g"].answered == 12
