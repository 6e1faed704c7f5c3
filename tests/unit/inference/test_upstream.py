"""What the other services answer becomes this service's own types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as artifact_pb
from modelyard.api.artifact.v1.artifact_pb2 import FileEntry as FileMessage
from modelyard.api.artifact.v1.artifact_pb2 import Signature as SignatureMessage
from modelyard.api.catalog.v1 import catalog_service_pb2 as catalog_pb
from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard.api.catalog.v1.signature_pb2 import (
    INPUT_LAYOUT_COLUMNS,
    MethodSignature,
    Signature,
    TensorSpec,
)
from modelyard.api.governance.v1 import governance_service_pb2 as governance_pb
from modelyard.api.governance.v1.approval_pb2 import GATED_ACTION_DEPLOY
from modelyard.api.governance.v1.trust_pb2 import TrustRoot
from modelyard.signing import Root
from modelyard.types import FileEntry
from modelyard_inference.evidence import Bundle, Evidence
from modelyard_inference.notes import Note
from modelyard_inference.runtimes.signature import Signature as ReplicaSignature
from modelyard_inference.upstream import PeerUpstream
from modelyard_kit.access import SYSTEM, Link, ResourceType
from modelyard_kit.errors import InvalidState, NotFound, PolicyUnmet
from modelyard_kit.protos import chain_to_proto, link_to_proto

CHAIN = (
    Link(ResourceType.SCHEMA, "s", "prod.ml"),
    Link(ResourceType.CATALOG, "c", "prod"),
    SYSTEM,
)
SIGNATURE = Signature(
    methods=[
        MethodSignature(
            name="predict",
            inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1])],
            outputs=[TensorSpec(name="y", datatype="INT64", shape=[-1])],
            input_layout=INPUT_LAYOUT_COLUMNS,
        ),
        MethodSignature(name="score"),
    ]
)


class Peers:
    """The other services, answering from attributes."""

    def __init__(self) -> None:
        self.state = ModelVersion.STATE_READY
        self.answer = governance_pb.EvaluateGateResponse(allowed=True)
        self.asked: list[Any] = []
        self.catalog = SimpleNamespace(
            GetModelVersion=self._version, ResolveResource=self._resolve, RecordDeployment=lambda _: None
        )
        self.governance = SimpleNamespace(EvaluateGate=self._gate, FindTrustRoots=self._roots)
        self.artifact = SimpleNamespace(
            ListFiles=self._files,
            ReadFile=self._read,
            CheckSignatures=lambda _: artifact_pb.CheckSignaturesResponse(signatures=self.signatures),
        )
        self.signatures: list[SignatureMessage] = []

    async def call(self, method: Any, request: Any, *, timeout: float = 5.0) -> Any:
        self.asked.append(request)
        return method(request)

    async def stream(self, method: Any, request: Any) -> AsyncIterator[Any]:
        self.asked.append(request)
        for response in method(request):
            yield response

    def _version(self, request: catalog_pb.GetModelVersionRequest) -> catalog_pb.GetModelVersionResponse:
        version = ModelVersion(
            id="v",
            name="prod.ml.iris/3",
            model="prod.ml.iris",
            model_id="m",
            number=3,
            state=self.state,
            artifact_digest="sha256:1",
            runtime="onnx",
            signature=SIGNATURE,
            author_id="u",
        )
        return catalog_pb.GetModelVersionResponse(model_version=version)

    def _resolve(self, request: catalog_pb.ResolveResourceRequest) -> catalog_pb.ResolveResourceResponse:
        if "prod.ml" in (request.name, request.id):
            return catalog_pb.ResolveResourceResponse(chain=chain_to_proto(CHAIN))
        raise NotFound("something", request.name)

    def _gate(self, request: governance_pb.EvaluateGateRequest) -> governance_pb.EvaluateGateResponse:
        return self.answer

    def _files(self, request: artifact_pb.ListFilesRequest) -> artifact_pb.ListFilesResponse:
        path = "b" if request.page_token else "a"
        return artifact_pb.ListFilesResponse(
            artifact_digest="sha256:1",
            files=[FileMessage(path=path, size=1, sha256="0" * 64)],
            next_page_token="" if request.page_token else "next",
        )

    def _roots(self, request: governance_pb.FindTrustRootsRequest) -> governance_pb.FindTrustRootsResponse:
        roots = [
            TrustRoot(name="team", pem="a", kind=TrustRoot.KIND_PUBLIC_KEY),
            TrustRoot(name="house", pem="b", kind=TrustRoot.KIND_CERTIFICATE),
        ]
        return governance_pb.FindTrustRootsResponse(trust_roots=roots)

    def _read(self, request: artifact_pb.ReadFileRequest) -> list[artifact_pb.ReadFileResponse]:
        return [artifact_pb.ReadFileResponse(chunk=chunk) for chunk in (b"1", b"2")]


@pytest.fixture
def peers() -> Peers:
    return Peers()


@pytest.fixture
def upstream(peers: Peers) -> PeerUpstream:
    return PeerUpstream(cast("Any", peers))


async def test_version_comes_with_a_signature_that_replicas_read(upstream: PeerUpstream) -> None:
    version = await upstream.version("prod.ml.iris@champion")
    assert (version.id, version.number, version.runtime, version.model_id) == ("v", 3, "onnx", "m")
    signature = ReplicaSignature.from_json({"methods": [cast("Any", version.signature)["methods"][0]]})
    assert signature.methods[0].input_layout == "COLUMNS"
    assert signature.methods[0].inputs[0].shape == (-1,)
    assert cast("Any", version.signature)["methods"][1]["input_layout"] == "TENSORS"


async def test_version_must_be_ready(upstream: PeerUpstream, peers: Peers) -> None:
    peers.state = ModelVersion.STATE_PENDING
    with pytest.raises(InvalidState, match="PENDING"):
        await upstream.version("prod.ml.iris/3")


async def test_nearest_chain_is_that_of_the_innermost_that_exists(upstream: PeerUpstream) -> None:
    assert await upstream.nearest_chain("prod.ml.none") == CHAIN
    assert await upstream.nearest_chain("prod.ml") == CHAIN
    assert await upstream.nearest_chain("other.x.y") == (SYSTEM,)


async def test_gate_tells_every_unmet_condition(upstream: PeerUpstream, peers: Peers) -> None:
    version = await upstream.version("prod.ml.iris/3")
    await upstream.gate(version, CHAIN)
    request = peers.asked[-1]
    assert (request.action, request.author_id) == (GATED_ACTION_DEPLOY, "u")
    assert request.model_version == chain_to_proto(CHAIN)
    peers.answer = governance_pb.EvaluateGateResponse(unmet=["one", "two"], policy="prod")
    with pytest.raises(PolicyUnmet) as refused:
        await upstream.gate(version, CHAIN)
    assert [violation.description for violation in refused.value.violations] == ["one", "two"]
    assert refused.value.metadata == {"action": "DEPLOY", "name": "prod.ml.iris/3", "policy": "prod"}


async def test_files_are_listed_page_by_page_and_read_in_pieces(upstream: PeerUpstream) -> None:
    digest, files = await upstream.files("prod.ml.iris/3")
    assert digest == "sha256:1"
    assert files == [FileEntry("a", 1, "0" * 64), FileEntry("b", 1, "0" * 64)]
    assert [chunk async for chunk in upstream.read("prod.ml.iris/3", "a")] == [b"1", b"2"]


async def test_evidence_is_asked_for_under_the_name_of_today(peers: Peers) -> None:
    class Renamed(PeerUpstream):
        async def version_name(self, version_id: str) -> str:
            return "prod.ml.renamed/3"

    upstream = Renamed(cast("Any", peers))
    assert await upstream.evidence("v", "sha256:1") == Evidence()
    peers.signatures = [SignatureMessage(bundle="x", trust_root="team"), SignatureMessage(bundle="y")]
    roots = (Root("team", "a", is_certificate=False), Root("house", "b", is_certificate=True))
    found = await upstream.evidence("v", "sha256:1")
    assert found == Evidence((Bundle("x", "team"), Bundle("y")), roots)
    assert [getattr(request, "model", "") or request.resource for request in peers.asked] == [
        "prod.ml.renamed"
    ] * 3


async def test_names_are_looked_up_by_id(upstream: PeerUpstream, peers: Peers) -> None:
    assert await upstream.schema_of_id("prod.ml") == CHAIN
    assert await upstream.model_name("prod.ml") == "prod.ml"
    assert await upstream.version_name("prod.ml") == "prod.ml"
    assert [(request.name, request.id) for request in peers.asked] == [("", "prod.ml")] * 3
    with pytest.raises(NotFound):
        await upstream.model_name("gone")


async def test_the_graph_is_told_of_a_deployment_by_ids(upstream: PeerUpstream, peers: Peers) -> None:
    note = Note("d", "prod.ml.live", "u", "s", ("v1", "v2"), None)
    await upstream.record_deployment(note)
    await upstream.record_deployment(
        replace(note, version_ids=(), delete_time=datetime(2026, 1, 2, tzinfo=UTC))
    )
    first, last = peers.asked
    assert first.deployment == link_to_proto(Link(ResourceType.DEPLOYMENT, "d", "prod.ml.live", "u"))
    assert (first.schema_id, list(first.model_version_ids), first.HasField("delete_time")) == (
        "s",
        ["v1", "v2"],
        False,
    )
    assert last.delete_time.ToDatetime(tzinfo=UTC) == datetime(2026, 1, 2, tzinfo=UTC)
