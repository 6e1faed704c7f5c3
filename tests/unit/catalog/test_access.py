"""The access table names every RPC, with the privilege that the contract's comments promise."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.common.v1 import resource_pb2
from modelyard_catalog.access import access_table
from modelyard_catalog.commands import VersionRef
from modelyard_catalog.models import Path
from modelyard_kit.access import SYSTEM, Chain, Privilege, ResourceType
from modelyard_kit.authorization import Authenticated, Requires, Services
from modelyard_kit.errors import InvalidField


class Asked(Exception):
    def __init__(self, what: Path | VersionRef) -> None:
        self.what = what


class FakeResolvers:
    async def path(self, path: Path) -> Chain:
        if path:
            raise Asked(path)
        return (SYSTEM,)

    async def container(self, path: Path) -> Chain:
        raise Asked(path)

    async def version(self, ref: VersionRef) -> Chain:
        raise Asked(ref)

    async def whole_version(self, ref: VersionRef) -> Chain:
        raise Asked(ref)

    async def container_of(self, kind: ResourceType, resource_id: str) -> Chain:
        raise Asked((kind, resource_id))


TABLE = access_table(FakeResolvers())  # type: ignore[arg-type]
NAME = "prod.ml.iris"
MODEL_ID = "0198c0de-0000-7000-8000-000000000001"
P = Privilege


def test_every_rpc_has_its_rule() -> None:
    rpcs = service.DESCRIPTOR.services_by_name["CatalogService"].methods_by_name
    assert set(TABLE) == set(rpcs)


def test_services_alone_resolve_and_anybody_lists_catalogs() -> None:
    assert isinstance(TABLE["ResolveResource"], Services)
    assert isinstance(TABLE["ListCatalogs"], Authenticated)


@pytest.mark.parametrize(
    ("request_", "privilege", "resource"),
    [
        (service.GetCatalogRequest(name="prod"), P.USE_CATALOG, ("prod",)),
        (service.CreateSchemaRequest(schema={"name": "prod.ml"}), P.CREATE_SCHEMA, ("prod",)),
        (service.GetSchemaRequest(name="prod.ml"), P.USE_SCHEMA, ("prod", "ml")),
        (service.ListSchemasRequest(catalog="prod"), P.USE_CATALOG, ("prod",)),
        (service.CreateModelRequest(model={"name": NAME}), P.CREATE_MODEL, ("prod", "ml")),
        (service.GetModelRequest(name=NAME), P.READ_METADATA, ("prod", "ml", "iris")),
        (service.ListModelsRequest(schema="prod.ml"), P.USE_SCHEMA, ("prod", "ml")),
        (service.CreateModelVersionRequest(model=NAME), P.CREATE_VERSION, ("prod", "ml", "iris")),
        (service.FinalizeModelVersionRequest(name=f"{NAME}/1"), P.CREATE_VERSION, ("prod", "ml", "iris")),
        (service.ListAliasHistoryRequest(model=NAME), P.READ_METADATA, ("prod", "ml", "iris")),
        (service.GetAliasAtRequest(model=NAME), P.READ_METADATA, ("prod", "ml", "iris")),
        (service.RollbackAliasRequest(model=NAME), P.EDIT, ("prod", "ml", "iris")),
        (service.FailModelVersionRequest(name=f"{NAME}/1"), P.CREATE_VERSION, ("prod", "ml", "iris")),
        (
            service.GetModelVersionRequest(name=f"models:/{NAME}@a"),
            P.READ_METADATA,
            VersionRef(("prod", "ml", "iris"), alias="a"),
        ),
        (service.ListModelVersionsRequest(model=NAME), P.READ_METADATA, ("prod", "ml", "iris")),
        (service.SetAliasesRequest(model=NAME), P.EDIT, ("prod", "ml", "iris")),
        (service.SetMetricsRequest(name=f"{NAME}/1"), P.EDIT, ("prod", "ml", "iris")),
        (service.UpdateCatalogRequest(name="prod"), P.EDIT, ("prod",)),
        (service.UpdateSchemaRequest(name="prod.ml"), P.EDIT, ("prod", "ml")),
        (service.UpdateModelRequest(name=NAME), P.EDIT, ("prod", "ml", "iris")),
        (service.UpdateModelVersionRequest(name=f"{NAME}/1"), P.EDIT, ("prod", "ml", "iris")),
        (service.DeleteCatalogRequest(name="prod"), P.EDIT, ("prod",)),
        (service.DeleteSchemaRequest(name="prod.ml"), P.EDIT, ("prod", "ml")),
        (service.DeleteModelRequest(name=NAME), P.EDIT, ("prod", "ml", "iris")),
        (service.DeleteModelVersionRequest(name=f"{NAME}/1"), P.EDIT, ("prod", "ml", "iris")),
        (service.CopyModelVersionRequest(source=f"{NAME}@1.4.0"), P.READ_ARTIFACT, ("prod", "ml", "iris")),
        (
            service.UndeleteResourceRequest(type=resource_pb2.RESOURCE_TYPE_MODEL, id=MODEL_ID),
            P.EDIT,
            (ResourceType.MODEL, MODEL_ID),
        ),
        (
            service.SetTagsRequest(resource_type=resource_pb2.RESOURCE_TYPE_SCHEMA, name="prod.ml"),
            P.APPLY_TAG,
            ("prod", "ml"),
        ),
        (
            service.SetTagsRequest(resource_type=resource_pb2.RESOURCE_TYPE_MODEL_VERSION, name=f"{NAME}/2"),
            P.APPLY_TAG,
            VersionRef(("prod", "ml", "iris"), 2),
        ),
    ],
    ids=lambda value: type(value).__name__.removesuffix("Request"),
)
async def test_privilege_is_asked_of_the_right_resource(
    request_: Any, privilege: Privilege, resource: Path | VersionRef
) -> None:
    rule = TABLE[type(request_).__name__.removesuffix("Request")]
    assert isinstance(rule, Requires)
    assert rule.privilege is privilege
    with pytest.raises(Asked) as asked:
        await rule.resolve(request_)
    assert asked.value.what == resource


async def test_catalogs_are_made_in_the_system() -> None:
    rule = TABLE["CreateCatalog"]
    assert isinstance(rule, Requires)
    assert await rule.resolve(service.CreateCatalogRequest(catalog={"name": "prod"})) == (SYSTEM,)


async def test_malformed_name_is_told_by_its_field() -> None:
    rule = TABLE["CreateModel"]
    assert isinstance(rule, Requires)
    with pytest.raises(InvalidField) as caught:
        await rule.resolve(service.CreateModelRequest(model={"name": "iris"}))
    assert caught.value.metadata["field"] == "model.name"
