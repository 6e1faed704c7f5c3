"""The artifact service alone: real gRPC, real PostgreSQL, real interceptors; the catalog is played."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc.aio
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard._refusals import FirstStatus
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.artifact.v1.artifact_pb2 import FileEntry, Upload
from modelyard.api.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from modelyard.api.catalog.v1 import catalog_service_pb2 as catalog_pb
from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard.api.governance.v1 import governance_service_pb2 as governance_pb
from modelyard.api.governance.v1.trust_pb2 import TrustRoot
from modelyard_artifact.app import ArtifactSettings, build
from modelyard_artifact.errors import OffsetMismatch
from modelyard_kit import chassis
from modelyard_kit.access import (
    SYSTEM,
    SYSTEM_ID,
    Chain,
    Effect,
    Link,
    Privilege,
    ResourceGrant,
    ResourceType,
)
from modelyard_kit.auth import Call, Principal, TokenVerifier
from modelyard_kit.channels import open_channel
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.denials import Denials
from modelyard_kit.errors import DomainError, NotFound, PeerUnavailable
from modelyard_kit.grants import Grants
from modelyard_kit.peers import Peers, domain_error
from modelyard_kit.protos import chain_to_proto

MODEL = "prod.ml.iris"
OTHER_MODEL = "prod.ml.wine"
_SMALL_BYTES, _SMALL_FILES = 1024, 500
ADA = Principal("id-ada", "ada", "user")
BOB = Principal("id-bob", "bob", "user")
NOBODY_KNOWN = Principal("id-eve", "eve", "user")
ITSELF = Call(Principal("id-artifact", "artifact", "service"), "r")
_ALL = (Privilege.USE_CATALOG, Privilege.USE_SCHEMA, Privilege.CREATE_VERSION, Privilege.READ_METADATA)


class FakeCatalog:
    """Models and versions in dictionaries, answered as the catalog would."""

    def __init__(self) -> None:
        self.models = {MODEL: "id-iris", OTHER_MODEL: "id-wine"}
        self.versions: dict[str, ModelVersion] = {}
        self.tests: list[catalog_pb.ArtifactTestsChange] = []
        self.reachable = True

    def ready(self, reference: str, digest: str) -> None:
        """Make a reference name a READY version with this artifact."""
        state = ModelVersion.STATE_READY
        self.versions[reference] = ModelVersion(
            id=f"id-{reference}", name=reference, state=state, artifact_digest=digest
        )

    def pending(self, reference: str) -> None:
        """Make a reference name a version that has no artifact yet."""
        self.versions[reference] = ModelVersion(
            id=f"id-{reference}", name=reference, state=ModelVersion.STATE_PENDING
        )

    async def ResolveResource(
        self, request: catalog_pb.ResolveResourceRequest
    ) -> catalog_pb.ResolveResourceResponse:
        """Answer the chain."""
        return catalog_pb.ResolveResourceResponse(chain=chain_to_proto(self._chain(request)))

    async def GetModelVersion(
        self, request: catalog_pb.GetModelVersionRequest
    ) -> catalog_pb.GetModelVersionResponse:
        """Answer the version."""
        if request.name not in self.versions:
            raise NotFound("model_version", request.name)
        return catalog_pb.GetModelVersionResponse(model_version=self.versions[request.name])

    async def FindArtifactUses(
        self, request: catalog_pb.FindArtifactUsesRequest
    ) -> catalog_pb.FindArtifactUsesResponse:
        """Answer which artifacts a version has."""
        have = {version.artifact_digest for version in self.versions.values()}
        return catalog_pb.FindArtifactUsesResponse(digests=have.intersection(request.digests))

    async def SetArtifactTests(
        self, request: catalog_pb.SetArtifactTestsRequest
    ) -> catalog_pb.SetArtifactTestsResponse:
        """Keep what is told."""
        self.tests += request.changes
        return catalog_pb.SetArtifactTestsResponse()

    def _chain(self, request: catalog_pb.ResolveResourceRequest) -> Chain:
        catalog = Link(ResourceType.CATALOG, "id-prod", "prod")
        schema = Link(ResourceType.SCHEMA, "id-prod.ml", "prod.ml")
        names = {model_id: name for name, model_id in self.models.items()}
        name = names.get(request.id, "?") if request.id else request.name
        if (name, request.type) == ("prod", 2):
            return (catalog, SYSTEM)
        if (name, request.type) == ("prod.ml", 3):
            return (schema, catalog, SYSTEM)
        if request.type == 4 and name in self.models:
            return (Link(ResourceType.MODEL, self.models[name], name), schema, catalog, SYSTEM)
        if request.type == 5 and name in self.versions:
            model = name.replace("@", "/").split("/")[0]
            version = Link(ResourceType.MODEL_VERSION, self.versions[name].id, name)
            return (version, Link(ResourceType.MODEL, self.models[model], model), schema, catalog, SYSTEM)
        raise NotFound(
            ResourceType(["", "system", "catalog", "schema", "model", "model_version"][request.type]), name
        )


class FakeGovernance:
    """Trust roots in a list, the same for every model."""

    def __init__(self) -> None:
        self.trust_roots: list[TrustRoot] = []

    async def FindTrustRoots(
        self, request: governance_pb.FindTrustRootsRequest
    ) -> governance_pb.FindTrustRootsResponse:
        """Answer them."""
        return governance_pb.FindTrustRootsResponse(trust_roots=self.trust_roots)


class FakePeers:
    """Peers of which only catalog and governance are there."""

    def __init__(self, catalog: FakeCatalog, governance: FakeGovernance | None = None) -> None:
        self.catalog = catalog
        self.governance = governance or FakeGovernance()

    async def call(self, method: Any, request: Any, *, timeout: float = 5.0) -> Any:
        """Call the fake."""
        if not self.catalog.reachable:
            raise PeerUnavailable("catalog")
        return await method(request)


class NameIsToken:
    """Verifier for whom the token is the principal's name."""

    async def verify(self, token: str) -> Principal:
        """Return the principal of that name."""
        return {each.name: each for each in (ADA, BOB, NOBODY_KNOWN)}[token]


@dataclass(frozen=True)
class Told:
    """An event in the outbox."""

    type: str
    resource_id: str
    actor: str
    data: Mapping[str, Any]


@dataclass
class ArtifactService:
    """A running service and how to reach it."""

    address: str
    catalog: FakeCatalog
    governance: FakeGovernance
    database: Database
    grants: Grants
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def events(self, of_type: str = "") -> list[Told]:
        """Return the events that were written, oldest first."""
        query = text("SELECT type, resource_id, actor_name, data FROM outbox ORDER BY position")

        async def work(connection: AsyncConnection) -> list[Told]:
            rows = (await connection.execute(query)).all()
            return [Told(*row) for row in rows if of_type in ("", row.type)]

        return await self.database.read(work)

    def client(self, principal: Principal = ADA) -> ArtifactClient:
        """Return a client that acts as a principal."""
        channel = open_channel(self.address)
        self.channels.append(channel)
        return ArtifactClient(channel, principal)


class ArtifactClient:
    """The stub with a token; refusals come back as domain errors."""

    def __init__(self, channel: grpc.aio.Channel, principal: Principal) -> None:
        self.stub: Any = ArtifactServiceStub(channel)
        self.metadata = (("authorization", f"Bearer {principal.name}"),)

    async def call(self, rpc: str, request: Any) -> Any:
        """Make a unary call."""
        try:
            return await getattr(self.stub, rpc)(request, metadata=self.metadata, timeout=60)
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error

    async def call_stream(self, rpc: str, request: Any) -> list[Any]:
        """Make a call that is answered by a stream."""
        try:
            return [
                answer
                async for answer in getattr(self.stub, rpc)(request, metadata=self.metadata, timeout=60)
            ]
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error

    async def begin(self, files: Mapping[str, bytes], *, model: str = MODEL, request_id: str = "") -> Upload:
        """Announce files with their right sizes and hashes."""
        request = pb.BeginUploadRequest(model=model, files=entries(files), request_id=request_id)
        return cast("Upload", (await self.call("BeginUpload", request)).upload)

    async def get(self, upload_id: str) -> Upload:
        """Ask what is missing."""
        response = await self.call("GetUpload", pb.GetUploadRequest(upload_id=upload_id))
        return cast("Upload", response.upload)

    async def commit(self, upload_id: str, *signatures: str) -> Any:
        """Commit."""
        request = pb.CommitUploadRequest(upload_id=upload_id, signatures=signatures)
        return (await self.call("CommitUpload", request)).artifact

    async def send(self, pieces: Iterable[pb.UploadBlobsRequest]) -> int:
        """Send a stream and return how many blobs it completed."""
        call = self.stub.UploadBlobs(iter(pieces), metadata=self.metadata, timeout=60)
        status = FirstStatus(call)  # gRPC may forget it, as the client package knows
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            raise refusal(status.of(error)) from error
        return int(response.completed)

    async def resume(self, upload_id: str, contents: Iterable[bytes]) -> None:
        """Send what is missing until nothing is; a stream that was cut may still be bringing its last bytes."""
        known = list(contents)
        while (upload := await self.get(upload_id)).missing:
            try:
                await self.send(missing_pieces(upload, known))
            except OffsetMismatch:
                continue

    async def acknowledged(self, upload_id: str, at_least: int = 1) -> int:
        """Wait until the server has this many bytes of the only blob; return how many it has, 0 if it is complete."""
        while missing := (await self.get(upload_id)).missing:
            if missing[0].offset >= at_least:
                return missing[0].offset
            await asyncio.sleep(0.01)
        return 0

    async def upload(self, files: Mapping[str, bytes], *, model: str = MODEL) -> str:
        """Do all of it and return the digest."""
        upload = await self.begin(files, model=model)
        by_hash = {sha(data): data for data in files.values()}
        small = [by_hash[blob.sha256] for blob in upload.missing if blob.size <= _SMALL_BYTES]
        large = Upload(id=upload.id, missing=[blob for blob in upload.missing if blob.size > _SMALL_BYTES])
        await self.send([*whole_pieces(upload.id, small), *missing_pieces(large, files.values())])
        return str((await self.commit(upload.id)).digest)

    async def read(self, version: str, path: str, offset: int = 0, length: int = 0) -> bytes:
        """Read a range of a file."""
        request = pb.ReadFileRequest(model_version=version, path=path, offset=offset, length=length)
        try:
            stream = self.stub.ReadFile(request, metadata=self.metadata, timeout=60)
            chunks = [response.chunk async for response in stream]
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error
        assert all(0 < len(chunk) <= 1 << 20 for chunk in chunks)
        return b"".join(chunks)


def sha(data: bytes) -> str:
    """Return the SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def entries(files: Mapping[str, bytes]) -> list[FileEntry]:
    """Return what BeginUpload wants to know of files."""
    return [FileEntry(path=path, size=len(data), sha256=sha(data)) for path, data in files.items()]


def header(upload_id: str, data: bytes, offset: int = 0) -> pb.UploadBlobsRequest:
    """Return the header of some content."""
    return pb.UploadBlobsRequest(header=pb.BlobHeader(upload_id=upload_id, sha256=sha(data), offset=offset))


def chunks(data: bytes, size: int = 1 << 16) -> Iterator[pb.UploadBlobsRequest]:
    """Yield content in chunks."""
    for start in range(0, len(data), size):
        yield pb.UploadBlobsRequest(chunk=data[start : start + size])


def missing_pieces(upload: Upload, contents: Iterable[bytes]) -> Iterator[pb.UploadBlobsRequest]:
    """Yield what an upload says is missing."""
    by_hash = {sha(data): data for data in contents}
    for blob in upload.missing:
        data = by_hash[blob.sha256]
        yield header(upload.id, data, blob.offset)
        yield from chunks(data[blob.offset :])


def whole_pieces(upload_id: str, contents: Sequence[bytes]) -> Iterator[pb.UploadBlobsRequest]:
    """Yield small contents in groups."""
    for start in range(0, len(contents), _SMALL_FILES):
        some = contents[start : start + _SMALL_FILES]
        yield pb.UploadBlobsRequest(blobs=pb.WholeBlobs(upload_id=upload_id, contents=some))


def refusal(error: grpc.aio.AioRpcError) -> DomainError:
    """Return the domain error of a status; fails on statuses without a reason."""
    rebuilt = domain_error(error, "artifact")
    if isinstance(rebuilt, PeerUnavailable) and error.code() is not grpc.StatusCode.UNAVAILABLE:
        raise AssertionError(f"no reason in {error.code()}: {error.details()}")
    assert grpc.StatusCode[rebuilt.code] is error.code()
    return rebuilt


async def all_rights(grants: Grants) -> None:
    """Give ada everything that artifacts need on the system, bob all but READ_ARTIFACT and MANAGE."""
    for principal, extra in ((ADA, (Privilege.READ_ARTIFACT, Privilege.MANAGE)), (BOB, ())):
        rights: Sequence[Privilege] = (*_ALL, *extra)
        given = [ResourceGrant(SYSTEM_ID, right, Effect.ALLOW) for right in rights]
        grants.replace(principal.id, principal.name, given)
    await grants.mark_fresh(1)


@asynccontextmanager
async def artifact_service(dsn: str, blobs: Path | str, **others: object) -> AsyncIterator[ArtifactService]:
    """Run the service on a database and a blob store; both survive it, so running it again is a restart.

    Args:
        dsn: the database.
        blobs: a folder, or the setting `blobs`.
        others: more settings.
    """
    database = Database.connect(dsn)
    catalog = FakeCatalog()
    grants = Grants(bound=3600)
    await all_rights(grants)
    with tempfile.TemporaryDirectory(prefix="my-art-") as folder:
        settings = ArtifactSettings(
            listen=f"unix:{folder}/s",
            database=dsn,
            token_file=Path(folder) / "token",
            blobs=blobs if isinstance(blobs, str) else f"file://{blobs}",
            storage_reserve_bytes=0,
            drain_seconds=1,
            **cast("Any", others),
        )
        governance = FakeGovernance()
        peers = cast("Peers", FakePeers(catalog, governance))
        parts = chassis.Chassis(settings, database, peers, grants, utc_now, structlog.get_logger())
        verifier = cast("TokenVerifier", NameIsToken())
        running = ArtifactService(settings.listen, catalog, governance, database, grants)
        try:
            denials = Denials(database, "artifact", utc_now)
            async with (
                build(parts) as service,
                chassis._serving(service, settings, verifier, grants, denials),
            ):
                yield running
                for channel in running.channels:
                    await channel.close()
        finally:
            await database.close()
