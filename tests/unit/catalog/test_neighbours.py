"""What the catalog asks of the two other services, and what it makes of their answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from modelyard.api.artifact.v1.artifact_service_pb2 import AcquireReferenceRequest, AcquireReferenceResponse
from modelyard.api.governance.v1.governance_service_pb2 import EvaluateGateRequest, EvaluateGateResponse
from modelyard.api.inference.v1.inference_service_pb2 import (
    FindDeploymentsRequest,
    FindDeploymentsResponse,
    ListDeploymentsRequest,
    ListDeploymentsResponse,
    ResolveResourceRequest,
    ResolveResourceResponse,
)
from modelyard_catalog.models import ModelVersion, VersionState
from modelyard_catalog.neighbours import ArtifactService, GovernanceService, InferenceService
from modelyard_kit.access import SYSTEM, Link, ResourceType
from modelyard_kit.errors import DomainError, InvalidField, NotFound, PeerUnavailable, PolicyUnmet
from modelyard_kit.protos import chain_to_proto

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IRIS = Link(ResourceType.MODEL, "model", "prod.ml.iris", "owner")
VERSION = ModelVersion(
    id="version",
    name="prod.ml.iris/2",
    description="",
    owner_id="",
    tags={},
    revision=1,
    create_time=NOW,
    update_time=NOW,
    parents=(IRIS, SYSTEM),
    number=2,
    state=VersionState.READY,
    state_message="",
    artifact_digest="d",
    runtime="",
    signature=None,
    metrics={},
    provenance=None,
    aliases=(),
    author_id="ada",
    author_name="ada",
)


class FakePeers:
    """Answers every call with `answer`, or raises it."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[Any] = []
        self.artifact = SimpleNamespace(AcquireReference="AcquireReference")
        self.governance = SimpleNamespace(EvaluateGate="EvaluateGate")
        self.inference = SimpleNamespace(
            FindDeployments="FindDeployments",
            ListDeployments="ListDeployments",
            ResolveResource="ResolveResource",
        )

    async def call(self, method: str, request: object, *, timeout: float = 5.0) -> object:
        self.asked.append((method, request))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def build(kind: Callable[[Any], Any], answer: object) -> tuple[Any, FakePeers]:
    peers = FakePeers(answer)
    return kind(peers), peers


async def test_committed_artifact_is_accepted() -> None:
    service, peers = build(ArtifactService, AcquireReferenceResponse())
    await service.acquire("sha256:ab", IRIS, "v", source_model_id="m")
    asked = AcquireReferenceRequest(
        digest="sha256:ab", model_id="model", model_version_id="v", source_model_id="m"
    )
    assert peers.asked == [("AcquireReference", asked)]


async def test_unknown_artifact_is_a_mistake_in_the_request() -> None:
    service, _ = build(ArtifactService, NotFound("artifact", "sha256:ab"))
    with pytest.raises(InvalidField, match="commit an upload for this model first") as caught:
        await service.acquire("sha256:ab", IRIS, "v")
    assert caught.value.metadata == {"field": "artifact_digest"}


async def test_gate_is_asked_with_the_whole_chain() -> None:
    service, peers = build(GovernanceService, EvaluateGateResponse(allowed=True))
    await service.require_alias_move(VERSION, ["champion"])
    ((_, request),) = peers.asked
    assert isinstance(request, EvaluateGateRequest)
    assert [link.id for link in request.model_version.links] == ["version", "model", "system"]
    assert (request.author_id, list(request.aliases), request.action) == ("ada", ["champion"], 1)


async def test_closed_gate_tells_what_is_unmet() -> None:
    answer = EvaluateGateResponse(allowed=False, unmet=["1 approval is missing"], policy="prod")
    service, _ = build(GovernanceService, answer)
    with pytest.raises(PolicyUnmet, match="1 approval is missing") as caught:
        await service.require_alias_move(VERSION, ["champion"])
    assert caught.value.metadata == {"action": "MOVE_ALIAS", "name": "prod.ml.iris/2", "policy": "prod"}


async def test_deployments_are_told_by_name() -> None:
    service, peers = build(InferenceService, FindDeploymentsResponse(deployments=[{"name": "prod.ml.live"}]))
    assert await service.running(["v1", "v2"]) == ["prod.ml.live"]
    assert peers.asked == [("FindDeployments", FindDeploymentsRequest(model_version_ids=["v1", "v2"]))]
    service, peers = build(InferenceService, ListDeploymentsResponse(deployments=[{"name": "prod.ml.live"}]))
    assert await service.inside("prod.ml") == ["prod.ml.live"]
    assert peers.asked == [("ListDeployments", ListDeploymentsRequest(schema="prod.ml", page_size=1_000))]


async def test_the_chain_of_a_deployment_is_told_by_name_and_by_id() -> None:
    chain = (Link(ResourceType.DEPLOYMENT, "d", "prod.ml.live", "owner"), SYSTEM)
    service, peers = build(InferenceService, ResolveResourceResponse(chain=chain_to_proto(chain)))
    assert await service.chain(name="prod.ml.live") == chain
    assert await service.chain(deployment_id="d") == chain
    assert peers.asked == [
        ("ResolveResource", ResolveResourceRequest(name="prod.ml.live")),
        ("ResolveResource", ResolveResourceRequest(id="d")),
    ]


@pytest.mark.parametrize("error", [PeerUnavailable("artifact"), PeerUnavailable("governance")])
async def test_silence_is_not_an_answer(error: DomainError) -> None:
    artifacts, _ = build(ArtifactService, error)
    gates, _ = build(GovernanceService, error)
    with pytest.raises(PeerUnavailable):
        await artifacts.acquire("sha256:ab", IRIS, "v")
    with pytest.raises(PeerUnavailable):
        await gates.require_alias_move(VERSION, ["champion"])
