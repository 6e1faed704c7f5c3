"""Changes behind a real Envoy harm nobody: new groups, killed replicas, lost services, a restarted Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from modelyard import _status, errors
from modelyard_gateway import envoy
from modelyard_gateway.admin import EnvoyUnreachableError
from modelyard_gateway.apply import ApplyFailedError
from modelyard_gateway.render import Configuration
from modelyard_kit.auth import Principal
from tests.conformance.gateway_stack import (
    ADA,
    BOB,
    GatewayStack,
    gateway_stack,
    route,
    start_program,
)
from tests.framework.waiting import eventually

IRIS, OTHER = "prod.ml.iris", "prod.ml.other"
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def stack() -> AsyncIterator[GatewayStack]:
    async with gateway_stack() as made:
        yield made


@contextlib.asynccontextmanager
async def load(stack: GatewayStack, name: str, callers: int = 4) -> AsyncIterator[Counter[str]]:
    """Predict all the time within the block; counts answers by version, and fails with the first failure."""
    answers: Counter[str] = Counter()
    done = asyncio.Event()

    async def caller(channel: grpc.aio.Channel, header: str) -> None:
        while not done.is_set():
            answer = await stack.infer_on(channel, name, header=header)
            answers[answer.model_version] += 1

    async with stack.channel() as channel, asyncio.TaskGroup() as group:
        for number in range(callers):
            group.create_task(caller(channel, name if number % 2 else ""))
        try:
            yield answers
        finally:
            done.set()


async def until(answers: Counter[str], version: str, more: int = 20) -> None:
    """Wait until `version` has answered so many more times."""
    wanted = answers[version] + more
    await eventually(lambda: answers[version] >= wanted)


async def test_groups_are_switched_under_load_without_a_failure(stack: GatewayStack) -> None:
    first = await stack.replica("one")
    await stack.apply([route(IRIS, ("g1", 1, [first.address]))])
    await stack.healthy("g1")
    async with load(stack, IRIS) as answers:
        await until(answers, "one")
        second = await stack.replica("two")
        await stack.apply([route(IRIS, ("g1", 1, [first.address]), ("g2", 0, [second.address]))])
        await stack.healthy("g1", "g2")
        assert answers["two"] == 0
        await stack.apply([route(IRIS, ("g1", 1, [first.address]), ("g2", 1, [second.address]))])
        await until(answers, "one")
        await until(answers, "two")
        await stack.apply([route(IRIS, ("g1", 0, [first.address]), ("g2", 1, [second.address]))])
        await asyncio.sleep(0.2)
        old = answers["one"]
        await until(answers, "two", 50)
        assert answers["one"] == old
        await stack.apply([route(IRIS, ("g2", 1, [second.address]))])
        await first.stop(5)
        await until(answers, "two", 50)


async def test_a_group_that_was_switched_away_from_goes_with_the_next_change(stack: GatewayStack) -> None:
    """Nobody waits until it is gone; among thousands of groups that takes seconds."""
    replica = await stack.replica("one")
    assert not await stack.apply([route(IRIS, ("g1", 1, [replica.address]))])
    after = [route(IRIS, ("g2", 1, [replica.address]))]
    assert await stack.apply(after)
    assert (await stack.admin.hosts()).keys() == {"g1", "g2"}
    assert not await stack.apply(after)
    assert (await stack.admin.hosts()).keys() == {"g2"}


async def test_a_group_that_appears_and_serves_at_once_fails_nobody(stack: GatewayStack) -> None:
    """Even without the steps between, clusters are warm before routes lead to them."""
    first, second = await stack.replica("one"), await stack.replica("two")
    await stack.apply([route(IRIS, ("g1", 1, [first.address]))])
    await stack.healthy("g1")
    async with load(stack, IRIS) as answers:
        await until(answers, "one")
        await stack.apply([route(IRIS, ("g2", 1, [second.address]))])
        await until(answers, "two")


async def test_requests_of_a_killed_replica_are_sent_to_another(stack: GatewayStack) -> None:
    survivor = await stack.replica("survivor")
    socket = stack.folder / "victim.sock"
    victim = start_program(
        [sys.executable, "-m", "tests.conformance.fake_replica", str(socket), "victim"], cwd=ROOT
    )
    try:
        await eventually(socket.exists)
        await stack.apply([route(IRIS, ("g1", 1, [survivor.address, f"unix:{socket}"]))])
        await stack.healthy("g1")
        async with load(stack, IRIS, callers=8) as answers:
            await until(answers, "victim")
            victim.kill()
            await until(answers, "survivor", 200)
    finally:
        victim.kill()
        victim.wait()


async def test_a_replica_that_says_not_serving_gets_nothing_more(stack: GatewayStack) -> None:
    first, second = await stack.replica("one"), await stack.replica("two")
    await stack.apply([route(IRIS, ("g1", 1, [first.address, second.address]))])
    await stack.healthy("g1")
    await first.set_serving(False)
    async with load(stack, IRIS) as answers, asyncio.timeout(60):
        before = -1
        while answers["one"] != before:
            before = answers["one"]
            await asyncio.sleep(1.0)
        assert answers["two"] > 0


async def test_no_replica_is_unavailable_and_says_so(stack: GatewayStack) -> None:
    dead = f"unix:{stack.folder}/dead.sock"
    await stack.apply(
        [route(IRIS, ("g1", 1, [dead])), route("prod.ml.idle", ("g2", 0, [dead])), route("prod.ml.none")]
    )
    for name in (IRIS, "prod.ml.idle", "prod.ml.none"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.infer(name)
        error = _status.error_from_call(caught.value, "")
        assert isinstance(error, errors.ReplicaNotReady)
        assert name in str(error)
    assert await stack.admin.healthy_groups() == frozenset()


async def test_a_revoked_right_ends_at_once(stack: GatewayStack, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = await stack.replica("one")
    routes = [route(IRIS, ("g1", 1, [replica.address]))]
    await stack.apply(routes, {IRIS: [ADA.id, BOB.id]})
    await stack.healthy("g1")
    async with stack.channel() as channel:
        await stack.infer_on(channel, IRIS, BOB)
        monkeypatch.delattr(envoy, "validate")  # no Envoy is started to check that other names are as good
        await stack.apply(routes, {IRIS: [ADA.id]})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.infer_on(channel, IRIS, BOB)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await stack.infer_on(channel, IRIS, ADA)


async def test_a_name_that_becomes_another_deployment_lets_nobody_into_the_wrong_one(
    stack: GatewayStack,
) -> None:
    """Rights and routes are two files: no version of one may meet the other's."""
    one, two = await stack.replica("one"), await stack.replica("two")
    of_one = route(IRIS, ("g1", 1, [one.address]))
    chain = (replace(of_one.deployment[0], id=f"id-{OTHER}"), *of_one.deployment[1:])
    of_two = replace(route(IRIS, ("g2", 1, [two.address])), deployment=chain)
    allowed = {IRIS: [ADA.id], OTHER: [BOB.id]}
    answers: Counter[tuple[str, str]] = Counter()

    async def call(channel: grpc.aio.Channel, principal: Principal) -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answer = await stack.infer_on(channel, IRIS, principal, header=IRIS)
                answers[principal.name, answer.model_version] += 1

    await stack.apply([of_one], allowed)
    await stack.healthy("g1")
    async with stack.channel() as channel:
        callers = [asyncio.create_task(call(channel, who)) for who in (ADA, BOB)]
        for _ in range(5):
            for served, caller in ((of_two, (BOB.name, "two")), (of_one, (ADA.name, "one"))):
                await stack.apply([served], allowed)
                await eventually(lambda caller=caller, before=answers[caller]: answers[caller] > before)
        for task in callers:
            task.cancel()
        await asyncio.wait(callers)
    assert answers.keys() == {(ADA.name, "one"), (BOB.name, "two")}


async def test_envoy_starts_again_from_its_files(stack: GatewayStack) -> None:
    replica = await stack.replica("one")
    await stack.apply([route(IRIS, ("g1", 1, [replica.address]))])
    assert await stack.applier.lag() == ""
    stack.kill_envoy()
    with pytest.raises(EnvoyUnreachableError):
        await stack.applier.lag()
    stack.settings.admin_socket.unlink()
    stack.start_envoy()
    await stack.wait_for_admin()
    await stack.healthy("g1")

    async def is_served() -> bool:
        return not await stack.applier.lag()

    await eventually(is_served)
    stack.port = await stack.admin.listen_port()
    await stack.infer(IRIS)


async def test_what_envoy_refuses_is_not_written(stack: GatewayStack) -> None:
    replica = await stack.replica("one")
    await stack.apply([route(IRIS, ("g1", 1, [replica.address]))])
    await stack.healthy("g1")
    bad = {"name": "bad", "connect_timeout": "never"}
    with pytest.raises(ApplyFailedError, match="connect_timeout|Duration|duration"):
        await stack.applier.apply(Configuration((), (bad,), None, None))
    assert await stack.applier.lag() == ""
    await stack.infer(IRIS)


async def test_a_taken_port_is_named(stack: GatewayStack) -> None:
    taken = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with taken, gateway_stack(listen=f"127.0.0.1:{port}", apply_timeout_seconds=1.0) as other:
        with pytest.raises(ApplyFailedError, match=rf"127\.0\.0\.1:{port} is taken .*MODELYARD_LISTEN"):
            await other.apply([])
