"""How limits of traffic are written on the command line: `rps=100 mbps=50 concurrent=16`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.types import TrafficLimits

_FIELDS = {
    "rps": "requests_per_second",
    "mbps": "bandwidth_mbps",
    "concurrent": "concurrent_per_replica",
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
    if text is None:
        return None
    found: dict[str, int] = {}
    for setting in text.split():
        name, _, value = setting.partition("=")
        if name not in _FIELDS:
            raise typer.BadParameter(f"{setting!r} is not one of {', '.join(f'{f}=NUMBER' for f in _FIELDS)}")
        if not value.isdecimal():
            raise typer.BadParameter(f"{setting!r} has no whole number after the '='")
        found[_FIELDS[name]] = int(value)
    return TrafficLimits(**found)
