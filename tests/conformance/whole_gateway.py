"""All of a gateway: an agent, its Envoy, stand-ins for the services it follows, and one replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from modelyard_gateway.agent import Agent
from modelyard_kit.grants import Grants
from modelyard_kit.peers import Peers
from tests.conformance.gateway_control_plane import ControlPlane, allow
from tests.conformance.gateway_stack import ADA, GatewayStack, gateway_stack, route

IRIS = "prod.ml.iris"


class Gateway:
    """An agent, its Envoy, the services it follows, and one replica of `iris` that Ada may use."""

    def __init__(self, stack: GatewayStack, plane: ControlPlane) -> None:
        self.stack, self.plane = stack, plane
        self.working: Agent

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        settings = self.stack.settings
        peers = Peers(settings)
        agent = Agent(settings, peers, Grants(), self.stack.admin, self.stack.applier)
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await peers.close()

    async def deploy(self, group: str, *addresses: str) -> None:
        version = await self.plane.inference.publish(route(IRIS, (group, 1, addresses)))
        await self.plane.inference.until_confirmed(version, [group])
        self.stack.port = await self.stack.admin.listen_port()


@asynccontextmanager
async def whole_gateway(**settings: Any) -> AsyncIterator[Gateway]:
    """Run one within this block."""
    async with gateway_stack(**settings) as stack:
        plane = ControlPlane(stack.folder, stack.issuer)
        await plane.start()
        made = Gateway(stack, plane)
        async with made.agent() as made.working:
            replica = await stack.replica("one")
            await plane.governance.grants.set({ADA.id: allow(IRIS)})
            await made.deploy("g1", replica.address)
            yield made
        await plane.stop()
