"""The catalog, governance and artifact services, spoken to in protobuf and answered in this service's own types."""

from __future__ import annotations

from collections.abc import AsyncIterator

from modelyard.api.artifact.v1.artifact_service_pb2 import (
    CheckSignaturesRequest,
    ListFilesRequest,
    ReadFileRequest,
)
from modelyard.api.catalog.v1.catalog_service_pb2 import (
    GetModelVersionRequest,
    RecordDeploymentRequest,
    ResolveResourceRequest,
)
from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard.api.catalog.v1.signature_pb2 import InputLayout, MethodSignature, Signature, TensorSpec
from modelyard.api.governance.v1.approval_pb2 import GATED_ACTION_DEPLOY
from modelyard.api.governance.v1.governance_service_pb2 import EvaluateGateRequest, FindTrustRootsRequest
from modelyard.api.governance.v1.trust_pb2 import TrustRoot
from modelyard.signing import Root
from modelyard.types import FileEntry
from modelyard_inference.evidence import Bundle, Evidence
from modelyard_inference.models import Version
from modelyard_inference.notes import Note
from modelyard_kit.access import SYSTEM, Chain, Link, ResourceType
from modelyard_kit.errors import InvalidState, NotFound, PolicyUnmet
from modelyard_kit.peers import Peers
from modelyard_kit.protos import (
    chain_from_proto,
    chain_to_proto,
    link_to_proto,
    resource_type_to_proto,
    timestamp,
)

_PAGE = 10_000
_LEVELS = (ResourceType.CATALOG, ResourceType.SCHEMA, ResourceType.MODEL)


class PeerUpstream:
    """Asks the other services with this service's own rights; implements the ports `Upstream` and `ArtifactSource`."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def version(self, reference: str) -> Version:
        """Return the version that a reference means now.

        Raises:
            NotFound: there is none.
            InvalidState: it is not READY.
            PeerUnavailable: the catalog does not answer.
        """
        response = await self._peers.call(
            self._peers.catalog.GetModelVersion, GetModelVersionRequest(name=reference)
        )
        found: ModelVersion = response.model_version
        if found.state != ModelVersion.STATE_READY:
            state = ModelVersion.State.Name(found.state).removeprefix("STATE_")
            raise InvalidState(ResourceType.MODEL_VERSION, found.name, state=state, wanted="READY")
        return Version(
            id=found.id,
            name=found.name,
            number=found.number,
            model_id=found.model_id,
            model=found.model,
            artifact_digest=found.artifact_digest,
            runtime=found.runtime,
            signature=_signature(found.signature),
            author_id=found.author_id,
        )

    async def version_chain(self, name: str) -> Chain:
        """Return the chain of a version: version, model, schema, catalog, system.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """
        return await self._chain(ResourceType.MODEL_VERSION, name)

    async def version_name(self, version_id: str) -> str:
        """Return what a version is called now.

        Raises:
            NotFound: there is no such version any more.
            PeerUnavailable: the catalog does not answer.
        """
        return (await self._chain(ResourceType.MODEL_VERSION, resource_id=version_id))[0].name

    async def model_name(self, model_id: str) -> str:
        """Return what a model is called now.

        Raises:
            NotFound: there is no such model any more.
            PeerUnavailable: the catalog does not answer.
        """
        return (await self._chain(ResourceType.MODEL, resource_id=model_id))[0].name

    async def schema_of_id(self, schema_id: str) -> Chain:
        """Return the chain of a schema by its id.

        Raises:
            NotFound: there is no such schema any more.
            PeerUnavailable: the catalog does not answer.
        """
        return await self._chain(ResourceType.SCHEMA, resource_id=schema_id)

    async def schema_chain(self, name: str) -> Chain:
        """Return the chain of a schema.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """
        return await self._chain(ResourceType.SCHEMA, name)

    async def nearest_chain(self, name: str) -> Chain:
        """Return the chain of the innermost of model, schema, catalog and system that exists for a dotted name.

        Raises:
            PeerUnavailable: the catalog does not answer.
        """
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            try:
                return await self._chain(_LEVELS[count - 1], ".".join(parts[:count]))
            except NotFound:
                continue
        return (SYSTEM,)

    async def require_usable(self, version_id: str, schema_id: str) -> None:
        """Return if a version, and the schema of a deployment of it, are there and not being deleted.

        Raises:
            NotFound: one is deleted.
            InvalidState: one is being deleted at this moment.
            PeerUnavailable: the catalog does not answer.
        """
        await self._chain(ResourceType.MODEL_VERSION, resource_id=version_id, for_use=True)
        await self._chain(ResourceType.SCHEMA, resource_id=schema_id, for_use=True)

    async def gate(self, version: Version, chain: Chain) -> None:
        """Ask whether policies let a version answer predictions.

        Raises:
            PolicyUnmet: they do not, with every unmet condition.
            PeerUnavailable: governance does not answer.
        """
        request = EvaluateGateRequest(
            model_version=chain_to_proto(chain), author_id=version.author_id, action=GATED_ACTION_DEPLOY
        )
        response = await self._peers.call(self._peers.governance.EvaluateGate, request)
        if not response.allowed:
            raise PolicyUnmet("DEPLOY", version.name, response.policy, list(response.unmet))

    async def evidence(self, version_id: str, digest: str) -> Evidence:
        """Return the signatures of a version's artifact, and the trust roots that count for its model.

        Raises:
            NotFound: there is no such version any more.
            PeerUnavailable: the catalog, the artifact service or governance does not answer.
        """
        model = (await self.version_name(version_id)).rpartition("/")[0]
        signed = await self._peers.call(
            self._peers.artifact.CheckSignatures,
            CheckSignaturesRequest(digest=digest, model=model),
            timeout=30.0,
        )
        bundles = tuple(Bundle(each.bundle, each.trust_root) for each in signed.signatures)
        if not bundles:
            return Evidence()
        request = FindTrustRootsRequest(
            resource_type=resource_type_to_proto(ResourceType.MODEL), resource=model
        )
        trusted = await self._peers.call(self._peers.governance.FindTrustRoots, request)
        return Evidence(bundles, tuple(map(_root, trusted.trust_roots)))

    async def record_deployment(self, note: Note) -> None:
        """Tell the lineage graph of a deployment; again is harmless.

        Raises:
            PeerUnavailable: the catalog does not answer.
            DomainError: it refuses.
        """
        link = Link(ResourceType.DEPLOYMENT, note.deployment_id, note.name, note.owner_id)
        request = RecordDeploymentRequest(
            deployment=link_to_proto(link),
            schema_id=note.schema_id,
            model_version_ids=note.version_ids,
            delete_time=timestamp(note.delete_time),
        )
        await self._peers.call(self._peers.catalog.RecordDeployment, request)

    async def files(self, version: str) -> tuple[str, list[FileEntry]]:
        """Return the digest and the files of a version's artifact, in byte order of their paths.

        Raises:
            DomainError: it cannot be listed.
        """
        digest, files, token = "", [], ""
        while True:
            request = ListFilesRequest(model_version=version, page_size=_PAGE, page_token=token)
            response = await self._peers.call(self._peers.artifact.ListFiles, request, timeout=30.0)
            files += [FileEntry(entry.path, entry.size, entry.sha256) for entry in response.files]
            digest, token = response.artifact_digest, response.next_page_token
            if not token:
                return digest, files

    async def read(self, version: str, path: str) -> AsyncIterator[bytes]:
        """Yield the bytes of one file of a version's artifact.

        Raises:
            DomainError: it cannot be read.
        """
        request = ReadFileRequest(model_version=version, path=path)
        async for response in self._peers.stream(self._peers.artifact.ReadFile, request):
            yield response.chunk

    async def _chain(
        self, kind: ResourceType, name: str = "", *, resource_id: str = "", for_use: bool = False
    ) -> Chain:
        request = ResolveResourceRequest(
            type=resource_type_to_proto(kind), name=name, id=resource_id, for_use=for_use
        )
        response = await self._peers.call(self._peers.catalog.ResolveResource, request)
        return chain_from_proto(response.chain)


def _root(message: TrustRoot) -> Root:
    return Root(message.name, message.pem, message.kind == TrustRoot.KIND_CERTIFICATE)


def _signature(message: Signature) -> dict[str, object]:
    """Return the JSON form that replicas read."""
    return {"methods": [_method(method) for method in message.methods]}


def _method(message: MethodSignature) -> dict[str, object]:
    layout = message.input_layout or InputLayout.INPUT_LAYOUT_TENSORS
    return {
        "name": message.name,
        "inputs": [_tensor(spec) for spec in message.inputs],
        "outputs": [_tensor(spec) for spec in message.outputs],
        "input_layout": InputLayout.Name(layout).removeprefix("INPUT_LAYOUT_"),
    }


def _tensor(message: TensorSpec) -> dict[str, object]:
    return {"name": message.name, "datatype": message.datatype, "shape": list(message.shape)}
