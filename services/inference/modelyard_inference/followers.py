"""Follows aliases and renames: looks again what a reference means, and wants the new version if its policies let it.

What is followed is a model, by its id: a reference is looked up under the name that the model has now, and is rewritten to it. So a
rename changes nothing for a deployment, and another model that gets the old name is none of its business. References that name
a number always mean the same version. All are looked up in turn, a bounded number each time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import origins
from modelyard_inference.models import Deployment, DeploymentState, Target, Version
from modelyard_inference.ports import Upstream
from modelyard_inference.store import InferenceStore
from modelyard_inference.targets import renamed
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


@dataclass(frozen=True)
class _Followed:
    """A reference to a version of a model that had this id when it was given."""

    model_id: str
    reference: str
    follows: bool


@dataclass(frozen=True)
class _Meaning:
    """The reference under the name that its model has now, and what it means now if that can change."""

    reference: str
    model: str
    version: Version | None


Answer = _Meaning | DomainError


class Followers:
    """Keeps the wanted version of every following target up to date.

    Args:
        db: the database.
        store: its tables.
        upstream: the services that know what references mean.
        wake: tells the reconciler that there is something to do.
        seen: returns the deployments as the reconciler saw them last.
    """

    def __init__(
        self,
        db: Database,
        store: InferenceStore,
        upstream: Upstream,
        wake: Callable[[], None],
        seen: Callable[[], Sequence[Deployment]],
    ) -> None:
        self._db = db
        self._store = store
        self._upstream = upstream
        self._wake = wake
        self._seen = seen
        self._turns: OrderedDict[_Followed, None] = OrderedDict()
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def run(self) -> None:
        """Follow for ever. A loop of its own, so that a slow catalog delays nothing else."""
        while True:
            try:
                if await self.follow(self._seen()):
                    self._wake()
            except (DomainError, SQLAlchemyError, OSError, InjectedFault) as error:
                _log.warning("follow_failed", error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def follow(self, deployments: Sequence[Deployment]) -> bool:
        """Look up references whose turn it is; return whether any deployment wants something else now."""
        following = [d for d in deployments if d.state is not DeploymentState.DELETING]
        references = {_followed(target) for deployment in following for target in deployment.targets}
        for gone in self._turns.keys() - references:
            del self._turns[gone]
        for new in references - self._turns.keys():
            self._turns[new] = None
        turn = list(self._turns)[:BATCH]
        for reference in turn:
            self._turns.move_to_end(reference)
        answers = dict(zip(turn, await asyncio.gather(*map(self._meaning, turn)), strict=True))
        gates: dict[str, DomainError | None] = {}
        changed = False
        for deployment in following:
            taken_back = deployment.rejection.versions if deployment.rejection else frozenset()
            targets = [await self._look(target, answers, gates, taken_back) for target in deployment.targets]
            if tuple(targets) != deployment.targets:
                changed |= await self._want(deployment, targets)
        return changed

    async def _meaning(self, followed: _Followed) -> Answer:
        async with self._slots:
            try:
                model = await self._upstream.model_name(followed.model_id)
                reference = renamed(followed.reference, model)
                if not followed.follows:
                    return _Meaning(reference, model, None)
                version = await self._upstream.version(reference)
            except DomainError as error:
                return error
            if version.model_id != followed.model_id:  # renamed between the two questions
                return Contention(1)
            return _Meaning(reference, model, version)

    async def _look(
        self,
        target: Target,
        answers: Mapping[_Followed, Answer],
        gates: dict[str, DomainError | None],
        taken_back: Collection[str],
    ) -> Target:
        answer = answers.get(_followed(target))
        if answer is None or isinstance(answer, _LATER):
            return target
        if isinstance(answer, DomainError):
            problem = f"{target.spec.reference}: {answer}" if target.spec.follows else target.problem
            return replace(target, problem=problem)
        named = replace(target, spec=replace(target.spec, reference=answer.reference, model=answer.model))
        if answer.version is None or answer.version.id in taken_back:
            return named
        return await self._want_version(named, answer.version, gates)

    async def _want_version(
        self, target: Target, version: Version, gates: dict[str, DomainError | None]
    ) -> Target:
        if version.id == target.wanted.id:
            return replace(target, problem="")
        refusal = await self._gate(version, gates)
        if isinstance(refusal, _LATER):
            return target
        if refusal:
            return replace(target, problem=f"{target.spec.reference} means {version.name} now: {refusal}")
        return replace(target, wanted=version, problem="")

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
            # Only what is wanted of them: what serves the reconciler may have written meanwhile.
            merged = [
                replace(target, spec=new.spec, wanted=new.wanted, problem=new.problem)
                for target, new in zip(now.targets, targets, strict=True)
            ]
            await self._store.replace_targets(connection, deployment.id, merged)
            if [t.wanted.id for t in targets] != [t.wanted.id for t in now.targets]:
                await origins.forget_rejection(connection, deployment.id)
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


def _followed(target: Target) -> _Followed:
    return _Followed(target.wanted.model_id, target.spec.reference, target.spec.follows)
