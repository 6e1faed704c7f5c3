"""Asks replicas over gRPC health checking whether they answer."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_SECONDS = 1.0
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]


class HealthProber:
    """Keeps one channel for each address that is asked."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def ready(self, address: str) -> bool:
        """Return whether the replica at `address` says that it serves."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def forget(self, address: str) -> None:
        """Close the channel to an address that is no longer asked."""
        channel = self._channels.pop(address, None)
        if channel:
            await channel.close()

    async def close(self) -> None:
        """Close every channel."""
        for address in list(self._channels):
            await self.forget(address)
