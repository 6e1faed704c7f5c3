"""artifacts, log."""

from __future__ import annotations

import hashlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli._input import read_example
from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._root import AddedToGroup
from modelyard.cli._session import Description, Limit, Tags, connect, pairs, values
from modelyard.cli.catalog import ModelName, Reference
from modelyard.errors import DigestMismatch, InvalidArgument
from modelyard.remote import InvalidRemote, RemoteModel
from modelyard.types import Dataset, ModelMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelyard.types import Signature

artifacts = typer.Typer(
    help="The files of versions: stored once by content, verified, never changed.",
    no_args_is_help=True,
    cls=AddedToGroup,
)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
INTERRUPTED = 130


@contextmanager
def resumable(noun: str) -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted; the same command again continues the {noun} where it was", err=True)
        raise typer.Exit(INTERRUPTED) from None


@artifacts.command("list")
def list_artifacts(
    model: ModelName,
    filter: Filter = "",  # noqa: A002  (the name of the option)
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the artifacts that were stored for a model, registered as a version or not; newest first.

    Filter by digest, size, file_count and create_time: --filter "size > 1000000".
    """
    with connect() as client:
        found = client.artifacts.list(model, filter=filter, order_by=order_by).collect(limit)
        show_rows(found, ("digest", "file_count", "size", "create_time"), output)


@artifacts.command("show")
def show(reference: Reference, output: Output = TABLE) -> None:
    """Show the artifact of a version: digest, number of files, size."""
    with connect() as client:
        version = client.versions.get(reference)
        show_one(client.artifacts.get(version.artifact_digest, model=version.model), output)


@artifacts.command("files")
def list_files(
    reference: Reference,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the files of a version with size and SHA-256."""
    with connect() as client:
        pager = client.artifacts.list_files(reference, filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), ("path", "size", "sha256"), output)


@artifacts.command("upload")
def upload(
    path: Annotated[Path, typer.Argument(help="File or folder, or the zip of an OCI model artifact.")],
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="Full name of the model it is for.")
    ],
    keep_archive: Annotated[
        bool, typer.Option("--keep-archive", help="Store such a zip as one file, not as the folder in it.")
    ] = False,
    output: Output = TABLE,
) -> None:
    """Store a file or folder for a model without making a version of it; `modelyard log` does both.

    Only content is sent that the store does not have. A transfer that was cut continues by itself, one that was
    interrupted or killed when the same command is run again, also on another machine with the same files.
    """
    with connect() as client, resumable("upload"):
        show_one(client.artifacts.upload(model, path, keep_archive=keep_archive), output)


@artifacts.command("download")
def download(
    reference: Reference,
    destination: Annotated[Path | None, typer.Argument(help="Folder to make.", show_default=False)] = None,
    archive: Annotated[
        Path | None, typer.Option("--zip", metavar="FILE", help="Make one zip file instead of a folder.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch the files of a version into a folder, or a zip: verified, complete or not at all.

    What the cache of this machine holds is not fetched again (see `modelyard cache`). An interrupted download into a
    folder leaves a hidden folder beside it, in which the same command continues.
    """
    if (destination is None) == (archive is None):
        raise typer.BadParameter("name a folder to make, or a file with --zip")
    with connect() as client, resumable("download"):
        if archive:
            typer.echo(client.artifacts.download_archive(reference, archive, overwrite=overwrite))
        elif destination:
            typer.echo(client.download(reference, destination, overwrite=overwrite))


@artifacts.command("get")
def get(
    reference: Reference,
    path: Annotated[str, typer.Argument(help="Path of the file in the artifact; see `artifacts files`.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="File to make; by default standard output."),
    ] = None,
    offset: Annotated[int, typer.Option("--offset", min=0, help="First byte wanted.")] = 0,
    length: Annotated[int, typer.Option("--length", min=0, help="Bytes wanted; 0: to the end.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Fetch one file of a version, or a range of it. A whole file is checked; a range cannot be."""
    if to and (offset or length):
        raise typer.BadParameter("a range goes to standard output: leave --to out", param_hint="--to")
    with connect() as client, resumable("download"):
        if to:
            typer.echo(client.artifacts.download_file(reference, path, to, overwrite=overwrite))
            return
        digest = hashlib.sha256()
        for chunk in client.artifacts.read_file(reference, path, offset=offset, length=length):
            digest.update(chunk)
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        if not offset and not length:
            expected = client.artifacts.find(reference, path).sha256
            if digest.hexdigest() != expected:
                raise DigestMismatch(
                    f"{path} came with SHA-256 {digest.hexdigest()}, announced was {expected}: do not use it"
                )


@artifacts.command("sbom")
def sbom(
    reference: Reference,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Where to write it; by default to the terminal.")
    ] = None,
) -> None:
    """Make the bill of materials of a version: CycloneDX JSON."""
    with connect() as client:
        document = client.artifacts.sbom(reference)
    if file is None:
        typer.echo(document)
    else:
        file.write_text(document)


def log(
    path: Annotated[
        str,
        typer.Argument(
            help="Saved model: a file or a folder; with --remote the address of a server: grpc://host:8001."
        ),
    ],
    model: ModelName,
    remote: Annotated[
        str,
        typer.Option(
            "--remote", metavar="NAME[/VERSION]", help="What the model is called on the server that runs it."
        ),
    ] = "",
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
    answers: Annotated[
        str,
        typer.Option(
            "--answers",
            metavar="FILE",
            help="What the model answers to these rows (JSON or CSV), for models that only a replica runs: XGBoost, score.py ….",
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
    rows = read_example(example, "--example")
    if answers and rows is None:
        raise typer.BadParameter("needs --example: the rows that they answer", param_hint="--answers")
    with connect() as client, resumable("upload"):
        version = client.log_model(
            _remote(path, remote) if remote else path,
            model,
            runtime=runtime or None,
            example=rows,
            signature=_signature(rows, answers) if answers else None,
            metrics=values(metric, "--metric"),
            tags=pairs(tag, "--tag"),
            label=label,
            metadata=ModelMetadata(use_case=use_case),
            inputs=[Dataset(name, role="training") for name in dataset or ()],
            aliases=alias or (),
            description=description,
        )
        show_one(version, output)


def _signature(rows: Any, answers: str) -> Signature:
    from modelyard.signature import infer_signature  # with numpy, which no other verb here needs

    return infer_signature(rows, read_example(answers, "--answers"))


def _remote(url: str, text: str) -> RemoteModel:
    name, _, version = text.partition("/")
    try:
        return RemoteModel(url, name, version)
    except InvalidRemote as error:
        raise InvalidArgument(str(error)) from error
