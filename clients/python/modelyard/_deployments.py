"""Deployments: endpoints and the replicas behind them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from modelyard._connection import new_request_id
from modelyard._convert import from_proto, parse_enum, rows, to_proto
from modelyard._namespace import resource_name, update_mask, version_reference
from modelyard._observing import Observing
from modelyard._pager import AsyncPager
from modelyard.api.inference.v1 import deployment_pb2
from modelyard.api.inference.v1 import inference_service_pb2 as pb
from modelyard.errors import AlreadyExists
from modelyard.types import (
    Autoscaling,
    Batching,
    Deployment,
    DeploymentRevision,
    Environment,
    LoggingPolicy,
    Replica,
    Resources,
    RolloutPolicy,
    RolloutVerb,
    TrafficLimits,
    TrafficTarget,
    UpdateStrategy,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Targets = str | TrafficTarget | Sequence[str | TrafficTarget] | Mapping[str, int]


class AsyncDeployments(Observing):
    """`client.deployments`: names that answer predictions.

    Targets are one version reference, several, or references with their weights: `"prod.ml.iris@champion"`,
    `{"prod.ml.iris/1": 90, "prod.ml.iris/2": 10}`. `TrafficTarget("prod.ml.iris/3", shadow_percent=10)` beside them is a shadow.
    """

    async def create(
        self,
        name: str,
        targets: Targets,
        *,
        replicas: int = 1,
        description: str = "",
        max_request_bytes: int = 0,
        timeout: float | None = None,
        require_signature: bool = False,
        sticky_header: str = "",
        rollout_policy: RolloutPolicy | None = None,
        resources: Resources | None = None,
        autoscaling: Autoscaling | None = None,
        traffic_limits: TrafficLimits | None = None,
        private: bool = False,
        logging: LoggingPolicy | None = None,
        batching: Batching | None = None,
        environment_variables: Mapping[str, str] | None = None,
        environment: Environment | None = None,
        update_strategy: UpdateStrategy | str | None = None,
        reason: str = "",
        request_id: str = "",
    ) -> Deployment:
        """Make an endpoint and return at once; `wait` for it.

        Args:
            name: Full name, `prod.ml_team.iris`.
            targets: What answers.
            replicas: Processes per target, 1 to 64.
            description: Free text.
            max_request_bytes: Largest request; 0 means 64 MiB.
            timeout: Longest time a prediction may take in seconds; by default 60.
            require_signature: Load only what a trust root vouches for.
            sticky_header: Metadata key of predictions, `x-customer`, whose equal values meet the same target.
            rollout_policy: How later versions take the traffic over; by default all at once.
            resources: Cores and memory that each replica may use; by default any.
            autoscaling: Between which numbers replicas are scaled, and by what; by default `replicas` is the number.
            traffic_limits: What callers may ask of it; by default there are no limits.
            private: Answer on the private listener of the gateways alone.
            logging: What replicas write down about predictions; by default nothing.
            batching: How each replica gathers predictions into runs of its model; by default what waited while it ran.
            environment_variables: What each replica finds in its environment beside what all have; no place for secrets.
            environment: In which Python environment each replica runs; by default in what its artifact asks for.
            update_strategy: What later changes may cost while they last: by default twice as many processes, with
                `"RESOURCE_PRESERVING"` one replica that does not answer.
            reason: Why, for the history.
            request_id: Makes a repetition safe.
        """
        wanted = Deployment(
            name=resource_name(name, 3),
            targets=_targets(targets),
            replicas=replicas,
            description=description,
            max_request_bytes=max_request_bytes,
            timeout=None if timeout is None else timedelta(seconds=timeout),
            require_signature=require_signature,
            sticky_header=sticky_header,
            rollout_policy=rollout_policy or RolloutPolicy(),
            resources=resources or Resources(),
            autoscaling=autoscaling or Autoscaling(),
            traffic_limits=traffic_limits or TrafficLimits(),
            private=private,
            logging=logging or LoggingPolicy(),
            batching=batching or Batching(),
            environment_variables=environment_variables or {},
            environment=environment or Environment(),
            update_strategy=_strategy(update_strategy),
        )
        request = pb.CreateDeploymentRequest(
            deployment=to_proto(deployment_pb2.Deployment, wanted),
            request_id=request_id or new_request_id(),
            reason=reason,
        )
        answer = await self._connection.call(self._connection.inference.CreateDeployment, request)
        return from_proto(Deployment, answer.deployment)

    async def get(self, name: str) -> Deployment:
        """Read one deployment as it is now."""
        request = pb.GetDeploymentRequest(name=name)
        answer = await self._connection.call(self._connection.inference.GetDeployment, request)
        return from_proto(Deployment, answer.deployment)

    def list(
        self,
        schema: str = "",
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Deployment]:
        """Walk through deployments.

        Args:
            schema: Full name of their schema; empty for all.
            filter: Which ones, `"state = 'FAILED' AND owner = 'ada'"`; see docs/filters.md.
            order_by: Order, `"update_time desc"`; by default that of creation.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Deployment], str]:
            request = pb.ListDeploymentsRequest(
                schema=schema, page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.inference.ListDeployments, request)
            return rows(Deployment, answer.deployments), answer.next_page_token

        return AsyncPager(fetch)

    async def update(
        self,
        name: str,
        *,
        targets: Targets | None = None,
        replicas: int | None = None,
        description: str | None = None,
        max_request_bytes: int | None = None,
        timeout: float | None = None,
        require_signature: bool | None = None,
        sticky_header: str | None = None,
        rollout_policy: RolloutPolicy | None = None,
        resources: Resources | None = None,
        autoscaling: Autoscaling | None = None,
        traffic_limits: TrafficLimits | None = None,
        private: bool | None = None,
        logging: LoggingPolicy | None = None,
        batching: Batching | None = None,
        environment_variables: Mapping[str, str] | None = None,
        environment: Environment | None = None,
        update_strategy: UpdateStrategy | str | None = None,
        owner: str | None = None,
        owner_id: str | None = None,
        etag: str = "",
        reason: str = "",
    ) -> Deployment:
        """Change what is given (the owner by name or by id) and return at once; with `etag` only if nobody changed it since.

        The old keeps answering until the new does. The `reason` is kept in the history.
        """
        owner_id = await self._owner_id(owner, owner_id)
        wanted = Deployment(
            name=name,
            targets=() if targets is None else _targets(targets),
            replicas=replicas or 0,
            description=description or "",
            max_request_bytes=max_request_bytes or 0,
            timeout=None if timeout is None else timedelta(seconds=timeout),
            require_signature=bool(require_signature),
            sticky_header=sticky_header or "",
            rollout_policy=rollout_policy or RolloutPolicy(),
            resources=resources or Resources(),
            autoscaling=autoscaling or Autoscaling(),
            traffic_limits=traffic_limits or TrafficLimits(),
            private=bool(private),
            logging=logging or LoggingPolicy(),
            batching=batching or Batching(),
            environment_variables=environment_variables or {},
            environment=environment or Environment(),
            update_strategy=_strategy(update_strategy),
            owner_id=owner_id or "",
            etag=etag,
        )
        given = {
            "targets": targets,
            "replicas": replicas,
            "description": description,
            "max_request_bytes": max_request_bytes,
            "timeout": timeout,
            "require_signature": require_signature,
            "sticky_header": sticky_header,
            "rollout_policy": rollout_policy,
            "resources": resources,
            "autoscaling": autoscaling,
            "traffic_limits": traffic_limits,
            "private": private,
            "logging": logging,
            "batching": batching,
            "environment_variables": environment_variables,
            "environment": environment,
            "update_strategy": update_strategy,
            "owner_id": owner_id,
        }
        request = pb.UpdateDeploymentRequest(
            deployment=to_proto(deployment_pb2.Deployment, wanted),
            update_mask=update_mask(given),
            reason=reason,
        )
        answer = await self._connection.call(self._connection.inference.UpdateDeployment, request)
        return from_proto(Deployment, answer.deployment)

    def history(
        self,
        name: str,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[DeploymentRevision]:
        """Walk through the revisions of a deployment: who changed what, when and why.

        Args:
            name: Full name of the deployment.
            filter: Which ones, `"actor = 'ada'"`; see docs/filters.md.
            order_by: Order, `"create_time"`; by default the newest first.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[DeploymentRevision], str]:
            request = pb.ListDeploymentRevisionsRequest(
                deployment=name, page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.inference.ListDeploymentRevisions, request)
            return rows(DeploymentRevision, answer.revisions), answer.next_page_token

        return AsyncPager(fetch)

    async def rollback(
        self, name: str, revision: int = 0, *, pin_versions: bool = False, etag: str = "", reason: str = ""
    ) -> Deployment:
        """Bring the settings of an earlier revision back, and return at once; `wait` for it.

        Args:
            name: Full name of the deployment.
            revision: Its number in the history; 0 means the newest whose settings differ from those of now.
            pin_versions: Let targets become the versions that they meant then, where they followed an alias.
            etag: Only if nobody changed it since.
            reason: Why, for the history.
        """
        request = pb.RollbackDeploymentRequest(
            name=name, revision=revision, pin_versions=pin_versions, etag=etag, reason=reason
        )
        answer = await self._connection.call(self._connection.inference.RollbackDeployment, request)
        return from_proto(Deployment, answer.deployment)

    async def control_rollout(
        self, name: str, verb: RolloutVerb | str, *, etag: str = "", reason: str = ""
    ) -> Deployment:
        """Pause, resume, promote or abort the rollout in steps that is under way; returns at once, `wait` for it.

        Raises:
            InvalidState: none is under way.
        """
        number = pb.ControlRolloutRequest.Verb.Value(f"VERB_{parse_enum(RolloutVerb, verb, 'verb')}")
        request = pb.ControlRolloutRequest(name=name, verb=number, etag=etag, reason=reason)
        answer = await self._connection.call(self._connection.inference.ControlRollout, request)
        return from_proto(Deployment, answer.deployment)

    async def activate(self, name: str, *, etag: str = "", reason: str = "") -> Deployment:
        """Let an inactive endpoint answer again; returns at once, `wait` for it."""
        request = pb.ActivateDeploymentRequest(name=name, etag=etag, reason=reason)
        answer = await self._connection.call(self._connection.inference.ActivateDeployment, request)
        return from_proto(Deployment, answer.deployment)

    async def deactivate(self, name: str, *, etag: str = "", reason: str = "") -> Deployment:
        """Drain and end all replicas of an endpoint and keep its settings; returns at once."""
        request = pb.DeactivateDeploymentRequest(name=name, etag=etag, reason=reason)
        answer = await self._connection.call(self._connection.inference.DeactivateDeployment, request)
        return from_proto(Deployment, answer.deployment)

    async def delete(self, name: str, *, etag: str = "") -> Deployment:
        """Drain and remove an endpoint; returns at once."""
        request = pb.DeleteDeploymentRequest(name=name, etag=etag)
        answer = await self._connection.call(self._connection.inference.DeleteDeployment, request)
        return from_proto(Deployment, answer.deployment)

    async def replicas(
        self,
        name: str,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
    ) -> tuple[Replica, ...]:
        """The processes behind a deployment.

        Args:
            name: Full name of the deployment.
            filter: Which ones, `"state = 'READY'"`; see docs/filters.md.
            order_by: Order, `"restarts desc"`; by default the oldest first.
        """

        async def fetch(token: str) -> tuple[Sequence[Replica], str]:
            request = pb.ListReplicasRequest(
                deployment=name, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.inference.ListReplicas, request)
            return rows(Replica, answer.replicas), answer.next_page_token

        return tuple(await AsyncPager(fetch).collect())

    async def apply(
        self, name: str, targets: Targets, *, replicas: int | None = None, description: str | None = None
    ) -> Deployment:
        """Make the endpoint, or change it if it exists; returns at once."""
        try:
            return await self.create(name, targets, replicas=replicas or 1, description=description or "")
        except AlreadyExists:
            return await self.update(name, targets=targets, replicas=replicas, description=description)


def _strategy(given: UpdateStrategy | str | None) -> UpdateStrategy | None:
    return None if given is None else parse_enum(UpdateStrategy, given, "update_strategy")


def _targets(given: Targets) -> tuple[TrafficTarget, ...]:
    if isinstance(given, (str, TrafficTarget)):
        given = [given]
    if isinstance(given, dict):
        given = [TrafficTarget(reference, weight) for reference, weight in given.items()]
    targets = [TrafficTarget(t) if isinstance(t, str) else t for t in given]
    return tuple(map(_target, targets))


def _target(given: TrafficTarget) -> TrafficTarget:
    reference = version_reference(given.model_version, "targets")
    return replace(given, model_version=reference, weight=0 if given.shadow_percent else given.weight)
