"""Follows aliases: looks again what a reference means, and wants the new version if its policies let it.

References that name a number never change. The others are looked up in turn, a bounded number each time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference.models import Deployment, DeploymentState, Target, Version
from modelyard_inference.ports import Upstream
from modelyard_inference.store import InferenceStore
from modelyard_kit.db import Database
from modelyard_kit.errors import Contention, DomainError, PeerUnavailable, PermissionsStale
from modelyard_kit.faults import InjectedFault, failpoint

PERIOD_SECONDS = 0.5
BATCH = 64
"""References looked up at most each time; more of them take turns."""
_PARALLEL = 8
# These say nothing about the version, only that it is a bad moment to ask.
_LATER = (PeerUnavailable, PermissionsStale, Contention)

_log = structlog.get_logger()
Answer = Version | DomainError


class Followers:
    """Keeps the wanted version of every following target up to date."""

    def __init__(
        self, db: Database, store: InferenceStore, upstream: Upstream, wake: Callable[[], None]
    ) -> None:
        self._db = db
        self._store = store
        self._upstream = upstream
        self._wake = wake
        self._turns: OrderedDict[str, None] = OrderedDict()
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def run(self) -> None:
        """Follow for ever. A loop of its own, so that a slow catalog delays nothing else."""
        while True:
            try:
                world = await self._db.read(self._store.world)
                if await self.follow(world.deployments):
                    self._wake()
            except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
                _log.warning("follow_failed", error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def follow(self, deployments: Sequence[Deployment]) -> bool:
        """Look up references whose turn it is; return whether any deployment wants something else now."""
        following = [d for d in deployments if d.state is not DeploymentState.DELETING]
        references = {t.spec.reference for d in following for t in d.targets if t.spec.follows}
        for gone in self._turns.keys() - references:
            del self._turns[gone]
        for new in references - self._turns.keys():
            self._turns[new] = None
        turn = list(self._turns)[:BATCH]
        for reference in turn:
            self._turns.move_to_end(reference)
        answers = dict(zip(turn, await asyncio.gather(*map(self._version, turn)), strict=True))
        gates: dict[str, DomainError | None] = {}
        changed = False
        for deployment in following:
            targets = [await self._look(target, answers, gates) for target in deployment.targets]
            if tuple(targets) != deployment.targets:
                changed |= await self._want(deployment, targets)
        return changed

    async def _version(self, reference: str) -> Answer:
        async with self._slots:
            try:
                return await self._upstream.version(reference)
            except DomainError as error:
                return error

    async def _look(
        self, target: Target, answers: dict[str, Answer], gates: dict[str, DomainError | None]
    ) -> Target:
        answer = answers.get(target.spec.reference) if target.spec.follows else None
        if answer is None or isinstance(answer, _LATER):
            return target
        if isinstance(answer, DomainError):
            return replace(target, problem=f"{target.spec.reference}: {answer}")
        if answer.id == target.wanted.id:
            return replace(target, problem="")
        refusal = await self._gate(answer, gates)
        if isinstance(refusal, _LATER):
            return target
        if refusal:
            return replace(target, problem=f"{target.spec.reference} means {answer.name} now: {refusal}")
        return replace(target, wanted=answer, problem="")

    async def _gate(self, version: Version, gates: dict[str, DomainError | None]) -> DomainError | None:
        if version.id not in gates:
            try:
                await self._upstream.gate(version, await self._upstream.version_chain(version.name))
                gates[version.id] = None
            except DomainError as error:
                gates[version.id] = error
        return gates[version.id]

    async def _want(self, deployment: Deployment, targets: Sequence[Target]) -> bool:
        """Write what the targets want, unless a caller has changed the deployment meanwhile."""

        async def work(connection: AsyncConnection) -> bool:
            now = await self._store.deployment_by_id(connection, deployment.id)
            if now is None or now.revision != deployment.revision:
                return False
            await self._store.replace_targets(connection, deployment.id, targets)
            return True

        written = await self._db.in_tx(work)
        await failpoint("inference.target.followed")
        for before, after in zip(deployment.targets, targets, strict=True):
            if before.wanted.id != after.wanted.id:
                _log.info(
                    "alias_followed",
                    deployment=deployment.name,
                    before=before.wanted.name,
                    after=after.wanted.name,
                )
        return written
