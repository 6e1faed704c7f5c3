"""The audit chain: every entry's hash covers the entry before it, so nothing can be changed unseen. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from modelyard.auditing import GENESIS, entry_hash
from modelyard.types import AuditCheckpoint
from modelyard_governance.models import Entry, RecordedEvent, Verification

__all__ = ["GENESIS", "ChainVerifier", "entry_hash", "extend"]


def extend(sequence: int, head: bytes, events: Iterable[RecordedEvent]) -> Sequence[Entry]:
    """Return the entries that continue a chain whose last entry has this sequence and hash."""
    entries = []
    for event in events:
        sequence += 1
        digest = entry_hash(head, sequence, event.canonical)
        entries.append(Entry(sequence, event.id, event.resource.id, event.canonical, head, digest))
        head = digest
    return entries


def _unsigned(_checkpoint: AuditCheckpoint) -> str:
    return "there is no key to check checkpoints with"


class ChainVerifier:
    """Recomputes a chain entry by entry, and stops at the first that does not fit.

    Args:
        sequence: of the entry before the first that is kept, as retention left it.
        head: its hash.
        signed: tells why the signature of a checkpoint does not count; empty when it does.
    """

    def __init__(
        self,
        sequence: int = 0,
        head: bytes = GENESIS,
        *,
        signed: Callable[[AuditCheckpoint], str] = _unsigned,
    ) -> None:
        self._anchor = sequence
        self._anchored = sequence == 0
        self._sequence = sequence
        self._head = head
        self._signed = signed
        self._problem = ""
        self._checkpoints = 0
        self._last: AuditCheckpoint | None = None

    @property
    def broken(self) -> bool:
        """Whether an entry did not fit; nothing after it is looked at."""
        return bool(self._problem)

    def begin(self, checkpoint: AuditCheckpoint | None) -> None:
        """Check what was signed of the entry before the first; without it nothing proves that there were any."""
        if self._anchored:
            return
        if checkpoint is None:
            self._problem = (
                f"no checkpoint proves the {self._anchor} entries that retention is said to have dropped"
            )
        else:
            self._attest(checkpoint)

    def feed(self, entries: Iterable[Entry], checkpoints: Iterable[AuditCheckpoint] = ()) -> None:
        """Check the next entries, given in the order of their sequence, and the checkpoints made of these."""
        attested = {checkpoint.sequence: checkpoint for checkpoint in checkpoints}
        for entry in entries:
            if self.broken:
                return
            self._problem = self._fault(entry)
            if not self._problem:
                self._sequence, self._head = entry.sequence, entry.hash
                if entry.sequence in attested:
                    self._attest(attested[entry.sequence])

    def _attest(self, checkpoint: AuditCheckpoint) -> None:
        if checkpoint.hash != self._head.hex():
            self._problem = f"entry {self._sequence} is not the one that its checkpoint signed"
        else:
            self._problem = self._signed(checkpoint)
        if not self._problem:
            self._checkpoints += 1
            self._last = checkpoint

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

    def finish(
        self, recorded_sequence: int, recorded_head: bytes, newest: AuditCheckpoint | None = None
    ) -> Verification:
        """Return the outcome, given where the chain was recorded to end and the newest checkpoint: a cut-off end shows only there."""
        checked, broken = self._sequence, self._sequence + 1
        end = max(recorded_sequence, newest.sequence if newest else 0)
        if not self.broken and checked != end:
            broken = min(checked, end) + 1
            what = "is missing" if checked < end else "was added from outside"
            self._problem = f"entry {broken} {what}: the chain was recorded up to entry {end}"
        elif not self.broken and self._head != recorded_head:
            broken = checked
            self._problem = f"entry {broken} is not the entry that was recorded last: the chain was rewritten"
        return Verification(
            valid=not self.broken,
            entries=checked - self._anchor,
            head_hash=self._head,
            broken_sequence=broken if self.broken else 0,
            problem=self._problem,
            anchor_sequence=self._anchor,
            checkpoints=self._checkpoints,
            checkpoint=self._last,
        )
