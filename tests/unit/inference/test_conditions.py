"""Which conditions hold, and what the others say is being waited for, in every state on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelyard_inference import actions as a
from modelyard_inference.models import Condition, DeploymentState, GroupState, ReplicaState, Status
from modelyard_inference.planner import plan
from modelyard_inference.planner.conditions import AS_WANTED, conditions_of
from modelyard_inference.planner.desired import Plan
from modelyard_inference.planner.observed import Admitted, Build, EvidenceStatus, Gateway, Observed
from tests.unit.inference.test_planner import (
    ACTIVE,
    NOW,
    READY,
    SERVED,
    deployment,
    gateway,
    group,
    observed,
    replica,
    target,
)

KINDS = ["VersionsUsable", "ArtifactsPresent", "ReplicasReady", "RoutesConfirmed", "TrafficShifted"]


def conditions(found: Observed) -> dict[str, Condition]:
    return {condition.type: condition for condition in conditions_of(Plan.of(found))}


def told(found: Observed) -> dict[str, str]:
    """Return the reason of each condition that does not hold."""
    return {kind: c.reason for kind, c in conditions(found).items() if not c.holds}


def test_everything_holds_when_it_answers_as_wanted() -> None:
    found = conditions(observed(ACTIVE, SERVED, (replica(1),)))
    assert list(found) == KINDS
    assert {(c.status, c.reason, c.message) for c in found.values()} == {(Status.TRUE, AS_WANTED, "")}


def test_at_first_nothing_is_there() -> None:
    fresh = observed(deployment(), admitted=None)
    assert told(fresh) == {
        "VersionsUsable": "ASKING",
        "ArtifactsPresent": "DOWNLOADING",
        "ReplicasReady": "STARTING",
        "RoutesConfirmed": "NOT_ROUTED",
        "TrafficShifted": "WAITING",
    }
    assert conditions(fresh)["VersionsUsable"].status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Admitted(allowed=False, gone=True, problem="deleted"), "VERSION_GONE"),
        (Admitted(allowed=False, problem="claimed"), "VERSION_REFUSED"),
    ],
)
def test_a_version_that_is_not_to_be_had(answer: Admitted, reason: str) -> None:
    found = conditions(observed(deployment(), admitted=answer))["VersionsUsable"]
    assert (found.status, found.reason, found.message) == (Status.FALSE, reason, answer.problem)


def test_an_alias_that_a_policy_holds_back() -> None:
    held = replace(ACTIVE, targets=(target(1, problem="2 is not approved"),))
    found = observed(held, SERVED, (replica(1),))
    assert told(found) == {"VersionsUsable": "REFERENCE_HELD_BACK"}
    assert conditions(found)["VersionsUsable"].message == "2 is not approved"


STARTING = (group(1, GroupState.STARTING, table=0),)


@pytest.mark.parametrize(("problem", "reason"), [("", "DOWNLOADING"), ("damaged", "DOWNLOAD_FAILED")])
def test_an_artifact_that_is_not_here(problem: str, reason: str) -> None:
    found = observed(deployment(), STARTING, present=False, problem=problem)
    assert told(found)["ArtifactsPresent"] == reason
    assert problem in conditions(found)["ArtifactsPresent"].message


def test_replicas_that_start_or_cannot() -> None:
    two = deployment(replicas=2)
    both = (replica(1), replica(1, ReplicaState.STARTING, ordinal=1))
    starting = conditions(observed(two, STARTING, both))["ReplicasReady"]
    assert (starting.reason, starting.message) == (
        "STARTING",
        "1 of 2 replicas of prod.ml.iris/1 are ready",
    )
    broken = (replica(1), replica(1, ReplicaState.STOPPED, ordinal=1, message="no module"))
    failed = conditions(observed(two, STARTING, broken))["ReplicasReady"]
    assert (failed.reason, failed.message.endswith(": no module")) == ("REPLICA_FAILED", True)
    looping = replica(1, ReplicaState.CRASH_LOOP, ordinal=1, message="no module", failures=3)
    loop = conditions(observed(two, STARTING, (replica(1), looping)))["ReplicasReady"]
    assert (loop.reason, "3 ends in a row: no module" in loop.message) == ("CRASH_LOOP", True)
    unknown = EvidenceStatus(ready=False, problem="governance is away")
    held = observed(deployment(), STARTING, (replica(1, ReplicaState.STARTING),), evidence=unknown)
    assert told(held)["ReplicasReady"] == "SIGNATURES_UNKNOWN"


def test_an_environment_that_is_being_built() -> None:
    found = observed(deployment(), STARTING, (replica(1, ReplicaState.STOPPED),))
    building = replace(found, builds={found.groups[0].id: Build("3fa2b1c4d5e6f7", NOW)})
    condition = conditions(building)["ReplicasReady"]
    text = f"environment 3fa2b1c4d5e6 is being built since {NOW:%H:%M:%S} UTC"
    assert (condition.reason, condition.message) == (
        "BUILDING_ENVIRONMENT",
        f"0 of 1 replicas of prod.ml.iris/1 are ready: {text}",
    )
    (report,) = [action for action in plan(building) if isinstance(action, a.Report)]
    assert report.message == f"starting prod.ml.iris/1: {text}"


def test_a_replica_whose_backend_is_away() -> None:
    two = replace(ACTIVE, replicas=2)
    replicas = (replica(1), replica(1, ordinal=1))
    processes = {replicas[0].id: READY, replicas[1].id: replace(READY, problem="the model is not ready")}
    found = observed(two, SERVED, replicas, processes=processes)
    condition = conditions(found)["ReplicasReady"]
    assert (condition.status, condition.reason) == (Status.FALSE, "BACKEND_NOT_READY")
    assert condition.message == "1 of 2 replicas of prod.ml.iris/1 are ready: the model is not ready"
    (report,) = [action for action in plan(found) if isinstance(action, a.Report)]
    assert report.state is DeploymentState.ACTIVE  # what answers answers; the other one comes back by itself
    assert report.message == "1 of 2 replicas of prod.ml.iris/1 answer: the model is not ready"


def test_routes_wait_for_every_gateway_that_is_heard_of() -> None:
    behind = gateway(4, "iris-v1")
    cold = Gateway("g2", 9, frozenset(), "cannot write")
    shifted = (SERVED, (replica(1),))
    assert told(observed(ACTIVE, *shifted, gateways=(behind,))) == {"RoutesConfirmed": "GATEWAY_BEHIND"}
    found = observed(ACTIVE, *shifted, gateways=(gateway(9, "iris-v1"), cold))
    assert conditions(found)["RoutesConfirmed"].message.endswith(
        "'g2' does not serve the newest routes: cannot write"
    )
    alone = conditions(observed(ACTIVE, *shifted, gateways=()))["RoutesConfirmed"]
    assert (alone.status, alone.reason) == (Status.UNKNOWN, "NO_GATEWAY")


def test_traffic_waits_while_the_old_answers() -> None:
    changed = deployment(target(2), state=DeploymentState.UPDATING)
    groups = (*SERVED, group(2, GroupState.WARM))
    found = observed(changed, groups, (replica(1), replica(2)))
    assert told(found) == {"TrafficShifted": "WAITING"}
    assert conditions(found)["TrafficShifted"].message == "answering: prod.ml.iris/1 (weight 1)"


def test_at_the_end_replicas_are_to_go() -> None:
    leaving = deployment(state=DeploymentState.DELETING)
    draining = (replica(1, ReplicaState.DRAINING, table_version=10),)
    stopping = (group(1, GroupState.STOPPING, table=10),)
    assert told(observed(leaving, stopping, draining)) == {
        "RoutesConfirmed": "GATEWAY_BEHIND",
        "ReplicasEnded": "DRAINING",
    }
    assert told(observed(replace(ACTIVE, active=False, state=DeploymentState.UPDATING))) == {}


def test_what_is_told_already_is_not_told_again() -> None:
    found = observed(ACTIVE, SERVED, (replica(1),))
    (report,) = plan(found)
    assert isinstance(report, a.Report)
    known = tuple(replace(c, change_time=NOW) for c in report.conditions)
    assert plan(replace(found, deployment=replace(ACTIVE, conditions=known))) == ()
