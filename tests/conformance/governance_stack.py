"""The governance service in this process, over real gRPC and PostgreSQL, beside a catalog played by a small servicer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from modelyard.api.artifact.v1 import artifact_service_pb2 as artifact_pb
from modelyard.api.artifact.v1.artifact_pb2 import Inspection, Signature
from modelyard.api.artifact.v1.artifact_service_pb2_grpc import (
    ArtifactServiceServicer,
    add_ArtifactServiceServicer_to_server,
)
from modelyard.api.catalog.v1 import catalog_service_pb2 as catalog_pb
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import (
    CatalogServiceServicer,
    add_CatalogServiceServicer_to_server,
)
from modelyard.api.catalog.v1.lineage_pb2 import LineageEdge, LineageNode
from modelyard.api.catalog.v1.model_pb2 import Model, ModelVersion
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard.api.inference.v1 import inference_service_pb2 as inference_pb
from modelyard.api.inference.v1.inference_service_pb2_grpc import (
    InferenceServiceServicer,
    add_InferenceServiceServicer_to_server,
)
from modelyard_governance.app import GovernanceSettings, build
from modelyard_kit.access import SYSTEM, Chain, Link, ResourceType
from modelyard_kit.chassis import running
from modelyard_kit.errors import DomainError, NotFound, TokenExpired, TokenInvalid, TokenMissing
from modelyard_kit.interceptors import abort
from modelyard_kit.peers import domain_error
from modelyard_kit.protos import chain_to_proto, resource_type_from_proto
from modelyard_suite.secrets import ensure_tokens

PROD = Link(ResourceType.CATALOG, "c-prod", "prod")
ML = Link(ResourceType.SCHEMA, "s-ml", "prod.ml")
IRIS = Link(ResourceType.MODEL, "m-iris", "prod.ml.iris")
IRIS_1 = Link(ResourceType.MODEL_VERSION, "v-iris-1", "prod.ml.iris/1")
DIGEST = "sha256:" + "1" * 64
SERVED = Link(ResourceType.DEPLOYMENT, "d-iris", "prod.ml.iris")


@dataclass
class Catalog(CatalogServiceServicer):
    """Knows what the test says, and counts what it is asked."""

    chains: list[Chain] = field(
        default_factory=lambda: [
            (PROD, SYSTEM),
            (ML, PROD, SYSTEM),
            (IRIS, ML, PROD, SYSTEM),
            (IRIS_1, IRIS, ML, PROD, SYSTEM),
        ]
    )
    author_id: str = ""
    called: str = IRIS_1.name
    state: ModelVersion.State.ValueType = ModelVersion.STATE_READY
    asked: list[str] = field(default_factory=list)
    told: list[tuple[str, str, int]] = field(default_factory=list)
    deaf: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)
    known: ModelVersion = field(default_factory=ModelVersion)
    edges: list[LineageEdge] = field(default_factory=list)
    also_versions: dict[str, str] = field(default_factory=dict)

    async def SetApprovalStates(self, request: Any, context: Any) -> Any:
        if self.deaf:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        for change in request.changes:
            state = ModelVersion.ApprovalState.Name(change.state).removeprefix("APPROVAL_STATE_")
            self.told.append((change.model_version_id, state, change.sequence))
        return catalog_pb.SetApprovalStatesResponse()

    async def ResolveResource(self, request: Any, context: Any) -> Any:
        kind = resource_type_from_proto(request.type)
        self.asked.append(request.name or request.id)
        for chain in self.chains:
            if chain[0].type is kind and (request.id or request.name) in (chain[0].id, chain[0].name):
                return catalog_pb.ResolveResourceResponse(chain=chain_to_proto(chain))
        return await abort(context, NotFound(kind, request.name or request.id))

    async def GetModelVersion(self, request: Any, context: Any) -> Any:
        self.asked.append(request.name)
        if request.name in self.also_versions:
            other = ModelVersion(id=self.also_versions[request.name], name=request.name)
            return catalog_pb.GetModelVersionResponse(model_version=other)
        if request.name not in (self.called, "prod.ml.iris@champion"):
            return await abort(context, NotFound("model_version", request.name))
        version = ModelVersion(
            id=IRIS_1.id,
            name=self.called,
            model=IRIS.name,
            number=1,
            author_id=self.author_id,
            state=self.state,
            artifact_digest=DIGEST,
            tags=self.tags,
        )
        for name, value in self.metrics.items():
            version.metrics[name].number_value = value
        version.MergeFrom(self.known)
        return catalog_pb.GetModelVersionResponse(model_version=version)

    async def GetModel(self, request: Any, context: Any) -> Any:
        return catalog_pb.GetModelResponse(
            model=Model(id=IRIS.id, name=request.name, owner_id=self.author_id)
        )

    async def QueryLineage(self, request: Any, context: Any) -> Any:
        target = LineageNode(kind=LineageNode.KIND_MODEL_VERSION, name=request.node.name)
        sources = [LineageNode(kind=LineageNode.KIND_DATASET, name=name) for name in self.datasets]
        edges = [LineageEdge(source=source, target=target, relation="trained_on") for source in sources]
        return catalog_pb.QueryLineageResponse(edges=[*edges, *self.edges])


@dataclass
class Artifact(ArtifactServiceServicer):
    """Knows what was found in one artifact."""

    inspection: Inspection | None = None
    signatures: list[Signature] = field(default_factory=list)
    away: bool = False

    async def GetInspection(self, request: Any, context: Any) -> Any:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        if self.inspection is None or request.digest != DIGEST:
            return await abort(context, NotFound("artifact", request.digest))
        return artifact_pb.GetInspectionResponse(inspection=self.inspection)

    async def CheckSignatures(self, request: Any, context: Any) -> Any:
        return artifact_pb.CheckSignaturesResponse(signatures=self.signatures)


class Inference(InferenceServiceServicer):
    """Knows one deployment."""

    async def ResolveResource(self, request: Any, context: Any) -> Any:
        if request.name != SERVED.name:
            return await abort(context, NotFound("deployment", request.name))
        return inference_pb.ResolveResourceResponse(chain=chain_to_proto((SERVED, ML, PROD, SYSTEM)))


@dataclass
class Caller:
    """The stub, as one principal."""

    stub: Any
    token: str = ""

    async def __call__(self, method: str, request: Any = None, **fields: Any) -> Any:
        """Call an RPC by name; raises the domain error that the status tells of."""
        message = request if request is not None else getattr(pb, f"{method}Request")(**fields)
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else []
        try:
            return await getattr(self.stub, method)(message, metadata=metadata, timeout=60)
        except grpc.aio.AioRpcError as error:
            raise peer_error(error) from error

    def watch(self) -> Any:
        metadata = [("authorization", f"Bearer {self.token}")]
        return self.stub.WatchPermissions(pb.WatchPermissionsRequest(), metadata=metadata, timeout=60)


def peer_error(error: grpc.aio.AioRpcError) -> BaseException:
    """Return the domain error; peers see refused tokens as unavailability, so those are named here."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    for kind in (TokenMissing, TokenInvalid, TokenExpired):
        if kind.reason.encode() in bytes(details):
            rebuilt = kind.__new__(kind)
            DomainError.__init__(rebuilt, error.details() or "")
            return rebuilt
    return domain_error(error, "governance")


@dataclass
class Stack:
    """A running governance service."""

    stub: Any
    folder: Path
    settings: GovernanceSettings
    catalog: Catalog
    artifact: Artifact

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / f"{name}.token").read_text().strip()

    async def login(self, secret: str) -> Caller:
        answer = await Caller(self.stub)("ExchangeToken", api_token=secret)
        return Caller(self.stub, answer.access_token)

    async def admin(self) -> Caller:
        return await self.login(self.secret("admin"))

    async def user(self, name: str, admin: Caller) -> Caller:
        """Make a user and return it as a caller."""
        wanted = {"name": name, "kind": "KIND_USER"}
        await admin("CreatePrincipal", principal=wanted)
        made = await admin("CreateToken", principal=name)
        return await self.login(made.secret)


@asynccontextmanager
async def stack(dsn: str, folder: Path, **settings: Any) -> AsyncIterator[Stack]:
    """Run governance and its neighbours within this block; the folder may have been used before."""
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True, mode=0o700)
    ensure_tokens(secrets)
    catalog = Catalog()
    artifact = Artifact()
    neighbours = grpc.aio.server()
    add_ArtifactServiceServicer_to_server(artifact, neighbours)
    add_CatalogServiceServicer_to_server(catalog, neighbours)
    add_InferenceServiceServicer_to_server(Inference(), neighbours)
    neighbours.add_insecure_port(f"unix:{folder}/n")
    await neighbours.start()
    given = {
        "listen": f"unix:{folder}/g",
        "database": dsn,
        "token_file": secrets / "governance.token",
        "catalog_address": f"unix:{folder}/n",
        "artifact_address": f"unix:{folder}/n",
        "inference_address": f"unix:{folder}/n",
        "signing_key_file": secrets / "signing_key.pem",
        "bootstrap_directory": secrets,
        "drain_seconds": 0,
    }
    chosen = GovernanceSettings(**{**given, **settings})
    try:
        async with (
            running(chosen, build, "modelyard_governance"),
            grpc.aio.insecure_channel(chosen.listen) as channel,
        ):
            yield Stack(GovernanceServiceStub(channel), folder, chosen, catalog, artifact)
    finally:
        await neighbours.stop(0)
