"""shares, bundles."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import Description, Limit, connect

if TYPE_CHECKING:
    from modelyard._bundle_file import Bundle
    from modelyard.types import BundleSummary, Share

shares = typer.Typer(help="What may leave the installation, and who may export it.", no_args_is_help=True)
bundles = typer.Typer(help="Models as files that are signed and complete.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the share.", metavar="NAME")]
Recipient = Annotated[str, typer.Option("--recipient", help="Whom it is for; never in a bundle.")]
Exporters = Annotated[
    list[str] | None,
    typer.Option("--exporter", help="Principal or group that may export it; may be repeated."),
]
File = Annotated[Path, typer.Argument(help="The bundle.", metavar="FILE", exists=True, dir_okay=False)]
To = Annotated[Path, typer.Option("--to", help="File to write.", metavar="FILE")]
Blobs = Annotated[
    bool, typer.Option("--blobs/--no-blobs", help="Whether the file holds the bytes of the versions.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")]
Trust = Annotated[
    list[Path] | None,
    typer.Option(
        "--trust",
        help="Public key of the origin (PEM), as `modelyard audit key` writes it there; may be repeated.",
        metavar="KEY",
        exists=True,
        dir_okay=False,
    ),
]
_COLUMNS = ("name", "recipient", "members", "exporters", "create_time")


@shares.command("create")
def create(
    name: Name,
    members: Annotated[
        list[str],
        typer.Argument(help="Models and schemas; a schema means all models in it.", metavar="MEMBER..."),
    ],
    recipient: Recipient = "",
    exporters: Exporters = None,
    description: Description = "",
    output: Output = TABLE,
) -> None:
    """Name what may leave the installation."""
    with connect() as client:
        made = client.shares.create(
            name, members, recipient=recipient, exporters=exporters or (), description=description
        )
    _show(made, output)


@shares.command("show")
def show(name: Name, output: Output = TABLE) -> None:
    """Show a share; its members have the names that they have now."""
    with connect() as client:
        _show(client.shares.get(name), output)


@shares.command("list")
def list_shares(
    filter_: Filter = "", order_by: OrderBy = "", limit: Limit = None, output: Output = TABLE
) -> None:
    """List shares."""
    with connect() as client:
        found = client.shares.list(filter=filter_, order_by=order_by).collect(limit)
    show_rows(found, _COLUMNS, output, empty="no shares")


@shares.command("update")
def update(
    name: Name,
    members: Annotated[
        list[str] | None,
        typer.Option("--member", help="Model or schema, in the place of those there; may be repeated."),
    ] = None,
    recipient: Annotated[str | None, typer.Option("--recipient", help="Whom it is for.")] = None,
    exporters: Exporters = None,
    description: Annotated[str | None, typer.Option("--description", "-d", help="Free text.")] = None,
    output: Output = TABLE,
) -> None:
    """Change what is given; lists are replaced as a whole."""
    with connect() as client:
        changed = client.shares.update(
            name, members=members, recipient=recipient, exporters=exporters, description=description
        )
    _show(changed, output)


@shares.command("delete")
def delete(name: Name) -> None:
    """Take a share away; bundles that were made stay what they are."""
    with connect() as client:
        deleted = client.shares.delete(name)
    typer.echo(f"deleted {name}" if deleted else f"there was no {name}")


@shares.command("export")
def export_share(
    name: Name, to: To, blobs: Blobs = True, overwrite: Overwrite = False, output: Output = TABLE
) -> None:
    """Write everything in a share into a bundle."""
    with connect() as client:
        made = client.bundles.export((), to, share=name, blobs=blobs, overwrite=overwrite)
    _written(made, to, output)


@bundles.command("export")
def export(
    references: Annotated[
        list[str],
        typer.Argument(
            help="Models with all that is READY of them, and single versions.", metavar="REFERENCE..."
        ),
    ],
    to: To,
    share: Annotated[
        str, typer.Option("--share", help="Share that allows it, if you do not manage the models.")
    ] = "",
    blobs: Blobs = True,
    overwrite: Overwrite = False,
    output: Output = TABLE,
) -> None:
    """Write models into a bundle: to give them to somebody, to move them, or to keep them."""
    with connect() as client:
        made = client.bundles.export(references, to, share=share, blobs=blobs, overwrite=overwrite)
    _written(made, to, output)


@bundles.command("import")
def import_bundle(
    file: File,
    names: Annotated[
        list[str],
        typer.Option(
            "--as",
            help="What to call the model here, or the schema for all; or OLD=NEW for each, repeated.",
            metavar="NAME",
        ),
    ],
    trust: Trust = None,
    allow_untrusted: Annotated[
        bool, typer.Option("--allow-untrusted", help="Take it although nobody vouches for it.")
    ] = False,
    aliases: Annotated[
        bool, typer.Option("--aliases", help="Point its aliases here at what they point at there.")
    ] = False,
    output: Output = TABLE,
) -> None:
    """Check a bundle, and make what it holds under another name. Again makes only what is missing."""
    with connect() as client:
        made = client.bundles.import_bundle(
            file, _names(names), trust=trust or (), allow_untrusted=allow_untrusted, aliases=aliases
        )
    show_rows(made, ("origin", "version", "created"), output)


@bundles.command("show")
def show_bundle(file: File, trust: Trust = None, output: Output = TABLE) -> None:
    """Check a bundle, asking no service, and show what is in it and what its origin says of it."""
    from modelyard._bundle_import import opened
    from modelyard._sync import run
    from modelyard.auditing import AuditKeys

    keys = AuditKeys([key.read_text() for key in trust]) if trust else None
    bundle = run(opened(file, keys, None))
    show_one(_told(bundle, vouched=keys is not None), output)


def _told(bundle: Bundle, *, vouched: bool) -> dict[str, object]:
    manifest = bundle.manifest
    states = {version.id: bundle.document(version).approval.get("state") for version in manifest.versions}
    names = {model.id: model.name for model in manifest.models}
    return {
        "bundle": bundle.signature.bundle,
        "from": bundle.signature.installation,
        "time": bundle.signature.time,
        "signer": f"{bundle.signature.key_id} ({'checked' if vouched else 'not checked: give --trust'})",
        "blobs": f"{sum(bundle.blobs.values()):,} bytes {'inside' if manifest.embedded else 'elsewhere'}",
        "versions": tuple(
            f"{names[version.model_id]}/{version.number} {states[version.id]}"
            for version in manifest.versions
        ),
    }


def _names(texts: list[str]) -> str | dict[str, str]:
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    chosen: dict[str, str] = {}
    for text in texts:
        old, equals, new = text.partition("=")
        if not equals or old in chosen:
            raise typer.BadParameter(
                f"{text!r}: give one name, or OLD=NEW once for each model", param_hint="--as"
            )
        chosen[old] = new
    return chosen


def _show(share: Share, output: Output) -> None:
    values = {field.name: getattr(share, field.name) for field in dataclasses.fields(share)}
    show_one(values, output)


def _written(made: BundleSummary, to: Path, output: Output) -> None:
    values = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    show_one({"file": str(to), **values}, output)
