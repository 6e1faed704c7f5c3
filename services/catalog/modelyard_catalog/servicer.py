"""One method per RPC: parse, call the rules, render."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import CatalogServiceServicer
from modelyard_catalog import (
    alias_messages,
    feed_messages,
    lifecycle_messages,
    lineage_messages,
    messages,
    names,
    render,
)
from modelyard_catalog.aliases import Aliases
from modelyard_catalog.approval_states import ApprovalStates
from modelyard_catalog.artifact_tests import ToldTests
from modelyard_catalog.copies import Copies
from modelyard_catalog.deletions import Deletions
from modelyard_catalog.feed import Feed
from modelyard_catalog.lineage import LineageGraph
from modelyard_catalog.models import Catalog, Model, ModelVersion, Resource, Schema
from modelyard_catalog.namespaces import Namespaces
from modelyard_catalog.updates import Updates
from modelyard_catalog.versions import Versions
from modelyard_kit.access import Privilege, Scope
from modelyard_kit.auth import current_call
from modelyard_kit.grants import Grants
from modelyard_kit.protos import chain_to_proto, link_to_proto

R = TypeVar("R", bound=Resource)


class CatalogServicer(CatalogServiceServicer):
    """Serves `modelyard.api.catalog.v1.CatalogService`."""

    def __init__(
        self,
        namespaces: Namespaces,
        versions: Versions,
        aliases: Aliases,
        grants: Grants,
        *,
        feed: Feed,
        lineage: LineageGraph,
        updates: Updates,
        deletions: Deletions,
        copies: Copies,
        approvals: ApprovalStates,
        tests: ToldTests,
    ) -> None:
        self._namespaces = namespaces
        self._versions = versions
        self._aliases = aliases
        self._grants = grants
        self._names = grants.name_of
        self._feed = feed
        self._updates = updates
        self._deletions = deletions
        self._copies = copies
        self._approvals = approvals
        self._tests = tests
        self._lineage = lineage

    async def CreateCatalog(
        self, request: service.CreateCatalogRequest, context: Any
    ) -> service.CreateCatalogResponse:
        command = messages.parse_create_catalog(request)
        made = await self._namespaces.create(current_call(), Catalog, command)
        return service.CreateCatalogResponse(catalog=render.catalog(made, self._names))

    async def GetCatalog(
        self, request: service.GetCatalogRequest, context: Any
    ) -> service.GetCatalogResponse:
        return service.GetCatalogResponse(catalog=render.catalog(_found(Catalog), self._names))

    async def ListCatalogs(
        self, request: service.ListCatalogsRequest, context: Any
    ) -> service.ListCatalogsResponse:
        asked = messages.parse_browse(request)
        scope = self._scope(Privilege.USE_CATALOG)
        shown, token = await self._namespaces.page(Catalog, (), scope, asked)
        return service.ListCatalogsResponse(
            catalogs=[render.catalog(one, self._names) for one in shown], next_page_token=token
        )

    async def CreateSchema(
        self, request: service.CreateSchemaRequest, context: Any
    ) -> service.CreateSchemaResponse:
        command = messages.parse_create_schema(request)
        made = await self._namespaces.create(current_call(), Schema, command)
        return service.CreateSchemaResponse(schema=render.schema(made, self._names))

    async def GetSchema(self, request: service.GetSchemaRequest, context: Any) -> service.GetSchemaResponse:
        return service.GetSchemaResponse(schema=render.schema(_found(Schema), self._names))

    async def ListSchemas(
        self, request: service.ListSchemasRequest, context: Any
    ) -> service.ListSchemasResponse:
        parent = names.container(request, "catalog", 1)
        asked = messages.parse_browse(request)
        scope = self._scope(Privilege.USE_SCHEMA)
        shown, token = await self._namespaces.page(Schema, parent, scope, asked, known=_found(Catalog).link)
        return service.ListSchemasResponse(
            schemas=[render.schema(one, self._names) for one in shown], next_page_token=token
        )

    async def CreateModel(
        self, request: service.CreateModelRequest, context: Any
    ) -> service.CreateModelResponse:
        command = messages.parse_create_model(request)
        made = await self._namespaces.create(current_call(), Model, command)
        return service.CreateModelResponse(model=render.model(made, self._names))

    async def GetModel(self, request: service.GetModelRequest, context: Any) -> service.GetModelResponse:
        return service.GetModelResponse(model=render.model(_found(Model), self._names))

    async def ListModels(
        self, request: service.ListModelsRequest, context: Any
    ) -> service.ListModelsResponse:
        parent = names.container(request, "schema", 2)
        asked = messages.parse_browse(request)
        scope = self._scope(Privilege.READ_METADATA)
        shown, token = await self._namespaces.page(Model, parent, scope, asked, known=_found(Schema).link)
        return service.ListModelsResponse(
            models=[render.model(one, self._names) for one in shown], next_page_token=token
        )

    async def CreateModelVersion(
        self, request: service.CreateModelVersionRequest, context: Any
    ) -> service.CreateModelVersionResponse:
        command = messages.parse_create_version(request)
        made = await self._versions.create(current_call(), command)
        return service.CreateModelVersionResponse(model_version=render.version(made))

    async def FinalizeModelVersion(
        self, request: service.FinalizeModelVersionRequest, context: Any
    ) -> service.FinalizeModelVersionResponse:
        ready = await self._versions.finalize(current_call(), messages.parse_finalize(request))
        return service.FinalizeModelVersionResponse(model_version=render.version(ready))

    async def FailModelVersion(
        self, request: service.FailModelVersionRequest, context: Any
    ) -> service.FailModelVersionResponse:
        failed = await self._versions.fail(current_call(), messages.parse_fail(request))
        return service.FailModelVersionResponse(model_version=render.version(failed))

    async def GetModelVersion(
        self, request: service.GetModelVersionRequest, context: Any
    ) -> service.GetModelVersionResponse:
        return service.GetModelVersionResponse(model_version=render.version(_found(ModelVersion)))

    async def ListModelVersions(
        self, request: service.ListModelVersionsRequest, context: Any
    ) -> service.ListModelVersionsResponse:
        model = names.container(request, "model", 3)
        asked = messages.parse_browse(request)
        shown, token = await self._versions.page(model, asked, known=_found(Model).link)
        return service.ListModelVersionsResponse(
            model_versions=map(render.version, shown), next_page_token=token
        )

    async def SetAliases(
        self, request: service.SetAliasesRequest, context: Any
    ) -> service.SetAliasesResponse:
        model = await self._aliases.set(current_call(), messages.parse_set_aliases(request))
        return service.SetAliasesResponse(model=render.model(model, self._names))

    async def SetTags(self, request: service.SetTagsRequest, context: Any) -> service.SetTagsResponse:
        tags = await self._namespaces.set_tags(current_call(), messages.parse_set_tags(request))
        return service.SetTagsResponse(tags=tags)

    async def SetMetrics(
        self, request: service.SetMetricsRequest, context: Any
    ) -> service.SetMetricsResponse:
        metrics = await self._versions.set_metrics(current_call(), messages.parse_set_metrics(request))
        return service.SetMetricsResponse(metrics=render.metrics(metrics))

    async def UpdateCatalog(
        self, request: service.UpdateCatalogRequest, context: Any
    ) -> service.UpdateCatalogResponse:
        command = lifecycle_messages.parse_update_catalog(request)
        changed = await self._updates.update(current_call(), Catalog, command)
        return service.UpdateCatalogResponse(catalog=render.catalog(changed, self._names))

    async def UpdateSchema(
        self, request: service.UpdateSchemaRequest, context: Any
    ) -> service.UpdateSchemaResponse:
        command = lifecycle_messages.parse_update_schema(request)
        changed = await self._updates.update(current_call(), Schema, command)
        return service.UpdateSchemaResponse(schema=render.schema(changed, self._names))

    async def UpdateModel(
        self, request: service.UpdateModelRequest, context: Any
    ) -> service.UpdateModelResponse:
        command = lifecycle_messages.parse_update_model(request)
        changed = await self._updates.update(current_call(), Model, command)
        return service.UpdateModelResponse(model=render.model(changed, self._names))

    async def UpdateModelVersion(
        self, request: service.UpdateModelVersionRequest, context: Any
    ) -> service.UpdateModelVersionResponse:
        command = lifecycle_messages.parse_update_version(request)
        changed = await self._updates.update_version(current_call(), command)
        return service.UpdateModelVersionResponse(model_version=render.version(changed))

    async def DeleteCatalog(
        self, request: service.DeleteCatalogRequest, context: Any
    ) -> service.DeleteCatalogResponse:
        command = lifecycle_messages.parse_delete(request, 1)
        deleted = await self._deletions.delete(current_call(), Catalog, command)
        return service.DeleteCatalogResponse(catalog=render.catalog(deleted, self._names))

    async def DeleteSchema(
        self, request: service.DeleteSchemaRequest, context: Any
    ) -> service.DeleteSchemaResponse:
        command = lifecycle_messages.parse_delete(request, 2)
        deleted = await self._deletions.delete(current_call(), Schema, command)
        return service.DeleteSchemaResponse(schema=render.schema(deleted, self._names))

    async def DeleteModel(
        self, request: service.DeleteModelRequest, context: Any
    ) -> service.DeleteModelResponse:
        command = lifecycle_messages.parse_delete(request, 3)
        deleted = await self._deletions.delete(current_call(), Model, command)
        return service.DeleteModelResponse(model=render.model(deleted, self._names))

    async def DeleteModelVersion(
        self, request: service.DeleteModelVersionRequest, context: Any
    ) -> service.DeleteModelVersionResponse:
        command = lifecycle_messages.parse_delete_version(request)
        deleted = await self._deletions.delete(current_call(), ModelVersion, command)
        return service.DeleteModelVersionResponse(model_version=render.version(deleted))

    async def UndeleteResource(
        self, request: service.UndeleteResourceRequest, context: Any
    ) -> service.UndeleteResourceResponse:
        command = lifecycle_messages.parse_undelete(request)
        back = await self._deletions.undelete(current_call(), command)
        return service.UndeleteResourceResponse(resource=link_to_proto(back.link))

    async def CopyModelVersion(
        self, request: service.CopyModelVersionRequest, context: Any
    ) -> service.CopyModelVersionResponse:
        made = await self._copies.copy(current_call(), lifecycle_messages.parse_copy(request))
        return service.CopyModelVersionResponse(model_version=render.version(made))

    async def ListAliasHistory(
        self, request: service.ListAliasHistoryRequest, context: Any
    ) -> service.ListAliasHistoryResponse:
        command = alias_messages.parse_alias_history(request)
        shown, token = await self._aliases.history(current_call(), command)
        return service.ListAliasHistoryResponse(moves=map(render.move, shown), next_page_token=token)

    async def SetApprovalStates(
        self, request: service.SetApprovalStatesRequest, context: Any
    ) -> service.SetApprovalStatesResponse:
        await self._approvals.set(messages.parse_approval_changes(request))
        return service.SetApprovalStatesResponse()

    async def SetArtifactTests(
        self, request: service.SetArtifactTestsRequest, context: Any
    ) -> service.SetArtifactTestsResponse:
        await self._tests.set(messages.parse_artifact_tests(request))
        return service.SetArtifactTestsResponse()

    async def GetAliasAt(
        self, request: service.GetAliasAtRequest, context: Any
    ) -> service.GetAliasAtResponse:
        number = await self._aliases.at(current_call(), alias_messages.parse_alias_at(request))
        return service.GetAliasAtResponse(version=number)

    async def RollbackAlias(
        self, request: service.RollbackAliasRequest, context: Any
    ) -> service.RollbackAliasResponse:
        model = await self._aliases.rollback(current_call(), alias_messages.parse_rollback(request))
        return service.RollbackAliasResponse(model=render.model(model, self._names))

    async def RecordLineage(
        self, request: service.RecordLineageRequest, context: Any
    ) -> service.RecordLineageResponse:
        await self._lineage.record(current_call(), lineage_messages.parse_record_lineage(request))
        return service.RecordLineageResponse()

    async def DeleteLineage(
        self, request: service.DeleteLineageRequest, context: Any
    ) -> service.DeleteLineageResponse:
        await self._lineage.delete(current_call(), lineage_messages.parse_delete_lineage(request))
        return service.DeleteLineageResponse()

    async def RecordDeployment(
        self, request: service.RecordDeploymentRequest, context: Any
    ) -> service.RecordDeploymentResponse:
        command = lineage_messages.parse_record_deployment(request)
        await self._lineage.record_deployment(current_call(), command)
        return service.RecordDeploymentResponse()

    async def QueryLineage(
        self, request: service.QueryLineageRequest, context: Any
    ) -> service.QueryLineageResponse:
        found = await self._lineage.query(current_call(), lineage_messages.parse_query_lineage(request))
        return lineage_messages.render_lineage(found)

    async def GetLimits(self, request: service.GetLimitsRequest, context: Any) -> service.GetLimitsResponse:
        return service.GetLimitsResponse(limits=render.limits())

    async def WatchEvents(
        self, request: service.WatchEventsRequest, context: Any
    ) -> AsyncIterator[service.WatchEventsResponse]:
        watch = feed_messages.parse_watch(request)
        async for step in self._feed.watch(current_call(), watch):
            yield feed_messages.render_step(step)

    async def FindArtifactUses(
        self, request: service.FindArtifactUsesRequest, context: Any
    ) -> service.FindArtifactUsesResponse:
        used = await self._versions.uses_of(messages.parse_find_uses(request))
        return service.FindArtifactUsesResponse(digests=used)

    async def ResolveResource(
        self, request: service.ResolveResourceRequest, context: Any
    ) -> service.ResolveResourceResponse:
        chain = await self._namespaces.chain(messages.parse_resolve(request))
        return service.ResolveResourceResponse(chain=chain_to_proto(chain))

    def _scope(self, privilege: Privilege) -> Scope:
        return self._grants.scope(current_call().principal.id, privilege)


def _found(kind: type[R]) -> R:
    """Return the resource of this call as the permission layer found it: to read it again would cost as much as the call."""
    permit = current_call().permit
    if permit is None or not isinstance(permit.resource, kind):
        raise LookupError(f"the access table hands no {kind.__name__} to this RPC")
    return permit.resource
