"""Carries out the actions on single replicas: start, stop, and note what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from modelyard_inference import actions as a
from modelyard_inference.environments import EnvironmentFailed
from modelyard_inference.launchers import Handle, LaunchFailed, ReplicaSpec
from modelyard_inference.means import Means
from modelyard_inference.models import Deployment, Group, Replica, ReplicaState
from modelyard_inference.planner.endings import end_of
from modelyard_inference.planner.observed import Observed
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.runtimes import RUN_CODE
from modelyard_inference.runtimes.signature import Signature
from modelyard_kit.faults import failpoint

ABORT_SECONDS = 2.0
# A replica stops by itself after its drain time; the launcher kills it only when it does not.
KILL_MARGIN_SECONDS = 5.0

_log = structlog.get_logger()

Verb = Callable[[Observed, Any], Awaitable[bool]]
"""Carries out one kind of action; returns whether it is worth to look again at once."""


@dataclass(frozen=True)
class ReplicaDefaults:
    """What every replica is told beside its model."""

    drain_seconds: float
    log_level: str = "info"
    log_format: str = "json"
    otlp_endpoint: str = ""
    require_signature: bool = False
    allow_code: bool = False
    backends_file: str = ""


class ReplicaSteps:
    """One method for each kind of action on a replica.

    Args:
        means: its collaborators.
        defaults: what every replica is told.
        wake: called when something that runs in the background has ended.
    """

    def __init__(self, means: Means, defaults: ReplicaDefaults, wake: Callable[[], None]) -> None:
        self._means = means
        self._defaults = defaults
        self._wake = wake
        self._stopping: dict[str, asyncio.Task[None]] = {}
        self.verbs: Mapping[type[a.Action], Verb] = {
            a.Fetch: self._fetch,
            a.AskEvidence: self._ask_evidence,
            a.Start: self._start,
            a.RecordReady: self._record_ready,
            a.RecordEnd: self._record_end,
            a.Abort: self._abort,
            a.Stop: self._stop,
            a.RemoveReplica: self._remove_replica,
        }

    def stopping(self, replica_id: str) -> bool:
        """Return whether a replica is being stopped at the moment."""
        return replica_id in self._stopping

    async def close(self) -> None:
        """Leave what is being stopped to a later life: stopping is repeated then."""
        tasks = list(self._stopping.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, _observed: Observed, action: a.Fetch) -> bool:
        self._means.artifacts.fetch(action.version, self._wake)
        return False

    async def _ask_evidence(self, _observed: Observed, action: a.AskEvidence) -> bool:
        self._means.signers.ask(action.version, self._wake)
        return False

    async def _start(self, observed: Observed, action: a.Start) -> bool:
        replica = observed.replica(action.replica_id)
        group = observed.group(replica.group_id)
        try:
            config = self._config(observed.deployment, group, replica)
            python = await self._python(group, config)
            if python is None:
                return False  # whoever builds it calls `wake`
            spec = ReplicaSpec(replica.id, config, python, group.environment_variables)
            handle = await self._means.launcher.start(spec)
        except (LaunchFailed, EnvironmentFailed, ValueError) as error:
            return await self._record_end(observed, end_of(observed, replica, str(error)))
        await failpoint("inference.start.launched")
        await self._change(
            replica.id,
            state=ReplicaState.STARTING,
            process_id=handle.process_id,
            process_started=handle.started,
            restarts=replica.restarts + (replica.start_time is not None),
            start_time=self._means.clock(),
            ready_time=None,
            not_before=None,
            signature_state="",
            signer="",
            trust_root="",
        )
        _log.info(
            "replica_started",
            deployment=observed.deployment.name,
            version=group.version.name,
            replica=replica.id,
        )
        return True

    async def _record_ready(self, observed: Observed, action: a.RecordReady) -> bool:
        verdict = action.verdict
        found = {"signer": verdict.signer, "trust_root": verdict.trust_root} if verdict else {}
        await self._change(
            action.replica_id,
            state=ReplicaState.READY,
            ready_time=self._means.clock(),
            message="",
            signature_state=verdict.state if verdict else "",
            **found,
        )
        _log.info("replica_ready", deployment=observed.deployment.name, replica=action.replica_id)
        return True

    async def _record_end(self, observed: Observed, action: a.RecordEnd) -> bool:
        replica = observed.replica(action.replica_id)
        values = {
            "state": action.state,
            "process_id": 0,
            "process_started": "",
            "message": action.message,
            "failures": action.failures,
            "not_before": action.not_before,
        }
        written = await self._means.db.in_tx(
            lambda connection: self._means.store.end_replica(connection, replica, **values)
        )
        if not written:  # it was found before another step, such as an abort, noted its end and why
            return True
        self._means.signers.forget(observed.group(replica.group_id).version.id)
        _log.warning(
            "replica_ended",
            deployment=observed.deployment.name,
            replica=action.replica_id,
            reason=action.message,
        )
        return True

    async def _abort(self, observed: Observed, action: a.Abort) -> bool:
        replica = observed.replica(action.replica_id)

        async def abort() -> None:
            await self._means.launcher.stop(_handle(replica), ABORT_SECONDS)
            await self._record_end(observed, action.end)

        self._in_background(replica.id, abort())
        return False

    async def _stop(self, observed: Observed, action: a.Stop) -> bool:
        replica = observed.replica(action.replica_id)
        grace = self._defaults.drain_seconds + KILL_MARGIN_SECONDS
        self._in_background(replica.id, self._means.launcher.stop(_handle(replica), grace))
        return False

    async def _remove_replica(self, observed: Observed, action: a.RemoveReplica) -> bool:
        replica = observed.replica(action.replica_id)
        await self._means.prober.forget(replica.address)
        await self._means.flush_logs(replica.id)
        await self._means.launcher.forget(replica.id)
        await self._means.db.in_tx(
            lambda connection: self._means.store.delete_replica(connection, replica.id)
        )
        _log.info("replica_removed", deployment=observed.deployment.name, replica=replica.id)
        return True

    # ---- helpers

    def _config(self, deployment: Deployment, group: Group, replica: Replica) -> ReplicaConfig:
        version = group.version
        return ReplicaConfig(
            deployment=deployment.name,
            model=version.model,
            version=version.number,
            artifact_digest=version.artifact_digest,
            model_directory=self._means.artifacts.path(version.artifact_digest),
            runtime=version.runtime,
            signature=Signature.from_json(version.signature),
            listen=replica.address,
            evidence=self._means.signers.evidence(version.id),
            require_signature=group.require_signature or self._defaults.require_signature,
            allow_code=self._defaults.allow_code,
            backends_file=self._defaults.backends_file,
            max_request_bytes=group.max_request_bytes,
            max_queue_rows=group.batching.max_queue_rows,
            max_batch_rows=group.batching.max_batch_rows,
            batch_delay_seconds=group.batching.max_delay_us / 1_000_000,
            threads=group.resources.threads(code=version.runtime in RUN_CODE),
            instances=group.resources.copies(code=version.runtime in RUN_CODE),
            cpus=group.resources.cpus,
            memory_bytes=group.resources.memory_bytes,
            drain_seconds=self._defaults.drain_seconds,
            log_level=self._defaults.log_level,
            log_format=self._defaults.log_format,
            otlp_endpoint=self._defaults.otlp_endpoint,
            log_policy=deployment.log_policy,
        )

    async def _python(self, group: Group, config: ReplicaConfig) -> str | None:
        return await self._means.environments.python(
            group.environment,
            group.version.artifact_digest,
            config.model_directory,
            config.runtime,
            signed=bool(config.evidence.bundles),
            done=self._wake,
        )

    async def _change(self, replica_id: str, **values: Any) -> None:
        await self._means.db.in_tx(
            lambda connection: self._means.store.change_replica(connection, replica_id, **values)
        )

    def _in_background(self, replica_id: str, work: Coroutine[Any, Any, None]) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            del self._stopping[replica_id]
            if not task.cancelled() and task.exception():
                _log.warning("replica_stop_failed", replica=replica_id, error=str(task.exception()))
            self._wake()

        task = asyncio.create_task(work)
        self._stopping[replica_id] = task
        task.add_done_callback(ended)


def _handle(replica: Replica) -> Handle:
    return Handle(replica.id, replica.process_id, replica.process_started)
