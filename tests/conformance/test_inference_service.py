"""The inference service on the wire: real gRPC, real interceptors, real PostgreSQL; its neighbours are played."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard.api.inference.v1.deployment_pb2 import Deployment, DeploymentRevision, TrafficTarget
from modelyard.api.inference.v1.inference_service_pb2_grpc import (
    InferenceServiceStub,
    add_InferenceServiceServicer_to_server,
)
from modelyard_inference.access import access_table
from modelyard_inference.app import FULL_NAME
from modelyard_inference.deployments import Deployments
from modelyard_inference.launchers.local import LocalLauncher
from modelyard_inference.lookups import Lookups
from modelyard_inference.ports import Measured
from modelyard_inference.replica_logs import FollowOptions, ReplicaLogs
from modelyard_inference.rollouts import Rollouts
from modelyard_inference.routes import Routes
from modelyard_inference.servicer import InferenceServicer
from modelyard_inference.statistics import Statistics
from modelyard_inference.store import InferenceStore
from modelyard_inference.watching import Watching
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant
from modelyard_kit.auth import Principal
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import DomainError
from modelyard_kit.grants import Grants
from modelyard_kit.interceptors import CallChain
from modelyard_kit.peers import domain_error
from modelyard_kit.watches import Watches
from tests.framework import folders
from tests.framework.inference import ADA, FakeUpstream, all_grants
from tests.framework.tokens import Issuer

EVE = Principal("u-eve", "eve", "user")
GATEWAY = Principal("s-gateway", "gateway", "service")


class FakeMeter:
    """Replicas that tell what a test says, by address."""

    def __init__(self) -> None:
        self.told: dict[str, Measured] = {}

    async def statistics(self, address: str) -> Measured | None:
        return self.told.get(address)


class Wire:
    """Calls as one principal or another."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        issuer: Issuer,
        routes: Routes,
        upstream: FakeUpstream,
        grants: Grants,
        db: Database,
        store: InferenceStore,
        watching: Watching,
        replicas: Path,
        meter: FakeMeter,
        log_destinations: set[str],
    ) -> None:
        self.stub: Any = InferenceServiceStub(channel)
        self.issuer, self.routes, self.upstream = issuer, routes, upstream
        self.grants, self.db, self.store, self.watching = grants, db, store, watching
        self.meter = meter
        self.log_destinations = log_destinations
        """Where logs may go; tests change it."""
        self.replicas = replicas
        """Folder of the launcher with a folder for each replica."""

    def metadata(self, principal: Principal) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.issuer.token(principal)}")]

    async def call(self, rpc: str, request: Any, principal: Principal = ADA) -> Any:
        try:
            return await getattr(self.stub, rpc)(request, metadata=self.metadata(principal), timeout=20)
        except grpc.aio.AioRpcError as error:
            raise domain_error(error, "inference") from None

    async def look(self) -> None:
        """Tell watches what there is, as the reconciler does."""
        self.watching.publish((await self.db.read(self.store.world)).deployments)

    async def refusal(self, rpc: str, request: Any, principal: Principal = ADA) -> str:
        with pytest.raises(DomainError) as refused:
            await self.call(rpc, request, principal)
        return refused.value.reason


@pytest.fixture
async def wire(fresh_database: Callable[[str], str]) -> AsyncIterator[Wire]:
    folder = Path(tempfile.mkdtemp(prefix="my-", dir=folders.SHORT))
    db, store, upstream, issuer = (
        Database.connect(fresh_database("modelyard_inference")),
        InferenceStore(),
        FakeUpstream(),
        Issuer(),
    )
    upstream.add(1)
    grants = await all_grants()
    routes = Routes(await db.read(store.routes), lambda: None)
    lookups, watching = Lookups(db, store, upstream, grants), Watching(db, store, grants)
    destinations = set[str]()
    deployments = Deployments(
        db, store, lookups, upstream, grants, utc_now, lambda: None, log_destinations=destinations
    )
    chain = CallChain(FULL_NAME, access_table(lookups), issuer.verifier(), grants)
    server = grpc.aio.server(interceptors=[chain])
    rollouts = Rollouts(db, store, utc_now, lambda: None)
    launcher = LocalLauncher(folder / "r", ())
    launcher.prepare()
    options = FollowOptions(period=0.01, refresh=0.02, heartbeat=0.05)
    logs = ReplicaLogs(db, store, launcher, grants, Watches(), options)
    meter = FakeMeter()
    statistics = Statistics(db, store, meter, utc_now)
    servicer = InferenceServicer(lookups, deployments, rollouts, watching, routes, logs, statistics)
    add_InferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{folder}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
        yield Wire(
            channel,
            issuer,
            routes,
            upstream,
            grants,
            db,
            store,
            watching,
            folder / "r" / "replicas",
            meter,
            destinations,
        )
    await server.stop(None)
    await db.close()
    shutil.rmtree(folder)


def wanted(**changes: Any) -> Deployment:
    targets = [TrafficTarget(model_version="models:/prod.ml.iris/1")]
    return Deployment(**{"name": "prod.ml.iris", "targets": targets, **changes})


async def test_life_of_a_deployment(wire: Wire) -> None:
    create = s.CreateDeploymentRequest(deployment=wanted(replicas=2), request_id="r")
    made = (await wire.call("CreateDeployment", create)).deployment
    assert made.state == Deployment.STATE_CREATING
    assert made.target_statuses[0].next_model_version == "prod.ml.iris/1"
    assert made.targets[0].model_version == "models:/prod.ml.iris/1"
    assert (await wire.call("CreateDeployment", create)).deployment == made
    assert (await wire.call("GetDeployment", s.GetDeploymentRequest(name=made.name))).deployment == made
    listed = await wire.call("ListDeployments", s.ListDeploymentsRequest(schema="prod.ml", page_size=1))
    assert list(listed.deployments) == [made]
    assert listed.next_page_token == ""

    update = s.UpdateDeploymentRequest(
        deployment=Deployment(name=made.name, etag=made.etag, description="new"),
        update_mask=FieldMask(paths=["description"]),
    )
    updated = (await wire.call("UpdateDeployment", update)).deployment
    assert (updated.description, updated.replicas) == ("new", 2)
    assert await wire.refusal("UpdateDeployment", update) == "ETAG_MISMATCH"

    replicas = await wire.call("ListReplicas", s.ListReplicasRequest(deployment=made.name))
    assert list(replicas.replicas) == []
    resolved = await wire.call("ResolveResource", s.ResolveResourceRequest(id=made.id), GATEWAY)
    assert [link.name for link in resolved.chain.links] == ["prod.ml.iris", "prod.ml", "prod", ""]

    deleted = await wire.call("DeleteDeployment", s.DeleteDeploymentRequest(name=made.name))
    assert deleted.deployment.state == Deployment.STATE_DELETING


async def test_deactivate_and_activate(wire: Wire) -> None:
    made = (await wire.call("CreateDeployment", s.CreateDeploymentRequest(deployment=wanted()))).deployment
    stop = s.DeactivateDeploymentRequest(name=made.name, etag=made.etag)
    stopped = (await wire.call("DeactivateDeployment", stop)).deployment
    assert stopped.state == Deployment.STATE_UPDATING
    assert await wire.refusal("DeactivateDeployment", stop) == "ETAG_MISMATCH"
    stop.etag = ""
    assert (await wire.call("DeactivateDeployment", stop)).deployment == stopped  # again is harmless

    change = s.UpdateDeploymentRequest(
        deployment=Deployment(name=made.name, replicas=3), update_mask=FieldMask(paths=["replicas"])
    )
    changed = (await wire.call("UpdateDeployment", change)).deployment
    assert (changed.state, changed.replicas) == (Deployment.STATE_UPDATING, 3)  # and does not begin to answer

    start = s.ActivateDeploymentRequest(name=made.name)
    wire.upstream.refused["prod.ml.iris/1"] = ["an approval"]
    assert await wire.refusal("ActivateDeployment", start) == "POLICY_UNMET"
    wire.upstream.refused.clear()
    started = (await wire.call("ActivateDeployment", start)).deployment
    assert started.state == Deployment.STATE_CREATING
    assert (await wire.call("ActivateDeployment", start)).deployment == started
    await wire.call("DeleteDeployment", s.DeleteDeploymentRequest(name=made.name))
    for rpc in ("ActivateDeployment", "DeactivateDeployment"):
        assert await wire.refusal(rpc, start if rpc[0] == "A" else stop) == "INVALID_STATE"
        assert await wire.refusal(rpc, start if rpc[0] == "A" else stop, EVE) == "PERMISSION_DENIED"


async def test_a_watch_tells_of_every_change_and_of_the_end(wire: Wire) -> None:
    watched = s.WatchDeploymentRequest(name="prod.ml.iris")
    assert await watch_refusal(wire, watched) == grpc.StatusCode.NOT_FOUND
    made = (await wire.call("CreateDeployment", s.CreateDeploymentRequest(deployment=wanted()))).deployment
    assert await watch_refusal(wire, watched, EVE) == grpc.StatusCode.PERMISSION_DENIED
    watch = wire.stub.WatchDeployment(watched, metadata=wire.metadata(ADA), timeout=60)
    assert (await watch.read()).deployment == made
    change = s.UpdateDeploymentRequest(
        deployment=Deployment(name=made.name, replicas=3), update_mask=FieldMask(paths=["replicas"])
    )
    changed = (await wire.call("UpdateDeployment", change)).deployment
    await wire.look()
    assert (await watch.read()).deployment == changed
    await wire.look()  # nothing new: nothing is sent
    await wire.db.in_tx(lambda connection: wire.store.delete_deployment(connection, made.id))
    await wire.look()
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await watch.read()
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watch_of_one_who_may_no_longer_see_it_ends(wire: Wire) -> None:
    made = (await wire.call("CreateDeployment", s.CreateDeploymentRequest(deployment=wanted()))).deployment
    reading = [
        ResourceGrant(SYSTEM_ID, privilege, Effect.ALLOW)
        for privilege in (Privilege.READ_METADATA, Privilege.USE_CATALOG, Privilege.USE_SCHEMA)
    ]
    wire.grants.replace(EVE.id, EVE.name, reading)
    watched = s.WatchDeploymentRequest(name=made.name)
    watch = wire.stub.WatchDeployment(watched, metadata=wire.metadata(EVE), timeout=60)
    assert (await watch.read()).deployment == made
    wire.grants.replace(EVE.id, EVE.name, [])
    await wire.call("DeactivateDeployment", s.DeactivateDeploymentRequest(name=made.name))
    await wire.look()
    with pytest.raises(grpc.aio.AioRpcError) as denied:
        await watch.read()
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def watch_refusal(
    wire: Wire, request: s.WatchDeploymentRequest, principal: Principal = ADA
) -> grpc.StatusCode:
    watch = wire.stub.WatchDeployment(request, metadata=wire.metadata(principal), timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await watch.read()
    return refused.value.code()


async def test_history_and_rollback_on_the_wire(wire: Wire) -> None:
    wire.upstream.add(2)
    create = s.CreateDeploymentRequest(deployment=wanted(), reason="the first")
    made = (await wire.call("CreateDeployment", create)).deployment
    update = s.UpdateDeploymentRequest(
        deployment=wanted(targets=[TrafficTarget(model_version="prod.ml.iris/2")]),
        update_mask=FieldMask(paths=["targets"]),
        reason="better on holdout",
    )
    await wire.call("UpdateDeployment", update)
    back = s.RollbackDeploymentRequest(name=made.name, reason="it was not")
    rolled_back = (await wire.call("RollbackDeployment", back)).deployment
    assert rolled_back.targets == made.targets
    assert (rolled_back.revision, rolled_back.etag) == (3, "3")
    listed = await wire.call(
        "ListDeploymentRevisions", s.ListDeploymentRevisionsRequest(deployment=made.name)
    )
    told = [(r.revision, r.change, r.reason, r.rolled_back_to, *r.model_versions) for r in listed.revisions]
    kind = DeploymentRevision.Change
    assert told == [
        (3, kind.CHANGE_ROLLED_BACK, "it was not", 1, "prod.ml.iris/1"),
        (2, kind.CHANGE_UPDATED, "better on holdout", 0, "prod.ml.iris/2"),
        (1, kind.CHANGE_CREATED, "the first", 0, "prod.ml.iris/1"),
    ]
    assert {r.actor_name for r in listed.revisions} == {ADA.name}
    assert listed.revisions[0].settings.targets == made.targets
    late = s.RollbackDeploymentRequest(name=made.name, etag=made.etag)
    assert await wire.refusal("RollbackDeployment", late) == "ETAG_MISMATCH"
    none = s.RollbackDeploymentRequest(name=made.name, revision=9)
    assert await wire.refusal("RollbackDeployment", none) == "RESOURCE_NOT_FOUND"
    below = s.RollbackDeploymentRequest(name=made.name, revision=-1)
    assert await wire.refusal("RollbackDeployment", below) == "INVALID_FIELD"
    long = s.RollbackDeploymentRequest(name=made.name, reason="x" * 1_025)
    assert await wire.refusal("RollbackDeployment", long) == "LIMIT_EXCEEDED"
    assert await wire.refusal("RollbackDeployment", back, EVE) == "PERMISSION_DENIED"


async def test_pages_lead_from_one_to_the_next(wire: Wire) -> None:
    names = [f"prod.ml.d{number}" for number in range(3)]
    for name in names:
        await wire.call("CreateDeployment", s.CreateDeploymentRequest(deployment=wanted(name=name)))
    first = await wire.call("ListDeployments", s.ListDeploymentsRequest(page_size=2))
    request = s.ListDeploymentsRequest(page_size=2, page_token=first.next_page_token)
    second = await wire.call("ListDeployments", request)
    assert [row.name for row in (*first.deployments, *second.deployments)] == names
    assert second.next_page_token == ""


@pytest.mark.parametrize(
    ("rpc", "request_", "reason"),
    [
        (
            "CreateDeployment",
            s.CreateDeploymentRequest(deployment=Deployment(name="prod.ml.iris")),
            "INVALID_FIELD",
        ),
        (
            "CreateDeployment",
            s.CreateDeploymentRequest(deployment=wanted(name="prod.none.x")),
            "RESOURCE_NOT_FOUND",
        ),
        (
            "CreateDeployment",
            s.CreateDeploymentRequest(
                deployment=wanted(targets=[TrafficTarget(model_version="prod.ml.iris@none")])
            ),
            "RESOURCE_NOT_FOUND",
        ),
        ("CreateDeployment", s.CreateDeploymentRequest(deployment=wanted(replicas=65)), "LIMIT_EXCEEDED"),
        ("GetDeployment", s.GetDeploymentRequest(name="prod.ml.none"), "RESOURCE_NOT_FOUND"),
        ("GetDeployment", s.GetDeploymentRequest(), "INVALID_FIELD"),
        (
            "UpdateDeployment",
            s.UpdateDeploymentRequest(deployment=Deployment(name="a.b.c")),
            "RESOURCE_NOT_FOUND",
        ),
        ("DeleteDeployment", s.DeleteDeploymentRequest(name="prod.ml.none"), "RESOURCE_NOT_FOUND"),
        ("ListReplicas", s.ListReplicasRequest(deployment="prod.ml.none"), "RESOURCE_NOT_FOUND"),
    ],
)
async def test_refusals(wire: Wire, rpc: str, request_: Any, reason: str) -> None:
    assert await wire.refusal(rpc, request_) == reason
    if reason == "RESOURCE_NOT_FOUND":  # who may not know learns nothing
        assert await wire.refusal(rpc, request_, EVE) == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("ResolveResource", s.ResolveResourceRequest(name="prod.ml.iris")),
        ("ConfirmRoutes", s.ConfirmRoutesRequest(gateway_id="g")),
        ("FindDeployments", s.FindDeploymentsRequest(model_version_ids=["0"])),
    ],
)
async def test_services_only(wire: Wire, rpc: str, request_: Any) -> None:
    assert await wire.refusal(rpc, request_) == "PERMISSION_DENIED"


async def test_gateways_watch_and_confirm(wire: Wire) -> None:
    watch = wire.stub.WatchRoutes(
        s.WatchRoutesRequest(gateway_id="g"), metadata=wire.metadata(GATEWAY), timeout=20
    )
    first = await watch.read()
    assert (first.table.version, list(first.table.routes)) == (1, [])
    assert [gateway.id for gateway in wire.routes.gateways().live] == ["g"]
    confirm = s.ConfirmRoutesRequest(gateway_id="g", version=1, healthy_groups=["a"], problem="full")
    await wire.call("ConfirmRoutes", confirm, GATEWAY)
    (gateway,) = wire.routes.gateways().live
    assert (gateway.version, gateway.healthy, gateway.problem) == (1, frozenset(("a",)), "full")
    watch.cancel()
    refused = wire.stub.WatchRoutes(
        s.WatchRoutesRequest(gateway_id="g"), metadata=wire.metadata(ADA), timeout=20
    )
    with pytest.raises(grpc.aio.AioRpcError) as denied:
        await refused.read()
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await asyncio.sleep(0)
