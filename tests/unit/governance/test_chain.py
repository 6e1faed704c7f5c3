"""The audit chain: whatever is done to it is found, and where."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard_governance.canonical import canonical_json
from modelyard_governance.chain import GENESIS, ChainVerifier, entry_hash, extend
from modelyard_governance.models import Entry, RecordedEvent, Verification
from modelyard_kit.access import Link, ResourceType


def event(number: int) -> RecordedEvent:
    link = Link(ResourceType.MODEL, f"m{number % 3}", f"prod.ml.m{number % 3}")
    document = {"id": f"e{number}", "type": "t", "resource": {"id": link.id}, "data": {"number": number}}
    return RecordedEvent(f"e{number}", "t", link, document, canonical_json(document))


def chain(length: int) -> list[Entry]:
    return list(extend(0, GENESIS, map(event, range(length))))


def verify(entries: list[Entry], recorded: Entry) -> Verification:
    verifier = ChainVerifier()
    verifier.feed(entries[:2])  # in batches, as from the database
    verifier.feed(entries[2:])
    return verifier.finish(recorded.sequence, recorded.hash)


def test_the_hash_is_what_the_contract_says() -> None:
    previous, text = bytes(range(32)), '{"id":"ä"}'
    wanted = hashlib.sha256(previous + b"\0\0\0\0\0\0\0\x07" + text.encode("utf-8")).digest()
    assert entry_hash(previous, 7, text) == wanted


def test_an_empty_and_a_good_chain_hold() -> None:
    assert ChainVerifier().finish(0, GENESIS) == Verification(
        valid=True, entries=0, head_hash=GENESIS, broken_sequence=0, problem=""
    )
    entries = chain(5)
    outcome = verify(entries, entries[-1])
    assert (outcome.valid, outcome.entries, outcome.head_hash) == (True, 5, entries[-1].hash)
    assert extend(5, entries[-1].hash, [event(5)]) == chain(6)[5:]


@pytest.mark.parametrize("position", range(5))
def test_a_changed_event_is_found_where_it_is(position: int) -> None:
    entries = chain(5)
    changed = entries[position].canonical_event.replace('"number":', '"number":9')
    outcome = verify(
        [*entries[:position], replace(entries[position], canonical_event=changed), *entries[position + 1 :]],
        entries[-1],
    )
    assert (outcome.valid, outcome.broken_sequence, outcome.entries) == (False, position + 1, position)
    assert "was changed" in outcome.problem
    assert outcome.head_hash == (entries[position - 1].hash if position else GENESIS)


@pytest.mark.parametrize("position", range(5))
def test_a_changed_event_with_a_fitting_hash_is_found_after_it(position: int) -> None:
    entries = chain(5)
    old = entries[position]
    text = old.canonical_event.replace('"number":', '"number":9')
    forged = replace(old, canonical_event=text, hash=entry_hash(old.previous_hash, old.sequence, text))
    outcome = verify([*entries[:position], forged, *entries[position + 1 :]], entries[-1])
    assert not outcome.valid
    # The forger of the last entry is caught by the recorded end alone.
    assert outcome.broken_sequence == min(position + 2, 5)


@pytest.mark.parametrize("position", range(5))
def test_a_dropped_entry_is_found(position: int) -> None:
    entries = chain(5)
    outcome = verify(entries[:position] + entries[position + 1 :], entries[-1])
    assert (outcome.valid, outcome.broken_sequence) == (False, position + 1)
    assert f"entry {position + 1} is missing" in outcome.problem


@pytest.mark.parametrize("column", ["event_id", "resource_id"])
def test_an_entry_filed_under_another_key_is_found(column: str) -> None:
    entries = chain(3)
    entries[1] = replace(entries[1], **{column: "other"})
    outcome = verify(entries, entries[-1])
    assert (outcome.broken_sequence, "filed" in outcome.problem) == (2, True)


def test_added_and_rewritten_entries_are_found() -> None:
    entries = chain(5)
    outcome = verify(entries, entries[3])
    assert (outcome.valid, outcome.broken_sequence) == (False, 5)
    assert "added" in outcome.problem
    rewritten = list(extend(0, GENESIS, [event(9), *map(event, range(1, 5))]))
    outcome = verify(rewritten, entries[-1])
    assert (outcome.valid, outcome.broken_sequence) == (False, 5)
    assert "rewritten" in outcome.problem


@given(st.permutations(range(5)))
def test_any_other_order_is_found(order: list[int]) -> None:
    entries = chain(5)
    assert verify([entries[at] for at in order], entries[-1]).valid == (order == sorted(order))


@given(st.permutations(range(5)))
def test_reordering_under_renumbered_sequences_is_found(order: list[int]) -> None:
    entries = chain(5)
    moved = [replace(entries[at], sequence=number + 1) for number, at in enumerate(order)]
    assert verify(moved, entries[-1]).valid == (order == sorted(order))


def test_the_canonical_event_is_the_document() -> None:
    assert json.loads(chain(1)[0].canonical_event) == event(0).document
