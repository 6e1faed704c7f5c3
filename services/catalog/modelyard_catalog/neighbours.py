"""The three other services that the rules ask, through their published stubs."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.api.artifact.v1.artifact_service_pb2 import AcquireReferenceRequest
from modelyard.api.governance.v1.approval_pb2 import GATED_ACTION_MOVE_ALIAS
from modelyard.api.governance.v1.governance_service_pb2 import EvaluateGateRequest, EvaluateGateResponse
from modelyard.api.inference.v1.inference_service_pb2 import (
    FindDeploymentsRequest,
    FindDeploymentsResponse,
    ListDeploymentsRequest,
    ListDeploymentsResponse,
    ResolveResourceRequest,
)
from modelyard_catalog.models import ModelVersion
from modelyard_kit.access import Chain, Link
from modelyard_kit.errors import InvalidField, NotFound, PolicyUnmet
from modelyard_kit.peers import Peers
from modelyard_kit.protos import chain_from_proto, chain_to_proto

_PAGE = 1_000


class ArtifactService:
    """Asks the artifact service."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def acquire(self, digest: str, model: Link, version_id: str, *, source_model_id: str = "") -> None:
        """Keep an artifact that was committed for the model for a version that is about to have it.

        Args:
            digest: the artifact.
            model: of the version.
            version_id: the version, which need not exist yet.
            source_model_id: the model that the artifact was committed for, if the version is a copy from there.

        Raises:
            InvalidField: it was not committed for the model, or for the source of the copy.
            PeerUnavailable: the service does not answer.
        """
        request = AcquireReferenceRequest(
            digest=digest, model_id=model.id, model_version_id=version_id, source_model_id=source_model_id
        )
        try:
            await self._peers.call(self._peers.artifact.AcquireReference, request)
        except NotFound as error:
            problem = f"no artifact {digest} of {model.name}: commit an upload for this model first"
            raise InvalidField("artifact_digest", problem) from error


class GovernanceService:
    """Asks the governance service."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def require_alias_move(self, version: ModelVersion, aliases: Sequence[str]) -> None:
        """Return if policies let the aliases point at the version.

        Raises:
            PolicyUnmet: they do not.
            PeerUnavailable: the service does not answer.
        """
        request = EvaluateGateRequest(
            model_version=chain_to_proto(version.chain),
            author_id=version.author_id,
            action=GATED_ACTION_MOVE_ALIAS,
            aliases=aliases,
        )
        answer: EvaluateGateResponse = await self._peers.call(self._peers.governance.EvaluateGate, request)
        if not answer.allowed:
            raise PolicyUnmet("MOVE_ALIAS", version.name, answer.policy, list(answer.unmet))


class InferenceService:
    """Asks the inference service."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def running(self, version_ids: Sequence[str]) -> list[str]:
        """Return names of the deployments that run or will run any of at most 10,000 versions.

        Raises:
            PeerUnavailable: the service does not answer.
        """
        request = FindDeploymentsRequest(model_version_ids=version_ids)
        answer: FindDeploymentsResponse = await self._peers.call(
            self._peers.inference.FindDeployments, request
        )
        return [deployment.name for deployment in answer.deployments]

    async def inside(self, schema: str) -> list[str]:
        """Return names of deployments in a schema, called so now; of very many, the first ones.

        Raises:
            PeerUnavailable: the service does not answer.
        """
        request = ListDeploymentsRequest(schema=schema, page_size=_PAGE)
        answer: ListDeploymentsResponse = await self._peers.call(
            self._peers.inference.ListDeployments, request
        )
        return [deployment.name for deployment in answer.deployments]

    async def chain(self, *, name: str = "", deployment_id: str = "") -> Chain:
        """Return the chain of a deployment by name or id.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the service does not answer.
        """
        request = ResolveResourceRequest(name=name, id=deployment_id)
        answer = await self._peers.call(self._peers.inference.ResolveResource, request)
        return chain_from_proto(answer.chain)
