"""A gateway that routes nothing: it confirms every table, so that deployments come up on a stack without Envoy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from modelyard.api.inference.v1.inference_service_pb2 import ConfirmRoutesRequest, WatchRoutesRequest
from modelyard.api.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from tests.framework.stack import Stack

_ID = "confirming"


@asynccontextmanager
async def some_gateway(stack: Stack) -> AsyncIterator[None]:
    """Make sure that a stack has a gateway within this block: its own, or one that confirms everything."""
    if stack.predicts:
        yield
        return
    async with stack.client(stack.home.token_file("gateway").read_text().strip()) as client:
        token = await client.access_token()
    following = asyncio.create_task(_confirm(stack.home.socket("inference"), token))
    try:
        yield
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def _confirm(address: str, token: str) -> None:
    metadata = [("authorization", f"Bearer {token}")]
    async with grpc.aio.insecure_channel(address) as channel:
        inference = InferenceServiceStub(channel)
        async for answer in inference.WatchRoutes(WatchRoutesRequest(gateway_id=_ID), metadata=metadata):
            groups = [target.group for route in answer.table.routes for target in route.targets]
            confirmation = ConfirmRoutesRequest(
                gateway_id=_ID, version=answer.table.version, healthy_groups=groups
            )
            await inference.ConfirmRoutes(confirmation, metadata=metadata)
