"""How autoscaling is written on the command line: `min=1 max=8 target=4 delay=60`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

import typer

from modelyard.types import Autoscaling

_READ: dict[str, tuple[str, Any]] = {
    "min": ("min_replicas", int),
    "max": ("max_replicas", int),
    "target": ("target_in_flight", float),
    "delay": ("scale_down_delay", lambda text: timedelta(seconds=float(text))),
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
    found = {}
    for setting in text.split():
        name, _, value = setting.partition("=")
        try:
            field, read = _READ[name]
            found[field] = read(value)
        except (KeyError, ValueError, OverflowError):
            wanted = ", ".join(f"{known}=NUMBER" for known in _READ)
            raise typer.BadParameter(f"{setting!r} is not one of {wanted}") from None
    return Autoscaling(**found, scale_to_zero=found.get("min_replicas") == 0)
