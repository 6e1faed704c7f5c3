"""What every launcher must do, tried on a real process; subclass it once for each launcher."""

from __future__ import annotations

import asyncio
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from modelyard_inference.launchers import Found, Handle, Launcher, ReplicaSpec
from modelyard_inference.log_files import LAUNCHER, Wanted
from modelyard_inference.probe import ReplicaProber
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.runtimes.signature import Signature
from modelyard_kit.ids import new_id
from tests.framework.inference import SIGNATURE


class LauncherSuite(ABC):
    """The promises of `Launcher`."""

    @pytest.fixture
    @abstractmethod
    def make(self) -> Callable[[], Launcher]:
        """Return what makes launchers that look after the same replicas, as two lives of the service would."""

    @pytest.fixture
    def launcher(self, make: Callable[[], Launcher]) -> Launcher:
        return make()

    async def test_started_replica_answers_on_its_address(self, launcher: Launcher) -> None:
        spec = _spec(launcher)
        handle = await launcher.start(spec)
        prober = ReplicaProber()
        await _until(lambda: prober.ready(launcher.address(spec.id)))
        await prober.close()
        assert (await launcher.status(handle)).running
        assert list(await launcher.list()) == [handle]

    async def test_addresses_are_unique_and_do_not_change(self, launcher: Launcher) -> None:
        first, second = new_id(), new_id()
        assert launcher.address(first) == launcher.address(first) != launcher.address(second)

    async def test_starting_again_finds_the_running_process(self, make: Callable[[], Launcher]) -> None:
        launcher = make()
        spec = _spec(launcher)
        handle = await launcher.start(spec)
        assert await launcher.start(spec) == handle
        assert await make().start(spec) == handle

    async def test_another_life_finds_and_stops_it(self, make: Callable[[], Launcher]) -> None:
        launcher = make()
        handle = await launcher.start(_spec(launcher))
        later = make()
        assert list(await later.list()) == [handle]
        assert (await later.status(handle)).running
        await later.stop(handle, 10.0)
        assert not (await later.status(handle)).running
        assert not await later.list()

    async def test_stopped_replica_ends_by_itself_within_its_grace(self, launcher: Launcher) -> None:
        handle = await launcher.start(_spec(launcher))
        await _until_loaded(launcher, handle)
        await launcher.stop(handle, 20.0)
        found = await launcher.status(handle)
        assert not found.running
        assert "exit code 0" in found.report
        await launcher.stop(handle, 20.0)  # harmless

    async def test_one_that_does_not_end_is_killed(self, launcher: Launcher) -> None:
        handle = await launcher.start(_spec(launcher, "stubborn"))
        await _until_loaded(launcher, handle)
        await launcher.stop(handle, 0.2)
        assert "SIGKILL" in (await launcher.status(handle)).report

    async def test_killed_process_is_told_and_can_be_started_again(self, launcher: Launcher) -> None:
        spec = _spec(launcher)
        handle = await launcher.start(spec)
        await _until_loaded(launcher, handle)
        os.kill(handle.process_id, signal.SIGKILL)
        found = await _ended(launcher, handle)
        assert "SIGKILL: by hand, or by the kernel" in found.report  # nobody else can tell its owner
        assert "tiny replica of prod.ml.iris/1" in found.report
        again = await launcher.start(spec)
        assert (again.process_id, again.started) != (handle.process_id, handle.started)
        assert (await launcher.status(again)).running

    async def test_its_log_is_read_from_the_end_and_on(self, launcher: Launcher) -> None:
        spec = _spec(launcher)
        assert (await launcher.log_tail(spec.id, Wanted(tail=9))).lines == ()
        handle = await launcher.start(spec)
        await _until_loaded(launcher, handle)
        before = await launcher.log_tail(spec.id, Wanted(tail=9))
        assert [line.logger for line in before.lines] == [LAUNCHER, ""]
        assert before.lines[1].message == "tiny replica of prod.ml.iris/1"
        await launcher.stop(handle, 10.0)
        again = await launcher.start(spec)
        await _until_loaded(launcher, again)
        following = await launcher.log_on(spec.id, before.position)
        assert [line.message for line in following.lines] == [
            "replica_starting",
            "tiny replica of prod.ml.iris/1",
        ]
        await launcher.stop(again, 10.0)
        await launcher.forget(spec.id)
        assert (await launcher.log_tail(spec.id, Wanted(tail=9))).lines == ()

    async def test_reason_that_the_replica_gives_is_told(self, launcher: Launcher) -> None:
        handle = await launcher.start(_spec(launcher, "broken"))
        found = await _ended(launcher, handle)
        assert found.report.startswith("the model cannot be loaded: it is broken")

    async def test_each_end_is_told_with_the_log_of_its_own_life(self, launcher: Launcher) -> None:
        spec = _spec(launcher, "broken")
        reports = [(await _ended(launcher, await launcher.start(spec))).report for _ in range(2)]
        assert reports[0] == reports[1]
        assert reports[1].count("tiny replica of prod.ml.iris/1") == 1

    async def test_what_it_waits_for_is_told(self, launcher: Launcher) -> None:
        handle = await launcher.start(_spec(launcher, "waiting"))

        async def told() -> bool:
            found = await launcher.status(handle)
            return found.running and found.problem == "the other server is away"

        await _until(told)

    async def test_other_process_with_the_same_id_is_not_mistaken_for_it(self, launcher: Launcher) -> None:
        handle = await launcher.start(_spec(launcher))
        await _until_loaded(launcher, handle)
        stranger = Handle(handle.replica_id, handle.process_id, "another start time")
        assert not (await launcher.status(stranger)).running
        await launcher.stop(stranger, 0.0)
        assert (await launcher.status(handle)).running

    async def test_forgotten_replica_leaves_nothing(self, launcher: Launcher) -> None:
        spec = _spec(launcher)
        handle = await launcher.start(spec)
        await launcher.stop(handle, 10.0)
        await launcher.forget(spec.id)
        assert not Path(launcher.address(spec.id).removeprefix("unix:")).exists()
        assert not await launcher.list()


def _spec(launcher: Launcher, runtime: str = "ready") -> ReplicaSpec:
    replica_id = new_id()
    config = ReplicaConfig(
        deployment="prod.ml.iris",
        model="prod.ml.iris",
        version=1,
        artifact_digest="sha256:0",
        model_directory=Path("/nowhere"),
        runtime=runtime,
        signature=Signature.from_json(SIGNATURE),
        listen=launcher.address(replica_id),
    )
    return ReplicaSpec(replica_id, config)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


async def _until_loaded(launcher: Launcher, handle: Handle) -> None:
    async def loaded() -> bool:
        return (await launcher.status(handle)).report == "ready"

    await _until(loaded)


async def _ended(launcher: Launcher, handle: Handle) -> Found:
    async def ended() -> bool:
        return not (await launcher.status(handle)).running

    await _until(ended)
    return await launcher.status(handle)
