"""Puts the catalog service together: the only file that knows all the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc.aio
from pydantic import Field

from modelyard.api.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from modelyard_catalog.access import Resolvers, access_table
from modelyard_catalog.aliases import Aliases
from modelyard_catalog.approval_states import ApprovalStates
from modelyard_catalog.artifact_tests import ToldTests
from modelyard_catalog.authority import Authority
from modelyard_catalog.copies import Copies
from modelyard_catalog.deletions import Deletions
from modelyard_catalog.feed import Feed, FeedOptions
from modelyard_catalog.lifecycle_store import LifecycleStore
from modelyard_catalog.lineage import LineageGraph
from modelyard_catalog.lineage_rights import Sources
from modelyard_catalog.namespaces import Namespaces
from modelyard_catalog.neighbours import ArtifactService, GovernanceService, InferenceService
from modelyard_catalog.purge import Purge
from modelyard_catalog.servicer import CatalogServicer
from modelyard_catalog.store import CatalogStore
from modelyard_catalog.updates import Updates
from modelyard_catalog.versions import Versions
from modelyard_kit.auth import Principal
from modelyard_kit.chassis import Chassis, Service
from modelyard_kit.chassis import main as run
from modelyard_kit.config import Settings
from modelyard_kit.grants import Grants

PACKAGE = "modelyard_catalog"
SERVICE_NAME = "catalog"
FULL_NAME = "modelyard.api.catalog.v1.CatalogService"


class CatalogSettings(Settings):
    """What the catalog service is told, beside what every service is."""

    artifact_address: str = Field(description="Address of the artifact service.")
    governance_address: str = Field(description="Address of the governance service.")
    inference_address: str = Field(description="Address of the inference service.")
    deleted_retention_days: float = Field(
        30.0,
        ge=0,
        le=36_500,
        description="Days in which what was deleted can be undeleted; then it is purged.",
    )
    feed_heartbeat_seconds: float = Field(
        5.0, gt=0, le=60, description="Silence after which watchers of the change feed get a heartbeat."
    )
    feed_watch_seconds: float = Field(
        900.0, gt=0, description="Longest life of one watch; then its caller begins again with a fresh token."
    )
    feed_retention_days: float = Field(
        30.0, gt=0, description="Days that delivered events are kept for the change feed."
    )

    def feed_options(self) -> FeedOptions:
        """Return how the change feed is to behave."""
        return FeedOptions(
            heartbeat=self.feed_heartbeat_seconds,
            longest=self.feed_watch_seconds,
            retention=timedelta(days=self.feed_retention_days),
        )


@asynccontextmanager
async def build(chassis: Chassis) -> AsyncIterator[Service]:
    """Make the service of what the kit gives."""
    store = CatalogStore()
    resolvers = Resolvers(chassis.db, store)
    feed = Feed(chassis.db, chassis.grants, resolvers.path, chassis.clock, chassis.settings.feed_options())
    lifecycle = LifecycleStore()
    gates = GovernanceService(chassis.peers)
    deployments = InferenceService(chassis.peers)
    authority = Authority(chassis.grants, resolvers)
    artifacts = ArtifactService(chassis.peers)
    servicer = CatalogServicer(
        Namespaces(chassis.db, store, chassis.clock, chassis.grants.id_of),
        Versions(chassis.db, store, chassis.clock, artifacts),
        Aliases(chassis.db, store, chassis.clock, gates),
        chassis.grants,
        feed=feed,
        updates=Updates(chassis.db, store, lifecycle, chassis.clock, authority),
        deletions=Deletions(
            chassis.db,
            store,
            lifecycle,
            chassis.clock,
            deployments,
            gates,
            retention=timedelta(days=chassis.settings.deleted_retention_days),
        ),
        copies=Copies(chassis.db, store, chassis.clock, authority, artifacts),
        approvals=ApprovalStates(chassis.db, store),
        tests=ToldTests(chassis.db, chassis.clock),
        lineage=LineageGraph(Sources(chassis.db, chassis.grants, resolvers, deployments), chassis.clock),
    )

    purge = Purge(chassis.db, lifecycle, chassis.clock, lambda: _self(chassis.grants))

    def register(server: grpc.aio.Server) -> None:
        add_CatalogServiceServicer_to_server(servicer, server)

    yield Service(
        name=SERVICE_NAME,
        full_name=FULL_NAME,
        register=register,
        access=access_table(resolvers),
        background=(
            feed.run,
            purge.run,
        ),
    )


def _self(grants: Grants) -> Principal:
    """Return this service as a principal, for events of what it does by itself."""
    known = (key for key, (name, _) in grants.principals().items() if name == SERVICE_NAME)
    return Principal(next(known, SERVICE_NAME), SERVICE_NAME, "service")


def main() -> None:
    """Run the service until it is told to stop."""
    run(CatalogSettings, build, package=PACKAGE)
