"""How a replica gathers predictions into runs of its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Batching:
    """Bounds of the queue in front of a model; see `replica.batching`."""

    max_batch_rows: int = 1_024
    """Rows of one run; a larger request runs alone."""
    max_delay_us: int = 0
    """Longest time that an idle replica waits for company for a prediction, in microseconds."""
    max_queue_rows: int = 10_000
    """Rows that may wait."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Batching:
        """Read what `asdict` makes; what is missing has its default."""
        return cls(**value)


USUAL = Batching()
