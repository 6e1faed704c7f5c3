"""What the catalog knows of a version and may be told elsewhere, asked of it with this service's own token."""

from __future__ import annotations

from google.protobuf import json_format

from modelyard.api.catalog.v1 import catalog_service_pb2 as catalog
from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard_governance.models import Version
from modelyard_governance.shares.models import Origin
from modelyard_kit.errors import NotFound, PeerUnavailable
from modelyard_kit.peers import Peers

# All that is the version's own. Not its name, model and aliases, which the manifest has; nor the names of people; nor what it is a
# copy of, which may be something that is not shared; nor how it stands in this installation.
_TOLD = (
    "id",
    "model_id",
    "number",
    "artifact_digest",
    "description",
    "runtime",
    "signature",
    "tags",
    "metrics",
    "provenance",
    "author_id",
    "create_time",
    "label",
    "metadata",
)


class PeerOrigin:
    """`KnowsOrigin` from the catalog. That the caller may read the model was checked before."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def of(self, version: Version) -> Origin:
        """Return what may be told elsewhere; see `bundles.KnowsOrigin`."""
        link = version.chain[0]
        try:
            stub = self._peers.catalog
        except LookupError as error:
            raise PeerUnavailable("catalog") from error
        request = catalog.GetModelVersionRequest(name=link.name)
        found: ModelVersion = (await self._peers.call(stub.GetModelVersion, request)).model_version
        if found.id != link.id:  # renamed or made again since: what is there is another one
            raise NotFound("model_version", link.name)
        told = ModelVersion()
        told.CopyFrom(found)
        for field in ModelVersion.DESCRIPTOR.fields:
            if field.name not in _TOLD:
                told.ClearField(field.name)  # type: ignore[arg-type]
        told.model_id = version.chain[1].id
        document = json_format.MessageToDict(told)
        return Origin(found.id, told.model_id, found.number, found.artifact_digest, document)
