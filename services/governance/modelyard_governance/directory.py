"""Finds the resources that catalog and inference keep, by asking them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from modelyard.api.catalog.v1 import catalog_service_pb2 as catalog
from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard.api.inference.v1 import inference_service_pb2 as inference
from modelyard_governance.models import StateChange, Version
from modelyard_kit.access import SYSTEM, Chain, Link, ResourceType
from modelyard_kit.auth import current_call
from modelyard_kit.errors import InvalidField, NotFound, PeerUnavailable
from modelyard_kit.peers import Peers
from modelyard_kit.protos import chain_from_proto, resource_type_to_proto

_LEVELS = (ResourceType.CATALOG, ResourceType.SCHEMA, ResourceType.MODEL)

# What was found during the call being served, by the id of its request. The permission check and the rules then speak of
# the same resource, even if somebody renames or replaces it in between; and the peer is asked once.
_found: ContextVar[tuple[str, dict[tuple[str, str], Any]]] = ContextVar("modelyard_governance_found")


class PeerDirectory:
    """A `Directory` that asks the services that know."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def chain(self, resource_type: ResourceType, name: str) -> Chain:
        """Return the resource and its containers.

        Raises:
            NotFound: there is none of that name.
            InvalidField: the name cannot be one of that type.
            PeerUnavailable: the service that knows cannot be reached.
        """
        if resource_type is ResourceType.SYSTEM:
            return (SYSTEM,)
        found = _remembered()
        key = (resource_type, name)
        if key not in found:
            found[key] = await self._resolve(resource_type, name)
        chain: Chain = found[key]
        return chain

    async def chain_or_phantom(self, resource_type: ResourceType, name: str) -> Chain:
        """Return the chain of a resource, or if there is none the chain that it would have.

        A decision on a phantom reads exactly like one on an existing resource that nobody was granted anything on, so whoever
        may not see a resource cannot find out whether it exists. Errors as `chain`, but for NotFound.
        """
        try:
            return await self.chain(resource_type, name)
        except NotFound:
            phantom = Link(resource_type, "", name)
        container, _, _ = name.rpartition(".")
        if not container:
            return (phantom, SYSTEM)
        kind = _LEVELS[min(container.count("."), 1)]
        return (phantom, *await self.chain_or_phantom(kind, container))

    async def version(self, reference: str) -> Version:
        """Return the version that a reference means now; errors as `chain`."""
        found = _remembered()
        key = (ResourceType.MODEL_VERSION, reference)
        if key not in found:
            found[key] = await self._version(reference)
        version: Version = found[key]
        return version

    async def version_of_id(self, version_id: str) -> Version:
        """Return the version with this id as it is at the moment; errors as `chain`."""
        name = (await self.chain_of_id(ResourceType.MODEL_VERSION, version_id))[0].name
        return await self._version(name)

    async def set_approval_states(self, changes: Sequence[StateChange]) -> None:
        """Tell the catalog where versions stand.

        Raises:
            PeerUnavailable: it does not answer.
        """
        request = catalog.SetApprovalStatesRequest(
            changes=[
                catalog.ApprovalStateChange(
                    model_version_id=change.version_id,
                    state=ModelVersion.ApprovalState.Value(f"APPROVAL_STATE_{change.state}"),
                    sequence=change.sequence,
                )
                for change in changes
            ]
        )
        await self._call(lambda: self._peers.catalog.SetApprovalStates, request, "catalog", "changes")

    async def model_of(self, reference: str) -> Chain:
        """Return the chain of the model of a version reference, whether they exist or not; errors as `chain_or_phantom`."""
        try:
            version = await self.version(reference)
        except NotFound:
            name = reference.removeprefix("models:/").partition("/")[0].partition("@")[0]
            return await self.chain_or_phantom(ResourceType.MODEL, name)
        return version.chain[1:]

    async def _version(self, reference: str) -> Version:
        request = catalog.GetModelVersionRequest(name=reference)
        answer = await self._call(
            lambda: self._peers.catalog.GetModelVersion, request, "catalog", "model_version"
        )
        version: ModelVersion = answer.model_version
        # By its id from here on: an alias may move at any time.
        chain = await self.chain_of_id(ResourceType.MODEL_VERSION, version.id)
        state = ModelVersion.State.Name(version.state).removeprefix("STATE_")
        return Version(chain, version.author_id, version.author_name, state)

    async def chain_of_id(self, resource_type: ResourceType, resource_id: str) -> Chain:
        """Return the chain of something in the catalog, by its id; errors as `chain`."""
        by_id = catalog.ResolveResourceRequest(type=resource_type_to_proto(resource_type), id=resource_id)
        answer = await self._call(
            lambda: self._peers.catalog.ResolveResource, by_id, "catalog", str(resource_type)
        )
        return chain_from_proto(answer.chain)

    async def _resolve(self, resource_type: ResourceType, name: str) -> Chain:
        if resource_type is ResourceType.DEPLOYMENT:
            by_name = inference.ResolveResourceRequest(name=name)
            answer = await self._call(
                lambda: self._peers.inference.ResolveResource, by_name, "inference", "resource"
            )
            return chain_from_proto(answer.chain)
        request = catalog.ResolveResourceRequest(type=resource_type_to_proto(resource_type), name=name)
        answer = await self._call(lambda: self._peers.catalog.ResolveResource, request, "catalog", "resource")
        return chain_from_proto(answer.chain)

    async def _call(
        self, method: Callable[[], Callable[..., Any]], request: Any, service: str, field: str
    ) -> Any:
        try:
            return await self._peers.call(method(), request)
        except InvalidField as error:
            # The peer named its own field; the caller knows it by ours.
            raise InvalidField(
                field, error.violations[0].description if error.violations else error.message
            ) from error
        except LookupError as error:
            raise PeerUnavailable(service) from error  # this installation does not say where it is


def _remembered() -> dict[tuple[str, str], Any]:
    request_id = current_call().request_id
    current = _found.get(("", {}))
    if current[0] != request_id:
        current = (request_id, {})
        _found.set(current)
    return current[1]
