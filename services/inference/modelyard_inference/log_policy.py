"""What is written down about the predictions of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LogPolicy:
    """What replicas write down about predictions."""

    access_log: bool = False
    """Whether a line for each prediction: when, for whom, how long, what came of it."""
    predict_percent: int = 0
    """Percentage of answered predictions of which the tensors are written down."""
    include_payload: bool = False
    """Whether with their values, or only names, types and shapes."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LogPolicy:
        """Read what `asdict` makes; what is missing has its default."""
        return cls(**value)


SILENT = LogPolicy()
