"""How the resources of replicas are written on the command line: `cpus=2 memory=1GiB instances=4`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._settings import Setting, parse_settings, size, whole
from modelyard.types import Resources

_SETTINGS = {
    "cpus": Setting("cpus", whole, "CORES"),
    "memory": Setting("memory_bytes", size, "SIZE, such as 512MiB"),
    "instances": Setting("instances", whole, "COPIES"),
}

ResourceBounds = Annotated[
    str | None,
    typer.Option(
        "--resources",
        metavar="BOUNDS",
        help="How large each replica is, 'cpus=2 memory=1GiB instances=4': cores, memory, and copies of the model in it; what is"
        " left out has no bound, '' for none at all.",
    ),
]


def parse_resources(text: str | None) -> Resources | None:
    """Return the bounds that a text says; None if nothing is said.

    Raises:
        typer.BadParameter: it says something else; the message says what is wrong.
    """
    return None if text is None else Resources(**parse_settings(text.split(), _SETTINGS))
