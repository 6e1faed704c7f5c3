"""`modelyard artifacts migrate`: joins the group `artifacts` of the client; works on database and blob stores, not on a service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from modelyard_kit.errors import DomainError
from modelyard_suite.home import suite_home
from modelyard_suite.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from modelyard_artifact.moving import Moved

artifacts = typer.Typer()
_SHOWN_PROBLEMS = 20
_errors = Console(stderr=True, highlight=False)


@artifacts.command("migrate")
def _migrate(
    target: Annotated[
        str, typer.Option("--to", help="Blob store to copy to: file:///folder or s3://bucket/prefix.")
    ],
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Blob store to copy from, of the same forms; by default the folder that `modelyard up` has here.",
            envvar="MODELYARD_BLOBS",
        ),
    ] = "",
    database: Annotated[
        str,
        typer.Option(
            help="postgresql://… of the artifact service; by default that of `modelyard up` here.",
            envvar="MODELYARD_DATABASE",
        ),
    ] = "",
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

    What `modelyard up` runs has its database only while it runs: let nobody upload meanwhile, then `modelyard down`, and
    `modelyard up` with the new MODELYARD_BLOBS.
    """
    source, database = source or suite_home().blobs.as_uri(), database or _database_here()
    # Here, because every verb of the command line loads this module, and what stores are made of takes longer to load than most verbs take.
    from modelyard_suite.migration import migrate

    if source == target and source_endpoint == target_endpoint:
        _refuse(
            "--from (or MODELYARD_BLOBS) and --to are the same place: name the store that is in use with --from"
        )
    try:
        moved = asyncio.run(
            migrate(database, (source, source_endpoint), (target, target_endpoint), parallel, _errors)
        )
    except (DomainError, OSError, RuntimeError, ValueError) as error:
        _refuse(str(error))
    typer.echo(
        f"{moved.blobs} blobs, {moved.size} bytes are right at {target}; {moved.copied} of them were copied now"
    )
    if not moved.complete:
        _explain(moved)


def _database_here() -> str:
    """The database of the suite on this machine, which is there while it runs."""
    home = suite_home()
    if not home.is_locked():
        _refuse(f"nothing runs on {home.root}: start it with `modelyard up`, or name --database")
    return EmbeddedPostgres(home.postgres, home.database_sockets).dsn("modelyard_artifact")


def _explain(moved: Moved) -> None:
    for sha256, problem in list(moved.problems.items())[:_SHOWN_PROBLEMS]:
        _errors.print(f"{sha256}: {problem}", markup=False)
    if moved.problems:
        _refuse(f"not complete: {len(moved.problems)} blobs are not right; keep the old place and run again")
    _refuse(f"not complete: {moved.late} blobs were stored meanwhile: stop the service and run again")


def _refuse(problem: str) -> NoReturn:
    _errors.print(f"error: {problem}", markup=False)
    raise typer.Exit(1)
