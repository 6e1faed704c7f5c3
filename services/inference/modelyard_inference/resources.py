"""What a replica may use of its machine, and how many copies of the model are in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resources:
    """Bounds for each replica; 0 means none."""

    cpus: int = 0
    """Cores that its threads share."""
    memory_bytes: int = 0
    instances: int = 0
    """Copies of the model; 0 for two for each of `cpus`."""

    def copies(self, *, code: bool) -> int:
        """Return how many copies of the model predict at the same time.

        Args:
            code: whether the model is a program that its artifact brings. Then it is one: such programs are written for processes, and
                share what they keep in modules and libraries.
        """
        return 1 if code else self.instances or 2 * self.cpus or 1

    def threads(self, *, code: bool) -> int:
        """Return how many threads each prediction may use, so that all copies together use the cores."""
        return max(1, self.cpus // self.copies(code=code))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Resources:
        """Return the bounds of their JSON form."""
        return cls(**value)


UNBOUNDED = Resources()
