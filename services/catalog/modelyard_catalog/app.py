"""Puts the catalog service together: the only file that knows all the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
from pydantic import Field

from modelyard.api.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from modelyard_catalog.access import Resolvers, access_table
from modelyard_catalog.aliases import Aliases
from modelyard_catalog.namespaces import Namespaces
from modelyard_catalog.neighbours import ArtifactService, GovernanceService
from modelyard_catalog.servicer import CatalogServicer
from modelyard_catalog.store import CatalogStore
from modelyard_catalog.versions import Versions
from modelyard_kit.chassis import Chassis, Service
from modelyard_kit.chassis import main as run
from modelyard_kit.config import Settings

PACKAGE = "modelyard_catalog"
FULL_NAME = "modelyard.api.catalog.v1.CatalogService"


class CatalogSettings(Settings):
    """What the catalog service is told, beside what every service is."""

    artifact_address: str = Field(description="Address of the artifact service.")
    governance_address: str = Field(description="Address of the governance service.")


@asynccontextmanager
async def build(chassis: Chassis) -> AsyncIterator[Service]:
    """Make the service of what the kit gives."""
    store = CatalogStore()
    servicer = CatalogServicer(
        Namespaces(chassis.db, store, chassis.clock),
        Versions(chassis.db, store, chassis.clock, ArtifactService(chassis.peers)),
        Aliases(chassis.db, store, chassis.clock, GovernanceService(chassis.peers)),
        chassis.grants,
    )

    def register(server: grpc.aio.Server) -> None:
        add_CatalogServiceServicer_to_server(servicer, server)

    yield Service(
        name="catalog",
        full_name=FULL_NAME,
        register=register,
        access=access_table(Resolvers(chassis.db, store)),
    )


def main() -> None:
    """Run the service until it is told to stop."""
    run(CatalogSettings, build, package=PACKAGE)
