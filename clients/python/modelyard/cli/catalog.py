"""catalogs, schemas, models, versions."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import Description, Limit, Tags, connect, pairs

catalogs = typer.Typer(help="Outermost namespaces.", no_args_is_help=True)
schemas = typer.Typer(help="Namespaces inside a catalog.", no_args_is_help=True)
models = typer.Typer(help="Registered models.", no_args_is_help=True)
versions = typer.Typer(help="Versions of models.", no_args_is_help=True)

CatalogName = Annotated[str, typer.Argument(help="Name of the catalog: prod.", metavar="CATALOG")]
SchemaName = Annotated[str, typer.Argument(help="Full name of the schema: prod.ml_team.", metavar="SCHEMA")]
ModelName = Annotated[str, typer.Argument(help="Full name of the model: prod.ml_team.iris.", metavar="MODEL")]
Reference = Annotated[
    str,
    typer.Argument(
        help="Version reference: prod.ml_team.iris/3, prod.ml_team.iris@champion.", metavar="VERSION"
    ),
]
_NAMESPACE = ("name", "description", "tags", "create_time")
_VERSION = ("name", "state", "aliases", "runtime", "author_name", "create_time", "metrics")


@catalogs.command("list")
def list_catalogs(limit: Limit = None, output: Output = TABLE) -> None:
    """List the catalogs you may use."""
    with connect() as client:
        show_rows(client.catalogs.list().collect(limit), _NAMESPACE, output, empty="no catalogs")


@catalogs.command("show")
def show_catalog(name: CatalogName, output: Output = TABLE) -> None:
    """Show one catalog."""
    with connect() as client:
        show_one(client.catalogs.get(name), output)


@catalogs.command("create")
def create_catalog(
    name: CatalogName, description: Description = "", tag: Tags = None, output: Output = TABLE
) -> None:
    """Make a catalog, owned by you."""
    with connect() as client:
        show_one(client.catalogs.create(name, description=description, tags=pairs(tag, "--tag")), output)


@schemas.command("list")
def list_schemas(catalog: CatalogName, limit: Limit = None, output: Output = TABLE) -> None:
    """List the schemas of a catalog."""
    with connect() as client:
        show_rows(client.schemas.list(catalog).collect(limit), _NAMESPACE, output, empty="no schemas")


@schemas.command("show")
def show_schema(name: SchemaName, output: Output = TABLE) -> None:
    """Show one schema."""
    with connect() as client:
        show_one(client.schemas.get(name), output)


@schemas.command("create")
def create_schema(
    name: SchemaName, description: Description = "", tag: Tags = None, output: Output = TABLE
) -> None:
    """Make a schema, owned by you."""
    with connect() as client:
        show_one(client.schemas.create(name, description=description, tags=pairs(tag, "--tag")), output)


@models.command("list")
def list_models(schema: SchemaName, limit: Limit = None, output: Output = TABLE) -> None:
    """List the models of a schema."""
    columns = ("name", "latest_version", "aliases", "tags", "create_time")
    with connect() as client:
        show_rows(client.models.list(schema).collect(limit), columns, output, empty="no models")


@models.command("show")
def show_model(name: ModelName, output: Output = TABLE) -> None:
    """Show one model with its aliases and tags."""
    with connect() as client:
        show_one(client.models.get(name), output)


@models.command("create")
def create_model(
    name: ModelName, description: Description = "", tag: Tags = None, output: Output = TABLE
) -> None:
    """Register a model without versions; `modelyard log` does it by itself."""
    with connect() as client:
        show_one(client.models.create(name, description=description, tags=pairs(tag, "--tag")), output)


@versions.command("list")
def list_versions(model: ModelName, limit: Limit = None, output: Output = TABLE) -> None:
    """List the versions of a model, newest first."""
    with connect() as client:
        show_rows(client.versions.list(model).collect(limit), _VERSION, output, empty="no versions")


@versions.command("show")
def show_version(reference: Reference, output: Output = TABLE) -> None:
    """Show one version: signature, metrics, tags, provenance."""
    with connect() as client:
        show_one(client.versions.get(reference), output)
