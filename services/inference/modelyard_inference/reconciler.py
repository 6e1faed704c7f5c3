"""Makes deployments true: looks at what is, asks the planner what to do, does it, and looks again.

It is level-triggered: nothing depends on having seen a change, only on what the database and the processes say now. Changes and
confirmations wake it; it looks every half second anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from modelyard_inference.launchers import Handle
from modelyard_inference.means import Means
from modelyard_inference.models import Deployment, Replica, ReplicaState
from modelyard_inference.planner import plan
from modelyard_inference.planner.observed import Observed, Process
from modelyard_inference.routes import Routes
from modelyard_inference.steps import Steps
from modelyard_inference.store import World
from modelyard_inference.watching import Watching
from modelyard_kit.errors import DomainError
from modelyard_kit.faults import InjectedFault
from modelyard_kit.sole import Sole

PERIOD_SECONDS = 0.5
_PARALLEL = 16
_STOP_SECONDS = 5.0

_log = structlog.get_logger()


class Reconciler:
    """One loop over all deployments.

    Args:
        means: its collaborators.
        steps: what carries out the planner's actions.
        routes: what gateways are told.
        watching: who watches deployments.
        sole: the right to do so, which one process has at a time.
        wake: set by whoever changed something.
        start_timeout: longest time from the start of a process until it answers.
    """

    def __init__(
        self,
        means: Means,
        steps: Steps,
        routes: Routes,
        watching: Watching,
        *,
        sole: Sole,
        wake: asyncio.Event,
        start_timeout: timedelta,
    ) -> None:
        self._means = means
        self._steps = steps
        self._routes = routes
        self._watching = watching
        self._sole = sole
        self._wake = wake
        self._start_timeout = start_timeout
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._used: tuple[set[str], set[str]] = set(), set()
        self._seen: Sequence[Deployment] = ()

    @property
    def seen(self) -> Sequence[Deployment]:
        """Every deployment as it was at the last look."""
        return self._seen

    async def run(self) -> None:
        """Reconcile for ever."""
        await self._end_strangers()
        while True:
            await self._sole.held()
            self._wake.clear()
            try:
                busy = await self.look()
            except (SQLAlchemyError, OSError, DomainError, InjectedFault) as error:
                _log.warning("reconcile_failed", error=str(error))
                busy = False
            if not busy:
                await self._rest()

    async def look(self) -> bool:
        """Look once at everything and take the next steps; return whether there will be more to do at once."""
        means = self._means
        world = await means.db.read(means.store.world)
        self._seen = world.deployments
        self._watching.publish(world.deployments)
        processes = await self._processes(world.replicas)
        busy = False
        for deployment in world.deployments:
            observed = self._observe(world, deployment, processes)
            try:
                busy |= await self._steps.take(observed, plan(observed))
            except Exception:  # noqa: BLE001 - one deployment must not hold up the others; the next look tries again
                _log.exception("deployment_step_failed", deployment=deployment.name)
        table = await means.db.query(means.store.table_version)
        if table != self._routes.table.version:
            await self._routes.publish(await means.db.read(means.store.routes))
        await self._prune(world)
        means.admission.keep(world.deployments)
        means.signers.keep({group.version.id for group in world.groups})
        return busy

    async def stop_all(self, grace: float) -> None:
        """Stop every replica process; for an installation that ends as a whole."""
        await self._steps.close()
        handles = await self._means.launcher.list()
        await asyncio.gather(*(self._means.launcher.stop(handle, grace) for handle in handles))

    async def _rest(self) -> None:
        try:
            # Not `wait_for`, which until Python 3.12 forgets a cancellation that comes with what it waits for.
            async with asyncio.timeout(PERIOD_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _prune(self, world: World) -> None:
        used = _digests(world), _environments(world)
        if used != self._used:
            digests, environments = used
            self._means.environments.stop_unwanted(environments)
            await asyncio.to_thread(self._means.artifacts.prune, digests)
            await asyncio.to_thread(self._means.environments.prune, environments)
            self._used = used

    def _observe(self, world: World, deployment: Deployment, processes: dict[str, Process]) -> Observed:
        groups = tuple(group for group in world.groups if group.deployment_id == deployment.id)
        replicas = tuple(replica for replica in world.replicas if replica.deployment_id == deployment.id)
        digests = {group.version.artifact_digest for group in groups}
        return Observed(
            deployment=deployment,
            groups=groups,
            replicas=replicas,
            processes={r.id: processes[r.id] for r in replicas if r.id in processes},
            artifacts={digest: self._means.artifacts.status(digest) for digest in digests},
            evidence={g.version.id: self._means.signers.status(g.version.id) for g in groups},
            gateways=self._routes.gateways(),
            now=self._means.clock(),
            start_timeout=self._start_timeout,
            admitted=self._means.admission.answers(deployment),
            builds={
                g.id: found for g in groups if (found := self._means.environments.building(g.environment_use))
            },
        )

    async def _processes(self, replicas: Sequence[Replica]) -> dict[str, Process]:
        started = [replica for replica in replicas if replica.process_id]
        found = await asyncio.gather(*map(self._process, started))
        return {replica.id: process for replica, process in zip(started, found, strict=True)}

    async def _process(self, replica: Replica) -> Process:
        async with self._slots:
            ready = replica.state is ReplicaState.READY
            if replica.state is ReplicaState.STARTING:
                ready = await self._means.prober.ready(replica.address)
            # After the question whether it answers, because what it says about signatures it says before it does.
            found = await self._means.launcher.status(handle_of(replica))
            return Process(
                found.running,
                ready=found.running and ready,
                ending=found.report,
                verdict=found.verdict,
                problem=found.problem,
            )

    async def _end_strangers(self) -> None:
        """Stop replica processes that the database does not know, as after it was replaced."""
        world = await self._means.db.read(self._means.store.world)
        known = {replica.id for replica in world.replicas}
        strangers = [h for h in await self._means.launcher.list() if h.replica_id not in known]
        for handle in strangers:
            _log.warning("unknown_replica_stopped", replica=handle.replica_id, process_id=handle.process_id)
        await asyncio.gather(*(self._means.launcher.stop(handle, _STOP_SECONDS) for handle in strangers))


def handle_of(replica: Replica) -> Handle:
    """Return the handle of a replica's process."""
    return Handle(replica.id, replica.process_id, replica.process_started)


def _digests(world: World) -> set[str]:
    wanted = {target.wanted.artifact_digest for d in world.deployments for target in d.targets}
    return wanted | {group.version.artifact_digest for group in world.groups}


def _environments(world: World) -> set[str]:
    wanted = {
        d.environment.use(target.wanted.artifact_digest) for d in world.deployments for target in d.targets
    }
    return wanted | {group.environment_use for group in world.groups}
