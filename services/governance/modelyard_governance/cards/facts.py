"""What the catalog knows of a version, asked of it for the draft of a card."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import json_format

from modelyard.api.catalog.v1 import catalog_service_pb2 as catalog
from modelyard.api.catalog.v1.lineage_pb2 import LineageNode
from modelyard.api.catalog.v1.model_pb2 import DatasetReference, ModelVersion
from modelyard_governance.cards.prefill import Facts
from modelyard_governance.directory import PeerDirectory
from modelyard_kit.access import Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.errors import NotFound, PeerUnavailable
from modelyard_kit.grants import Grants
from modelyard_kit.peers import Peers

_TESTED = ("test", "validation")
_NEIGHBOURS = 20
_KINDS = {
    LineageNode.KIND_MODEL_VERSION: ResourceType.MODEL_VERSION,
    LineageNode.KIND_DEPLOYMENT: ResourceType.DEPLOYMENT,
}


class CatalogFacts:
    """Asks the catalog, as governance: the caller's right to read the model was checked before."""

    def __init__(self, peers: Peers, grants: Grants, directory: PeerDirectory) -> None:
        self._peers = peers
        self._grants = grants
        self._directory = directory

    async def of(self, call: Call, reference: str) -> Facts:
        """Return all that a card can be drafted from and the caller may know.

        Raises:
            NotFound: there is no such version.
            PeerUnavailable: the catalog does not answer.
        """
        try:
            stub = self._peers.catalog
        except LookupError as error:
            raise PeerUnavailable("catalog") from error
        by_name = catalog.GetModelVersionRequest(name=reference)
        version: ModelVersion = (await self._peers.call(stub.GetModelVersion, by_name)).model_version
        of_model = catalog.GetModelRequest(name=version.model)
        model = (await self._peers.call(stub.GetModel, of_model)).model
        node = LineageNode(kind=LineageNode.KIND_MODEL_VERSION, name=version.name)
        around = catalog.QueryLineageRequest(node=node, depth=1)
        edges = list((await self._peers.call(stub.QueryLineage, around)).edges)
        sources = [edge.source for edge in edges if edge.target.id == version.id]
        targets = [edge.target for edge in edges if edge.source.id == version.id]
        return self._facts(
            version, model.owner_id, await self._shown(call, sources), await self._shown(call, targets)
        )

    async def _shown(self, call: Call, nodes: Iterable[LineageNode]) -> list[str]:
        """Return the names of neighbours that the caller may see; data sets stand elsewhere on the card."""
        wanted = [node for node in nodes if node.name and node.kind != LineageNode.KIND_DATASET]
        return [_node(node) for node in wanted[:_NEIGHBOURS] if await self._may_see(call, node)]

    async def _may_see(self, call: Call, node: LineageNode) -> bool:
        kind = _KINDS.get(node.kind)
        if kind is None:  # a run or a batch job, which everybody who sees the version sees
            return True
        try:
            if kind is ResourceType.MODEL_VERSION:
                chain = (await self._directory.version_of_id(node.id)).chain[1:]
            else:
                chain = await self._directory.chain(kind, node.name)
        except NotFound:
            return False
        return self._grants.decide(call.principal.id, Privilege.READ_METADATA, chain).allowed

    def _facts(self, version: ModelVersion, owner_id: str, made_from: list[str], used_by: list[str]) -> Facts:
        metadata, provenance = version.metadata, version.provenance
        name, _ = self._grants.principals().get(owner_id, ("", ()))
        return Facts(
            id=version.id,
            model=version.model,
            number=version.number,
            description=version.description,
            author=version.author_name,
            owner=name,
            artifact=version.artifact_digest,
            runtime=version.runtime,
            use_case=metadata.use_case,
            framework=" ".join(filter(None, (metadata.framework, metadata.framework_version))),
            algorithm=metadata.algorithm,
            hyperparameters=json_format.MessageToDict(metadata.hyperparameters),
            metrics={key: json_format.MessageToDict(value) for key, value in version.metrics.items()},
            tags=dict(version.tags),
            custom={fact.key: fact.value for fact in metadata.custom},
            source=provenance.source,
            commit=provenance.git_commit,
            python=provenance.python_version,
            packages=dict(provenance.packages),
            training_data=[_dataset(data) for data in provenance.datasets if data.role not in _TESTED],
            test_data=[_dataset(data) for data in provenance.datasets if data.role in _TESTED],
            upstream=made_from,
            downstream=used_by,
        )


def _node(node: LineageNode) -> str:
    kind = LineageNode.Kind.Name(node.kind).removeprefix("KIND_").lower().replace("_", " ")
    return f"{kind} {node.name}"


def _dataset(data: DatasetReference) -> str:
    text = f"{data.name}@{data.version}" if data.version else data.name
    return f"{text} ({data.digest})" if data.digest else text
