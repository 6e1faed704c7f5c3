"""Logs and figures of replicas on the wire: who may read them, what comes from before, and what follows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard.api.inference.v1 import log_pb2
from modelyard.api.inference.v1.deployment_pb2 import Deployment
from modelyard.api.inference.v1.deployment_pb2 import Replica as ReplicaMessage
from modelyard.api.inference.v1.log_pb2 import LoggingPolicy
from modelyard_inference import log_files
from modelyard_inference.log_messages import parse_read_logs
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.log_switching import LogSwitching
from modelyard_inference.models import Group, GroupState, Replica, ReplicaState
from modelyard_inference.ports import Counters, Measured
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import DomainError
from modelyard_kit.ids import new_id
from modelyard_kit.limits import LIMITS
from tests.conformance.test_inference_service import EVE, Wire, wanted, wire
from tests.framework.inference import ADA

__all__ = ["wire"]

NAME = "prod.ml.iris"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Logs:
    """A deployment whose replicas are rows and files."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.group: Group | None = None
        self.count = 0

    async def begin(self) -> None:
        create = s.CreateDeploymentRequest(deployment=wanted())
        made = (await self.wire.call("CreateDeployment", create)).deployment
        version = self.wire.upstream.versions[f"{NAME}/1"]
        group = Group("g1", "iris-1", made.id, version, 100, GroupState.SERVING, 1, 0, utc_now())
        await self.wire.db.in_tx(lambda connection: self.wire.store.insert_group(connection, group))
        self.group = group

    async def replica(self, address: str = "unix:/s", state: ReplicaState = ReplicaState.READY) -> str:
        """Add a replica without a log."""
        assert self.group is not None
        self.count += 1
        found = Replica(
            new_id(),
            "g1",
            self.group.deployment_id,
            self.count,
            address,
            state,
            True,
            0,
            1,
            "x",
            0,
            0,
            "",
            utc_now(),
        )
        await self.wire.db.in_tx(lambda connection: self.wire.store.insert_replicas(connection, [found]))
        return found.id

    def write(self, replica: str, second: int, message: str, log: str = "log", **more: Any) -> None:
        time = (NOON + timedelta(seconds=second)).isoformat()
        folder = self.wire.replicas / replica
        folder.mkdir(exist_ok=True)
        with (folder / log).open("a") as file:
            file.write(json.dumps({"event": message, "level": "info", "timestamp": time, **more}) + "\n")

    async def update(self, logging: LoggingPolicy) -> Any:
        wanted = Deployment(name=NAME, logging=logging)
        mask = FieldMask(paths=["logging"])
        return await self.wire.call(
            "UpdateDeployment", s.UpdateDeploymentRequest(deployment=wanted, update_mask=mask)
        )

    def read(self, principal: Any = ADA, **asked: Any) -> Any:
        request = s.ReadReplicaLogsRequest(deployment=NAME, **asked)
        return self.wire.stub.ReadReplicaLogs(request, metadata=self.wire.metadata(principal), timeout=60)

    async def lines(self, **asked: Any) -> list[Any]:
        return [line async for answer in self.read(**asked) for line in answer.lines]

    async def refusal(self, principal: Any = ADA, **asked: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.read(principal, **asked).read()
        return refused.value.code()


@pytest.fixture
async def logs(wire: Wire) -> Logs:
    made = Logs(wire)
    await made.begin()
    return made


async def test_logs_of_replicas_are_joined_by_time(logs: Logs) -> None:
    assert await logs.lines() == []
    first, second = [await logs.replica() for _ in range(2)]
    assert await logs.lines() == []
    for number in range(6):
        logs.write(
            (first, second)[number % 2], number, f"line {number}", level=("info", "error")[number // 3]
        )
    logs.write(first, 6, "spoken", logger="stdout", request_ids=["a"], rows=3)
    found = await logs.lines(tail_lines=3)
    assert [line.message for line in found] == ["line 4", "line 5", "spoken"]
    assert [line.replica for line in found] == [first, second, first]
    assert found[2] == log_pb2.LogLine(
        replica=first,
        time=Timestamp(seconds=int(NOON.timestamp()) + 6),
        level=log_pb2.LOG_LEVEL_INFO,
        message="spoken",
        logger="stdout",
        request_ids=["a"],
        attributes={"rows": "3"},
    )
    assert [line.message for line in await logs.lines(replica=second)] == ["line 1", "line 3", "line 5"]
    assert [line.message for line in await logs.lines(min_level=log_pb2.LOG_LEVEL_ERROR)] == [
        "line 3", "line 4", "line 5",
    ]  # fmt: skip
    since = Timestamp(seconds=int(NOON.timestamp()) + 5)
    assert [line.message for line in await logs.lines(since=since)] == ["line 5", "spoken"]
    assert await logs.lines(tail_lines=0) == []


async def test_the_logs_of_predictions_are_read_apart(logs: Logs) -> None:
    replica = await logs.replica()
    for second, log in enumerate(("log", "access", "predict")):
        logs.write(replica, second, f"of {log}", log)
    for log in log_pb2.ReplicaLog.values():
        (line,) = await logs.lines(log=log)
        assert line.message == f"of {('log', 'access', 'predict')[log]}"
    assert await logs.refusal(log=9) is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_written_down_is_a_setting_and_running_replicas_are_told(logs: Logs) -> None:
    wire, told = logs.wire, list[tuple[str, LogPolicy]]()

    class Listener:
        deaf = True

        async def set_logging(self, address: str, policy: LogPolicy) -> bool:
            told.append((address, policy))
            return not self.deaf

    listener = Listener()
    switching = LogSwitching(wire.db, listener)
    await switching.look()
    assert told == []
    for number, state in enumerate((ReplicaState.READY, ReplicaState.STARTING)):
        await logs.replica(f"unix:/s/{number}", state)
    await switching.look()
    listener.deaf = False
    await switching.look()
    await switching.look()
    assert told == [("unix:/s/0", LogPolicy())] * 2  # until it listened, and never again
    told.clear()

    wanted = LoggingPolicy(access_log=True, predict_log_percent=5, include_payload=True)
    before = (await wire.call("GetDeployment", s.GetDeploymentRequest(name=NAME))).deployment
    changed = (await logs.update(wanted)).deployment
    assert (changed.logging, changed.state) == (wanted, before.state)
    await switching.look()
    await switching.look()
    assert told == [("unix:/s/0", LogPolicy(access_log=True, predict_percent=5, include_payload=True))]
    listed = await wire.call("ListDeploymentRevisions", s.ListDeploymentRevisionsRequest(deployment=NAME))
    assert [revision.settings.logging for revision in listed.revisions] == [wanted, LoggingPolicy()]
    back = (await wire.call("RollbackDeployment", s.RollbackDeploymentRequest(name=NAME))).deployment
    assert not back.HasField("logging")
    await switching.look()
    assert told[1:] == [("unix:/s/0", LogPolicy())]

    for mistake in ({"predict_log_percent": 101}, {"predict_log_percent": -1}, {"include_payload": True}):
        with pytest.raises(DomainError) as refused:
            await logs.update(LoggingPolicy(**mistake))
        assert refused.value.violations[0].field == f"deployment.logging.{next(iter(mistake))}"


async def test_a_replica_that_was_started_again_is_told_again(logs: Logs) -> None:
    told = []

    class Listener:
        async def set_logging(self, address: str, policy: LogPolicy) -> bool:
            told.append(address)
            return True

    switching = LogSwitching(logs.wire.db, Listener())
    replica = await logs.replica()
    await switching.look()
    await logs.wire.db.in_tx(
        lambda connection: logs.wire.store.change_replica(connection, replica, process_started="later")
    )
    await switching.look()
    await switching.look()
    assert len(told) == 2


async def test_many_lines_come_in_several_answers(logs: Logs) -> None:
    replica = await logs.replica()
    for number in range(450):
        logs.write(replica, number, f"line {number}")
    sizes = [len(answer.lines) async for answer in logs.read(tail_lines=2**31 - 1)]
    assert sizes == [200, 200, 50]
    assert len(await logs.lines()) == 100


async def test_logs_are_followed_also_those_of_new_replicas(logs: Logs) -> None:
    first = await logs.replica()
    logs.write(first, 1, "before")
    stream = logs.read(follow=True, min_level=log_pb2.LOG_LEVEL_INFO)
    assert [line.message for line in (await stream.read()).lines] == ["before"]
    assert list((await stream.read()).lines) == []  # it lives
    logs.write(first, 2, "noise", level="debug")
    logs.write(first, 3, "after")
    assert await next_line(stream) == (first, "after")
    log_files.rotate(logs.wire.replicas / first / "log")
    logs.write(first, 4, "in a new file")
    assert await next_line(stream) == (first, "in a new file")
    second = await logs.replica()
    logs.write(second, 0, "hello")
    assert await next_line(stream) == (second, "hello")

    await logs.wire.db.in_tx(lambda connection: logs.wire.store.delete_replica(connection, second))
    one = logs.read(follow=True, replica=second)
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await one.read()
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    logs.write(first, 5, "still there")
    assert await next_line(stream) == (first, "still there")
    stream.cancel()


async def next_line(stream: Any) -> tuple[str, str]:
    while True:
        for line in (await stream.read()).lines:
            return line.replica, line.message


def test_more_lines_than_one_read_begins_with_are_that_many() -> None:
    maximum = LIMITS["log_lines_per_read"].maximum
    for asked in (maximum, maximum + 1):
        command = parse_read_logs(s.ReadReplicaLogsRequest(deployment=NAME, tail_lines=asked))
        assert command.wanted.tail == maximum


async def test_seeing_a_deployment_is_not_enough_to_read_what_its_models_print(logs: Logs) -> None:
    await logs.replica()

    def grant(*privileges: Privilege) -> None:
        given = [ResourceGrant(SYSTEM_ID, privilege, Effect.ALLOW) for privilege in privileges]
        logs.wire.grants.replace(EVE.id, EVE.name, given)

    reach = (Privilege.USE_CATALOG, Privilege.USE_SCHEMA)
    grant(*reach, Privilege.READ_METADATA, Privilege.EXECUTE, Privilege.EDIT, Privilege.MANAGE)
    assert await logs.refusal(EVE) is grpc.StatusCode.PERMISSION_DENIED
    grant(*reach, Privilege.DEPLOY)
    stream = logs.read(EVE, follow=True)
    assert list((await stream.read()).lines) == []
    grant(*reach, Privilege.READ_METADATA)
    with pytest.raises(grpc.aio.AioRpcError) as denied:
        await next_line(stream)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_mistakes_are_named(logs: Logs) -> None:
    assert await logs.refusal(replica=new_id()) is grpc.StatusCode.NOT_FOUND
    for mistake in (
        {"replica": "../log"},
        {"tail_lines": -1},
        {"min_level": 77},
        {"since": Timestamp(seconds=2**60)},
    ):
        assert await logs.refusal(**mistake) is grpc.StatusCode.INVALID_ARGUMENT


async def test_figures_of_replicas_are_told_one_by_one_and_added_up(logs: Logs) -> None:
    wire = logs.wire
    first, second = [await logs.replica(f"unix:/s/{n}") for n in range(2)]
    silent = await logs.replica("unix:/s/2")
    starting = await logs.replica("unix:/s/3", ReplicaState.STARTING)
    counted = Counters(7, {"BACKEND": 1}, 70, 5, 8, 4, 3, 2, 1, (0.1, 1.0), (4, 2, 1))
    wire.meter.told = {
        f"unix:/s/{n}": Measured(counted, in_flight=3, pending=2, memory_bytes=10) for n in (0, 1, 3)
    }
    request = s.GetDeploymentStatisticsRequest(deployment=NAME)
    found = (await wire.call("GetDeploymentStatistics", request)).statistics
    assert (found.deployment, found.state) == (NAME, Deployment.STATE_CREATING)
    assert abs(found.time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=5)
    assert [(one.replica, one.measured, one.counters.success_count) for one in found.replicas] == [
        (first, True, 7),
        (second, True, 7),
        (silent, False, 0),
        (starting, False, 0),  # is not asked
    ]
    one = found.replicas[0]
    assert (one.model_version, one.in_flight, one.pending, one.memory_bytes) == (f"{NAME}/1", 3, 2, 10)
    assert found.replicas[3].state == ReplicaMessage.STATE_STARTING
    total = found.counters
    assert (total.success_count, total.inference_count, total.failure_counts["BACKEND"]) == (14, 140, 2)
    assert list(total.latency_counts) == [8, 4, 2]
    assert await wire.refusal("GetDeploymentStatistics", request, EVE) == "PERMISSION_DENIED"
    request.deployment = "prod.ml.none"
    assert await wire.refusal("GetDeploymentStatistics", request) == "RESOURCE_NOT_FOUND"
