"""catalogs, schemas, models."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._life_cycle import (
    ContainerId,
    Filter,
    OrderBy,
    ShowDeleted,
    add_life_cycle,
    require_one,
    show_list,
)
from modelyard.cli._output import TABLE, Output, show_one
from modelyard.cli._session import Description, Etag, Limit, Tags, connect, pairs

catalogs = typer.Typer(help="Outermost namespaces.", no_args_is_help=True)
schemas = typer.Typer(help="Namespaces inside a catalog.", no_args_is_help=True)
models = typer.Typer(help="Registered models.", no_args_is_help=True)

CatalogName = Annotated[str, typer.Argument(help="Name of the catalog: prod.", metavar="CATALOG")]
SchemaName = Annotated[str, typer.Argument(help="Full name of the schema: prod.ml_team.", metavar="SCHEMA")]
ModelName = Annotated[str, typer.Argument(help="Full name of the model: prod.ml_team.iris.", metavar="MODEL")]
Reference = Annotated[
    str,
    typer.Argument(
        help="Version reference: prod.ml_team.iris/3, prod.ml_team.iris@champion.", metavar="VERSION"
    ),
]
_NAMESPACE = ("name", "owner", "description", "tags", "create_time")
_MODEL = ("name", "owner", "latest_version", "aliases", "tags", "create_time")


@catalogs.command("list")
def list_catalogs(
    filter_: Filter = "",
    order_by: OrderBy = "",
    deleted: ShowDeleted = False,
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the catalogs you may use."""
    with connect() as client:
        pager = client.catalogs.list(filter=filter_, order_by=order_by, show_deleted=deleted)
        show_list(pager.collect(limit), _NAMESPACE, output, deleted=deleted, empty="no catalogs")


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
def list_schemas(
    catalog: CatalogName = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    deleted: ShowDeleted = False,
    catalog_id: ContainerId = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the schemas of a catalog."""
    require_one(catalog, catalog_id, "CATALOG", "--catalog-id")
    with connect() as client:
        pager = client.schemas.list(
            catalog, filter=filter_, order_by=order_by, show_deleted=deleted, catalog_id=catalog_id
        )
        show_list(pager.collect(limit), _NAMESPACE, output, deleted=deleted or catalog_id, empty="no schemas")


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
def list_models(
    schema: SchemaName = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    deleted: ShowDeleted = False,
    schema_id: ContainerId = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the models of a schema."""
    require_one(schema, schema_id, "SCHEMA", "--schema-id")
    with connect() as client:
        pager = client.models.list(
            schema, filter=filter_, order_by=order_by, show_deleted=deleted, schema_id=schema_id
        )
        show_list(pager.collect(limit), _MODEL, output, deleted=deleted or schema_id, empty="no models")


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


@models.command("move")
def move_model(
    name: ModelName,
    to: Annotated[
        str, typer.Argument(metavar="SCHEMA", help="Full name of the schema, or of the model to be.")
    ],
    etag: Etag = "",
    output: Output = TABLE,
) -> None:
    """Move a model to another schema; its id and all that hangs on it stay."""
    with connect() as client:
        show_one(client.models.move(name, to, etag=etag), output)


add_life_cycle(catalogs, "catalogs", "catalog", lambda client: client.catalogs)
add_life_cycle(schemas, "schemas", "schema", lambda client: client.schemas)
add_life_cycle(models, "models", "model", lambda client: client.models)
