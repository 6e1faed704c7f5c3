"""aliases, tags, metrics."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._output import TABLE, Output, show_one
from modelyard.cli._session import connect, numbers, pairs, values
from modelyard.cli.catalog import ModelName, Reference

aliases = typer.Typer(help="Names that point at versions of a model.", no_args_is_help=True)
tags = typer.Typer(help="Short texts on catalogs, schemas, models and versions.", no_args_is_help=True)
metrics = typer.Typer(help="Measurements of versions.", no_args_is_help=True)

Remove = Annotated[
    list[str] | None, typer.Option("--remove", metavar="KEY", help="Remove it; may be repeated.")
]


@aliases.command("set")
def set_aliases(
    model: ModelName,
    changes: Annotated[
        list[str], typer.Argument(metavar="ALIAS=NUMBER...", help="Alias and version number: champion=2.")
    ],
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="ALIAS=NUMBER",
            help="Only if it points there now; 0: only if it is not there.",
        ),
    ] = None,
    output: Output = TABLE,
) -> None:
    """Point aliases at versions, all or none."""
    wanted = numbers(changes, "ALIAS=NUMBER")
    with connect() as client:
        model_after = client.aliases.set(model, wanted, expected=numbers(expect, "--expect"))
        show_one(dict(model_after.aliases), output)


@aliases.command("remove")
def remove_aliases(
    model: ModelName,
    names: Annotated[list[str], typer.Argument(metavar="ALIAS...", help="Aliases to remove.")],
    output: Output = TABLE,
) -> None:
    """Remove aliases."""
    with connect() as client:
        show_one(dict(client.aliases.remove(model, *names).aliases), output)


@tags.command("set")
def set_tags(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Catalog, schema, model, or version reference.")
    ],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Tags to write.")
    ] = None,
    remove: Remove = None,
    output: Output = TABLE,
) -> None:
    """Write and remove tags; shows all tags after the change."""
    with connect() as client:
        show_one(client.tags.set(name, pairs(changes, "KEY=VALUE"), remove=remove or ()), output)


@metrics.command("set")
def set_metrics(
    reference: Reference,
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="Numbers, texts, or JSON.")
    ] = None,
    remove: Remove = None,
    output: Output = TABLE,
) -> None:
    """Write and remove metrics of a version; shows all metrics after the change."""
    with connect() as client:
        show_one(client.metrics.set(reference, values(changes, "NAME=VALUE"), remove=remove or ()), output)
