"""Catalogs, schemas and models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard._connection import new_request_id
from modelyard._convert import from_proto, rows
from modelyard._namespace import Namespace, full_name, resource_name, update_mask
from modelyard._pager import AsyncPager
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.catalog.v1 import model_pb2, namespace_pb2
from modelyard.types import Catalog, Model, Resource, ResourceType, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class AsyncCatalogs(Namespace):
    """`client.catalogs`: the outermost namespaces."""

    async def create(
        self, name: str, *, description: str = "", tags: Mapping[str, str] | None = None, request_id: str = ""
    ) -> Catalog:
        """Make a catalog, owned by you."""
        catalog = namespace_pb2.Catalog(name=resource_name(name, 1), description=description, tags=tags)
        request = pb.CreateCatalogRequest(catalog=catalog, request_id=request_id or new_request_id())
        answer = await self._connection.call(self._connection.catalog.CreateCatalog, request)
        return from_proto(Catalog, answer.catalog)

    async def get(self, name: str) -> Catalog:
        """Read one catalog."""
        request = pb.GetCatalogRequest(name=name)
        answer = await self._connection.call(self._connection.catalog.GetCatalog, request)
        return from_proto(Catalog, answer.catalog)

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        show_deleted: bool = False,
        page_size: int = 0,
    ) -> AsyncPager[Catalog]:
        """Walk through the catalogs you may use.

        Args:
            filter: Which ones, `"name LIKE 'prod%'"`; see docs/filters.md.
            order_by: Order, `"create_time desc, name"`; by default that of creation.
            show_deleted: Whether to include deleted ones that can still be undeleted.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Catalog], str]:
            request = pb.ListCatalogsRequest(
                page_size=page_size,
                page_token=token,
                filter=filter,
                order_by=order_by,
                show_deleted=show_deleted,
            )
            answer = await self._connection.call(self._connection.catalog.ListCatalogs, request)
            return rows(Catalog, answer.catalogs), answer.next_page_token

        return AsyncPager(fetch)

    async def update(
        self,
        name: str,
        *,
        description: str | None = None,
        owner: str | None = None,
        owner_id: str | None = None,
        etag: str = "",
    ) -> Catalog:
        """Change what is given (the owner by name or by id); with `etag` only if nobody changed it since.

        Raises:
            EtagMismatch: somebody did.
            NotFound: there is no such principal.
        """
        owner_id = await self._owner_id(owner, owner_id)
        given = {"description": description, "owner_id": owner_id}
        wanted = namespace_pb2.Catalog(description=description or "", owner_id=owner_id or "", etag=etag)
        return await self._update(name, wanted, given)

    async def rename(self, name: str, new_name: str, *, etag: str = "") -> Catalog:
        """Give a catalog another name; the id stays, and with it grants and everything in it.

        Args:
            name: Name as it is now.
            new_name: Name to be.
            etag: Rename it only if nobody changed it since.

        Raises:
            AlreadyExists: the name is taken.
        """
        full = resource_name(new_name, 1, "new_name")
        return await self._update(name, namespace_pb2.Catalog(name=full, etag=etag), {"name": full})

    async def delete(self, name: str, *, force: bool = False, etag: str = "") -> Catalog:
        """Delete it, until its `purge_time` to be brought back with `undelete`.

        Args:
            name: Name as it is now.
            force: Delete its schemas with it.
            etag: Delete it only if nobody changed it since.

        Raises:
            ResourceInUse: it has its schemas and `force` was not given, or one of its versions is deployed.
        """
        request = pb.DeleteCatalogRequest(name=name, etag=etag, force=force)
        answer = await self._connection.call(self._connection.catalog.DeleteCatalog, request)
        return from_proto(Catalog, answer.catalog)

    async def undelete(self, id: str) -> Resource:  # noqa: A002  (as in the contract)
        """Bring a deleted catalog back, by its id, with everything that went with it.

        Raises:
            AlreadyExists: its name was taken since.
            InvalidState: what contains it is deleted.
        """
        return await self._undelete(ResourceType.CATALOG, id)

    async def _update(self, name: str, wanted: namespace_pb2.Catalog, given: Mapping[str, object]) -> Catalog:
        request = pb.UpdateCatalogRequest(name=name, catalog=wanted, update_mask=update_mask(given))
        answer = await self._connection.call(self._connection.catalog.UpdateCatalog, request)
        return from_proto(Catalog, answer.catalog)


class AsyncSchemas(Namespace):
    """`client.schemas`: namespaces inside a catalog, `prod.ml_team`."""

    async def create(
        self, name: str, *, description: str = "", tags: Mapping[str, str] | None = None, request_id: str = ""
    ) -> Schema:
        """Make a schema, owned by you."""
        schema = namespace_pb2.Schema(name=resource_name(name, 2), description=description, tags=tags)
        request = pb.CreateSchemaRequest(schema=schema, request_id=request_id or new_request_id())
        answer = await self._connection.call(self._connection.catalog.CreateSchema, request)
        return from_proto(Schema, answer.schema)

    async def get(self, name: str) -> Schema:
        """Read one schema."""
        request = pb.GetSchemaRequest(name=name)
        answer = await self._connection.call(self._connection.catalog.GetSchema, request)
        return from_proto(Schema, answer.schema)

    def list(
        self,
        catalog: str = "",
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        show_deleted: bool = False,
        catalog_id: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Schema]:
        """Walk through the schemas of a catalog.

        Args:
            catalog: Name of the catalog.
            filter: Which ones, `"tags.team = 'ml'"`; see docs/filters.md.
            order_by: Order, `"create_time desc, name"`; by default that of creation.
            show_deleted: Whether to include deleted ones that can still be undeleted.
            catalog_id: Id of the catalog, instead of its name. It may be deleted, or inside something deleted: then you see
                what comes back with it, and with `show_deleted` also what was deleted before it.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Schema], str]:
            request = pb.ListSchemasRequest(
                catalog=catalog,
                catalog_id=catalog_id,
                page_size=page_size,
                page_token=token,
                filter=filter,
                order_by=order_by,
                show_deleted=show_deleted,
            )
            answer = await self._connection.call(self._connection.catalog.ListSchemas, request)
            return rows(Schema, answer.schemas), answer.next_page_token

        return AsyncPager(fetch)

    async def update(
        self,
        name: str,
        *,
        description: str | None = None,
        owner: str | None = None,
        owner_id: str | None = None,
        etag: str = "",
    ) -> Schema:
        """Change what is given (the owner by name or by id); with `etag` only if nobody changed it since.

        Raises:
            EtagMismatch: somebody did.
            NotFound: there is no such principal.
        """
        owner_id = await self._owner_id(owner, owner_id)
        given = {"description": description, "owner_id": owner_id}
        wanted = namespace_pb2.Schema(description=description or "", owner_id=owner_id or "", etag=etag)
        return await self._update(name, wanted, given)

    async def rename(self, name: str, new_name: str, *, etag: str = "") -> Schema:
        """Give a schema another name in its catalog; the id stays, and with it grants and everything in it.

        Args:
            name: Name as it is now.
            new_name: Name to be: its last part, or the full name.
            etag: Rename it only if nobody changed it since.

        Raises:
            AlreadyExists: the name is taken.
        """
        full = full_name(name, new_name, 2)
        return await self._update(name, namespace_pb2.Schema(name=full, etag=etag), {"name": full})

    async def delete(self, name: str, *, force: bool = False, etag: str = "") -> Schema:
        """Delete it, until its `purge_time` to be brought back with `undelete`.

        Args:
            name: Name as it is now.
            force: Delete its models with it.
            etag: Delete it only if nobody changed it since.

        Raises:
            ResourceInUse: it has its models and `force` was not given, or one of its versions is deployed.
        """
        request = pb.DeleteSchemaRequest(name=name, etag=etag, force=force)
        answer = await self._connection.call(self._connection.catalog.DeleteSchema, request)
        return from_proto(Schema, answer.schema)

    async def undelete(self, id: str) -> Resource:  # noqa: A002  (as in the contract)
        """Bring a deleted schema back, by its id, with everything that went with it.

        Raises:
            AlreadyExists: its name was taken since.
            InvalidState: what contains it is deleted.
        """
        return await self._undelete(ResourceType.SCHEMA, id)

    async def _update(self, name: str, wanted: namespace_pb2.Schema, given: Mapping[str, object]) -> Schema:
        request = pb.UpdateSchemaRequest(name=name, schema=wanted, update_mask=update_mask(given))
        answer = await self._connection.call(self._connection.catalog.UpdateSchema, request)
        return from_proto(Schema, answer.schema)


class AsyncModels(Namespace):
    """`client.models`: registered models, `prod.ml_team.iris`."""

    async def create(
        self, name: str, *, description: str = "", tags: Mapping[str, str] | None = None, request_id: str = ""
    ) -> Model:
        """Register a model without versions, owned by you."""
        model = model_pb2.Model(name=resource_name(name, 3), description=description, tags=tags)
        request = pb.CreateModelRequest(model=model, request_id=request_id or new_request_id())
        answer = await self._connection.call(self._connection.catalog.CreateModel, request)
        return from_proto(Model, answer.model)

    async def get(self, name: str) -> Model:
        """Read one model with its aliases and tags."""
        request = pb.GetModelRequest(name=name)
        answer = await self._connection.call(self._connection.catalog.GetModel, request)
        return from_proto(Model, answer.model)

    def list(
        self,
        schema: str = "",
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        show_deleted: bool = False,
        schema_id: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Model]:
        """Walk through the models of a schema.

        Args:
            schema: Full name of the schema.
            filter: Which ones, `"tags.team = 'ml'"`; see docs/filters.md.
            order_by: Order, `"create_time desc, name"`; by default that of creation.
            show_deleted: Whether to include deleted ones that can still be undeleted.
            schema_id: Id of the schema, instead of its name. It may be deleted, or inside something deleted: then you see
                what comes back with it, and with `show_deleted` also what was deleted before it.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Model], str]:
            request = pb.ListModelsRequest(
                schema=schema,
                schema_id=schema_id,
                page_size=page_size,
                page_token=token,
                filter=filter,
                order_by=order_by,
                show_deleted=show_deleted,
            )
            answer = await self._connection.call(self._connection.catalog.ListModels, request)
            return rows(Model, answer.models), answer.next_page_token

        return AsyncPager(fetch)

    async def update(
        self,
        name: str,
        *,
        description: str | None = None,
        owner: str | None = None,
        owner_id: str | None = None,
        etag: str = "",
    ) -> Model:
        """Change what is given (the owner by name or by id); with `etag` only if nobody changed it since.

        Raises:
            EtagMismatch: somebody did.
            NotFound: there is no such principal.
        """
        owner_id = await self._owner_id(owner, owner_id)
        given = {"description": description, "owner_id": owner_id}
        wanted = model_pb2.Model(description=description or "", owner_id=owner_id or "", etag=etag)
        return await self._update(name, wanted, given)

    async def rename(self, name: str, new_name: str, *, etag: str = "") -> Model:
        """Give a model another name in its schema; the id stays, and with it versions, aliases, grants and lineage.

        Args:
            name: Name as it is now.
            new_name: Name to be: its last part, or the full name.
            etag: Rename it only if nobody changed it since.

        Raises:
            AlreadyExists: the name is taken.
        """
        full = full_name(name, new_name, 3)
        return await self._update(name, model_pb2.Model(name=full, etag=etag), {"name": full})

    async def move(self, name: str, to: str, *, etag: str = "") -> Model:
        """Move a model to another schema; the id stays, and with it versions, aliases, grants and lineage.

        Args:
            name: Full name as it is now.
            to: Full name of the schema, or of the model to be: `prod.research` or `prod.research.flowers`.
            etag: Move it only if nobody changed it since.

        Raises:
            AlreadyExists: the name is taken there.
            PermissionDenied: you lack CREATE_MODEL there.
        """
        full = to if to.count(".") == 2 else f"{to}.{name.rpartition('.')[2]}"
        resource_name(full, 3, "to")
        return await self._update(name, model_pb2.Model(name=full, etag=etag), {"name": full})

    async def delete(self, name: str, *, force: bool = False, etag: str = "") -> Model:
        """Delete it, until its `purge_time` to be brought back with `undelete`.

        Args:
            name: Name as it is now.
            force: Delete its versions with it.
            etag: Delete it only if nobody changed it since.

        Raises:
            ResourceInUse: it has its versions and `force` was not given, or one of its versions is deployed.
        """
        request = pb.DeleteModelRequest(name=name, etag=etag, force=force)
        answer = await self._connection.call(self._connection.catalog.DeleteModel, request)
        return from_proto(Model, answer.model)

    async def undelete(self, id: str) -> Resource:  # noqa: A002  (as in the contract)
        """Bring a deleted model back, by its id, with everything that went with it.

        Raises:
            AlreadyExists: its name was taken since.
            InvalidState: what contains it is deleted.
        """
        return await self._undelete(ResourceType.MODEL, id)

    async def _update(self, name: str, wanted: model_pb2.Model, given: Mapping[str, object]) -> Model:
        request = pb.UpdateModelRequest(name=name, model=wanted, update_mask=update_mask(given))
        answer = await self._connection.call(self._connection.catalog.UpdateModel, request)
        return from_proto(Model, answer.model)
