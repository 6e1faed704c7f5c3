"""events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli._output import TABLE, Format, Output, plain
from modelyard.cli._session import connect

if TYPE_CHECKING:
    from modelyard.types import Event

events = typer.Typer(help="Every change, as it happens.", no_args_is_help=True)


@events.callback()
def group() -> None:
    """Every change, as it happens."""


@events.command("watch")
def watch(
    resource: Annotated[
        str, typer.Option("--resource", "-r", help="Only about this catalog, schema or model, or inside it.")
    ] = "",
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only this type: catalog.alias.moved, catalog.alias.*; may be repeated.",
        ),
    ] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest event that is kept.")
    ] = False,
    resume_token: Annotated[
        str, typer.Option("--resume-token", metavar="TOKEN", help="Go on where an earlier watch was.")
    ] = "",
    output: Output = TABLE,
) -> None:
    """Follow changes until you interrupt; JSON comes as one object on each line.

    At the end the token to go on with is written to standard error.
    """
    with connect() as client:
        watching = client.events.watch(
            resource, types=types or (), resume_token=resume_token, from_beginning=from_beginning
        )
        try:
            for event in watching:
                typer.echo(_json(event) if output is Format.JSON else _line(event))
        except KeyboardInterrupt:
            pass
        finally:
            token = watching.resume_token
            watching.close()
            if token != resume_token:
                typer.echo(f"go on with: --resume-token {token}", err=True)


def _json(event: Event) -> str:
    return json.dumps(plain(event), ensure_ascii=False)


def _line(event: Event) -> str:
    """One event in columns; a table would need its last row before it could print its first."""
    time = event.time.strftime("%Y-%m-%d %H:%M:%SZ") if event.time else ""
    return f"{time:<20}  {event.type:<32}  {event.resource.name:<32}  {event.actor_name:<16}  {_data(event.data)}"


def _data(data: Any) -> str:
    text = json.dumps(plain(data), ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:199]}…"
