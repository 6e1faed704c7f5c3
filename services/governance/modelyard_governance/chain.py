"""The audit chain: every entry's hash covers the entry before it, so nothing can be changed unseen. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from modelyard_governance.canonical import canonical_json
from modelyard_governance.models import Entry, RecordedEvent, Verification

GENESIS = bytes(32)
"""Hash before the first entry."""


def entry_hash(previous: bytes, sequence: int, canonical_event: str) -> bytes:
    """Return SHA-256 of the previous hash, the sequence as eight bytes big-endian, and the event in UTF-8."""
    return hashlib.sha256(previous + sequence.to_bytes(8, "big") + canonical_event.encode()).digest()


def extend(sequence: int, head: bytes, events: Iterable[RecordedEvent]) -> Sequence[Entry]:
    """Return the entries that continue a chain whose last entry has this sequence and hash."""
    entries = []
    for event in events:
        sequence += 1
        canonical = canonical_json(event.document)
        digest = entry_hash(head, sequence, canonical)
        entries.append(Entry(sequence, event.id, event.resource.id, canonical, head, digest))
        head = digest
    return entries


class ChainVerifier:
    """Recomputes a chain entry by entry, and stops at the first that does not fit."""

    def __init__(self) -> None:
        self._sequence = 0
        self._head = GENESIS
        self._problem = ""

    @property
    def broken(self) -> bool:
        """Whether an entry did not fit; nothing after it is looked at."""
        return bool(self._problem)

    def feed(self, entries: Iterable[Entry]) -> None:
        """Check the next entries, given in the order of their sequence."""
        for entry in entries:
            if self.broken:
                return
            self._problem = self._fault(entry)
            if not self._problem:
                self._sequence, self._head = entry.sequence, entry.hash

    def _fault(self, entry: Entry) -> str:
        wanted = self._sequence + 1
        if entry.sequence != wanted:
            return f"entry {wanted} is missing: entry {entry.sequence} comes next"
        if entry.previous_hash != self._head:
            return f"entry {wanted} does not continue the entry before it"
        if entry_hash(self._head, wanted, entry.canonical_event) != entry.hash:
            return f"entry {wanted} was changed: its hash is not that of its event"
        event = json.loads(entry.canonical_event)
        if (event["id"], event["resource"]["id"]) != (entry.event_id, entry.resource_id):
            return f"entry {wanted} is filed under another event or resource than it tells of"
        return ""

    def finish(self, recorded_sequence: int, recorded_head: bytes) -> Verification:
        """Return the outcome, given where the chain was recorded to end; a cut-off end shows only there."""
        checked, broken = self._sequence, self._sequence + 1
        if not self.broken and checked != recorded_sequence:
            broken = min(checked, recorded_sequence) + 1
            what = "is missing" if checked < recorded_sequence else "was added from outside"
            self._problem = f"entry {broken} {what}: the chain was recorded up to entry {recorded_sequence}"
        elif not self.broken and self._head != recorded_head:
            broken = checked
            self._problem = f"entry {broken} is not the entry that was recorded last: the chain was rewritten"
        return Verification(
            valid=not self.broken,
            entries=checked,
            head_hash=self._head,
            broken_sequence=broken if self.broken else 0,
            problem=self._problem,
        )
