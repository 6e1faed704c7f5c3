"""How many watches run at once: streams that stay open cost memory and a task each for as long as somebody listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from modelyard_kit.errors import TooManyWatches
from modelyard_kit.limits import LIMITS


class Watches:
    """Counts the watches of a process."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """How many run."""
        return self._running.total()

    @contextmanager
    def counted(self, principal_id: str) -> Iterator[None]:
        """Count a watch of a principal while the block runs.

        Raises:
            TooManyWatches: there is no room for it.
        """
        for name, running in (
            ("watches_per_principal", self._running[principal_id]),
            ("watches_per_process", self.total),
        ):
            limit = LIMITS[name]
            if running >= limit.maximum:
                raise TooManyWatches(name, maximum=limit.maximum, what=limit.description)
        self._running[principal_id] += 1
        try:
            yield
        finally:
            self._running[principal_id] -= 1
            if not self._running[principal_id]:
                del self._running[principal_id]
