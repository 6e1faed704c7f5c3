"""How a rollout in steps is written on the command line: `5,25,50,100 pause=60 errors=1`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._settings import Setting, parse_settings, seconds, whole
from modelyard.types import RolloutPolicy

_SETTINGS = {
    "pause": Setting("pause", seconds, "SECONDS"),
    "requests": Setting("min_requests", whole),
    "errors": Setting("max_error_percent", float),
    "rise": Setting("max_error_rise", float),
    "latency": Setting("max_latency", seconds, "SECONDS"),
    "ratio": Setting("max_latency_ratio", float),
}

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
    return RolloutPolicy(steps=tuple(map(int, numbers)), **parse_settings(settings, _SETTINGS))
