"""What is written down about the predictions of a deployment."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard_kit.errors import InvalidField

OTLP: Final = "otlp"
PARQUET: Final = "parquet"
_SETTINGS: Final = {OTLP: "MODELYARD_OTLP_ENDPOINT", PARQUET: "MODELYARD_PREDICTION_LOGS"}


@dataclass(frozen=True)
class LogPolicy:
    """What replicas write down about predictions, and where it goes beside their files."""

    access_log: bool = False
    """Whether a line for each prediction: when, for whom, how long, what came of it."""
    predict_percent: int = 0
    """Percentage of answered predictions of which the tensors are written down."""
    include_payload: bool = False
    """Whether with their values, or only names, types and shapes."""
    otlp: bool = False
    """Whether it goes to the collector of this installation too."""
    parquet: bool = False
    """Whether it goes into Parquet files of this installation too."""

    @property
    def destinations(self) -> frozenset[str]:
        """Names of where it goes beside the files of replicas."""
        return frozenset(name for name in (OTLP, PARQUET) if getattr(self, name))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LogPolicy:
        """Read what `asdict` makes; what is missing has its default."""
        return cls(**value)


SILENT = LogPolicy()


def require(policy: LogPolicy | None, destinations: Collection[str]) -> None:
    """Return if what is written down can go where it is to go; None: nothing is asked for.

    Raises:
        InvalidField: this installation has no such place.
    """
    for name in sorted(policy.destinations.difference(destinations) if policy else ()):
        raise InvalidField(
            f"deployment.logging.{name}",
            f"this installation has no place for it: whoever runs it sets {_SETTINGS[name]} of the inference service",
        )
