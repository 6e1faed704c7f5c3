"""The catalog as callers meet it: a real gRPC server with the kit's call chain, on real PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import lineage_pb2, metadata_pb2, model_pb2
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import (
    CatalogServiceStub,
    add_CatalogServiceServicer_to_server,
)
from modelyard.api.common.v1 import resource_pb2
from modelyard_catalog.access import Resolvers, access_table
from modelyard_catalog.app import FULL_NAME, CatalogSettings, build
from modelyard_catalog.models import Model
from modelyard_catalog.values import METRIC_DEPTH
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant
from modelyard_kit.auth import Principal, TokenVerifier
from modelyard_kit.chassis import Chassis, check_access
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import DomainError
from modelyard_kit.grants import Grants
from modelyard_kit.interceptors import CallChain
from modelyard_kit.peers import Peers, domain_error
from tests.conformance.catalog_stack import DIGEST, CatalogStack

PRINCIPALS = {
    "root": Principal("01980000-0000-7000-8000-000000000001", "root", "user"),
    "ada": Principal("01980000-0000-7000-8000-000000000002", "ada", "user"),
    "bob": Principal("01980000-0000-7000-8000-000000000003", "bob", "user"),
    "peer": Principal("01980000-0000-7000-8000-000000000004", "inference", "service"),
}
NAME = "prod.ml.iris"


class NameVerifier:
    """Takes the name of a principal for its token."""

    async def verify(self, token: str) -> Principal:
        return PRINCIPALS[token]


class Client:
    """Calls the service as one of the principals; refusals come as the domain errors they were."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def __call__(self, by: str, request: Any) -> Any:
        method = getattr(self._stub, type(request).__name__.removesuffix("Request"))
        try:
            return await method(request, metadata=[("authorization", f"Bearer {by}")], timeout=30)
        except grpc.aio.AioRpcError as error:
            raise domain_error(error, "catalog") from error

    async def refused(self, by: str, request: Any) -> tuple[str, dict[str, str]]:
        """Return reason and metadata of the refusal that this call must meet."""
        with pytest.raises(DomainError) as caught:
            await self(by, request)
        return caught.value.reason, caught.value.metadata


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))
    yield stack
    await stack.close()


@pytest.fixture
async def grants() -> Grants:
    grants = Grants()
    root = ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)
    grants.replace(PRINCIPALS["root"].id, "root", [root])
    await grants.mark_fresh(1)
    return grants


class Meanwhile(grpc.aio.ServerInterceptor):
    """Lets a test do something once, between the permission layer and the handler of the next call of an RPC."""

    def __init__(self) -> None:
        self.during: dict[str, Callable[[], Awaitable[object]]] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        rpc = handler_call_details.method.rpartition("/")[2]

        async def serve(request: Any, context: Any) -> Any:
            if rpc in self.during:
                await self.during.pop(rpc)()
            return await handler.unary_unary(request, context)

        if handler.response_streaming:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            serve, handler.request_deserializer, handler.response_serializer
        )


@pytest.fixture
def meanwhile() -> Meanwhile:
    return Meanwhile()


@pytest.fixture
async def call(stack: CatalogStack, grants: Grants, meanwhile: Meanwhile) -> AsyncIterator[Client]:
    table = access_table(Resolvers(stack.db, stack.store))
    chain = CallChain(FULL_NAME, table, cast("TokenVerifier", NameVerifier()), grants)
    server = grpc.aio.server(interceptors=[chain, meanwhile])
    add_CatalogServiceServicer_to_server(stack.servicer(grants), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(CatalogServiceStub(channel))
    await server.stop(None)


async def make_iris(call: Client) -> None:
    await call("root", service.CreateCatalogRequest(catalog={"name": "prod"}))
    await call("root", service.CreateSchemaRequest(schema={"name": "prod.ml"}))
    await call("root", service.CreateModelRequest(model={"name": NAME}))


def grant(grants: Grants, name: str, *held: tuple[str, Privilege]) -> None:
    given = [ResourceGrant(resource_id, privilege, Effect.ALLOW) for resource_id, privilege in held]
    grants.replace(PRINCIPALS[name].id, name, given)


async def test_app_builds_a_service_that_may_start(stack: CatalogStack, grants: Grants) -> None:
    chassis = Chassis(CatalogSettings.model_construct(), stack.db, cast("Peers", None), grants, utc_now, None)
    async with build(chassis) as built:
        check_access(built)
        server = grpc.aio.server()
        built.register(server)
        assert (built.name, built.full_name) == ("catalog", FULL_NAME)


async def test_straight_path(call: Client) -> None:
    await make_iris(call)
    made = await call("root", service.CreateModelVersionRequest(model=NAME, artifact_digest=DIGEST))
    assert made.model_version.state == model_pb2.ModelVersion.STATE_READY
    await call("root", service.CreateModelVersionRequest(model=NAME))
    finalize = service.FinalizeModelVersionRequest(name=f"{NAME}/2", artifact_digest=DIGEST)
    assert (await call("root", finalize)).model_version.number == 2
    await call("root", service.CreateModelVersionRequest(model=NAME))
    failed = await call("root", service.FailModelVersionRequest(name=f"{NAME}/3", message="cut"))
    assert failed.model_version.state_message == "cut"
    changes = [service.AliasChange(alias="champion", version=1)]
    moved = await call("root", service.SetAliasesRequest(model=NAME, changes=changes))
    assert dict(moved.model.aliases) == {"champion": 1}
    found = await call("root", service.GetModelVersionRequest(name=f"models:/{NAME}@champion"))
    assert (found.model_version.name, list(found.model_version.aliases)) == (f"{NAME}/1", ["champion"])
    assert (await call("root", service.GetModelRequest(name=NAME))).model.latest_version == 3
    catalog = (await call("root", service.GetCatalogRequest(name="prod"))).catalog
    assert (catalog.owner_id, catalog.owner) == (PRINCIPALS["root"].id, "root")
    schema = (await call("root", service.GetSchemaRequest(name="prod.ml"))).schema
    assert (schema.name, schema.owner) == ("prod.ml", "root")
    models = (await call("root", service.ListModelsRequest(schema="prod.ml"))).models
    assert [model.owner for model in models] == ["root"]
    tags = service.SetTagsRequest(resource_type=resource_pb2.RESOURCE_TYPE_MODEL, name=NAME, set={"a": "b"})
    assert dict((await call("root", tags)).tags) == {"a": "b"}
    chain = await call(
        "peer",
        service.ResolveResourceRequest(type=resource_pb2.RESOURCE_TYPE_MODEL_VERSION, name=f"{NAME}/1"),
    )
    assert [link.name for link in chain.chain.links] == [f"{NAME}/1", NAME, "prod.ml", "prod", ""]


async def test_lists_filter_and_order(call: Client) -> None:
    await make_iris(call)
    for accuracy in (0.5, 0.9, 0.7):
        metrics = {"accuracy": Value(number_value=accuracy)}
        await call("root", service.CreateModelVersionRequest(model=NAME, metrics=metrics))
    asked = service.ListModelVersionsRequest(
        model=NAME, filter="metrics.accuracy > 0.6", order_by="metrics.accuracy", page_size=1
    )
    page = await call("root", asked)
    assert [version.number for version in page.model_versions] == [3]
    asked.page_token = page.next_page_token
    page = await call("root", asked)
    assert ([version.number for version in page.model_versions], page.next_page_token) == ([2], "")
    catalogs = await call("root", service.ListCatalogsRequest(filter="name = 'prod'", order_by="name"))
    assert [catalog.name for catalog in catalogs.catalogs] == ["prod"]
    schemas = await call("root", service.ListSchemasRequest(catalog="prod", filter="name LIKE 'm_'"))
    assert [schema.name for schema in schemas.schemas] == ["prod.ml"]
    models = await call("root", service.ListModelsRequest(schema="prod.ml", filter="latest_version != 3"))
    assert list(models.models) == []
    for field, wrong in (
        ("filter", service.ListModelVersionsRequest(model=NAME, filter="nmae = 'x'")),
        ("order_by", service.ListModelsRequest(schema="prod.ml", order_by="number")),
        ("page_token", service.ListCatalogsRequest(page_token="x")),
    ):
        assert await call.refused("root", wrong) == ("INVALID_FIELD", {"field": field})
    reason, metadata = await call.refused("root", service.ListCatalogsRequest(filter="(" * 9_000))
    assert (reason, metadata["limit"]) == ("LIMIT_EXCEEDED", "filter_length")


async def test_lists_page_by_token_to_the_end(call: Client) -> None:
    await make_iris(call)
    for number in range(5):
        await call("root", service.CreateModelRequest(model={"name": f"prod.ml.m{number}"}))
        await call("root", service.CreateModelVersionRequest(model=NAME))
    models: list[str] = []
    numbers: list[int] = []
    token = ""
    while token or not models:
        page = await call("root", service.ListModelsRequest(schema="prod.ml", page_size=4, page_token=token))
        models += [model.name for model in page.models]
        token = page.next_page_token
    while token or not numbers:
        page = await call("root", service.ListModelVersionsRequest(model=NAME, page_size=2, page_token=token))
        numbers += [version.number for version in page.model_versions]
        token = page.next_page_token
    assert models == [NAME, *(f"prod.ml.m{number}" for number in range(5))]
    assert numbers == [5, 4, 3, 2, 1]


async def test_nothing_works_without_a_grant(call: Client) -> None:
    await make_iris(call)
    denied = {
        "CREATE_CATALOG": service.CreateCatalogRequest(catalog={"name": "new"}),
        "USE_CATALOG": service.GetCatalogRequest(name="prod"),
        "CREATE_SCHEMA": service.CreateSchemaRequest(schema={"name": "prod.new"}),
        "CREATE_VERSION": service.CreateModelVersionRequest(model=NAME),
        "EDIT": service.SetMetricsRequest(name=f"{NAME}/1"),
    }
    for request in denied.values():
        reason, _ = await call.refused("ada", request)
        assert reason == "PERMISSION_DENIED"
    assert list((await call("ada", service.ListCatalogsRequest())).catalogs) == []
    resolve = service.ResolveResourceRequest(type=resource_pb2.RESOURCE_TYPE_MODEL, name=NAME)
    assert (await call.refused("root", resolve))[0] == "PERMISSION_DENIED"


async def test_nobody_learns_what_exists_where_he_may_not_look(call: Client, grants: Grants) -> None:
    await make_iris(call)
    for name in (NAME, "prod.ml.nothing", "prod.nothing.iris", "nothing.ml.iris"):
        assert (await call.refused("ada", service.GetModelRequest(name=name)))[0] == "PERMISSION_DENIED"
    reason, metadata = await call.refused("root", service.GetModelRequest(name="prod.nothing.iris"))
    assert (reason, metadata) == ("RESOURCE_NOT_FOUND", {"resource_type": "schema", "name": "prod.nothing"})


async def test_privileges_are_inherited_and_reach_needs_the_containers(call: Client, grants: Grants) -> None:
    await make_iris(call)
    catalog = (await call("root", service.GetCatalogRequest(name="prod"))).catalog.id
    schema = (await call("root", service.GetSchemaRequest(name="prod.ml"))).schema.id
    get = service.GetModelRequest(name=NAME)
    reach = [(catalog, Privilege.USE_CATALOG), (schema, Privilege.USE_SCHEMA)]
    grant(grants, "ada", (catalog, Privilege.READ_METADATA))
    assert (await call.refused("ada", get))[0] == "PERMISSION_DENIED"
    grant(grants, "ada", (catalog, Privilege.READ_METADATA), *reach)
    assert (await call("ada", get)).model.name == NAME
    grant(grants, "ada", (schema, Privilege.CREATE_MODEL), *reach)
    own = await call("ada", service.CreateModelRequest(model={"name": "prod.ml.own"}))
    assert own.model.owner_id == PRINCIPALS["ada"].id
    await call("ada", service.CreateModelVersionRequest(model="prod.ml.own"))
    shown = await call("ada", service.ListModelsRequest(schema="prod.ml"))
    assert [model.name for model in shown.models] == ["prod.ml.own"]


async def test_refusals_carry_their_reason(call: Client, stack: CatalogStack) -> None:
    await make_iris(call)
    await call("root", service.CreateModelVersionRequest(model=NAME, artifact_digest=DIGEST))
    await call("root", service.CreateModelVersionRequest(model=NAME))

    def alias(number: int, **fields: int) -> service.SetAliasesRequest:
        changes = [service.AliasChange(alias="a", version=number, **fields)]
        return service.SetAliasesRequest(model=NAME, changes=changes)

    assert (await call.refused("root", alias(1, expected_version=2)))[0] == "ALIAS_MOVED"
    assert (await call.refused("root", alias(2)))[0] == "INVALID_STATE"
    assert (await call.refused("root", alias(3)))[0] == "RESOURCE_NOT_FOUND"
    stack.gates.closed.add(1)
    assert (await call.refused("root", alias(1)))[0] == "POLICY_UNMET"
    taken = service.CreateModelRequest(model={"name": NAME}, request_id="1")
    assert (await call.refused("root", taken))[0] == "RESOURCE_ALREADY_EXISTS"
    await call("root", service.CreateModelRequest(model={"name": "prod.ml.b"}, request_id="1"))
    assert (await call.refused("root", taken))[0] == "REQUEST_ID_REUSED"
    long = service.CreateModelRequest(model={"name": "prod.ml.c", "description": "x" * 5_001})
    assert (await call.refused("root", long))[0] == "LIMIT_EXCEEDED"
    stack.artifacts.missing.add(DIGEST)
    foreign = service.CreateModelVersionRequest(model=NAME, artifact_digest=DIGEST)
    assert await call.refused("root", foreign) == ("INVALID_FIELD", {"field": "artifact_digest"})


async def test_deepest_metric_survives_the_way_there_and_back(call: Client) -> None:
    await make_iris(call)
    await call("root", service.CreateModelVersionRequest(model=NAME, artifact_digest=DIGEST))
    value = Value(string_value="bottom")
    for level in range(METRIC_DEPTH - 1):
        deeper = (
            {"list_value": ListValue(values=[value])}
            if level % 2
            else {"struct_value": Struct(fields={"": value})}
        )
        value = Value(**deeper)  # type: ignore[arg-type]
    await call("root", service.SetMetricsRequest(name=NAME, set={"deep": value}))
    page = await call("root", service.ListModelVersionsRequest(model=NAME))
    assert page.model_versions[0].metrics["deep"] == value


async def test_past_of_aliases_lineage_and_limits_are_served(call: Client, grants: Grants) -> None:
    await make_iris(call)
    metadata = metadata_pb2.ModelMetadata(use_case="Regression", framework="XGBoost")
    datasets = [model_pb2.DatasetReference(name="s3://lake/iris", role="training")]
    create = service.CreateModelVersionRequest(
        model=NAME,
        artifact_digest=DIGEST,
        metadata=metadata,
        provenance=model_pb2.Provenance(datasets=datasets),
    )
    made = (await call("root", create)).model_version
    assert (made.metadata.use_case, made.metadata.framework) == ("regression", "xgboost")
    assert list(made.provenance.datasets) == datasets
    await call("root", service.CreateModelVersionRequest(model=NAME, artifact_digest=DIGEST))
    for number in (1, 2):
        changes = [service.AliasChange(alias="champion", version=number)]
        await call("root", service.SetAliasesRequest(model=NAME, changes=changes))
    page = await call("root", service.ListAliasHistoryRequest(model=NAME, page_size=1))
    assert [(move.previous_version, move.version, move.moved_by) for move in page.moves] == [(1, 2, "root")]
    last = await call("root", service.ListAliasHistoryRequest(model=NAME, page_token=page.next_page_token))
    assert ([move.version for move in last.moves], last.next_page_token) == ([1], "")
    at = service.GetAliasAtRequest(model=NAME, alias="champion", time=last.moves[0].move_time)
    assert (await call("root", at)).version == 1
    back = service.RollbackAliasRequest(model=NAME, alias="champion", expected_version=2)
    assert dict((await call("root", back)).model.aliases) == {"champion": 1}
    assert (await call.refused("root", back))[0] == "ALIAS_MOVED"

    versions = [
        lineage_pb2.LineageNode(kind=lineage_pb2.LineageNode.KIND_MODEL_VERSION, name=f"{NAME}/{number}")
        for number in (1, 2)
    ]
    edge = lineage_pb2.LineageEdge(source=versions[0], target=versions[1], relation="distilled_to")
    await call("root", service.RecordLineageRequest(edges=[edge]))
    found = await call("root", service.QueryLineageRequest(node=versions[1], depth=2))
    assert [edge.relation for edge in found.edges] == ["distilled_to", "trained_on"]
    assert (found.edges[1].source.name, found.edges[1].target.id) == ("s3://lake/iris", made.id)
    circle = lineage_pb2.LineageEdge(source=versions[1], target=versions[0])
    assert await call.refused("root", service.RecordLineageRequest(edges=[circle])) == (
        "LINEAGE_CYCLE",
        {"source": f"{NAME}/2", "target": f"{NAME}/1"},
    )
    for request in (at, back, service.QueryLineageRequest(node=versions[0])):
        assert (await call.refused("ada", request))[0] == "PERMISSION_DENIED"
    for request in (
        service.RecordLineageRequest(edges=[edge]),
        service.DeleteLineageRequest(edges=[edge]),
        service.RecordDeploymentRequest(),
    ):
        assert (await call.refused("ada", request))[0] == "PERMISSION_DENIED"
    deployment = resource_pb2.Resource(
        type=resource_pb2.RESOURCE_TYPE_DEPLOYMENT, id=str(uuid.uuid4()), name=NAME
    )
    schema = (await call("root", service.GetSchemaRequest(name="prod.ml"))).schema
    told = service.RecordDeploymentRequest(
        deployment=deployment, schema_id=schema.id, model_version_ids=[made.id]
    )
    assert (await call.refused("root", told))[0] == "PERMISSION_DENIED"  # it is no service
    await call("peer", told)
    down = service.QueryLineageRequest(
        node=versions[0], direction=service.LINEAGE_DIRECTION_DOWNSTREAM, page_size=1
    )
    first = await call("root", down)
    down.page_token = first.next_page_token
    second = await call("root", down)
    assert {edge.relation for edge in (*first.edges, *second.edges)} == {"distilled_to", "deployed_as"}
    assert (first.node, first.truncated, second.next_page_token) == (second.node, True, "")
    await call("root", service.DeleteLineageRequest(edges=[edge]))
    left = await call("root", service.QueryLineageRequest(node=versions[1]))
    assert [edge.relation for edge in left.edges] == []
    limits = (await call("ada", service.GetLimitsRequest())).limits
    assert {limit.name: limit.maximum for limit in limits}["metadata_bytes"] == 32_000


async def test_many_writers_through_the_service_lose_nothing(call: Client) -> None:
    await make_iris(call)

    async def write() -> int:
        made = await call("root", service.CreateModelVersionRequest(model=NAME, artifact_digest=DIGEST))
        return int(made.model_version.number)

    assert sorted(await asyncio.gather(*(write() for _ in range(8)))) == list(range(1, 9))


async def test_life_cycle_on_the_wire(call: Client, stack: CatalogStack) -> None:
    await make_iris(call)
    create = service.CreateModelVersionRequest(model=NAME, artifact_digest=DIGEST, label="1.0")
    made = (await call("root", create)).model_version
    found = await call("root", service.GetModelVersionRequest(name=f"{NAME}@1.0"))
    assert (found.model_version.id, found.model_version.label) == (made.id, "1.0")
    rename = service.UpdateModelRequest(
        name=NAME, model={"name": "prod.ml.rose"}, update_mask={"paths": ["name"]}
    )
    assert (await call("root", rename)).model.id == made.model_id
    stack.deployments.of_versions = {made.id: "prod.ml.live"}
    delete = service.DeleteModelRequest(name="prod.ml.rose", force=True)
    assert await call.refused("root", delete) == (
        "RESOURCE_IN_USE",
        {"resource_type": "model", "name": "prod.ml.rose"},
    )
    stack.deployments.of_versions = {}
    deleted = (await call("root", delete)).model
    assert deleted.purge_time.seconds - deleted.delete_time.seconds == 30 * 86_400
    listed = await call("root", service.ListModelsRequest(schema="prod.ml", show_deleted=True))
    assert [model.HasField("delete_time") for model in listed.models] == [True]
    undelete = service.UndeleteResourceRequest(type=resource_pb2.RESOURCE_TYPE_MODEL, id=deleted.id)
    assert (await call.refused("bob", undelete))[0] == "PERMISSION_DENIED"
    assert (await call("root", undelete)).resource.name == "prod.ml.rose"
    copy = service.CopyModelVersionRequest(source="prod.ml.rose@1.0", model="prod.ml.rose")
    copied = (await call("root", copy)).model_version
    assert (copied.number, copied.copied_from, copied.copied_from_id) == (2, "prod.ml.rose/1", made.id)
    missing = service.UndeleteResourceRequest(type=resource_pb2.RESOURCE_TYPE_MODEL, id=made.id)
    assert (await call.refused("root", missing))[0] == "RESOURCE_NOT_FOUND"
    assert (await call.refused("bob", missing))[0] == "PERMISSION_DENIED"


DOOMED = "prod.ml.iris"
BYSTANDER = "prod.ml.tulip"
MAY_ALL = (
    Privilege.READ_METADATA,
    Privilege.READ_ARTIFACT,
    Privilege.CREATE_VERSION,
    Privilege.EDIT,
    Privilege.APPLY_TAG,
)
MODEL_TYPE = resource_pb2.RESOURCE_TYPE_MODEL
CALLS = [
    service.ListAliasHistoryRequest(model=DOOMED),
    service.GetAliasAtRequest(model=DOOMED, alias="champion", time=Timestamp(seconds=4_000_000_000)),
    service.FinalizeModelVersionRequest(name=f"{DOOMED}/1", artifact_digest=DIGEST),  # a repetition
    service.CreateModelVersionRequest(model=DOOMED),
    service.FinalizeModelVersionRequest(name=f"{DOOMED}/2", artifact_digest=DIGEST),
    service.FailModelVersionRequest(name=f"{DOOMED}/2", message="cut"),
    service.SetAliasesRequest(model=DOOMED, changes=[service.AliasChange(alias="new", version=1)]),
    service.RollbackAliasRequest(model=DOOMED, alias="champion"),
    service.SetTagsRequest(resource_type=MODEL_TYPE, name=DOOMED, set={"a": "b"}),
    service.SetTagsRequest(
        resource_type=resource_pb2.RESOURCE_TYPE_MODEL_VERSION, name=f"{DOOMED}/1", set={"a": "b"}
    ),
    service.SetMetricsRequest(name=f"{DOOMED}/1", set={"auc": Value(number_value=1)}),
    service.UpdateModelRequest(
        name=DOOMED, model={"name": DOOMED, "description": "x"}, update_mask={"paths": ["description"]}
    ),
    service.UpdateModelVersionRequest(
        name=f"{DOOMED}/1", model_version={"description": "x"}, update_mask={"paths": ["description"]}
    ),
    service.DeleteModelRequest(name=DOOMED, force=True),
    service.DeleteModelVersionRequest(name=f"{DOOMED}/1", force=True),
    service.CopyModelVersionRequest(source=f"{DOOMED}/1", model="prod.ml.target"),
]


@pytest.mark.parametrize("request_", CALLS, ids=[f"{i}-{type(one).__name__}" for i, one in enumerate(CALLS)])
async def test_a_name_that_changes_hands_after_the_check_gives_nobody_rights(
    call: Client, grants: Grants, stack: CatalogStack, meanwhile: Meanwhile, request_: Any
) -> None:
    await make_iris(call)
    for name in (BYSTANDER, "prod.ml.target"):
        await call("root", service.CreateModelRequest(model={"name": name}))
    for name in (DOOMED, BYSTANDER):
        await call("root", service.CreateModelVersionRequest(model=name, artifact_digest=DIGEST))
        await call("root", service.CreateModelVersionRequest(model=name))
        for number in (1, 0, 1):
            moves = [service.AliasChange(alias="champion", version=number)]
            await call("root", service.SetAliasesRequest(model=name, changes=moves))
    ids = {
        name: (await call("root", service.GetModelRequest(name=name))).model.id
        for name in (DOOMED, BYSTANDER, "prod.ml.target")
    }
    schema = (await call("root", service.GetSchemaRequest(name="prod.ml"))).schema.id
    catalog = (await call("root", service.GetCatalogRequest(name="prod"))).catalog.id
    mine = [(ids[DOOMED], privilege) for privilege in MAY_ALL]
    target = (ids["prod.ml.target"], Privilege.CREATE_VERSION)
    reach = [(catalog, Privilege.USE_CATALOG), (schema, Privilege.USE_SCHEMA)]
    grant(grants, "bob", *mine, target, *reach)

    async def swap() -> None:
        await _rename(call, DOOMED, "prod.ml.gone")
        await _rename(call, BYSTANDER, DOOMED)

    meanwhile.during[type(request_).__name__.removesuffix("Request")] = swap
    before = await _content(stack, ids[BYSTANDER])
    reason, _ = await call.refused("bob", request_)
    assert not meanwhile.during
    assert reason == "PERMISSION_DENIED"
    assert {**await _content(stack, ids[BYSTANDER]), "name": "", "model": ""} == {
        **before,
        "name": "",
        "model": "",
    }


async def _rename(call: Client, old: str, new: str) -> None:
    request = service.UpdateModelRequest(name=old, model={"name": new}, update_mask={"paths": ["name"]})
    await call("root", request)


async def _content(stack: CatalogStack, model_id: str) -> dict[str, Any]:
    """Return everything that a change of a model could have changed."""

    async def read(connection: AsyncConnection) -> dict[str, Any]:
        model = await stack.store.get(connection, Model, model_id)
        assert model is not None
        versions = await stack.store.versions_by_number(connection, model_id, range(9))
        return {
            "name": model.name,
            "model": str(model),
            "parts": (model.description, model.tags, model.aliases, model.latest_version, model.delete_time),
            "versions": {number: (version.revision, version.state) for number, version in versions.items()},
        }

    return await stack.db.read(read)


async def test_a_container_that_changes_hands_after_the_check_gives_nobody_rights(
    call: Client, grants: Grants, meanwhile: Meanwhile
) -> None:
    await call("root", service.CreateCatalogRequest(catalog={"name": "prod"}))
    for name in ("prod.ml", "prod.secret"):
        await call("root", service.CreateSchemaRequest(schema={"name": name}))
    catalog = (await call("root", service.GetCatalogRequest(name="prod"))).catalog.id
    schema = (await call("root", service.GetSchemaRequest(name="prod.ml"))).schema.id
    rights = [Privilege.USE_SCHEMA, Privilege.CREATE_MODEL]
    grant(grants, "bob", (catalog, Privilege.USE_CATALOG), *((schema, right) for right in rights))

    async def swap() -> None:
        for old, new in (("prod.ml", "prod.gone"), ("prod.secret", "prod.ml")):
            request = service.UpdateSchemaRequest(
                name=old, schema={"name": new}, update_mask={"paths": ["name"]}
            )
            await call("root", request)

    meanwhile.during["CreateModel"] = swap
    reason, _ = await call.refused("bob", service.CreateModelRequest(model={"name": "prod.ml.mine"}))
    assert reason == "PERMISSION_DENIED"
    listed = await call("root", service.ListModelsRequest(schema="prod.ml"))
    assert not listed.models


async def test_a_model_that_goes_while_it_is_listed_is_not_empty_but_gone(
    call: Client, meanwhile: Meanwhile
) -> None:
    await make_iris(call)
    for request, goes in (
        (service.ListModelVersionsRequest(model=NAME), service.DeleteModelRequest(name=NAME)),
        (service.ListModelsRequest(schema="prod.ml"), service.DeleteSchemaRequest(name="prod.ml")),
    ):
        rpc = type(request).__name__.removesuffix("Request")
        meanwhile.during[rpc] = partial(call, "root", goes)
        reason, _ = await call.refused("root", request)
        assert reason == "RESOURCE_NOT_FOUND"


async def test_the_answer_of_a_create_is_what_is_read_afterwards(call: Client) -> None:
    await make_iris(call)
    nested = Value(
        struct_value=Struct(fields={"a": Value(list_value=ListValue(values=[Value(number_value=1e300)]))})
    )
    request = service.CreateModelVersionRequest(
        model=NAME,
        artifact_digest=DIGEST,
        description="é",
        label="1.4.0",
        tags={"b": "2", "a": "1"},
        metrics={"auc": Value(number_value=-0.0), "n": Value(number_value=3), "deep": nested},
        provenance=model_pb2.Provenance(
            git_repository="r",
            packages={"numpy": "2"},
            datasets=[model_pb2.DatasetReference(name="d", version="1", role="training")],
        ),
        metadata=metadata_pb2.ModelMetadata(
            use_case="OTHER",
            hyperparameters=Struct(fields={"n": Value(number_value=7)}),
            custom=[metadata_pb2.CustomMetadata(key="k", value="v")],
        ),
    )
    made = await call("root", request)
    assert made.model_version == (await call("root", service.GetModelVersionRequest(name=NAME))).model_version
    copy = await call("root", service.CopyModelVersionRequest(source=f"{NAME}/1", model=NAME, label="1.4.1"))
    found = await call("root", service.GetModelVersionRequest(name=f"{NAME}/2"))
    assert copy.model_version == found.model_version


async def test_many_writers_on_one_model_never_give_up(call: Client, stack: CatalogStack) -> None:
    await make_iris(call)
    await call("root", service.CreateModelVersionRequest(model=NAME, artifact_digest=DIGEST))

    async def create(writer: int) -> list[int]:
        made = [
            await call("root", service.CreateModelVersionRequest(model=NAME, request_id=f"{writer}-{turn}"))
            for turn in range(6)
        ]
        return [one.model_version.number for one in made]

    async def move() -> None:
        for version in (1, 0) * 4:
            changes = [service.AliasChange(alias="champion", version=version)]
            await call("root", service.SetAliasesRequest(model=NAME, changes=changes))

    *numbers, _ = await asyncio.gather(*(create(writer) for writer in range(16)), move())
    assert sorted(number for of_writer in numbers for number in of_writer or ()) == list(range(2, 98))
    assert (await call("root", service.GetModelRequest(name=NAME))).model.latest_version == 97
