"""What the rules look up before they do anything: the model, the digest of a version, the committed artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from modelyard_artifact import store
from modelyard_artifact.models import ModelRef
from modelyard_kit.errors import InvalidState, NotFound

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.described import Described
    from modelyard_artifact.models import Artifact, VersionRef
    from modelyard_kit.access import Chain
    from modelyard_kit.auth import Call


class Catalog(Protocol):
    """What this service needs to know of the catalog."""

    async def model(self, name: str) -> ModelRef:
        """Finds a model by its full name. Raises NotFound, InvalidField, PeerUnavailable."""

    async def chain_of_model(self, model_id: str) -> Chain:
        """Returns a model and its containers by its id. Raises NotFound, PeerUnavailable."""

    async def version(self, reference: str) -> VersionRef:
        """Finds a version by its reference. Raises NotFound, InvalidField, PeerUnavailable."""

    async def describe(self, reference: str) -> Described:
        """Tells all about a version. Raises as `version`."""


async def permitted_model(catalog: Catalog, call: Call, name: str) -> ModelRef:
    """The model that the permission layer found and decided on; who calls the rules directly has it looked up.

    Raises:
        NotFound: no such model.
    """
    if call.permit is None:
        return await catalog.model(name)
    link = call.permit.chain[0]
    return ModelRef(id=link.id, name=link.name)


async def version_digest(catalog: Catalog, reference: str) -> str:
    """The digest of a version's artifact.

    Raises:
        NotFound: no such version.
        InvalidState: the version has no artifact yet.
    """
    version = await catalog.version(reference)
    if version.state != "READY" or not version.digest:
        raise InvalidState("model_version", version.name, state=version.state, wanted="READY")
    return version.digest


async def committed(connection: AsyncConnection, digest: str) -> Artifact:
    """Reads a committed artifact.

    Raises:
        NotFound: nothing with that digest is committed, or it was collected.
    """
    artifact = await store.get_artifact(connection, digest)
    if artifact is None:
        raise NotFound("artifact", digest)
    return artifact
