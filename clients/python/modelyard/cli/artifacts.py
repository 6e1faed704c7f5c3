"""artifacts, log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli._input import read_rows
from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import Description, Limit, Tags, connect, pairs, values
from modelyard.cli.catalog import ModelName, Reference
from modelyard.types import Dataset, ModelMetadata

artifacts = typer.Typer(help="The files of versions.", no_args_is_help=True)


@artifacts.command("list")
def list_files(
    reference: Reference,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the files of a version."""
    with connect() as client:
        pager = client.artifacts.list_files(reference, filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), ("path", "size", "sha256"), output)


@artifacts.command("download")
def download(
    reference: Reference,
    destination: Annotated[Path, typer.Argument(help="Folder to make.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")] = False,
) -> None:
    """Fetch the files of a version into a folder: verified, complete or not at all."""
    with connect() as client:
        typer.echo(client.download(reference, destination, overwrite=overwrite))


def log(
    path: Annotated[Path, typer.Argument(help="Saved model: a file or a folder.")],
    model: ModelName,
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime", help="Runtime that loads it: sklearn, onnx; by default told from the file."
        ),
    ] = "",
    example: Annotated[
        str,
        typer.Option(
            "--example",
            metavar="FILE",
            help="Rows (JSON or CSV) to tell the signature from; ONNX needs none.",
        ),
    ] = "",
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME=VALUE", help="Metric; may be repeated.")
    ] = None,
    tag: Tags = None,
    label: Annotated[str, typer.Option("--label", help="Second name of the version: 1.4.0.")] = "",
    use_case: Annotated[
        str, typer.Option("--use-case", help="What it is for: binary_classification, regression …")
    ] = "",
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="NAME", help="Data set it was trained on; may be repeated."),
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option("--alias", help="Alias to point at it; may be repeated.")
    ] = None,
    description: Description = "",
    output: Output = TABLE,
) -> None:
    """Upload a saved model and register it as a new version; registers the model if it is new."""
    rows = read_rows(example, "--example") if example else None
    with connect() as client:
        version = client.log_model(
            path,
            model,
            runtime=runtime or None,
            example=rows,
            metrics=values(metric, "--metric"),
            tags=pairs(tag, "--tag"),
            label=label,
            metadata=ModelMetadata(use_case=use_case),
            inputs=[Dataset(name, role="training") for name in dataset or ()],
            aliases=alias or (),
            description=description,
        )
        show_one(version, output)


def add_to(app: typer.Typer) -> None:
    """Add the verb that stands by itself."""
    app.command()(log)
