"""What governance knows, asked over its contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.api.governance.v1 import governance_service_pb2, trust_pb2
from modelyard.signing import Root
from modelyard_kit.access import ResourceType
from modelyard_kit.protos import resource_type_to_proto

if TYPE_CHECKING:
    from modelyard_kit.peers import Peers


class GovernancePeer:
    """The governance service as the rules need it."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def of_model(self, model: str) -> list[Root]:
        """The trust roots that count for a model.

        Raises:
            NotFound: there is no such model.
            PeerUnavailable: governance does not answer.
        """
        request = governance_service_pb2.FindTrustRootsRequest(
            resource_type=resource_type_to_proto(ResourceType.MODEL), resource=model
        )
        answer = await self._peers.call(self._peers.governance.FindTrustRoots, request)
        certificate = trust_pb2.TrustRoot.KIND_CERTIFICATE
        return [Root(root.name, root.pem, root.kind == certificate) for root in answer.trust_roots]
