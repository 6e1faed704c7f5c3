"""How autoscaling is written on the command line: `min=1 max=8 target=4 delay=60`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._settings import Setting, parse_settings, seconds, whole
from modelyard.types import Autoscaling

_SETTINGS = {
    "min": Setting("min_replicas", whole),
    "max": Setting("max_replicas", whole),
    "target": Setting("target_in_flight", float),
    "delay": Setting("scale_down_delay", seconds, "SECONDS"),
}

Scaling = Annotated[
    str | None,
    typer.Option(
        "--autoscaling",
        metavar="BOUNDS",
        help="Let the number of replicas follow the predictions in flight, 'min=1 max=8 target=4 delay=60': target of each"
        " replica, seconds that fewer have to suffice before there are fewer. min=0: none while nothing is in flight, and the"
        " next prediction waits. '' for a fixed number.",
    ),
]


def parse_autoscaling(text: str | None) -> Autoscaling | None:
    """Return the settings that a text says; None if nothing is said.

    Raises:
        typer.BadParameter: it says something else; the message says what is wrong.
    """
    if text is None:
        return None
    found = parse_settings(text.split(), _SETTINGS)
    return Autoscaling(**found, scale_to_zero=found.get("min_replicas") == 0)
