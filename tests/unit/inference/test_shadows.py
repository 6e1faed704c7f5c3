"""What is counted when the answers of a shadow are compared with those that callers got."""

from __future__ import annotations

from modelyard_inference.ports import Sample
from modelyard_inference.shadow_counts import ShadowCounts
from modelyard_inference.shadows import Comparison


def answer(sample_id: str, digest: bytes = b"a") -> Sample:
    return Sample(sample_id, digest, "")


def error(sample_id: str, reason: str = "INVALID_TENSOR") -> Sample:
    return Sample(sample_id, b"", reason)


def compared(*pairs: tuple[Sample, Sample], copies_first: bool = False) -> ShadowCounts:
    comparison = Comparison()
    sides = [([one for one, _ in pairs], False), ([other for _, other in pairs], True)]
    for samples, shadow in reversed(sides) if copies_first else sides:
        comparison.add(samples, 0, shadow=shadow, now=1.0)
    return comparison.take(0.0)


def test_pairs_are_counted_whichever_side_is_heard_first() -> None:
    pairs = (
        (answer("1"), answer("1")),
        (answer("2"), answer("2", b"b")),
        (answer("3"), error("3")),
        (error("4"), error("4")),
        (error("5"), error("5", "MODEL_FAILED")),
        (error("6"), answer("6")),
    )
    wanted = ShadowCounts(mirrored=6, compared=5, different=3, failed=1)
    assert compared(*pairs) == wanted
    assert compared(*pairs, copies_first=True) == wanted


def test_each_count_is_taken_once() -> None:
    comparison = Comparison()
    comparison.add([answer("1")], 0, shadow=False, now=1.0)
    assert comparison.take(0.0) == ShadowCounts(mirrored=1)
    comparison.add([answer("1")], 0, shadow=True, now=2.0)
    assert comparison.take(0.0) == ShadowCounts(compared=1)
    assert comparison.take(9.0) == ShadowCounts()


def test_what_has_no_other_half_in_time_is_lost() -> None:
    comparison = Comparison()
    comparison.add([answer("1"), answer("2")], 3, shadow=False, now=1.0)
    comparison.add([answer("3")], 4, shadow=True, now=1.0)  # nobody was answered: its caller had gone
    assert comparison.take(1.0) == ShadowCounts(mirrored=5, lost=3)
    assert comparison.take(1.5) == ShadowCounts(lost=2)
    comparison.add([answer("1")], 0, shadow=True, now=2.0)  # too late
    assert comparison.take(2.5) == ShadowCounts()


def test_no_more_wait_than_there_is_room_for() -> None:
    comparison = Comparison(max_waiting=2)
    comparison.add([answer(str(n)) for n in range(5)], 0, shadow=False, now=1.0)
    comparison.add([answer(str(n)) for n in range(3, 5)], 0, shadow=True, now=1.0)
    assert comparison.take(0.0) == ShadowCounts(mirrored=5, compared=2, lost=3)


def test_a_repeated_sample_is_no_pair() -> None:
    """A prediction that was sent to a second replica is heard of twice on one side."""
    comparison = Comparison()
    comparison.add([answer("1"), answer("1")], 0, shadow=True, now=1.0)
    comparison.add([answer("1")], 0, shadow=False, now=1.0)
    assert comparison.take(0.0) == ShadowCounts(mirrored=1, compared=1)
