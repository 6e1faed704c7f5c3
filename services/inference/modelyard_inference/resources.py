"""What a replica may use of its machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resources:
    """Bounds for each replica; 0 means none."""

    cpus: int = 0
    """Cores; as many threads are used by what can be told."""
    memory_bytes: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Resources:
        """Return the bounds of their JSON form."""
        return cls(**value)


UNBOUNDED = Resources()
