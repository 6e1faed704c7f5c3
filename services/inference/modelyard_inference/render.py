"""From this service's own types to the contract's messages."""

from __future__ import annotations

from dataclasses import asdict

from google.protobuf.duration_pb2 import Duration

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard.api.inference.v1 import route_pb2 as r
from modelyard_inference.canary import RolloutPolicy
from modelyard_inference.logging_messages import policy_to_proto
from modelyard_inference.models import Condition, Deployment, Group, Replica, Revision, Target
from modelyard_inference.resources import UNBOUNDED, Resources
from modelyard_inference.route_table import RouteTable
from modelyard_inference.scaling import Autoscaling
from modelyard_inference.setup_messages import batching_to_proto, environment_to_proto
from modelyard_inference.shadow_counts import ShadowCounts
from modelyard_inference.strategies import UpdateStrategy
from modelyard_inference.traffic_limits import TrafficLimits
from modelyard_kit.protos import chain_to_proto, timestamp

_WHOLE = 100


def deployment_to_proto(deployment: Deployment) -> d.Deployment:
    """Return the message of a deployment."""
    return d.Deployment(
        id=deployment.id,
        name=deployment.name,
        description=deployment.description,
        targets=[
            d.TrafficTarget(
                model_version=target.spec.reference,
                weight=target.spec.weight,
                shadow_percent=target.spec.shadow_percent,
            )
            for target in deployment.targets
        ],
        replicas=deployment.replicas,
        max_request_bytes=deployment.max_request_bytes,
        timeout=_duration(deployment.timeout_ms),
        state=_state(deployment.state),
        state_message=deployment.state_message,
        target_statuses=[_status(deployment, target) for target in deployment.targets],
        owner_id=deployment.owner_id,
        create_time=timestamp(deployment.create_time),
        update_time=timestamp(deployment.update_time),
        etag=deployment.etag,
        require_signature=deployment.require_signature,
        conditions=map(_condition, deployment.conditions),
        revision=deployment.revision,
        sticky_header=deployment.sticky_header,
        rollout_policy=_policy(deployment.rollout_policy),
        rollout=_rollout(deployment),
        resources=_resources(deployment.resources),
        autoscaling=_autoscaling(deployment.autoscaling),
        traffic_limits=_limits(deployment.traffic_limits),
        private=deployment.private,
        logging=policy_to_proto(deployment.log_policy),
        batching=batching_to_proto(deployment.batching),
        environment_variables=dict(deployment.environment_variables),
        environment=environment_to_proto(deployment.environment),
        update_strategy=_strategy(deployment.update_strategy),
    )


def revision_to_proto(deployment: Deployment, revision: Revision) -> d.DeploymentRevision:
    """Return the message of a revision."""
    kept = revision.settings
    return d.DeploymentRevision(
        revision=revision.number,
        change=d.DeploymentRevision.Change.Value(f"CHANGE_{revision.change}"),
        actor_id=revision.actor_id,
        actor_name=revision.actor_name,
        reason=revision.reason,
        create_time=timestamp(revision.create_time),
        rolled_back_to=revision.rolled_back_to,
        active=kept.active,
        settings=d.Deployment(
            name=deployment.name,
            description=kept.description,
            targets=[
                d.TrafficTarget(
                    model_version=target.reference,
                    weight=target.weight,
                    shadow_percent=target.shadow_percent,
                )
                for target in kept.targets
            ],
            replicas=kept.replicas,
            max_request_bytes=kept.max_request_bytes,
            timeout=_duration(kept.timeout_ms),
            require_signature=kept.require_signature,
            sticky_header=kept.sticky_header,
            rollout_policy=_policy(kept.rollout_policy),
            resources=_resources(kept.resources),
            autoscaling=_autoscaling(kept.autoscaling),
            traffic_limits=_limits(kept.traffic_limits),
            private=kept.private,
            logging=policy_to_proto(kept.log_policy),
            batching=batching_to_proto(kept.batching),
            environment_variables=dict(kept.environment_variables),
            environment=environment_to_proto(kept.environment),
            update_strategy=_strategy(kept.update_strategy),
            owner_id=kept.owner_id,
        ),
        model_versions=[target.model_version for target in kept.targets],
        changed_fields=revision.changed_fields,
    )


def replica_to_proto(deployment: Deployment, replica: Replica, group: Group) -> d.Replica:
    """Return the message of a replica."""
    return d.Replica(
        id=replica.id,
        deployment=deployment.name,
        model_version=group.version.name,
        state=d.Replica.State.Value(f"STATE_{replica.state}"),
        state_message=replica.message,
        address=replica.address,
        process_id=replica.process_id,
        restarts=replica.restarts,
        create_time=timestamp(replica.create_time),
        signature_state=_signature_state(replica.signature_state),
        signer=replica.signer,
        trust_root=replica.trust_root,
        failures=replica.failures,
        next_start_time=timestamp(replica.not_before) if replica.not_before else None,
    )


def table_to_proto(table: RouteTable) -> r.RouteTable:
    """Return the message of a route table."""
    return r.RouteTable(
        version=table.version,
        routes=[
            r.Route(
                deployment=chain_to_proto(route.chain),
                targets=[
                    r.RouteTarget(
                        group=target.group,
                        model_version=target.version,
                        weight=target.weight,
                        addresses=target.addresses,
                        shadow_percent=target.shadow_percent,
                        shadow=target.shadow,
                        held=target.held,
                    )
                    for target in route.targets
                ],
                max_request_bytes=route.max_request_bytes,
                timeout=_duration(route.timeout_ms),
                sticky_header=route.sticky_header,
                measured=route.measured,
                traffic_limits=_limits(route.traffic_limits),
                private=route.private,
                idle=_state(route.idle),
            )
            for route in table.routes
        ],
    )


def _resources(resources: Resources) -> d.Resources | None:
    return d.Resources(**asdict(resources)) if resources != UNBOUNDED else None


def _autoscaling(autoscaling: Autoscaling) -> d.Autoscaling | None:
    if not autoscaling.on:
        return None
    return d.Autoscaling(
        min_replicas=autoscaling.min_replicas,
        max_replicas=autoscaling.max_replicas,
        target_in_flight=autoscaling.target_in_flight,
        scale_down_delay=_duration(autoscaling.scale_down_delay_ms),
        scale_to_zero=autoscaling.to_zero,
    )


def _limits(limits: TrafficLimits) -> d.TrafficLimits:
    return d.TrafficLimits(**asdict(limits))


def _policy(policy: RolloutPolicy) -> d.RolloutPolicy | None:
    if not policy.steps:
        return None
    return d.RolloutPolicy(
        steps=policy.steps,
        pause=_duration(policy.pause_ms),
        min_requests=policy.min_requests,
        max_error_percent=policy.max_error_percent,
        max_error_rise=policy.max_error_rise,
        max_latency=_duration(policy.max_latency_ms) if policy.max_latency_ms else None,
        max_latency_ratio=policy.max_latency_ratio,
    )


def _strategy(strategy: UpdateStrategy) -> d.UpdateStrategy.ValueType:
    return d.UpdateStrategy.Value(f"UPDATE_STRATEGY_{strategy}")


def _rollout(deployment: Deployment) -> d.RolloutStatus | None:
    rollout = deployment.rollout
    if rollout is None or rollout.watching:
        return None
    if rollout.exchange:
        steps = deployment.replicas * sum(not target.spec.shadow for target in deployment.targets)
        return d.RolloutStatus(
            step=min(rollout.step + 1, steps),
            steps=steps,
            percent=min(_WHOLE, _WHOLE * rollout.step // steps),
            step_time=timestamp(rollout.since),
            paused=rollout.paused,
        )
    return d.RolloutStatus(
        step=rollout.step + 1,
        steps=len(deployment.rollout_policy.steps),
        percent=deployment.rollout_policy.percent_at(rollout.step),
        step_time=timestamp(rollout.since),
        paused=rollout.paused,
    )


def _condition(condition: Condition) -> d.DeploymentCondition:
    return d.DeploymentCondition(
        type=condition.type,
        status=d.DeploymentCondition.Status.Value(f"STATUS_{condition.status}"),
        reason=condition.reason,
        message=condition.message,
        change_time=timestamp(condition.change_time) if condition.change_time else None,
    )


def _status(deployment: Deployment, target: Target) -> d.TargetStatus:
    rolling = target.wanted.name if target.wanted.name != target.serving else ""
    verdict = deployment.verdicts.get(target.serving)
    return d.TargetStatus(
        reference=target.spec.reference,
        model_version=target.serving,
        artifact_digest=target.serving_digest,
        weight=target.serving_weight,
        ready_replicas=deployment.ready.get(target.serving, 0),
        next_model_version=rolling,
        signature_state=_signature_state(verdict.state if verdict else ""),
        signer=verdict.signer if verdict else "",
        shadow_counts=_counts(deployment.shadow_counts) if target.spec.shadow else None,
    )


def _counts(counts: ShadowCounts | None) -> d.ShadowCounts:
    return d.ShadowCounts(**asdict(counts or ShadowCounts()))


def _state(state: str) -> d.Deployment.State.ValueType:
    return d.Deployment.State.Value(f"STATE_{state or 'UNSPECIFIED'}")


def _signature_state(state: str) -> d.SignatureState.ValueType:
    return d.SignatureState.Value(f"SIGNATURE_STATE_{state or 'UNSPECIFIED'}")


def _duration(milliseconds: int) -> Duration:
    message = Duration()
    message.FromMilliseconds(milliseconds)
    return message
