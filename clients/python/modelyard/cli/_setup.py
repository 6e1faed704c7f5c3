"""How the set-up of replicas is written on the command line: `rows=256 delay=0.002`, `NAME=VALUE`, `requirements=FILE`, and how they take over."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from modelyard.cli._session import read_text
from modelyard.cli._settings import Setting, parse_settings, seconds, whole
from modelyard.types import Batching, Environment, EnvironmentSource, UpdateStrategy

_BATCHING = {
    "rows": Setting("max_batch_rows", whole),
    "delay": Setting("max_delay", seconds, "SECONDS"),
    "queue": Setting("max_queue_rows", whole),
}

BatchingBounds = Annotated[
    str | None,
    typer.Option(
        "--batching",
        metavar="BOUNDS",
        help="How each replica gathers predictions into runs of its model, 'rows=256 delay=0.002 queue=5000': most rows of a run,"
        " seconds that an idle replica waits for company, rows that may wait. '' for the usual.",
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME=VALUE",
        help="A variable of the environment of each replica, no secret. May be repeated; together they are all of them, '' is none.",
    ),
]
PythonEnvironment = Annotated[
    str | None,
    typer.Option(
        "--environment",
        metavar="ENVIRONMENT",
        help="In which Python environment each replica runs: 'artifact', as its artifact asks for; 'default', that of the service; or"
        " 'requirements=requirements.txt python=3.12', as a file says (- is standard input), with another Python or not.",
    ),
]
Strategy = Annotated[
    UpdateStrategy | None,
    typer.Option(
        "--update-strategy",
        case_sensitive=False,
        help="What a change may cost while it lasts: twice as many processes, or one replica that does not answer.",
    ),
]


def parse_batching(text: str | None) -> Batching | None:
    """Return the settings that a text says; None if nothing is said.

    Raises:
        typer.BadParameter: it says something else; the message says what is wrong.
    """
    return None if text is None else Batching(**parse_settings(text.split(), _BATCHING))


def parse_variables(texts: list[str] | None) -> dict[str, str] | None:
    """Return variables by name; None if nothing is said.

    Raises:
        typer.BadParameter: one has no `=`, or a name comes twice; the message holds no value.
    """
    if not texts:
        return None
    found: dict[str, str] = {}
    for position, text in enumerate(filter(None, texts), 1):
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"--env number {position} is not NAME=VALUE")
        if name in found:
            raise typer.BadParameter(f"--env {name} is given twice")
        found[name] = value
    return found


def parse_environment(text: str | None) -> Environment | None:
    """Return the environment that a text says, with the lines of the file that it names; None if nothing is said.

    Raises:
        typer.BadParameter: it says something else, or the file cannot be read; the message says what is wrong.
    """
    if text is None:
        return None
    if text in ("", "artifact", "default"):
        return Environment(source=EnvironmentSource(text.upper() or "ARTIFACT"))
    requirements, python = "", ""
    for setting in _words(text):
        name, _, value = setting.partition("=")
        if name == "requirements" and value:
            requirements = read_text(value, "--environment")
        elif name == "python" and value:
            python = value
        else:
            wanted = "artifact, default, requirements=FILE, python=VERSION"
            raise typer.BadParameter(f"{setting!r} is not one of {wanted}")
    lines = requirements.removeprefix("\ufeff").splitlines()
    return Environment(
        source=EnvironmentSource.REQUIREMENTS, requirements=tuple(lines), python_version=python
    )


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}") from None
