"""From this service's figures to the contract's messages of statistics."""

from __future__ import annotations

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard.api.inference.v1 import statistics_pb2 as pb
from modelyard_inference.ports import Counters
from modelyard_inference.statistics import DeploymentFigures, ReplicaFigures
from modelyard_kit.protos import timestamp


def statistics_to_proto(figures: DeploymentFigures) -> pb.DeploymentStatistics:
    """Return the message of what the replicas of a deployment are doing."""
    return pb.DeploymentStatistics(
        deployment=figures.deployment.name,
        state=d.Deployment.State.Value(f"STATE_{figures.deployment.state}"),
        time=timestamp(figures.time),
        replicas=map(_replica, figures.replicas),
        counters=_counters(figures.counters),
    )


def _replica(one: ReplicaFigures) -> pb.ReplicaStatistics:
    message = pb.ReplicaStatistics(
        replica=one.replica.id,
        model_version=one.group.version.name,
        state=d.Replica.State.Value(f"STATE_{one.replica.state}"),
        restarts=one.replica.restarts,
        shadow=one.group.shadow,
    )
    if one.measured:
        message.measured = True
        message.counters.CopyFrom(_counters(one.measured.counters))
        message.in_flight = one.measured.in_flight
        message.pending = one.measured.pending
        message.memory_bytes = one.measured.memory_bytes
    return message


def _counters(counters: Counters) -> pb.InferenceCounters:
    return pb.InferenceCounters(
        success_count=counters.success,
        failure_counts=counters.failures,
        inference_count=counters.inferences,
        execution_count=counters.executions,
        request_ns=counters.request_ns,
        queue_ns=counters.queue_ns,
        compute_input_ns=counters.input_ns,
        compute_infer_ns=counters.infer_ns,
        compute_output_ns=counters.output_ns,
        latency_bounds=counters.bounds,
        latency_counts=counters.latencies,
    )
