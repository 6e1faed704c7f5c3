"""How many replicas a group should have: as many as its predictions in flight need, within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

TOLERANCE = 0.1
"""By how much, as a share, the predictions in flight may be above what is aimed at before there are more replicas."""


@dataclass(frozen=True)
class Autoscaling:
    """Bounds and aim of the number of replicas of each target; without a maximum the number is fixed."""

    min_replicas: int = 0
    max_replicas: int = 0
    target_in_flight: float = 0.0
    """Predictions in flight for each replica that are aimed at."""
    scale_down_delay_ms: int = 0
    """How long fewer have to suffice before there are fewer."""

    @property
    def on(self) -> bool:
        """Return whether the number changes by itself."""
        return self.max_replicas > 0

    @property
    def to_zero(self) -> bool:
        """Return whether there may be none at all."""
        return self.on and self.min_replicas == 0

    def within(self, replicas: int) -> int:
        """Return the number within the bounds that is nearest; the number itself if there are none."""
        return min(max(replicas, self.min_replicas), self.max_replicas) if self.on else replicas

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Autoscaling:
        """Return the settings of their JSON form."""
        return cls(**value)


FIXED = Autoscaling()


class Cause(StrEnum):
    """Why a group has another number of replicas, as events tell it."""

    IN_FLIGHT = "IN_FLIGHT"
    """More or fewer keep its predictions in flight at what is aimed at."""
    IDLE = "IDLE"
    """Nothing was in flight for a while: it has none."""
    FIRST_REQUEST = "FIRST_REQUEST"
    """It had none, and a prediction waits."""

    @classmethod
    def of(cls, before: int, after: int) -> Cause:
        """Return why a number of replicas became another one."""
        if before == 0:
            return cls.FIRST_REQUEST
        return cls.IDLE if after == 0 else cls.IN_FLIGHT


@dataclass(frozen=True)
class Scale:
    """What was decided about one group."""

    replicas: int
    """How many it should have."""
    low_since: datetime | None = None
    """Since when fewer would have sufficed all the time."""
    low_most: int = 0
    """The most that would have been needed since then."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "low_since": self.low_since and self.low_since.isoformat()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scale:
        """Return what its JSON form says."""
        low_since = value["low_since"] and datetime.fromisoformat(value["low_since"])
        return cls(**{**value, "low_since": low_since})


def rescale(
    policy: Autoscaling, scale: Scale, in_flight: float | None, *, answering: int, now: datetime
) -> Scale:
    """Decide anew how many replicas a group should have.

    More at once, but at most twice as many as answer, and not before those answer that were decided before: while replicas start, what
    they are needed for piles up, and would call for ever more. Fewer only when they would have sufficed for a while.

    Args:
        policy: bounds and aim.
        scale: what was decided before.
        in_flight: predictions in flight of the group as all gateways count them; None if one does not tell.
        answering: replicas that get predictions.
        now: the time.
    """
    current = policy.within(scale.replicas)
    if in_flight is None:
        return Scale(current)
    needed = policy.within(math.ceil(in_flight / policy.target_in_flight))
    if needed > current:
        enough = in_flight <= current * policy.target_in_flight * (1 + TOLERANCE)
        if enough or answering < current:
            return Scale(current)
        return Scale(min(needed, max(1, 2 * current)))
    if needed == current:
        return Scale(current)
    since, most = scale.low_since or now, max(scale.low_most, needed)
    if now - since >= timedelta(milliseconds=policy.scale_down_delay_ms):
        return Scale(most)
    return Scale(current, since, most)
