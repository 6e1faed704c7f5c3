"""cards."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import Limit, connect
from modelyard.cli.catalog import Reference
from modelyard.types import CardFormat, ModelCard

cards = typer.Typer(help="Model cards of versions.", no_args_is_help=True)

Revision = Annotated[int, typer.Option("--revision", min=0, help="Revision; by default the newest.")]
ToFile = Annotated[
    Path | None, typer.Option("--to", help="File to write; by default standard output.", dir_okay=False)
]

_FORMATS = {".html": CardFormat.HTML, ".htm": CardFormat.HTML, ".pdf": CardFormat.PDF}


@cards.command("draft")
def draft(reference: Reference, to: ToFile = None) -> None:
    """Write a card with all that the catalog knows, for you to complete and to set."""
    with connect() as client:
        _write(client.cards.draft(reference), to)


@cards.command("set")
def set_card(
    reference: Reference,
    path: Annotated[
        Path,
        typer.Argument(
            help="JSON file with the card, also as SageMaker exports it.", exists=True, dir_okay=False
        ),
    ],
    etag: Annotated[
        str, typer.Option("--etag", help="Write only if the card still has this etag; see `cards show`.")
    ] = "",
    comment: Annotated[str, typer.Option("--comment", "-m", help="What the revision is for.")] = "",
    output: Output = TABLE,
) -> None:
    """Write the next revision of a card."""
    with connect() as client:
        show_one(_short(client.cards.set(reference, path, etag=etag, comment=comment)), output)


@cards.command("show")
def show(reference: Reference, revision: Revision = 0, output: Output = TABLE) -> None:
    """Show who wrote a card, how complete it is, and what is missing."""
    with connect() as client:
        show_one(_short(client.cards.get(reference, revision=revision)), output)


@cards.command("export")
def export(
    reference: Reference,
    revision: Revision = 0,
    to: ToFile = None,
    sagemaker: Annotated[
        bool, typer.Option("--sagemaker", help="Wrapped as SageMaker's CreateModelCard takes it.")
    ] = False,
) -> None:
    """Write a card as JSON."""
    with connect() as client:
        _write(client.cards.get(reference, revision=revision), to, wrapped=sagemaker)


@cards.command("revisions")
def revisions(
    reference: Reference,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the revisions of a card."""
    with connect() as client:
        found = client.cards.revisions(reference, filter=filter_, order_by=order_by).collect(limit)
    show_rows(found, ("revision", "create_time", "author_name", "comment"), output, empty="no card")


@cards.command("diff")
def diff(
    reference: Reference,
    before: Annotated[
        int, typer.Option("--from", min=0, help="Revision; by default the one before the other.")
    ] = 0,
    after: Annotated[int, typer.Option("--to", min=0, help="Revision; by default the newest.")] = 0,
    output: Output = TABLE,
) -> None:
    """Show what differs between two revisions."""
    with connect() as client:
        changes = client.cards.diff(reference, before=before, after=after)
    show_rows(changes, ("path", "before", "after"), output, empty="no difference")


@cards.command("render")
def render(
    reference: Reference,
    path: Annotated[
        Path, typer.Argument(help="File to write: .html or .pdf.", dir_okay=False, metavar="FILE")
    ],
    revision: Revision = 0,
) -> None:
    """Write a card as one HTML page that needs nothing else, or as PDF."""
    wanted = _FORMATS.get(path.suffix.lower())
    if wanted is None:
        raise typer.BadParameter(f"{path}: name a file that ends with .html or .pdf")
    with connect() as client:
        path.write_bytes(client.cards.render(reference, wanted, revision=revision))
    typer.echo(f"wrote {path}")


def _short(card: ModelCard) -> ModelCard:
    return dataclasses.replace(card, content="")


def _write(card: ModelCard, to: Path | None, *, wrapped: bool = False) -> None:
    document = card.document
    if wrapped:
        name = card.model_version.partition("/")[0].replace(".", "-").replace("_", "-")
        document = {
            "ModelCardName": name[:63],
            "ModelCardStatus": "Draft",
            "Content": json.dumps(document, ensure_ascii=False),
        }
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    if to is None:
        sys.stdout.write(text)
    else:
        to.write_text(text, encoding="utf-8")
