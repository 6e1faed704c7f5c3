"""Watching deployments and waiting for them: what the service sends, lost connections, and every way it can end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from modelyard import Client, _watch, errors
from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard.api.inference.v1 import inference_service_pb2 as pb
from modelyard.types import ConditionStatus, DeploymentState
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


def answer(fake: Fake, *streams: list[Any]) -> None:
    """Let each watch get one of the streams; an item that is a refusal ends it so."""
    left = list(streams)

    def serve(_: Any) -> Iterator[Any]:
        for item in left.pop(0) if left else [GONE]:
            if isinstance(item, Refusal):
                raise item
            yield item

    fake.answers["WatchDeployment"] = serve


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
