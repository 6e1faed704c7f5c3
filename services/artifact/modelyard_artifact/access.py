"""Who may call what. An RPC that is missing here keeps the service from starting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard_artifact.messages import parse_model, parse_version
from modelyard_kit.access import SYSTEM, Chain, Privilege
from modelyard_kit.authorization import AUTHENTICATED, SERVICES, AccessTable, Requires

if TYPE_CHECKING:
    from modelyard_artifact.catalog_peer import CatalogPeer


def access_table(catalog: CatalogPeer) -> AccessTable:
    """The rule of every RPC."""

    async def model(request: Any) -> Chain:
        return await catalog.model_chain(parse_model(request.model))

    async def version(request: Any) -> Chain:
        return await catalog.version_chain(parse_version(request.model_version))

    async def system(_: Any) -> Chain:
        return (SYSTEM,)

    return {
        "BeginUpload": Requires(Privilege.CREATE_VERSION, model),
        # An upload is seen only by the principal that began it; the rules look for it under that principal.
        "UploadBlobs": AUTHENTICATED,
        "GetUpload": AUTHENTICATED,
        "SignUploadUrls": AUTHENTICATED,
        "FinishBlob": AUTHENTICATED,
        "CommitUpload": AUTHENTICATED,
        "CancelUpload": AUTHENTICATED,
        "GetArtifact": Requires(Privilege.READ_METADATA, model),
        "ListFiles": Requires(Privilege.READ_ARTIFACT, version),
        "ReadFile": Requires(Privilege.READ_ARTIFACT, version),
        "ReadFiles": Requires(Privilege.READ_ARTIFACT, version),
        "ReadArchive": Requires(Privilege.READ_ARTIFACT, version),
        "SignDownloadUrls": Requires(Privilege.READ_ARTIFACT, version),
        "ListArtifacts": Requires(Privilege.READ_METADATA, model),
        "GetInspection": Requires(Privilege.READ_METADATA, model),
        "InspectArtifact": Requires(Privilege.EDIT, model),
        "AddSignature": Requires(Privilege.CREATE_VERSION, model),
        # The rules ask for the same on other models that share the artifact.
        "RemoveSignature": Requires(Privilege.EDIT, model),
        "CheckSignatures": Requires(Privilege.READ_METADATA, model),
        "GetSbom": Requires(Privilege.READ_ARTIFACT, version),
        "GetStorageStatistics": Requires(Privilege.MANAGE, system),
        "VerifyBlobs": Requires(Privilege.MANAGE, system),
        "CollectGarbage": Requires(Privilege.MANAGE, system),
        "AcquireReference": SERVICES,
    }
