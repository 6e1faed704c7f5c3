"""How limits of traffic are written on the command line: `rps=100 mbps=50 concurrent=16`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._settings import ABOVE_ZERO, Setting, parse_settings, positive
from modelyard.types import TrafficLimits

_SETTINGS = {
    "rps": Setting("requests_per_second", positive, ABOVE_ZERO),
    "mbps": Setting("bandwidth_mbps", positive, ABOVE_ZERO),
    "concurrent": Setting("concurrent_per_replica", positive, ABOVE_ZERO),
}

Limits = Annotated[
    str | None,
    typer.Option(
        "--limits",
        metavar="LIMITS",
        help="What callers may ask through each gateway, 'rps=100 mbps=50 concurrent=16': predictions per second, megabits per"
        " second, predictions at once per replica. What is not named has no limit; '' for none at all.",
    ),
]


def parse_limits(text: str | None) -> TrafficLimits | None:
    """Return the limits that a text says; None if nothing is said.

    Raises:
        typer.BadParameter: it says none; the message says what is wrong.
    """
    return None if text is None else TrafficLimits(**parse_settings(text.split(), _SETTINGS))
