"""What `client.deployments` tells of the replicas at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard import _logs
from modelyard._convert import from_proto
from modelyard._namespace import Namespace
from modelyard.api.inference.v1 import inference_service_pb2 as pb
from modelyard.types import DeploymentStatistics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime

    from modelyard.types import LogLevel, LogLine, ReplicaLog


class Observing(Namespace):
    """The verbs of `client.deployments` that read what replicas write and count."""

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
