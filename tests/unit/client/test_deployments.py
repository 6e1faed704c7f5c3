"""Watching deployments and waiting for them: what the service sends, lost connections, and every way it can end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from modelyard import Client, _watch, errors
from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard.api.inference.v1 import inference_service_pb2 as pb
from modelyard.api.inference.v1 import log_pb2
from modelyard.types import ConditionStatus, DeploymentState, LogLevel
from tests.unit.client.fake import Fake, Refusal

NAME = "prod.ml.iris"
State = d.Deployment


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "_FIRST_PAUSE_SECONDS", 0.001)


def told(state: int, **fields: Any) -> pb.WatchDeploymentResponse:
    return pb.WatchDeploymentResponse(deployment=d.Deployment(id="1", name=NAME, state=state, **fields))


CREATING, ACTIVE = told(State.STATE_CREATING), told(State.STATE_ACTIVE)
GONE = Refusal("NOT_FOUND", "RESOURCE_NOT_FOUND")


def answer(fake: Fake, *streams: list[Any], rpc: str = "WatchDeployment") -> None:
    """Let each watch get one of the streams; an item that is a refusal ends it so."""
    left = list(streams)

    def serve(_: Any) -> Iterator[Any]:
        for item in left.pop(0) if left else [GONE]:
            if isinstance(item, Refusal):
                raise item
            yield item

    fake.answers[rpc] = serve


def test_a_watch_gives_changes_once_until_the_end(client: Client, fake: Fake) -> None:
    answer(fake, [CREATING, CREATING, ACTIVE, ACTIVE, GONE])
    states = [deployment.state for deployment in client.deployments.watch(NAME)]
    assert states == [DeploymentState.CREATING, DeploymentState.ACTIVE]


def test_a_watch_goes_on_over_lost_connections(client: Client, fake: Fake) -> None:
    lost = Refusal("UNAVAILABLE", "")
    answer(fake, [CREATING, lost], [lost], [CREATING, ACTIVE], [ACTIVE, GONE])
    states = [deployment.state for deployment in client.deployments.watch(NAME)]
    assert states == [DeploymentState.CREATING, DeploymentState.ACTIVE]
    assert len(fake.requests("WatchDeployment")) == 4


def test_another_deployment_of_the_name_is_not_the_watched_one(client: Client, fake: Fake) -> None:
    other = pb.WatchDeploymentResponse(deployment=d.Deployment(id="2", name=NAME, state=State.STATE_ACTIVE))
    answer(fake, [CREATING], [other])
    assert [deployment.id for deployment in client.deployments.watch(NAME)] == ["1"]


def test_what_is_not_there_cannot_be_watched(client: Client, fake: Fake) -> None:
    answer(fake, [GONE])
    with pytest.raises(errors.NotFound):
        next(client.deployments.watch(NAME))


def test_waiting_watches(client: Client, fake: Fake) -> None:
    answer(fake, [CREATING, ACTIVE])
    assert client.deployments.wait(NAME).state is DeploymentState.ACTIVE
    assert fake.requests("GetDeployment") == []


def test_waiting_ends_with_the_reason(client: Client, fake: Fake) -> None:
    answer(fake, [CREATING, told(State.STATE_FAILED, state_message="no module named x")])
    with pytest.raises(errors.DeploymentFailed, match="no module named x"):
        client.deployments.wait(NAME)
    answer(fake, [CREATING, GONE])
    with pytest.raises(errors.NotFound, match="was removed"):
        client.deployments.wait(NAME)


def test_waiting_too_long_says_what_for(client: Client, fake: Fake) -> None:
    waiting = d.DeploymentCondition(
        type="ReplicasReady", status=d.DeploymentCondition.STATUS_FALSE, message="0 of 1 replicas are ready"
    )
    answer(fake, *[[told(State.STATE_CREATING, conditions=[waiting])]] * 200)
    with pytest.raises(errors.DeadlineExceeded, match="0 of 1 replicas are ready"):
        client.deployments.wait(NAME, timeout=0.3)
    answer(fake, *[[CREATING]] * 200)
    with pytest.raises(errors.DeadlineExceeded, match="still there"):
        client.deployments.wait_deleted(NAME, timeout=0.3)


def test_waiting_for_the_end(client: Client, fake: Fake) -> None:
    answer(fake, [told(State.STATE_DELETING), GONE])
    client.deployments.wait_deleted(NAME)
    answer(fake, [GONE])
    client.deployments.wait_deleted(NAME)


def test_conditions_reach_their_readers(client: Client, fake: Fake) -> None:
    unknown = d.DeploymentCondition(
        type="RoutesConfirmed", status=d.DeploymentCondition.STATUS_UNKNOWN, reason="NO_GATEWAY"
    )
    answer(fake, [told(State.STATE_ACTIVE, conditions=[unknown])])
    (condition,) = client.deployments.wait(NAME).conditions
    assert (condition.status, condition.reason) == (ConditionStatus.UNKNOWN, "NO_GATEWAY")


def line(second: int, message: str, replica: str = "r1", **fields: Any) -> log_pb2.LogLine:
    return log_pb2.LogLine(replica=replica, time=Timestamp(seconds=second), message=message, **fields)


def said(*lines: log_pb2.LogLine) -> pb.ReadReplicaLogsResponse:
    return pb.ReadReplicaLogsResponse(lines=lines)


def test_logs_are_read_once(client: Client, fake: Fake) -> None:
    level = log_pb2.LOG_LEVEL_WARNING
    fake.answers["ReadReplicaLogs"] = lambda _: iter(
        [said(line(1, "a", level=level)), said(), said(line(2, "b"))]
    )
    since = datetime(2026, 1, 2, tzinfo=UTC)
    first, second = client.deployments.logs(NAME, replica="r1", tail=5, since=since, min_level="info")
    assert (first.message, first.level, second.message) == ("a", LogLevel.WARNING, "b")
    (request,) = fake.requests("ReadReplicaLogs")
    assert (request.tail_lines, request.follow, request.min_level) == (5, False, log_pb2.LOG_LEVEL_INFO)
    assert request.since.ToDatetime(tzinfo=UTC) == since
    list(client.deployments.logs(NAME))
    assert not fake.requests("ReadReplicaLogs")[1].HasField("tail_lines")


def test_logs_are_followed_over_lost_connections_without_a_line_twice(client: Client, fake: Fake) -> None:
    lost = Refusal("UNAVAILABLE", "")
    answer(
        fake,
        [said(line(1, "a"), line(2, "b"), line(2, "b"), line(2, "c", "r2")), lost],
        [lost],
        [said(line(2, "b"), line(2, "c", "r2"), line(2, "b"), line(2, "b"), line(3, "d"))],
        [said(line(3, "d"), line(4, "e")), GONE],
        rpc="ReadReplicaLogs",
    )
    found = [line.message for line in client.deployments.logs(NAME, tail=7, follow=True)]
    assert found == ["a", "b", "b", "c", "b", "d", "e"]
    asked = [(r.tail_lines, r.since.seconds) for r in fake.requests("ReadReplicaLogs")]
    assert asked == [(7, 0), *[(2**31 - 1, 2)] * 2, (2**31 - 1, 3)]
    answer(fake, [GONE], rpc="ReadReplicaLogs")
    with pytest.raises(errors.NotFound):
        next(client.deployments.logs(NAME, follow=True))
