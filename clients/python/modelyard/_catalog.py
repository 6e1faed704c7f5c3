"""Catalogs, schemas, models, versions, aliases, tags and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from modelyard._connection import new_request_id
from modelyard._convert import from_proto, json_values, rows, to_proto
from modelyard._namespace import (
    Namespace,
    resource_name,
    resource_type,
    resource_type_number,
    version_reference,
)
from modelyard._pager import AsyncPager
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.catalog.v1 import model_pb2, namespace_pb2, signature_pb2
from modelyard.types import Catalog, Model, ModelVersion, Provenance, ResourceType, Schema, Signature

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
        return from_proto(
            Catalog, (await self._connection.call(self._connection.catalog.GetCatalog, request)).catalog
        )

    def list(self, *, page_size: int = 0) -> AsyncPager[Catalog]:
        """Walk through the catalogs you may use."""

        async def fetch(token: str) -> tuple[Sequence[Catalog], str]:
            request = pb.ListCatalogsRequest(page_size=page_size, page_token=token)
            answer = await self._connection.call(self._connection.catalog.ListCatalogs, request)
            return rows(Catalog, answer.catalogs), answer.next_page_token

        return AsyncPager(fetch)


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
        return from_proto(
            Schema, (await self._connection.call(self._connection.catalog.GetSchema, request)).schema
        )

    def list(self, catalog: str, *, page_size: int = 0) -> AsyncPager[Schema]:
        """Walk through the schemas of a catalog."""

        async def fetch(token: str) -> tuple[Sequence[Schema], str]:
            request = pb.ListSchemasRequest(catalog=catalog, page_size=page_size, page_token=token)
            answer = await self._connection.call(self._connection.catalog.ListSchemas, request)
            return rows(Schema, answer.schemas), answer.next_page_token

        return AsyncPager(fetch)


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
        return from_proto(
            Model, (await self._connection.call(self._connection.catalog.GetModel, request)).model
        )

    def list(self, schema: str, *, page_size: int = 0) -> AsyncPager[Model]:
        """Walk through the models of a schema."""

        async def fetch(token: str) -> tuple[Sequence[Model], str]:
            request = pb.ListModelsRequest(schema=schema, page_size=page_size, page_token=token)
            answer = await self._connection.call(self._connection.catalog.ListModels, request)
            return rows(Model, answer.models), answer.next_page_token

        return AsyncPager(fetch)


class AsyncVersions(Namespace):
    """`client.versions`: versions of models, `prod.ml_team.iris/3` or `prod.ml_team.iris@champion`."""

    async def create(
        self,
        model: str,
        artifact_digest: str = "",
        *,
        description: str = "",
        runtime: str = "",
        signature: Signature | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, Any] | None = None,
        provenance: Provenance | None = None,
        request_id: str = "",
    ) -> ModelVersion:
        """Add a version: READY with the digest of a committed artifact, else PENDING until `finalize`."""
        request = pb.CreateModelVersionRequest(
            model=resource_name(model, 3, "model"),
            artifact_digest=artifact_digest,
            description=description,
            runtime=runtime,
            signature=to_proto(signature_pb2.Signature, signature) if signature else None,
            tags=tags,
            metrics=json_values(metrics or {}, "metrics"),
            provenance=to_proto(model_pb2.Provenance, provenance) if provenance else None,
            request_id=request_id or new_request_id(),
        )
        answer = await self._connection.call(self._connection.catalog.CreateModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def finalize(self, reference: str, artifact_digest: str) -> ModelVersion:
        """Give a PENDING version its artifact and make it READY."""
        request = pb.FinalizeModelVersionRequest(
            name=version_reference(reference), artifact_digest=artifact_digest
        )
        answer = await self._connection.call(self._connection.catalog.FinalizeModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def fail(self, reference: str, message: str) -> ModelVersion:
        """Give up a PENDING version; `message` says why."""
        request = pb.FailModelVersionRequest(name=version_reference(reference), message=message)
        answer = await self._connection.call(self._connection.catalog.FailModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def get(self, reference: str) -> ModelVersion:
        """Read the version a reference names."""
        request = pb.GetModelVersionRequest(name=version_reference(reference))
        answer = await self._connection.call(self._connection.catalog.GetModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    def list(self, model: str, *, page_size: int = 0) -> AsyncPager[ModelVersion]:
        """Walk through the versions of a model, newest first."""

        async def fetch(token: str) -> tuple[Sequence[ModelVersion], str]:
            request = pb.ListModelVersionsRequest(model=model, page_size=page_size, page_token=token)
            answer = await self._connection.call(self._connection.catalog.ListModelVersions, request)
            return rows(ModelVersion, answer.model_versions), answer.next_page_token

        return AsyncPager(fetch)


class AsyncAliases(Namespace):
    """`client.aliases`: names that point at versions of a model."""

    async def set(
        self, model: str, aliases: Mapping[str, int], *, expected: Mapping[str, int] | None = None
    ) -> Model:
        """Point aliases at version numbers, all or none.

        Args:
            model: Full name of the model.
            aliases: Alias to version number; 0 removes the alias.
            expected: Where an alias must point now for the change to be made; 0 means it must not exist.

        Raises:
            AliasMoved: an alias does not point where `expected` says; nothing was changed.
            PolicyUnmet: a policy protects an alias from that version.
        """
        wanted = expected or {}
        changes = [
            pb.AliasChange(alias=alias, version=number, expected_version=wanted.get(alias))
            for alias, number in aliases.items()
        ]
        request = pb.SetAliasesRequest(model=resource_name(model, 3, "model"), changes=changes)
        return from_proto(
            Model, (await self._connection.call(self._connection.catalog.SetAliases, request)).model
        )

    async def remove(self, model: str, *aliases: str) -> Model:
        """Remove aliases."""
        return await self.set(model, dict.fromkeys(aliases, 0))


class AsyncTags(Namespace):
    """`client.tags`: short texts on catalogs, schemas, models and versions."""

    async def set(
        self,
        name: str,
        tags: Mapping[str, str],
        *,
        remove: Sequence[str] = (),
        resource_type: ResourceType | str | None = None,
    ) -> dict[str, str]:
        """Write and remove tags; returns all tags after the change.

        Args:
            name: Name of a catalog, schema or model, or a version reference.
            tags: Tags to write.
            remove: Keys to remove.
            resource_type: Kind of thing; by default told from the form of the name.
        """
        kind = _taggable(name, resource_type)
        request = pb.SetTagsRequest(
            resource_type=resource_type_number(kind), name=name, set=tags, remove=remove
        )
        return dict((await self._connection.call(self._connection.catalog.SetTags, request)).tags)


class AsyncMetrics(Namespace):
    """`client.metrics`: measurements of a version."""

    async def set(
        self, reference: str, metrics: Mapping[str, Any], *, remove: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Write and remove metrics, any JSON values; returns all metrics after the change."""
        values = json_values(metrics, "metrics")
        request = pb.SetMetricsRequest(name=version_reference(reference), set=values, remove=remove)
        answer = await self._connection.call(self._connection.catalog.SetMetrics, request)
        return {name: json_format.MessageToDict(value) for name, value in answer.metrics.items()}


def _taggable(name: str, given: ResourceType | str | None) -> ResourceType:
    """As `resource_type`; three parts can only be a model here, since deployments have no tags."""
    if not given and name.count(".") == 2 and not set("/@") & set(name):
        return ResourceType.MODEL
    return resource_type(name, given)
