"""What permissions and the audit cost, and how soon a change of permissions holds everywhere.

    python -m tests.bench.bench_governance [--quick] [--size 1000000] [--seconds 2] [--changes 50]

* `decisions`: what every call of every service asks, in memory and without the network (`Grants.decide`), for a principal with a
  hundred grants of its own and a group in a group.
* `check`: CheckPermission, the RPC, by its socket.
* `list`: a page of 50 models out of those that hold `--size` versions, for a principal who may see one model in a hundred, and for
  one who may see all.
* `audit`: events appended to the chain by RecordEvents, 100 at a time, one call after the other.
* `propagation`: from the moment that CreateGrant, DeleteGrant, DisablePrincipal or EnablePrincipal is called to the first answer that
  obeys it, of each service and of Envoy in front of a real deployment. Answers are asked for one after the other through Envoy, so a
  figure holds one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
from rich.console import Console
from rich.table import Table

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard.api.catalog.v1 import catalog_service_pb2 as catalog_pb
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from modelyard.api.common.v1 import event_pb2, resource_pb2
from modelyard.api.governance.v1 import access_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as governance_pb
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard_kit.access import Effect, Link, Privilege, ResourceGrant, ResourceType
from modelyard_kit.channels import open_channel
from modelyard_kit.grants import Grants
from modelyard_suite import secrets
from tests.bench.catalog_rows import CATALOG, SCHEMA, Rows
from tests.bench.catalog_suite import USER, Installation, installation
from tests.bench.goals import Goal, machine
from tests.framework import folders
from tests.framework.deployed import ROWS, deployed, estimators
from tests.framework.stack import Processes

WORK = Path(".work/bench")
PAGE = 50
SEEN_PERCENT = 1
EVENTS = 100
CHECKED = "one-percent"
ONE_SECOND_MS = 1_000.0

Act = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class Sample:
    """One measurement: latencies in milliseconds, and how many were done in a second if that was measured."""

    p50_ms: float
    p99_ms: float
    per_second: float | None = None


@dataclass
class Results:
    """What was measured, by name."""

    samples: dict[str, Sample] = field(default_factory=dict)
    decisions: float = 0.0

    def add(self, name: str, seconds: list[float], *, taken: float | None = None, each: int = 1) -> None:
        """Keep what was measured; of calls that did `each` things in `taken` seconds, how many things a second."""
        p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
        rate = len(seconds) * each / taken if taken else None
        self.samples[name] = Sample(float(p50), float(p99), rate)


def main() -> None:
    """Run the benchmark, print what it found, and keep it."""
    arguments, results = _arguments(), Results()
    results.decisions = asyncio.run(_decisions(arguments.seconds))
    asyncio.run(_at_scale(arguments, results))
    with Processes.start(where=folders.ON_DISK) as processes:
        asyncio.run(_propagation(processes, arguments, results))
    _report(results, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1_000_000, help="versions in the catalog")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement")
    parser.add_argument("--changes", type=int, default=50, help="changes of permissions of each kind")
    parser.add_argument("--quick", action="store_true", help="about a minute: small, short")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.seconds, arguments.changes = 10_000, 0.5, 5
    return arguments


async def _decisions(seconds: float) -> float:
    """Return how many decisions a second one core makes in memory."""
    grants = Grants()
    read, use = Privilege.READ_METADATA, (Privilege.USE_CATALOG, Privilege.USE_SCHEMA)
    for number in range(1_000):
        own = [ResourceGrant(f"m{number}-{one}", read, Effect.ALLOW) for one in range(100)]
        grants.replace(f"p{number}", f"p{number}", own, groups=["inner"])
    grants.replace("inner", "inner", [], groups=["outer"], is_group=True)
    grants.replace("outer", "outer", [ResourceGrant("c", one, Effect.ALLOW) for one in use], is_group=True)
    await grants.mark_fresh(1)
    above = (Link(ResourceType.SCHEMA, "s", "c.s"), Link(ResourceType.CATALOG, "c", "c"))
    chains = [(Link(ResourceType.MODEL, f"m7-{one}", f"c.s.m{one}"), *above) for one in range(200)]
    made, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        allowed = sum(grants.decide("p7", read, chain).allowed for chain in chains)
        assert allowed == 100, allowed
        made += len(chains)
    return made / (time.perf_counter() - begin)


async def _at_scale(arguments: argparse.Namespace, results: Results) -> None:
    rows = Rows(arguments.size)
    async with installation([arguments.size], lambda text: print(f"  {text}", flush=True)) as here:
        administrator = here.home.token_file(secrets.ADMINISTRATOR).read_text().strip()
        seen = [rows.name(model) for model in range(1, rows.models + 1) if model % (100 // SEEN_PERCENT) == 0]
        async with here.client(administrator) as client:
            await client.principals.create(CHECKED)
            secret = (await client.tokens.create(principal=CHECKED)).secret
            await client.grants.create(CHECKED, "USE_CATALOG", CATALOG)
            await client.grants.create(CHECKED, "USE_SCHEMA", f"{CATALOG}.{SCHEMA}")
            for name in seen:
                await client.grants.create(CHECKED, "READ_METADATA", name, resource_type="MODEL")
        await _checks(here, administrator, rows, arguments.seconds, results)
        for who, token, visible in ((CHECKED, secret, len(seen)), (USER, here.secret, rows.models + 1)):
            await _lists(here, token, who, min(PAGE, visible), arguments, results)
        await _appends(here, arguments.seconds, results)


async def _checks(here: Installation, token: str, rows: Rows, seconds: float, results: Results) -> None:
    async with _governance(here, token) as (stub, metadata):

        async def ask(number: int) -> None:
            model = 1 + number % rows.models
            answer = await stub.CheckPermission(
                governance_pb.CheckPermissionRequest(
                    principal=CHECKED,
                    privilege=access_pb2.PRIVILEGE_READ_METADATA,
                    resource_type=resource_pb2.RESOURCE_TYPE_MODEL,
                    resource=rows.name(model),
                ),
                metadata=metadata,
            )
            assert answer.allowed == (model % (100 // SEEN_PERCENT) == 0), answer

        for concurrency in (1, 16):
            latencies, taken = await _closed_loop(ask, concurrency, seconds)
            results.add(f"check, {concurrency} in flight", latencies, taken=taken)


async def _lists(
    here: Installation, token: str, who: str, wanted: int, arguments: argparse.Namespace, results: Results
) -> None:
    async with open_channel(here.address(arguments.size)) as channel:
        stub, metadata = CatalogServiceStub(channel), await _login(here, token)
        request = catalog_pb.ListModelsRequest(schema=f"{CATALOG}.{SCHEMA}", page_size=PAGE)

        async def ask(_number: int) -> None:
            answer = await stub.ListModels(request, metadata=metadata)
            assert len(answer.models) == wanted, len(answer.models)

        await _until(ask)  # the catalog has heard of all these grants
        for concurrency in (1, 16):
            latencies, taken = await _closed_loop(ask, concurrency, arguments.seconds)
            results.add(f"list as {who}, {concurrency} in flight", latencies, taken=taken)


async def _appends(here: Installation, seconds: float, results: Results) -> None:
    token = here.home.token_file("catalog").read_text().strip()
    async with _governance(here, token) as (stub, metadata):

        async def ask(number: int) -> None:
            events = [_event(f"{number}-{one}") for one in range(EVENTS)]
            await stub.RecordEvents(governance_pb.RecordEventsRequest(events=events), metadata=metadata)

        latencies, taken = await _closed_loop(ask, 1, seconds)
        results.add(f"audit, {EVENTS} events a call", latencies, taken=taken, each=EVENTS)


def _event(number: str) -> event_pb2.Event:
    """Return an event as the catalog tells of a new version."""
    model = resource_pb2.Resource(
        type=resource_pb2.RESOURCE_TYPE_MODEL_VERSION, id=str(uuid.uuid4()), name=f"bench.ml.wide/{number}"
    )
    event = event_pb2.Event(
        id=str(uuid.uuid4()),
        type="catalog.model_version.created",
        resource=model,
        actor_id=str(uuid.uuid4()),
        actor_name=USER,
        request_id=str(uuid.uuid4()),
    )
    event.time.GetCurrentTime()
    after = {
        "number": 7.0,
        "state": "READY",
        "tags": {"team": "team-3"},
        "metrics": {"accuracy": 0.93, "f1": 0.5},
    }
    event.data.update({"after": after})
    return event


async def _propagation(processes: Processes, arguments: argparse.Namespace, results: Results) -> None:
    async with (
        processes.admin() as admin,
        deployed(processes, models=estimators()) as endpoint,
        processes.user() as user,
    ):
        print("  changes of permissions, as the catalog and Envoy obey them", flush=True)
        catalog = endpoint.name.partition(".")[0]
        for privilege in ("USE_CATALOG", "USE_SCHEMA"):
            await admin.grants.create(user.name, privilege, catalog)
        version = await admin.versions.get(f"{endpoint.name}/1")
        client, digest = user.client, version.artifact_digest
        asked: dict[str, tuple[str, Act]] = {
            "catalog": ("READ_METADATA", lambda: client.versions.get(version.name)),
            "artifact": ("READ_METADATA", lambda: client.artifacts.get(digest, model=endpoint.name)),
            "governance": ("READ_METADATA", lambda: client.approvals.get(version.name)),
            "inference": ("READ_METADATA", lambda: client.deployments.get(endpoint.name)),
            "Envoy": ("EXECUTE", lambda: client.predict(endpoint.name, ROWS[:1])),
        }
        for where, (privilege, ask) in asked.items():
            times: dict[str, list[float]] = {}
            for _ in range(arguments.changes):
                for change, act, wanted in _changes(admin, user.name, privilege, catalog):
                    times.setdefault(change, []).append(await _obeyed(act, ask, wanted=wanted))
            for change, seconds in times.items():
                results.add(f"{change} to {where}", seconds)


def _changes(admin: AsyncClient, user: str, privilege: str, on: str) -> Iterator[tuple[str, Act, bool]]:
    """Yield changes one after the other, and whether the user may afterwards."""
    yield "grant", lambda: admin.grants.create(user, privilege, on), True
    yield "disable", lambda: admin.principals.disable(user), False
    yield "enable", lambda: admin.principals.enable(user), True
    yield "revoke", lambda: admin.grants.delete(user, privilege, on), False


async def _obeyed(act: Act, ask: Act, *, wanted: bool) -> float:
    """Return the seconds from a change to the first answer that obeys it."""
    begin = time.perf_counter()
    await act()
    while await _may(ask) != wanted:
        pass
    return time.perf_counter() - begin


async def _may(ask: Act) -> bool:
    try:
        await ask()
    except (errors.PermissionDenied, errors.Unauthenticated):
        return False
    return True


async def _until(ask: Callable[[int], Awaitable[None]]) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await ask(0)
            except (AssertionError, grpc.aio.AioRpcError):
                await asyncio.sleep(0.05)
            else:
                return


async def _closed_loop(
    ask: Callable[[int], Awaitable[None]], concurrency: int, seconds: float
) -> tuple[list[float], float]:
    """Ask for some seconds; return how long each answer took, and how long all of it."""
    latencies: list[float] = []
    numbers = iter(range(10**9))
    begin = time.perf_counter()

    async def caller() -> None:
        while (start := time.perf_counter()) < begin + seconds:
            await ask(next(numbers))
            latencies.append(time.perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return latencies, time.perf_counter() - begin


@asynccontextmanager
async def _governance(here: Installation, token: str) -> Any:
    async with open_channel(here.home.socket("governance")) as channel:
        yield GovernanceServiceStub(channel), await _login(here, token)


async def _login(here: Installation, token: str) -> tuple[tuple[str, str], ...]:
    async with open_channel(here.home.socket("governance")) as channel:
        request = governance_pb.ExchangeTokenRequest(api_token=token)
        answer = await GovernanceServiceStub(channel).ExchangeToken(request)
    return (("authorization", f"Bearer {answer.access_token}"),)


def _report(results: Results, arguments: argparse.Namespace) -> None:
    console = Console(width=110)
    table = Table(title=f"{arguments.size:,} versions, {arguments.changes} changes of each kind")
    for column in ("what", "p50, ms", "p99, ms", "a second"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("decisions in memory", "", "", f"{results.decisions:,.0f}")
    for name, sample in results.samples.items():
        rate = "" if sample.per_second is None else f"{sample.per_second:,.0f}"
        table.add_row(name, f"{sample.p50_ms:.1f}", f"{sample.p99_ms:.1f}", rate)
    console.print(table)
    measured_on = machine("grpcio", "SQLAlchemy", "asyncpg")
    console.print(", ".join(f"{name} {value}" for name, value in measured_on.items()))
    goals = list(_goals(results))
    WORK.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": measured_on,
        "arguments": vars(arguments),
        "decisions_per_second": results.decisions,
        "results": {name: asdict(sample) for name, sample in results.samples.items()},
        "goals": [asdict(goal) for goal in goals],
    }
    path = WORK / "governance.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"all figures: {path}")
    if arguments.quick:
        console.print("no GOAL lines: --quick measures too little to say anything")
        return
    for goal in goals:
        print(goal)


def _goals(results: Results) -> Iterator[Goal]:
    yield Goal("governance-decisions-per-second", results.decisions, 50_000, at_least=True)
    few, all_ = (results.samples[f"list as {who}, 1 in flight"].p50_ms for who in (CHECKED, USER))
    yield Goal("governance-list-of-1-percent-p50-ms", few, 25)
    yield Goal("governance-list-of-1-percent-vs-all", few / all_, 2)
    for name, sample in results.samples.items():
        if name.startswith("audit") and sample.per_second:
            yield Goal("governance-audit-events-per-second", sample.per_second, 1_000, at_least=True)
        if " to " in name:
            change, _, where = name.partition(" to ")
            yield Goal(f"governance-{change}-{where.lower()}-p99-ms", sample.p99_ms, ONE_SECOND_MS)


if __name__ == "__main__":
    main()
