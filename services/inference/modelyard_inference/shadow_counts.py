"""What came of comparing a shadow with what answers."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class ShadowCounts:
    """What came of comparing a shadow with what answers."""

    mirrored: int = 0
    """Predictions that were answered and chosen to be copied."""
    compared: int = 0
    """Copies whose answer was compared with the one the caller got."""
    different: int = 0
    """Of those compared, answers that were not the same."""
    failed: int = 0
    """Copies that the shadow refused or failed on, where the caller got an answer."""
    lost: int = 0
    """Copies of which nothing was heard in time: left out because the shadow was busy, too late, or their replica ended."""

    def __add__(self, other: ShadowCounts) -> ShadowCounts:
        """Return the sums."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return ShadowCounts(*(mine + its for mine, its in pairs))
