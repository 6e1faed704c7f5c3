"""How the resources of replicas are written on the command line: `cpus=2 memory=1GiB instances=4`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

import typer

from modelyard.types import Resources

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"(\d+)([KMGT]iB|B?)")

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
    if text is None:
        return None
    found = Resources()
    for setting in text.split():
        name, _, value = setting.partition("=")
        size = _SIZE.fullmatch(value)
        if name in ("cpus", "instances") and value.isdecimal():
            found = replace(found, **{name: int(value)})
        elif name == "memory" and size:
            found = replace(found, memory_bytes=int(size[1]) * _UNITS[size[2]])
        else:
            raise typer.BadParameter(
                f"{setting!r} is not cpus=CORES, memory=SIZE, such as 512MiB, or instances=COPIES"
            )
    return found
