"""Two Envoys, each with an agent of its own, on one control plane."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelyard_gateway.render import CLUSTERS_FILE, ROUTES_FILE
from tests.conformance.gateway_control_plane import ControlPlane, allow
from tests.conformance.gateway_stack import ADA, GatewayStack, route
from tests.conformance.whole_gateway import IRIS, Gateway
from tests.framework.waiting import eventually


@asynccontextmanager
async def gateway(
    name: str, folder: Path, plane: ControlPlane | None = None, **settings: Any
) -> AsyncIterator[Gateway]:
    """An Envoy and a control plane, which may be that of another one; its agent is not started."""
    stack = GatewayStack(folder, gateway_id=name, keys_interval_seconds=0.2, **settings)
    own = plane or ControlPlane(folder, stack.issuer)
    stack.issuer = own.governance.issuers[0]
    stack.start_envoy()
    try:
        await stack.wait_for_admin()
        yield Gateway(stack, own)
    finally:
        await stack.close()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Gateway, Gateway]]:
    async with AsyncExitStack() as exits:
        one, two = (Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="my-gw-"))) for _ in range(2))
        first = await exits.enter_async_context(gateway("first", one))
        shared = {f"{name}_address": address for name, address in first.stack.settings.services.items()}
        second = await exits.enter_async_context(gateway("second", two, first.plane, **shared))
        await first.plane.start()
        exits.push_async_callback(first.plane.stop)
        await first.plane.governance.grants.set({ADA.id: allow(IRIS)})
        yield first, second


async def deploy(first: Gateway, *confirming: Gateway, group: str, address: str) -> int:
    """Publish a table with one group, and wait until these gateways serve it."""
    inference = first.plane.inference
    version = await inference.publish(route(IRIS, (group, 1, [address])))

    def confirmed() -> bool:
        found = [inference.newest.get(each.stack.settings.gateway_id) for each in confirming]
        return all(each and each.version == version and group in each.healthy_groups for each in found)

    await eventually(confirmed)
    for each in confirming:
        each.stack.port = await each.stack.admin.listen_port()
    return version


def written(gateway: Gateway) -> list[Any]:
    """The routes and replicas that an Envoy reads; the paths of its own folder are left out."""
    folder = gateway.stack.settings.envoy_directory
    routes, clusters = (json.loads((folder / name).read_text()) for name in (ROUTES_FILE, CLUSTERS_FILE))
    return [routes, [each for each in clusters["resources"] if each["name"].startswith("group-")]]


async def test_two_gateways_agree_and_each_goes_on_without_the_other(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    one, two = await first.stack.replica("one"), await first.stack.replica("two")
    async with first.agent():
        async with second.agent():
            await deploy(first, first, second, group="g1", address=one.address)
            assert written(first) == written(second)
            for each in pair:
                assert (await each.stack.infer(IRIS)).model_version == "one"
        newer = await deploy(first, first, group="g2", address=two.address)
        assert (await first.stack.infer(IRIS)).model_version == "two"
        assert first.plane.inference.newest["second"].version < newer  # inference waits for it
        assert (await second.stack.infer(IRIS)).model_version == "one"
        async with second.agent():
            await eventually(lambda: first.plane.inference.newest["second"].version == newer)
            assert written(first) == written(second)
            assert (await second.stack.infer(IRIS)).model_version == "two"
            await first.plane.stop()
            first.stack.kill_envoy()
            second.stack.kill_envoy()
            second.stack.settings.admin_socket.unlink()
            second.stack.start_envoy()  # alone: no service, and the other gateway is gone
            await second.stack.wait_for_admin()
            await second.stack.healthy("g2")
            second.stack.port = await second.stack.admin.listen_port()
            assert (await second.stack.infer(IRIS)).model_version == "two"
            await first.plane.start()
