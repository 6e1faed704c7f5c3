"""aliases, tags, metrics."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli._life_cycle import Filter
from modelyard.cli._output import TABLE, Format, Output, show_json, show_one, show_rows
from modelyard.cli._session import Limit, connect, numbers, pairs, values
from modelyard.cli.catalog import ModelName, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

aliases = typer.Typer(help="Names that point at versions of a model.", no_args_is_help=True)
tags = typer.Typer(help="Short texts on catalogs, schemas, models and versions.", no_args_is_help=True)
metrics = typer.Typer(help="Measurements of versions.", no_args_is_help=True)

Remove = Annotated[
    list[str] | None, typer.Option("--remove", metavar="KEY", help="Remove it; may be repeated.")
]
AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias: champion.")]


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


@aliases.command("history")
def alias_history(
    model: ModelName,
    alias: Annotated[str, typer.Argument(metavar="[ALIAS]", help="Only this one.")] = "",
    filter_: Filter = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List every move of the aliases of a model, newest first; 0 means that the alias did not exist."""
    columns = ("move_time", "alias", "previous_version", "version", "moved_by")
    with connect() as client:
        pager = client.aliases.history(model, alias, filter=filter_)
        show_rows(pager.collect(limit), columns, output, empty="no moves")


@aliases.command("at")
def alias_at(
    model: ModelName,
    alias: AliasName,
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="2026-01-31T12:00:00Z; without a zone it is UTC.")
    ],
    output: Output = TABLE,
) -> None:
    """Tell which version an alias pointed at at a time; exit code 1 if it did not exist."""
    when = _time(time)
    with connect() as client:
        number = client.aliases.at(model, alias, when)
    if output is Format.JSON:
        show_json({"alias": alias, "time": when.isoformat().replace("+00:00", "Z"), "version": number})
    elif number:
        typer.echo(f"{model}/{number}")
    else:
        typer.echo(f"{model}@{alias} did not exist then", err=True)
    if not number:
        raise typer.Exit(1)


@aliases.command("rollback")
def rollback_alias(
    model: ModelName,
    alias: AliasName,
    expect: Annotated[
        int | None, typer.Option("--expect", min=1, help="Only if it points at this number now.")
    ] = None,
    output: Output = TABLE,
) -> None:
    """Point an alias where it pointed before its last move."""
    with connect() as client:
        show_one(dict(client.aliases.rollback(model, alias, expected=expect).aliases), output)


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
        written = client.metrics.set(reference, values(changes, "NAME=VALUE"), remove=remove or ())
        _show_metrics(written, output)


@metrics.command("show")
def show_metrics(reference: Reference, output: Output = TABLE) -> None:
    """Show the metrics of a version."""
    with connect() as client:
        _show_metrics(client.versions.get(reference).metrics, output)


def _show_metrics(found: Mapping[str, Any], output: Format) -> None:
    """Print metrics by name; in a table what is no text as JSON, so that nothing looks like something else."""
    if output is Format.JSON:
        show_one(dict(found), output)
        return
    if not found:
        typer.echo("no metrics", err=True)
    as_text = {
        name: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False, sort_keys=True)
        for name, v in found.items()
    }
    show_one(dict(sorted(as_text.items())), output)


def _time(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a time; write 2026-01-31T12:00:00Z", param_hint="TIME"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
