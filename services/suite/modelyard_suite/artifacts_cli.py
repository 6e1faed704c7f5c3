"""`modelyard artifacts migrate`: joins the group `artifacts` of the client; works on database and blob stores, not on a service."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from modelyard_artifact.engines import engine
from modelyard_artifact.moving import Moved, Mover
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError

artifacts = typer.Typer()
_SHOWN_PROBLEMS = 20
_errors = Console(stderr=True, highlight=False)


@artifacts.command()
def migrate(
    source: Annotated[
        str, typer.Option("--from", help="Blob store to copy from: file:///folder or s3://bucket/prefix.")
    ],
    target: Annotated[str, typer.Option("--to", help="Blob store to copy to, of the same forms.")],
    database: Annotated[
        str,
        typer.Option(help="postgresql://… of the artifact service.", envvar="MODELYARD_DATABASE"),
    ],
    source_endpoint: Annotated[
        str,
        typer.Option(
            "--from-endpoint", help="Address of the S3 server to copy from.", envvar="MODELYARD_S3_ENDPOINT"
        ),
    ] = "",
    target_endpoint: Annotated[
        str,
        typer.Option(
            "--to-endpoint", help="Address of the S3 server to copy to.", envvar="MODELYARD_S3_ENDPOINT"
        ),
    ] = "",
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Blobs moved at the same time.")] = 4,
) -> None:
    """Copy everything that is stored to another blob store and verify it there.

    Run it while the service is stopped, or once while it runs and once more after it was stopped; then set MODELYARD_BLOBS to the
    new place and start it. Cut short, it goes on where it ended. The source is left as it is.
    """
    if source == target and source_endpoint == target_endpoint:
        _refuse("--from and --to are the same place")
    try:
        moved = asyncio.run(_migrate(source, target, database, source_endpoint, target_endpoint, parallel))
    except (DomainError, OSError, RuntimeError, ValueError) as error:
        _refuse(str(error))
    typer.echo(
        f"{moved.blobs} blobs, {moved.size} bytes are right at {target}; {moved.copied} of them were copied now"
    )
    if not moved.complete:
        _explain(moved)


async def _migrate(
    source: str, target: str, dsn: str, source_endpoint: str, target_endpoint: str, parallel: int
) -> Moved:
    async with AsyncExitStack() as stack:
        staging = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-migrate-")))
        stores = []
        for number, (address, endpoint) in enumerate(((source, source_endpoint), (target, target_endpoint))):
            made = engine(address, endpoint=endpoint, staging=staging / str(number), direct=False)
            await made.open()
            stack.push_async_callback(made.close)
            stores.append(made)
        database = Database.connect(dsn)
        stack.push_async_callback(database.close)
        columns = (
            TextColumn("migrate"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
        )
        bar = stack.enter_context(Progress(*columns, TimeRemainingColumn(), console=_errors))
        task = bar.add_task("migrate", total=None)
        mover = Mover(database, *stores, at_once=parallel, advance=lambda more: bar.advance(task, more))
        bar.update(task, total=(await mover.total())[1])
        return await mover.move()


def _explain(moved: Moved) -> None:
    for sha256, problem in list(moved.problems.items())[:_SHOWN_PROBLEMS]:
        _errors.print(f"{sha256}: {problem}", markup=False)
    if moved.problems:
        _refuse(f"not complete: {len(moved.problems)} blobs are not right; keep the old place and run again")
    _refuse(f"not complete: {moved.late} blobs were stored meanwhile: stop the service and run again")


def _refuse(problem: str) -> None:
    _errors.print(f"error: {problem}", markup=False)
    raise typer.Exit(1)
