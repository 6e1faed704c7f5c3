"""How many watches run at once: streams that stay open cost memory and a task each for as long as somebody listens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from modelyard_kit.errors import DomainError
from modelyard_kit.limits import LIMITS, Limit


class TooManyWatches(DomainError):
    """As many watches run at once as are allowed.

    Args:
        limit: which limit, by its name in the table.
    """

    reason = "TOO_MANY_WATCHES"
    code = "RESOURCE_EXHAUSTED"

    def __init__(self, limit: Limit) -> None:
        super().__init__(
            f"{limit.maximum:,} {limit.description} is the most there can be ({limit.name}); end one that is no longer read,"
            " or let one watch serve several readers, and watch again",
            metadata={"limit": limit.name, "maximum": str(limit.maximum)},
        )


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
        if self._running[principal_id] >= LIMITS["watches_per_principal"].maximum:
            raise TooManyWatches(LIMITS["watches_per_principal"])
        if self._running.total() >= LIMITS["watches_per_process"].maximum:
            raise TooManyWatches(LIMITS["watches_per_process"])
        self._running[principal_id] += 1
        try:
            yield
        finally:
            self._running[principal_id] -= 1
            if not self._running[principal_id]:
                del self._running[principal_id]
