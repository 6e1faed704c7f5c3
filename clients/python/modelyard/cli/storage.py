"""artifacts stats, artifacts verify, artifacts collect: the store as a whole."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from modelyard.cli._output import TABLE, Format, Output, show_one, show_rows
from modelyard.cli._session import connect
from modelyard.types import DamagedBlob, VerifyProgress


def stats(output: Output = TABLE) -> None:
    """Count what is stored, and what sharing saves."""
    with connect() as client:
        statistics = client.storage.statistics()
    if output is Format.JSON:
        show_one(statistics, output)
        return
    shown = {
        "artifacts": f"{statistics.artifact_count:,}",
        "their size": decimal(statistics.logical_size),
        "blobs": f"{statistics.blob_count:,}",
        "stored": decimal(statistics.stored_size),
        "deduplication": f"{statistics.deduplication_ratio:.2f} x",
        "open uploads": f"{statistics.open_upload_count:,}",
        "unreferenced": f"{statistics.unreferenced_blob_count:,} blobs, {decimal(statistics.unreferenced_size)}",
    }
    show_one(shown, output)


def verify(
    digest: Annotated[str, typer.Argument(help="Artifact to verify (sha256:…); by default everything.")] = "",
    discard_damaged: Annotated[
        bool,
        typer.Option(
            "--discard-damaged",
            help="Throw damaged content away; uploading the same files again then mends it.",
        ),
    ] = False,
    output: Output = TABLE,
) -> None:
    """Read and hash what is stored; exits with 1 if anything is lost or damaged."""
    damaged: list[DamagedBlob] = []
    last = VerifyProgress()
    columns = (
        TextColumn("verify"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with connect() as client, Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verify", total=None)
        for last in client.storage.verify(digest, discard_damaged=discard_damaged):
            bar.update(task, completed=last.verified_size, total=last.total_size)
            damaged += last.damaged
    if output is Format.JSON:
        show_rows(damaged, (), output)
    elif damaged:
        show_rows(damaged, ("problem", "sha256", "size", "artifact_digests"), output)
    typer.echo(
        f"{last.verified_count:,} blobs, {decimal(last.verified_size)} verified; {len(damaged)} damaged",
        err=True,
    )
    if damaged:
        raise typer.Exit(1)


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be deleted.")] = False,
    output: Output = TABLE,
) -> None:
    """Delete now what no version had for the grace period; the store does so by itself every hour."""
    with connect() as client:
        collected = client.storage.collect_garbage(dry_run=dry_run)
    if output is Format.JSON:
        show_one(collected, output)
        return
    verb = "would delete" if dry_run else "deleted"
    counts = f"{collected.artifact_count:,} artifacts and {collected.blob_count:,} blobs"
    typer.echo(f"{verb} {counts}, {decimal(collected.size)}")


def add_to(artifacts: typer.Typer) -> None:
    """Add the verbs to those of artifacts."""
    for verb in (stats, verify, collect):
        artifacts.command()(verb)
