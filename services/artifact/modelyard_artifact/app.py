"""Puts the artifact service together: the only file that knows all the others."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import Field, model_validator
from sqlalchemy.exc import SQLAlchemyError

from modelyard.api.artifact.v1.artifact_service_pb2_grpc import add_ArtifactServiceServicer_to_server
from modelyard_artifact import heap
from modelyard_artifact.access import access_table
from modelyard_artifact.archives import Archives
from modelyard_artifact.belonging import claim
from modelyard_artifact.blobs.local import DEFAULT_RESERVE
from modelyard_artifact.catalog_peer import CatalogPeer
from modelyard_artifact.collection import Collected, Collector
from modelyard_artifact.direct import Direct
from modelyard_artifact.engines import check_address, engine
from modelyard_artifact.framing import FramedServer
from modelyard_artifact.governance_peer import GovernancePeer
from modelyard_artifact.inspection.bounds import Bounds
from modelyard_artifact.inspections import Inspections, InspectionWorker
from modelyard_artifact.inspector import Inspector
from modelyard_artifact.listing import Listings
from modelyard_artifact.reading import Reading
from modelyard_artifact.references import References
from modelyard_artifact.servicer import ArtifactServicer
from modelyard_artifact.signatures import Signatures
from modelyard_artifact.telling import Telling
from modelyard_artifact.transfers import Recorder, Transfers
from modelyard_artifact.uploads import Uploads
from modelyard_artifact.verification import Verification
from modelyard_kit import chassis
from modelyard_kit.auth import Call, Principal
from modelyard_kit.chassis import Chassis, Service
from modelyard_kit.config import Settings
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault
from modelyard_kit.ids import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc.aio

    from modelyard_artifact.blobs import BlobStore
    from modelyard_kit.grants import Grants

SERVICE_NAME = "artifact"
FULL_NAME = "modelyard.api.artifact.v1.ArtifactService"
_CLEANING_PAUSE_SECONDS = 3600.0


class ArtifactSettings(Settings):
    """Settings of the artifact service."""

    blobs: str = Field(description="Where content lies: file:///folder or s3://bucket/prefix.")
    s3_endpoint: str = Field("", description="Address of the S3 server; empty: AWS.")
    s3_direct: bool = Field(
        True,
        description="Whether clients get signed addresses to send to and read from the S3 server themselves.",
    )
    s3_public_endpoint: str = Field(
        "", description="Address at which clients reach the S3 server; empty: the same as s3_endpoint."
    )
    direct_url_minutes: float = Field(
        60.0, gt=0, le=7 * 24 * 60, description="Minutes that a signed address works; S3 allows seven days."
    )
    staging: Path | None = Field(None, description="Local folder for content on its way to S3.")
    storage_reserve_bytes: int = Field(
        DEFAULT_RESERVE, ge=0, description="Bytes of the local disk that uploads leave free."
    )
    upload_expiry_hours: float = Field(
        168.0, gt=0, description="Hours after which an upload nobody worked on is thrown away."
    )
    garbage_grace_hours: float = Field(
        168.0, ge=0, description="Hours that an artifact stays after the last version that had it is gone."
    )

    @model_validator(mode="after")
    def _blob_store(self) -> Self:
        try:
            check_address(self.blobs)
        except ValueError as error:
            raise ValueError(f"blobs={error}") from error
        if self.blobs.startswith("s3:") and (self.staging is None or not self.staging.is_absolute()):
            raise ValueError("staging: with S3, name an absolute local folder for what is arriving")
        return self


def blob_store(settings: ArtifactSettings) -> BlobStore:
    """The engine that the settings ask for, not yet opened."""
    return engine(
        settings.blobs,
        reserve=settings.storage_reserve_bytes,
        staging=settings.staging,
        endpoint=settings.s3_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        direct=settings.s3_direct,
        expiry=timedelta(minutes=settings.direct_url_minutes),
    )


@asynccontextmanager
async def build(parts: Chassis) -> AsyncIterator[Service]:
    """Wires the service on a chassis and lets go of the blob store at the end."""
    settings: ArtifactSettings = parts.settings
    blobs = blob_store(settings)
    await _take(parts, blobs)
    catalog = CatalogPeer(parts.peers)
    signatures = Signatures(parts.db, blobs, catalog, GovernancePeer(parts.peers), parts.grants, parts.clock)
    expiry = timedelta(hours=settings.upload_expiry_hours)
    uploads = Uploads(parts.db, blobs, catalog, signatures, parts.clock, expiry=expiry)
    collector = Collector(
        parts.db, blobs, catalog, parts.clock, grace=timedelta(hours=settings.garbage_grace_hours)
    )
    servicer = ArtifactServicer(
        uploads,
        Transfers(parts.db, blobs, parts.clock),
        reading=Reading(parts.db, blobs, catalog),
        archives=Archives(parts.db, blobs, catalog),
        direct=Direct(parts.db, blobs, catalog, Recorder(parts.db, parts.clock), parts.clock),
        references=References(parts.db, parts.clock),
        listings=Listings(parts.db, catalog),
        collector=collector,
        verification=Verification(parts.db, blobs),
        signatures=signatures,
        inspections=Inspections(parts.db, catalog, parts.clock),
    )
    worker = InspectionWorker(parts.db, Inspector(blobs, Bounds()), parts.clock)

    def register(server: grpc.aio.Server) -> None:
        add_ArtifactServiceServicer_to_server(servicer, cast("Any", FramedServer(server)))

    async def clean() -> None:
        while True:
            try:
                call = Call(_self(parts.grants), new_id())
                expired = await uploads.expire(call, expiry)
                if expired:
                    parts.log.info("uploads_expired", count=expired)
                collected = await collector.sweep(call)
                if collected != Collected():
                    parts.log.info("garbage_collected", **asdict(collected))
            except (DomainError, OSError, SQLAlchemyError, InjectedFault) as error:
                parts.log.warning("cleaning_failed", error=str(error), retry_seconds=_CLEANING_PAUSE_SECONDS)
            await asyncio.sleep(_CLEANING_PAUSE_SECONDS)

    try:
        yield Service(
            name=SERVICE_NAME,
            full_name=FULL_NAME,
            register=register,
            access=access_table(catalog),
            background=(clean, worker.run, Telling(parts.db, catalog).run),
        )
    finally:
        await blobs.close()


async def _take(parts: Chassis, blobs: BlobStore) -> None:
    """Opens the blob store, if it can be used and is this installation's; else the process ends with the reason."""
    try:
        await blobs.open()
        await claim(parts.db, blobs)
    except (RuntimeError, OSError, ValueError, DomainError) as error:
        await blobs.close()
        raise SystemExit(f"MODELYARD_BLOBS={parts.settings.blobs}: {error}") from error


def _self(grants: Grants) -> Principal:
    """This service as a principal, for events of what it does by itself."""
    known = (key for key, (name, _) in grants.principals().items() if name == SERVICE_NAME)
    return Principal(next(known, SERVICE_NAME), SERVICE_NAME, "service")


def main() -> None:
    """Runs the service until it is told to stop."""
    heap.keep_freed()
    chassis.main(ArtifactSettings, build, package="modelyard_artifact")
