"""versions."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._life_cycle import (
    ContainerId,
    Filter,
    Force,
    Id,
    OrderBy,
    ShowDeleted,
    require_one,
    show_deleted,
    show_list,
)
from modelyard.cli._output import TABLE, Output, show_one
from modelyard.cli._session import Etag, Limit, connect
from modelyard.cli.catalog import ModelName, Reference

versions = typer.Typer(help="Versions of models.", no_args_is_help=True)

_COLUMNS = (
    "name",
    "label",
    "state",
    "approval_state",
    "artifact_tests",
    "aliases",
    "runtime",
    "author_name",
    "create_time",
    "metrics",
)


@versions.command("list")
def list_versions(
    model: ModelName = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    deleted: ShowDeleted = False,
    model_id: ContainerId = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the versions of a model, newest first."""
    require_one(model, model_id, "MODEL", "--model-id")
    with connect() as client:
        pager = client.versions.list(
            model, filter=filter_, order_by=order_by, show_deleted=deleted, model_id=model_id
        )
        show_list(pager.collect(limit), _COLUMNS, output, deleted=deleted or model_id, empty="no versions")


@versions.command("show")
def show_version(reference: Reference, output: Output = TABLE) -> None:
    """Show one version: signature, metrics, tags, metadata, provenance."""
    with connect() as client:
        show_one(client.versions.get(reference), output)


@versions.command("copy")
def copy_version(
    source: Reference,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Full name of the model that gets it.")],
    label: Annotated[str, typer.Option("--label", help="Label of the new version.")] = "",
    output: Output = TABLE,
) -> None:
    """Add a version with the same artifact to another model; no byte is copied."""
    with connect() as client:
        show_one(client.versions.copy(source, model, label=label), output)


@versions.command("label")
def label_version(
    reference: Reference,
    label: Annotated[
        str, typer.Argument(metavar="[LABEL]", help="Second name: 1.4.0; without it the label is taken away.")
    ] = "",
    etag: Etag = "",
    output: Output = TABLE,
) -> None:
    """Give a version a second name, unique within its model."""
    with connect() as client:
        show_one(client.versions.update(reference, label=label, etag=etag), output)


@versions.command("describe")
def describe_version(
    reference: Reference,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Description; '' empties it.")],
    etag: Etag = "",
    output: Output = TABLE,
) -> None:
    """Write the description of a version."""
    with connect() as client:
        show_one(client.versions.update(reference, description=text, etag=etag), output)


@versions.command("delete")
def delete_version(
    reference: Reference, force: Force = False, etag: Etag = "", output: Output = TABLE
) -> None:
    """Delete a version; for a time it can be undeleted, its number is never given again."""
    with connect() as client:
        show_deleted(client.versions.delete(reference, force=force, etag=etag), "versions", output)


@versions.command("undelete")
def undelete_version(resource_id: Id, output: Output = TABLE) -> None:
    """Bring a deleted version back."""
    with connect() as client:
        show_one(client.versions.undelete(resource_id), output)
