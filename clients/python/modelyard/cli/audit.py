"""audit."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Format, Output, plain, show_one, show_rows
from modelyard.cli._session import Limit, connect
from modelyard.cli.catalog import Reference
from modelyard.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modelyard.types import Activity, AuditEntry, AuditVerification

audit = typer.Typer(
    help="Everything that was changed, and everything that was refused, in a chain of hashes.",
    no_args_is_help=True,
)

_NEWEST_FIRST = "sequence desc"
"""The contract's order is that of the chain; who lists a few in a terminal wants the last of them."""


@audit.command("list")
def list_entries(
    resource_id: Annotated[
        str, typer.Option("--resource-id", help="Only entries about this resource id.")
    ] = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new entries as they come, until you interrupt.")
    ] = False,
    output: Output = TABLE,
) -> None:
    """List what was changed, newest first; oldest first with --order-by sequence."""
    columns = ("sequence", "event.time", "event.actor_name", "event.type", "event.resource.name", "hash")
    with connect() as client:
        if follow:
            entries = client.audit.follow(resource_id=resource_id, filter=filter_)
            try:
                for entry in islice(entries, limit):
                    typer.echo(_json(entry) if output is Format.JSON else _line(entry))
            except KeyboardInterrupt:
                pass
            return
        pager = client.audit.list(resource_id=resource_id, filter=filter_, order_by=order_by or _NEWEST_FIRST)
        show_rows(pager.collect(limit), columns, output, empty="no entries")


@audit.command("activity")
def activity(
    reference: Reference,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """Show what happened to a version, newest first: who, what, when, and what was so before and after."""
    with connect() as client:
        pager = client.audit.activity(reference, filter=filter_, order_by=order_by or _NEWEST_FIRST)
        found = pager.collect(limit)
    if output is Format.JSON:
        show_rows(found, (), output, empty="nothing happened")
        return
    if not found:
        typer.echo("nothing happened")
    for happened in found:
        time = happened.time.strftime("%Y-%m-%d %H:%M:%SZ") if happened.time else ""
        typer.echo(f"{time}  {happened.actor:<16}  {happened.type:<32}  {happened.resource}")
        for line in _changes(happened):
            typer.echo(f"    {line}")


@audit.command("verify")
def verify(
    export: Annotated[
        Path | None,
        typer.Argument(
            help="File that `modelyard audit export` wrote: checked here, asking nobody. Without one the service checks.",
            exists=True,
            dir_okay=False,
            metavar="[FILE]",
        ),
    ] = None,
    keys: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            help="PEM file with public keys of the installation, from `modelyard audit key`; may be repeated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    noted: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            help="JSON file of a checkpoint that you kept; the export must agree with it. May be repeated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    output: Output = TABLE,
) -> None:
    """Recompute the whole chain and check its signatures. Exit code 1 when it is broken."""
    if export is None:
        if keys or noted:
            raise typer.BadParameter("--key and --checkpoint are for the check of a FILE")
        with connect() as client:
            result = client.audit.verify()
    else:
        result = _verify_file(export, keys or [], noted or [])
    show_one(result, output)
    if not result.valid:
        raise typer.Exit(1)


@audit.command("export")
def export(
    path: Annotated[Path, typer.Argument(help="File to write.", dir_okay=False, metavar="FILE")],
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this sequence.")] = 0,
) -> None:
    """Write the chain into a file as JSON Lines that prove themselves."""
    with connect() as client:
        count = client.audit.export(path, after=after)
    typer.echo(f"{count} lines in {path}; check them anywhere: modelyard audit verify {path} --key KEY.pem")


@audit.command("checkpoint")
def checkpoint(output: Output = TABLE) -> None:
    """Have it signed where the chain is now; with `--output json` for a file that you keep elsewhere."""
    with connect() as client:
        show_one(client.audit.checkpoint(), output)


@audit.command("key")
def key() -> None:
    """Print the public keys that checkpoints and exports are signed with, as PEM."""
    with connect() as client:
        typer.echo("".join(client.audit.keys()).rstrip())


def _verify_file(export: Path, keys: list[Path], noted: list[Path]) -> AuditVerification:
    from modelyard import auditing

    if not keys:
        raise typer.BadParameter(
            "give --key with a key that you trust; `modelyard audit key` prints that of the installation"
        )
    known = auditing.AuditKeys(pem for path in keys for pem in _pems(path.read_text()))
    checkpoints = [auditing.checkpoint_from_json(_read_json(path)) for path in noted]
    return auditing.verify_export(_lines(export, auditing.LINE_BYTES), known, checkpoints)


def _pems(text: str) -> list[str]:
    end = "-----END PUBLIC KEY-----"
    return [f"{part}{end}\n" for part in text.split(end)[:-1]] or [text]


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text())
    except ValueError as error:
        raise InvalidArgument(f"{path}: is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgument(f"{path}: is not a JSON object")
    return document


def _lines(path: Path, longest: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(longest):
            yield line


def _changes(happened: Activity) -> Iterator[str]:
    for name in sorted({*happened.before, *happened.after}):
        yield f"{name}: {_short(happened.before.get(name))} -> {_short(happened.after.get(name))}"
    for name, value in happened.details.items():
        yield f"{name}: {_short(value)}"


def _short(value: Any) -> str:
    if value is None:
        return "(nothing)"
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:119]}…"


def _json(entry: AuditEntry) -> str:
    return json.dumps(plain(entry), ensure_ascii=False)


def _line(entry: AuditEntry) -> str:
    """One entry in columns; a table would need its last row before it could print its first."""
    event = entry.event
    time = event.time.strftime("%Y-%m-%d %H:%M:%SZ") if event.time else ""
    return f"{entry.sequence:>8}  {time:<20}  {event.actor_name:<16}  {event.type:<32}  {event.resource.name}"
