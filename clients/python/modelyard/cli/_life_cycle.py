"""The verbs that catalogs, schemas, models and versions share: rename, delete, undelete, and what lists take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli._output import TABLE, Format, Output, show_one, show_rows
from modelyard.cli._session import Etag, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelyard.client import Client

Filter = Annotated[
    str, typer.Option("--filter", "-f", metavar="FILTER", help="Which ones, as in docs/filters.md.")
]
OrderBy = Annotated[
    str, typer.Option("--order-by", metavar="FIELDS", help="Order: 'create_time desc, name'.")
]
ShowDeleted = Annotated[
    bool, typer.Option("--show-deleted", help="Include deleted ones that can still be undeleted.")
]
ContainerId = Annotated[
    str,
    typer.Option(
        metavar="ID",
        help="Its id instead of its name; it may be deleted: lists what comes back with it.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Delete what belongs to it too.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Its id; `list --show-deleted` tells it.")]

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Full name as it is now.")]


def require_one(name: str, container_id: str, argument: str, option: str) -> None:
    """End the command unless exactly one of name and id is given."""
    if bool(name) == bool(container_id):
        raise typer.BadParameter(f"give either {argument} or {option}")


def show_list(
    rows: Sequence[Any], columns: tuple[str, ...], output: Format, *, deleted: bool | str, empty: str
) -> None:
    """Print the rows of a list; with deleted ones among them also what it takes to bring those back."""
    show_rows(rows, (*columns, "delete_time", "id") if deleted else columns, output, empty=empty)


def show_deleted(row: Any, nouns: str, output: Format) -> None:
    """Print what was deleted, and how to bring it back."""
    if output is Format.JSON:
        show_one(row, output)
        return
    until = f" until {row.purge_time:%Y-%m-%d %H:%M:%SZ}" if row.purge_time else ""
    typer.echo(f"Deleted {row.name}.")
    typer.echo(f"Bring it back{until}: modelyard {nouns} undelete {row.id}", err=True)


def add_life_cycle(app: typer.Typer, nouns: str, noun: str, verbs: Callable[[Client], Any]) -> None:
    """Add the verbs to a noun; `verbs` takes its part of a client."""

    @app.command("update", help=f"Change the description or the owner of a {noun}.")
    def update(
        name: _Name,
        description: Annotated[str | None, typer.Option("--description", "-d", help="Free text.")] = None,
        owner: Annotated[
            str | None, typer.Option("--owner", help="Name of the principal that is to own it.")
        ] = None,
        owner_id: Annotated[
            str | None, typer.Option("--owner-id", help="Its id, in the place of its name.")
        ] = None,
        etag: Etag = "",
        output: Output = TABLE,
    ) -> None:
        with connect() as client:
            given = {"description": description, "owner": owner, "owner_id": owner_id}
            show_one(verbs(client).update(name, **given, etag=etag), output)

    @app.command("rename", help=f"Give a {noun} another name; its id and all that hangs on it stay.")
    def rename(
        name: _Name,
        new_name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="Name to be.")],
        etag: Etag = "",
        output: Output = TABLE,
    ) -> None:
        with connect() as client:
            show_one(verbs(client).rename(name, new_name, etag=etag), output)

    @app.command("delete", help=f"Delete a {noun}; for a time it can be undeleted.")
    def delete(name: _Name, force: Force = False, etag: Etag = "", output: Output = TABLE) -> None:
        with connect() as client:
            show_deleted(verbs(client).delete(name, force=force, etag=etag), nouns, output)

    @app.command("undelete", help=f"Bring a deleted {noun} back, with everything that went with it.")
    def undelete(resource_id: Id, output: Output = TABLE) -> None:
        with connect() as client:
            show_one(verbs(client).undelete(resource_id), output)
