"""The RPCs of the inference service: parse, call, render."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard.api.inference.v1.inference_service_pb2_grpc import InferenceServiceServicer
from modelyard_inference import gateway_messages, log_messages, messages, render, statistics_messages
from modelyard_inference.deployments import Deployments
from modelyard_inference.lookups import Lookups
from modelyard_inference.replica_logs import ReplicaLogs
from modelyard_inference.rollouts import Rollouts
from modelyard_inference.routes import Routes
from modelyard_inference.statistics import Statistics
from modelyard_inference.watching import Watching
from modelyard_kit.auth import current_call
from modelyard_kit.protos import chain_to_proto, link_to_proto


class InferenceServicer(InferenceServiceServicer):
    """Answers for deployments and routes."""

    def __init__(
        self,
        lookups: Lookups,
        deployments: Deployments,
        rollouts: Rollouts,
        watching: Watching,
        routes: Routes,
        replica_logs: ReplicaLogs,
        statistics: Statistics,
    ) -> None:
        self._lookups = lookups
        self._deployments = deployments
        self._rollouts = rollouts
        self._watching = watching
        self._routes = routes
        self._replica_logs = replica_logs
        self._statistics = statistics

    async def CreateDeployment(
        self, request: s.CreateDeploymentRequest, context: Any
    ) -> s.CreateDeploymentResponse:
        made = await self._deployments.create(current_call(), messages.parse_create(request))
        return s.CreateDeploymentResponse(deployment=render.deployment_to_proto(made))

    async def GetDeployment(self, request: s.GetDeploymentRequest, context: Any) -> s.GetDeploymentResponse:
        found = await self._lookups.get(messages.parse_deployment_name(request.name))
        return s.GetDeploymentResponse(deployment=render.deployment_to_proto(found))

    async def ListDeployments(
        self, request: s.ListDeploymentsRequest, context: Any
    ) -> s.ListDeploymentsResponse:
        found, token = await self._lookups.page(current_call(), messages.parse_list(request))
        return s.ListDeploymentsResponse(
            deployments=map(render.deployment_to_proto, found), next_page_token=token
        )

    async def WatchDeployment(
        self, request: s.WatchDeploymentRequest, context: Any
    ) -> AsyncIterator[s.WatchDeploymentResponse]:
        name = messages.parse_deployment_name(request.name)
        async with aclosing(self._watching.watch(current_call(), name)) as found:
            async for deployment in found:
                yield s.WatchDeploymentResponse(deployment=render.deployment_to_proto(deployment))

    async def UpdateDeployment(
        self, request: s.UpdateDeploymentRequest, context: Any
    ) -> s.UpdateDeploymentResponse:
        updated = await self._deployments.update(current_call(), messages.parse_update(request))
        return s.UpdateDeploymentResponse(deployment=render.deployment_to_proto(updated))

    async def RollbackDeployment(
        self, request: s.RollbackDeploymentRequest, context: Any
    ) -> s.RollbackDeploymentResponse:
        rolled_back = await self._deployments.rollback(current_call(), messages.parse_rollback(request))
        return s.RollbackDeploymentResponse(deployment=render.deployment_to_proto(rolled_back))

    async def ListDeploymentRevisions(
        self, request: s.ListDeploymentRevisionsRequest, context: Any
    ) -> s.ListDeploymentRevisionsResponse:
        deployment, found, token = await self._lookups.revisions(messages.parse_list_revisions(request))
        return s.ListDeploymentRevisionsResponse(
            revisions=[render.revision_to_proto(deployment, one) for one in found], next_page_token=token
        )

    async def ActivateDeployment(
        self, request: s.ActivateDeploymentRequest, context: Any
    ) -> s.ActivateDeploymentResponse:
        activated = await self._deployments.activate(current_call(), messages.parse_set_active(request))
        return s.ActivateDeploymentResponse(deployment=render.deployment_to_proto(activated))

    async def DeactivateDeployment(
        self, request: s.DeactivateDeploymentRequest, context: Any
    ) -> s.DeactivateDeploymentResponse:
        deactivated = await self._deployments.deactivate(current_call(), messages.parse_set_active(request))
        return s.DeactivateDeploymentResponse(deployment=render.deployment_to_proto(deactivated))

    async def ControlRollout(
        self, request: s.ControlRolloutRequest, context: Any
    ) -> s.ControlRolloutResponse:
        changed = await self._rollouts.control(current_call(), messages.parse_control(request))
        return s.ControlRolloutResponse(deployment=render.deployment_to_proto(changed))

    async def DeleteDeployment(
        self, request: s.DeleteDeploymentRequest, context: Any
    ) -> s.DeleteDeploymentResponse:
        name = messages.parse_deployment_name(request.name)
        deleted = await self._deployments.delete(current_call(), name, request.etag)
        return s.DeleteDeploymentResponse(deployment=render.deployment_to_proto(deleted))

    async def ListReplicas(self, request: s.ListReplicasRequest, context: Any) -> s.ListReplicasResponse:
        found, token = await self._lookups.replicas(messages.parse_list_replicas(request))
        return s.ListReplicasResponse(
            replicas=[render.replica_to_proto(*one) for one in found], next_page_token=token
        )

    async def ReadReplicaLogs(
        self, request: s.ReadReplicaLogsRequest, context: Any
    ) -> AsyncIterator[s.ReadReplicaLogsResponse]:
        command = log_messages.parse_read_logs(request)
        async with aclosing(self._replica_logs.read(current_call(), command)) as found:
            async for lines in found:
                yield log_messages.lines_to_proto(lines)

    async def GetDeploymentStatistics(
        self, request: s.GetDeploymentStatisticsRequest, context: Any
    ) -> s.GetDeploymentStatisticsResponse:
        name = messages.parse_deployment_name(request.deployment, "deployment")
        found = await self._statistics.of_deployment(name)
        return s.GetDeploymentStatisticsResponse(statistics=statistics_messages.statistics_to_proto(found))

    async def ResolveResource(
        self, request: s.ResolveResourceRequest, context: Any
    ) -> s.ResolveResourceResponse:
        name, deployment_id = messages.parse_resolve(request)
        chain = await self._lookups.chain(name=name, deployment_id=deployment_id)
        return s.ResolveResourceResponse(chain=chain_to_proto(chain))

    async def FindDeployments(
        self, request: s.FindDeploymentsRequest, context: Any
    ) -> s.FindDeploymentsResponse:
        found = await self._lookups.using(messages.parse_find(request))
        return s.FindDeploymentsResponse(deployments=map(link_to_proto, found))

    async def WatchRoutes(
        self, request: s.WatchRoutesRequest, context: Any
    ) -> AsyncIterator[s.WatchRoutesResponse]:
        async for table in self._routes.watch(gateway_messages.parse_gateway(request.gateway_id)):
            yield s.WatchRoutesResponse(table=render.table_to_proto(table))

    async def ConfirmRoutes(self, request: s.ConfirmRoutesRequest, context: Any) -> s.ConfirmRoutesResponse:
        self._routes.confirm(gateway_messages.parse_confirm(request))
        return s.ConfirmRoutesResponse()
