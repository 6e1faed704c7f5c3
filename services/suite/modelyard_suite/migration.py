"""Moves everything that is stored from one blob store to another, with a bar that shows how far it is."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

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

Place = tuple[str, str]
"""Address of a blob store, and of the S3 server that has it; the second may be empty."""


async def migrate(dsn: str, source: Place, target: Place, parallel: int, console: Console) -> Moved:
    """Copy every blob that the artifact service's database knows, and prove each where it arrives.

    Args:
        dsn: the database of the artifact service.
        source: where blobs are; only read.
        target: where they shall be.
        parallel: blobs moved at the same time.
        console: where the bar is shown.

    Raises:
        DomainError: the destination is full, or a store does not answer.
        ValueError: an address has a mistake.
    """
    async with AsyncExitStack() as stack:
        staging = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-migrate-")))
        stores = []
        for number, (address, endpoint) in enumerate((source, target)):
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
        bar = stack.enter_context(Progress(*columns, TimeRemainingColumn(), console=console))
        task = bar.add_task("migrate", total=None)
        mover = Mover(database, *stores, at_once=parallel, advance=lambda more: bar.advance(task, more))
        bar.update(task, total=(await mover.total())[1])
        return await mover.move()
