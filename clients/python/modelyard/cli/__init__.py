"""The command line: `modelyard …`, one module for each noun, all of them named in `_parts`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._root import RootGroup
from modelyard.cli._session import select_context

app = typer.Typer(
    name="modelyard",
    cls=RootGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from modelyard._channel import version

        typer.echo(version())
        raise typer.Exit


@app.callback()
def root(
    context: Annotated[
        str,
        typer.Option(
            "--context", envvar="MODELYARD_CONTEXT", help="Saved context to use instead of the current one."
        ),
    ] = "",
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and end.")
    ] = False,
) -> None:
    """Catalog, artifact store, governance and serving of models.

    Start an installation on this machine with `modelyard up`, or connect to one with `modelyard login`. Every list and
    show verb takes `--output json`. Exit codes: 0 done, 1 refused or failed, 2 wrong use.
    """
    del show_version
    select_context(context)


def main() -> None:
    """Entry point of the `modelyard` script."""
    app()
