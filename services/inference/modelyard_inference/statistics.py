"""Asks replicas what they counted and are doing, for callers and for whoever scrapes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from modelyard_inference import errors, replica_rows
from modelyard_inference.models import Deployment, Group, Replica, ReplicaState
from modelyard_inference.ports import Counters, Measured, Meter
from modelyard_inference.store import InferenceStore
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database

_PARALLEL = 64
_ANSWERING = (ReplicaState.READY, ReplicaState.DRAINING)


@dataclass(frozen=True)
class ReplicaFigures:
    """What one replica is doing."""

    deployment: Deployment
    replica: Replica
    group: Group
    measured: Measured | None
    """None if it did not say."""


@dataclass(frozen=True)
class DeploymentFigures:
    """What the replicas of a deployment are doing."""

    deployment: Deployment
    time: datetime
    replicas: tuple[ReplicaFigures, ...]

    @property
    def counters(self) -> Counters:
        """Return the sum of what those counted that answer callers."""
        counted = (one.measured.counters for one in self.replicas if one.measured and not one.group.shadow)
        return sum(counted, start=Counters())


class Statistics:
    """Use case of asking for figures.

    Args:
        db: the database.
        store: its tables.
        meter: asks replicas.
        clock: tells the time.
    """

    def __init__(self, db: Database, store: InferenceStore, meter: Meter, clock: Clock) -> None:
        self._db = db
        self._store = store
        self._meter = meter
        self._clock = clock
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def of_deployment(self, name: str) -> DeploymentFigures:
        """Return what the replicas of a deployment are doing.

        Raises:
            NotFound: there is no deployment of that name.
        """
        found = await self._db.read(lambda connection: self._store.deployment(connection, name))
        if found is None:
            raise errors.no_deployment(name)
        running = await self._db.read(lambda connection: replica_rows.running(connection, found.id))
        figures = await self._ask((found, *each) for each in running)
        return DeploymentFigures(found, self._clock(), figures)

    async def everything(self) -> Sequence[ReplicaFigures]:
        """Return what all replicas are doing."""
        world = await self._db.read(self._store.world)
        deployments = {deployment.id: deployment for deployment in world.deployments}
        groups = {group.id: group for group in world.groups}
        return await self._ask(
            (deployments[replica.deployment_id], replica, groups[replica.group_id])
            for replica in world.replicas
        )

    async def _ask(self, running: Iterable[tuple[Deployment, Replica, Group]]) -> tuple[ReplicaFigures, ...]:
        return tuple(await asyncio.gather(*(self._figures(*each) for each in running)))

    async def _figures(self, deployment: Deployment, replica: Replica, group: Group) -> ReplicaFigures:
        measured = None
        if replica.state in _ANSWERING:
            async with self._slots:
                measured = await self._meter.statistics(replica.address)
        return ReplicaFigures(deployment, replica, group, measured)
