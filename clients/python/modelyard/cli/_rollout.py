"""How a rollout in steps is written on the command line: `5,25,50,100 pause=60 errors=1`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

import typer

from modelyard.types import RolloutPolicy

_FIELDS = {
    "pause": "pause",
    "requests": "min_requests",
    "errors": "max_error_percent",
    "rise": "max_error_rise",
    "latency": "max_latency",
    "ratio": "max_latency_ratio",
}
_SECONDS = frozenset(("pause", "max_latency"))

Rollout = Annotated[
    str | None,
    typer.Option(
        "--rollout",
        metavar="STEPS",
        help="Let new versions take over in steps of percent, '5,25,50,100 pause=60 requests=100 errors=1': seconds of each"
        " step, predictions before it is judged, percent that may fail, rise=POINTS and ratio=TIMES compared with the"
        " old, latency=SECONDS of 95 %. '' for all at once.",
    ),
]


def parse_rollout(text: str | None) -> RolloutPolicy | None:
    """Return the policy that a text says; None if nothing is said.

    Raises:
        typer.BadParameter: it is none; the message says what is wrong.
    """
    if text is None:
        return None
    steps, *settings = text.split() or [""]
    numbers = steps.split(",") if steps else []
    if not all(number.isdecimal() for number in numbers):
        raise typer.BadParameter(f"{steps!r} are not steps: write percentages such as 5,25,50,100")
    policy = RolloutPolicy(steps=tuple(map(int, numbers)))
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in _FIELDS:
            raise typer.BadParameter(f"{setting!r} is not one of {', '.join(f'{f}=NUMBER' for f in _FIELDS)}")
        policy = replace(policy, **{_FIELDS[name]: _value(_FIELDS[name], setting, value)})
    return policy


def _value(field: str, setting: str, text: str) -> Any:
    try:
        if field == "min_requests":
            return int(text)
        number = float(text)
        return timedelta(seconds=number) if field in _SECONDS else number
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{setting!r} has no number after the '='") from None
