"""Asks replicas over gRPC whether they answer, and what they answered."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.api.inference.v1.log_pb2 import LoggingPolicy
from modelyard.api.inference.v1.replica_service_pb2 import (
    GetStatisticsRequest,
    SetLoggingRequest,
    TakeSamplesRequest,
)
from modelyard.api.inference.v1.replica_service_pb2_grpc import ReplicaServiceStub
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.logging_messages import policy_to_proto
from modelyard_inference.ports import Counters, Measured, Sample, Taken

TIMEOUT_SECONDS = 1.0
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]


class ReplicaProber:
    """Keeps one channel for each address that is asked."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def ready(self, address: str) -> bool:
        """Return whether the replica at `address` says that it serves."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel(address))  # type: ignore[no-untyped-call,unused-ignore]
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def take_samples(self, address: str) -> Taken:
        """Return what the replica at `address` kept since it was asked last; nothing if it does not answer."""
        stub = ReplicaServiceStub(self._channel(address))
        try:
            answer = await stub.TakeSamples(TakeSamplesRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return Taken((), 0)
        samples = tuple(Sample(s.id, s.digest, s.error) for s in answer.samples)
        return Taken(samples, answer.forgotten)

    async def statistics(self, address: str) -> Measured | None:
        """Return what the replica at `address` counted and is at; None if it does not answer."""
        stub = ReplicaServiceStub(self._channel(address))
        try:
            answer = await stub.GetStatistics(GetStatisticsRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return None
        found = answer.counters
        counters = Counters(
            found.success_count,
            dict(found.failure_counts),
            found.inference_count,
            found.execution_count,
            found.request_ns,
            found.queue_ns,
            found.compute_input_ns,
            found.compute_infer_ns,
            found.compute_output_ns,
            tuple(found.latency_bounds),
            tuple(found.latency_counts),
        )
        return Measured(counters, answer.in_flight, answer.pending, answer.memory_bytes)

    async def set_logging(self, address: str, policy: LogPolicy) -> bool:
        """Tell the replica at `address` what to write down about predictions; return whether it took it."""
        stub = ReplicaServiceStub(self._channel(address))
        message = policy_to_proto(policy) or LoggingPolicy()
        try:
            await stub.SetLogging(SetLoggingRequest(policy=message), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def forget(self, address: str) -> None:
        """Close the channel to an address that is no longer asked."""
        channel = self._channels.pop(address, None)
        if channel:
            await channel.close()

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        return channel

    async def close(self) -> None:
        """Close every channel."""
        for address in list(self._channels):
            await self.forget(address)
