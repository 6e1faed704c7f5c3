"""What `client.deployments` tells of deployments at work."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from modelyard import _logs
from modelyard._convert import from_proto
from modelyard._namespace import Namespace
from modelyard._watch import CALL_SECONDS, follow
from modelyard.api.inference.v1 import inference_service_pb2 as pb
from modelyard.errors import DeadlineExceeded, DeploymentFailed, NotFound
from modelyard.types import ConditionStatus, Deployment, DeploymentState, DeploymentStatistics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime

    from modelyard.types import LogLevel, LogLine, ReplicaLog


# No deployment leaves these by itself for what was waited for, except that FAILED ones are tried again.
_LASTING = frozenset((DeploymentState.FAILED, DeploymentState.INACTIVE, DeploymentState.DELETING))


class Observing(Namespace):
    """The verbs of `client.deployments` that wait for what happens, and read what replicas write and count."""

    def logs(
        self,
        name: str,
        *,
        log: ReplicaLog | str | None = None,
        replica: str = "",
        tail: int | None = None,
        follow: bool = False,
        since: datetime | None = None,
        min_level: LogLevel | str | None = None,
    ) -> AsyncGenerator[LogLine]:
        """Read what the replicas of a deployment wrote, with all that their models printed and logged.

        Args:
            name: Full name of the deployment.
            log: Their access or predict log; by default what they and their models write.
            replica: Id of one of its replicas; by default all.
            tail: Lines from before to begin with, at most 10,000; by default 100.
            follow: Go on with what is written from then on, over lost connections, until the deployment or replica is gone.
            since: No lines older than this; a time with a time zone.
            min_level: No lines below this level.

        Raises:
            NotFound: while iterating: there is no such deployment or replica.
            PermissionDenied: while iterating: you lack DEPLOY on the deployment.
        """
        request = _logs.request_of(
            name, log=log, replica=replica, tail=tail, follow=follow, since=since, min_level=min_level
        )
        return _logs.read(self._connection, request)

    async def statistics(self, name: str) -> DeploymentStatistics:
        """What the replicas of a deployment counted since they began, and are doing.

        Two answers tell what happened between them, replica by replica; a counter that fell began anew.
        """
        request = pb.GetDeploymentStatisticsRequest(deployment=name)
        answer = await self._connection.call(self._connection.inference.GetDeploymentStatistics, request)
        return from_proto(DeploymentStatistics, answer.statistics)

    async def watch(self, name: str) -> AsyncGenerator[Deployment]:
        """Follow a deployment: as it is now, then after each change, over lost connections, until it is gone.

        Raises:
            NotFound: there is none of that name. When it is removed later, the watch simply ends.
            TooManyWatches: you have 100 watches, the limit in one process.
        """
        method, request = self._connection.inference.WatchDeployment, pb.WatchDeploymentRequest(name=name)
        last: Deployment | None = None
        answers = follow(lambda: self._connection.receive(method, request, timeout=CALL_SECONDS))
        try:
            async for answer in answers:
                found = from_proto(Deployment, answer.deployment)
                if last is not None and found.id != last.id:
                    return  # another one got its name while the connection was lost
                if found != last:
                    last = found
                    yield found
        except NotFound:
            if last is None:
                raise
        finally:
            await answers.aclose()

    async def wait(
        self, name: str, *, state: DeploymentState = DeploymentState.ACTIVE, timeout: float = 300.0
    ) -> Deployment:
        """Wait until a deployment answers with what was asked for, or is in another state.

        Raises:
            DeploymentFailed: it could not be brought up, or stays in another state; the message says why.
            DeadlineExceeded: `timeout` seconds passed.
            NotFound: there is none of that name, or it was removed.
        """
        last: Deployment | None = None
        try:
            async with asyncio.timeout(timeout), aclosing(self.watch(name)) as changes:
                async for last in changes:
                    if last.state is state:
                        return last
                    if last.state in _LASTING:
                        raise _failed(last)
        except TimeoutError:
            now = f"{last.state} after {timeout:g} s: {_waits_for(last)}" if last else "not heard of"
            raise DeadlineExceeded(f"deployment {name} is still {now}") from None
        raise NotFound(
            f"deployment {name} was removed", metadata={"resource_type": "deployment", "name": name}
        )

    async def wait_deleted(self, name: str, *, timeout: float = 120.0) -> None:
        """Wait until a deployment that is being deleted is gone.

        Raises:
            DeadlineExceeded: `timeout` seconds passed.
        """
        try:
            async with asyncio.timeout(timeout), aclosing(self.watch(name)) as changes:
                async for _ in changes:
                    pass
        except NotFound:
            return
        except TimeoutError:
            raise DeadlineExceeded(f"deployment {name} is still there after {timeout:g} s") from None


def _failed(deployment: Deployment) -> DeploymentFailed:
    return DeploymentFailed(
        f"deployment {deployment.name} is {deployment.state}: {deployment.state_message or 'no reason given'}",
        metadata={"resource_type": "deployment", "name": deployment.name},
    )


def _waits_for(deployment: Deployment) -> str:
    """Why a deployment is not as wanted: what it says itself, or the first condition that does not hold."""
    open_ones = (c.message for c in deployment.conditions if c.status is not ConditionStatus.TRUE)
    return deployment.state_message or next(open_ones, "")
