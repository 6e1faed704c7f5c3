"""The inference control plane when processes die and when it dies itself, on real processes and a real database."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard_inference import actions, artifacts, notes, rollouts, signers, steps
from modelyard_inference.batching_policy import Batching
from modelyard_inference.commands import ListReplicas, RollbackDeployment, SetActive, UpdateDeployment
from modelyard_inference.models import DeploymentState, ReplicaState
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.steps import replicas as replica_steps
from modelyard_kit import faults
from modelyard_kit.errors import NotFound
from modelyard_kit.filters import Asked
from tests.framework.inference import ADA, Inference, Site, call, creation, site, spec
from tests.framework.waiting import eventually

REPLICAS = ListReplicas("prod.ml.iris", Asked(size=50))
MODULES = (steps, replica_steps, artifacts, signers, rollouts)


@pytest.fixture
async def place(fresh_database: Callable[[str], str]) -> AsyncIterator[Site]:
    async with site(fresh_database("modelyard_inference")) as made:
        yield made
    faults.configure("")


async def test_deploy_change_delete(place: Site) -> None:
    place.upstream.add(1)
    place.upstream.add(2)
    async with place.life() as inference:
        batching = Batching(max_batch_rows=8, max_delay_us=500, max_queue_rows=90)
        made = creation(replicas=2, batching=batching, environment_variables=(("LEVEL", "3"),))
        await inference.deployments.create(call(), made)
        active = await inference.until_state(DeploymentState.ACTIVE)
        assert active.targets[0].serving == "prod.ml.iris/1"
        for handle in await inference.launcher.list():
            config = ReplicaConfig.load(place.folder / "r" / "replicas" / handle.replica_id / "config.json")
            told = (config.max_batch_rows, config.batch_delay_seconds, config.max_queue_rows)
            assert told == (8, 0.0005, 90)
            environment = Path(f"/proc/{handle.process_id}/environ")
            if environment.exists():
                assert b"LEVEL=3" in environment.read_bytes().split(b"\0")
        assert active.ready == {"prod.ml.iris/1": 2}
        assert place.gateway.weights() == {"prod.ml.iris/1": 1}

        update = UpdateDeployment("prod.ml.iris", active.etag, targets=(spec("prod.ml.iris/2", 3),))
        updating = await inference.deployments.update(call(), update)
        assert updating.state is DeploymentState.UPDATING
        active = await inference.until_state(DeploymentState.ACTIVE)
        assert active.targets[0].serving == "prod.ml.iris/2"
        await inference.until_quiet()
        assert place.gateway.weights() == {"prod.ml.iris/2": 3}
        assert place.gateway.gaps() == []

        await inference.deployments.delete(call(), "prod.ml.iris", "")
        await inference.until_gone()
        assert not await inference.launcher.list()
        assert place.gateway.table.routes == ()
        assert list(place.flushed.values()) == [True] * 4  # of each replica, while its files were there


async def test_every_step_may_fail_once(place: Site) -> None:
    """A fault before and after each step is what a crash there leaves; the whole story still comes true."""
    kinds = [
        kind
        for kind in actions.Action.__args__
        if kind not in (actions.Abort, actions.ReviveGroup, actions.TakeBack, actions.ScaleGroup)
    ]
    points = {f"inference.{when}_{snake(kind)}": kind for kind in kinds for when in ("before", "after")}
    points |= {"inference.start.launched": actions.Start, "inference.artifact.received": actions.Fetch}
    points["inference.evidence.found"] = actions.AskEvidence
    place.upstream.add(1)
    place.upstream.add(2)
    counting = Counted()
    async with place.life() as inference:
        faults.configure(";".join(f"{point}=error*1" for point in points))
        with counting:
            await inference.deployments.create(call(), creation(replicas=1))
            await inference.until_state(DeploymentState.ACTIVE)
            handles = await inference.launcher.list()
            os.kill(handles[0].process_id, signal.SIGKILL)
            await inference.until(lambda d: not d.ready)
            grow = UpdateDeployment("prod.ml.iris", "", replicas=2)
            await inference.deployments.update(call(), grow)
            await inference.until(
                lambda d: d.ready == {"prod.ml.iris/1": 2} and d.state is DeploymentState.ACTIVE
            )
            await inference.deployments.update(call(), replace(grow, replicas=1))
            await inference.until(
                lambda d: d.ready == {"prod.ml.iris/1": 1} and d.state is DeploymentState.ACTIVE
            )
            change = UpdateDeployment("prod.ml.iris", "", targets=(spec("prod.ml.iris/2"),))
            await inference.deployments.update(call(), change)
            await inference.until(lambda d: d.targets[0].serving == "prod.ml.iris/2")
            await inference.until_quiet()
            assert place.gateway.gaps() == []
            await inference.deployments.delete(call(), "prod.ml.iris", "")
            await inference.until_gone()
        assert not await inference.launcher.list()
    assert counting.reached >= points.keys(), points.keys() - counting.reached


async def test_an_abort_may_fail_once(place: Site) -> None:
    place.upstream.add(1, runtime="stuck")
    place.start_timeout = 0.5
    counting = Counted()
    async with place.life() as inference:
        faults.configure("inference.before_abort=error*1;inference.after_abort=error*1")
        with counting:
            await inference.deployments.create(call(), creation())
            failed = await inference.until_state(DeploymentState.FAILED)
            assert "not ready within 0.5 s" in failed.state_message
            await eventually(lambda: [r.idle for r in place.gateway.table.routes] == [failed.state])
            assert counting.reached >= {"inference.before_abort", "inference.after_abort"}
            await inference.deployments.delete(call(), "prod.ml.iris", "")
            await inference.until_gone()
        assert not await inference.launcher.list()


async def test_a_revival_may_fail_once(place: Site) -> None:
    """A caller who goes back while the old still drains gets it back, without a gap and without a start."""
    place.upstream.add(1)
    place.upstream.add(2)
    counting = Counted()
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
        (first,) = await inference.launcher.list()
        faults.configure(
            "inference.before_end_group=error;inference.before_revive_group=error*1;inference.after_revive_group=error*1"
        )
        with counting:
            change = UpdateDeployment("prod.ml.iris", "", targets=(spec("prod.ml.iris/2"),))
            await inference.deployments.update(call(), change)
            await inference.until(lambda d: d.targets[0].serving == "prod.ml.iris/2")
            await inference.deployments.rollback(call(), RollbackDeployment("prod.ml.iris"))
            await inference.until(lambda d: d.targets[0].serving == "prod.ml.iris/1")
            assert counting.reached >= {"inference.before_revive_group", "inference.after_revive_group"}
        faults.configure("")
        await inference.until_quiet()
        assert place.gateway.gaps() == []
        assert list(await inference.launcher.list()) == [first]


async def test_a_watch_sees_a_rollout_with_its_conditions(place: Site) -> None:
    place.upstream.add(1)
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        seen = []
        async with asyncio.timeout(60), aclosing(inference.watching.watch(call(), "prod.ml.iris")) as watch:
            async for found in watch:
                seen.append(found)
                if found.state is DeploymentState.ACTIVE and all(c.holds for c in found.conditions):
                    break
        assert seen[0].state is DeploymentState.CREATING
        waited = {(c.type, c.reason) for found in seen for c in found.conditions if not c.holds}
        assert ("ReplicasReady", "STARTING") in waited
        assert all(c.change_time for c in seen[-1].conditions)
        times = [found.update_time for found in seen]
        assert times == sorted(times)
        async with asyncio.timeout(60), aclosing(inference.watching.watch(call(), "prod.ml.iris")) as watch:
            assert (await anext(watch)).state is DeploymentState.ACTIVE
            await inference.deployments.delete(call(), "prod.ml.iris", "")
            with pytest.raises(NotFound):
                seen += [found async for found in watch]


async def test_killed_replica_is_started_again_on_its_address(place: Site) -> None:
    place.upstream.add(1)
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(replicas=2))
        await inference.until_state(DeploymentState.ACTIVE)
        before, _ = await inference.lookups.replicas(REPLICAS)
        victim = before[0][1]
        table = place.gateway.table
        os.kill(victim.process_id, signal.SIGKILL)
        weak = await inference.until(lambda d: d.ready == {"prod.ml.iris/1": 1})
        assert weak.state is DeploymentState.ACTIVE
        await inference.until(lambda d: d.ready == {"prod.ml.iris/1": 2} and not d.state_message)
        after, _ = await inference.lookups.replicas(REPLICAS)
        again = after[0][1]
        assert (again.id, again.address, again.restarts) == (victim.id, victim.address, 1)
        assert again.process_id != victim.process_id
        assert place.gateway.table == table  # gateways need not learn of it


async def test_replicas_outlive_the_service_and_are_adopted(place: Site) -> None:
    place.upstream.add(1)
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(replicas=2))
        await inference.until_state(DeploymentState.ACTIVE)
        table = inference.routes.table
        before = {handle.process_id for handle in await inference.launcher.list()}
    async with place.life() as inference:
        assert inference.routes.table == table  # never an emptier table while adopting
        await inference.until_state(DeploymentState.ACTIVE)
        assert {handle.process_id for handle in await inference.launcher.list()} == before
        replicas, _ = await inference.lookups.replicas(REPLICAS)
        assert [(replica.state, replica.restarts) for _, replica, _ in replicas] == [
            (ReplicaState.READY, 0)
        ] * 2
        os.kill(min(before), signal.SIGKILL)
        await inference.until(lambda d: d.ready == {"prod.ml.iris/1": 1})
        await inference.until(lambda d: d.ready == {"prod.ml.iris/1": 2})


async def test_start_that_was_not_recorded_is_found_again(place: Site) -> None:
    place.upstream.add(1)
    faults.configure("inference.start.launched=error")
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())

        async def launched() -> bool:
            return bool(await inference.launcher.list())

        await eventually(launched)
        (first,) = await inference.launcher.list()
    faults.configure("")
    async with place.life() as inference:
        await inference.until_state(DeploymentState.ACTIVE)
        assert list(await inference.launcher.list()) == [first]


async def test_processes_that_the_database_does_not_know_are_stopped(
    place: Site, fresh_database: Callable[[str], str]
) -> None:
    place.upstream.add(1)
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
    place.dsn = fresh_database("modelyard_inference")
    place.gateway.tables.clear()
    async with place.life() as inference:

        async def none() -> bool:
            return not await inference.launcher.list()

        await eventually(none)


@pytest.mark.parametrize(
    ("runtime", "reason"), [("broken", "it is broken"), ("stuck", "not ready within 1 s")]
)
async def test_version_that_does_not_start_leaves_the_old_answering(
    place: Site, runtime: str, reason: str
) -> None:
    place.upstream.add(1)
    place.upstream.add(2, runtime=runtime)
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
    if runtime == "stuck":
        place.start_timeout = 1.0  # one that says why it cannot start may take its time to do so
    async with place.life() as inference:
        change = UpdateDeployment("prod.ml.iris", "", targets=(spec("prod.ml.iris/2"),))
        await inference.deployments.update(call(), change)
        failed = await inference.until_state(DeploymentState.FAILED)
        assert reason in failed.state_message
        assert failed.targets[0].serving == "prod.ml.iris/1"
        assert place.gateway.weights() == {"prod.ml.iris/1": 1}
        if runtime == "broken":
            assert "tiny replica of prod.ml.iris/2" in failed.state_message  # the end of its log
        back = UpdateDeployment("prod.ml.iris", "", targets=(spec("prod.ml.iris/1"),))
        await inference.deployments.update(call(), back)
        await inference.until_state(DeploymentState.ACTIVE)
        await inference.until_quiet()
        assert len(await inference.launcher.list()) == 1


async def test_moved_alias_is_followed_unless_a_policy_refuses(place: Site) -> None:
    for number in (1, 2, 3):
        place.upstream.add(number)
    place.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/1"
    async with place.life() as inference:
        await inference.deployments.create(
            call(), creation("prod.ml.iris", spec("models:/prod.ml.iris@champion"))
        )
        first = await inference.until_state(DeploymentState.ACTIVE)
        place.upstream.refused["prod.ml.iris/2"] = ["2 approvals, has 0"]
        place.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/2"
        refused = await inference.until(lambda d: d.state_message != "")
        assert "2 approvals, has 0" in refused.state_message
        assert refused.state is DeploymentState.ACTIVE
        assert refused.targets[0].serving == "prod.ml.iris/1"
        place.upstream.refused.clear()
        await inference.until(lambda d: d.targets[0].serving == "prod.ml.iris/2")
        moved = await inference.until(lambda d: d.state is DeploymentState.ACTIVE and not d.state_message)
        assert moved.etag == first.etag  # no caller changed it
        await inference.until_quiet()
        assert place.gateway.weights() == {"prod.ml.iris/2": 1}


async def test_change_waits_for_gateways(place: Site) -> None:
    place.upstream.add(1)
    place.upstream.add(2)
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
        place.gateway.confirms = False
        change = UpdateDeployment("prod.ml.iris", "", targets=(spec("prod.ml.iris/2"),))
        await inference.deployments.update(call(), change)
        waiting = await inference.until(lambda d: "gateway-1" in d.state_message)
        assert waiting.state is DeploymentState.UPDATING
        assert place.gateway.weights() == {"prod.ml.iris/1": 1, "prod.ml.iris/2": 0}
        place.gateway.confirms = True
        place.gateway.confirm(inference.routes)
        await inference.until(lambda d: d.targets[0].serving == "prod.ml.iris/2")
    async with place.life(gateway=False) as inference:
        await inference.deployments.update(call(), replace(change, targets=(spec("prod.ml.iris/1"),)))
        await inference.until(lambda d: d.state_message == "waiting for a gateway")


async def test_two_targets_share_the_traffic_and_change_their_shares(place: Site) -> None:
    place.upstream.add(1)
    place.upstream.add(2)
    both = (spec("prod.ml.iris/1", 9), spec("prod.ml.iris/2"))
    async with place.life() as inference:
        await inference.deployments.create(call(), creation("prod.ml.iris", *both))
        await inference.until_state(DeploymentState.ACTIVE)
        assert place.gateway.weights() == {"prod.ml.iris/1": 9, "prod.ml.iris/2": 1}
        before = {handle.process_id for handle in await inference.launcher.list()}
        shares = (spec("prod.ml.iris/1"), spec("prod.ml.iris/2", 9))
        await inference.deployments.update(call(), UpdateDeployment("prod.ml.iris", "", targets=shares))
        await inference.until_state(DeploymentState.ACTIVE)
        assert place.gateway.weights() == {"prod.ml.iris/1": 1, "prod.ml.iris/2": 9}
        assert {handle.process_id for handle in await inference.launcher.list()} == before


async def test_service_that_ends_as_a_whole_stops_its_replicas(place: Site) -> None:
    place.upstream.add(1)
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(replicas=2))
        await inference.until_state(DeploymentState.ACTIVE)
        await inference.end_loops()
        await inference.reconciler.stop_all(10.0)
        assert not await inference.launcher.list()
    async with place.life() as inference:  # and the next life brings them back
        await inference.until(lambda d: d.ready == {"prod.ml.iris/1": 2})


async def test_a_change_comes_true_though_its_caller_never_heard_of_it(place: Site) -> None:
    """The service dies after each commit, before it wakes anybody and answers."""
    place.upstream.add(1)
    place.upstream.add(2)
    place.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/1"
    changes: dict[str, Callable[[Inference], Awaitable[object]]] = {
        "inference.deployment.created": lambda inference: inference.deployments.create(
            call(), creation("prod.ml.iris", spec("prod.ml.iris@champion"))
        ),
        "inference.deployment.updated": lambda inference: inference.deployments.update(
            call(), UpdateDeployment("prod.ml.iris", "", replicas=2)
        ),
        "inference.deployment.deactivated": lambda inference: inference.deployments.deactivate(
            call(), SetActive("prod.ml.iris")
        ),
        "inference.deployment.activated": lambda inference: inference.deployments.activate(
            call(), SetActive("prod.ml.iris")
        ),
        "inference.deployment.rolled_back": lambda inference: inference.deployments.rollback(
            call(), RollbackDeployment("prod.ml.iris", revision=1)
        ),
        "inference.deployment.deleted": lambda inference: inference.deployments.delete(
            call(), "prod.ml.iris", ""
        ),
    }
    for point, change in changes.items():
        faults.configure(f"{point}=error*1")
        async with place.life() as inference:
            with pytest.raises(faults.InjectedFault):
                await change(inference)
        async with place.life() as inference:
            if point.endswith("deleted"):
                await inference.until_gone()
                continue
            if point.endswith("deactivated"):
                resting = await inference.until_state(DeploymentState.INACTIVE)
                assert (resting.ready, resting.targets[0].serving) == ({}, "")
                assert not await inference.launcher.list()
                continue
            replicas = 2 if point.endswith(("updated", "activated")) else 1
            await inference.until(
                lambda d, n=replicas: d.state is DeploymentState.ACTIVE and sum(d.ready.values()) == n  # type: ignore[misc]
            )
    faults.configure("inference.target.followed=error*1")
    async with place.life() as inference:
        await inference.deployments.create(call(), creation("prod.ml.iris", spec("prod.ml.iris@champion")))
        await inference.until_state(DeploymentState.ACTIVE)
        place.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/2"
        await inference.until(lambda d: d.targets[0].serving == "prod.ml.iris/2")


async def test_stubborn_replica_is_killed_after_its_grace(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_steps, "KILL_MARGIN_SECONDS", 0.0)
    place.upstream.add(1, runtime="stubborn")
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
        await inference.deployments.delete(call(), "prod.ml.iris", "")
        await inference.until_gone()
        assert not await inference.launcher.list()


def told(place: Site) -> list[tuple[tuple[str, ...], bool]]:
    """What the lineage graph was told: ids of versions, and whether it was of the end."""
    return [(note.version_ids, note.delete_time is not None) for note in place.upstream.told]


async def test_lineage_is_told_of_every_version_that_answers_and_of_the_end(place: Site) -> None:
    for number in (1, 2, 3):
        place.upstream.add(number)
    place.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/1"

    async def count(wanted: int) -> None:
        async def reached() -> bool:
            return len(told(place)) >= wanted

        await eventually(reached)

    async with place.life() as inference:
        targets = (spec("prod.ml.iris@champion"), spec("prod.ml.iris/3"))
        await inference.deployments.create(call(), creation("prod.ml.iris", *targets))
        await count(1)
        place.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/2"
        await count(2)
        place.upstream.aliases["prod.ml.iris@champion"] = "prod.ml.iris/1"  # known already
        await inference.until(lambda d: d.targets[0].serving == "prod.ml.iris/1")
        await inference.deployments.delete(call(), "prod.ml.iris", "")
        await inference.until_gone()
        await count(3)
    assert told(place) == [
        (("v-prod.ml.iris/3", "v-prod.ml.iris/1"), False),
        (("v-prod.ml.iris/2",), False),
        ((), True),
    ]
    assert {(note.name, note.schema_id, note.owner_id) for note in place.upstream.told} == {
        ("prod.ml.iris", "s1", ADA.id)
    }
    assert len({note.deployment_id for note in place.upstream.told}) == 1


async def test_a_catalog_that_is_down_delays_edges_and_nothing_else(place: Site) -> None:
    place.upstream.add(1)
    place.upstream.silent = True
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
        await inference.deployments.delete(call(), "prod.ml.iris", "")
        await inference.until_gone()
        assert not told(place)
        place.upstream.silent = False

        async def arrived() -> bool:
            return bool(told(place))

        await eventually(arrived)
        assert told(place) == [(("v-prod.ml.iris/1",), True)]  # both, although it is long gone


@pytest.mark.parametrize("point", ["inference.after_shift", "inference.lineage.told"])
async def test_edges_arrive_whenever_the_service_dies(place: Site, point: str) -> None:
    """As a crash after the traffic shifted, and one after the catalog was told but before that was noted."""
    place.upstream.add(1)
    place.upstream.silent = point == "inference.after_shift"
    async with place.life() as inference:
        faults.configure(f"{point}=error")
        await inference.deployments.create(call(), creation())
        await inference.until(lambda d: d.targets[0].serving == "prod.ml.iris/1")
        if not place.upstream.silent:

            async def arrived() -> bool:
                return bool(told(place))

            await eventually(arrived)
    before = len(told(place))
    faults.configure("")
    place.upstream.silent = False
    async with place.life() as inference:

        async def nothing_pending() -> bool:
            return not await inference.db.read(lambda connection: notes.pending(connection, 10))

        await eventually(nothing_pending)
        assert len(told(place)) > before
        assert set(told(place)) == {(("v-prod.ml.iris/1",), False)}


def snake(kind: type) -> str:
    return steps._snake(kind)


class Counted:
    """Notes which failpoints were passed within its block."""

    def __init__(self) -> None:
        self.reached: set[str] = set()

    def __enter__(self) -> None:
        self._patches = [pytest.MonkeyPatch() for _ in MODULES]
        for patch, module in zip(self._patches, MODULES, strict=True):
            patch.setattr(module, "failpoint", self._failpoint)

    def __exit__(self, *_: object) -> None:
        for patch in self._patches:
            patch.undo()

    async def _failpoint(self, name: str) -> None:
        self.reached.add(name)
        await faults.failpoint(name)
