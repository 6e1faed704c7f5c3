"""cache."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard._cache import BlobCache, parse_size
from modelyard.cli._output import TABLE, Output, show_rows
from modelyard.cli._session import Limit

cache = typer.Typer(
    help="Content that this machine keeps, so that it is not downloaded twice.\n\n"
    "MODELYARD_CACHE names its folder (by default ~/.cache/modelyard), MODELYARD_CACHE_SIZE how much it may hold "
    "(20GiB; 0 turns it off). Downloads and replicas share it, and hash everything that they take from it.",
    no_args_is_help=True,
)


@cache.command("list")
def list_entries(limit: Limit = None, output: Output = TABLE) -> None:
    """List what is kept, most recently used first; what is shared with a file elsewhere takes no room of its own."""
    entries = BlobCache().entries()[::-1]
    show_rows(entries[:limit], ("sha256", "size", "last_used", "shared"), output, empty="nothing is kept")


@cache.command("prune")
def prune(
    to: Annotated[
        str, typer.Option("--to", metavar="SIZE", help="Keep so much: 500MiB, 5GiB; by default the limit.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Keep nothing.")] = False,
) -> None:
    """Remove what was not used for longest until the rest fits; what somebody is reading stays."""
    if to and everything:
        raise typer.BadParameter("use --to or --all, not both", param_hint="--all")
    kept = BlobCache()
    if everything:
        typer.echo(f"removed {kept.clear():,} entries from {kept.folder}")
    else:
        freed = kept.prune(parse_size(to, "--to") if to else None)
        typer.echo(f"freed {freed / 2**20:,.1f} MiB in {kept.folder}")
