"""What the planner does next in every state that a crash can leave."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from modelyard_inference import actions as a
from modelyard_inference.canary import Rollout
from modelyard_inference.evidence import SignatureState, Verdict
from modelyard_inference.models import (
    Deployment,
    DeploymentState,
    Group,
    GroupState,
    Replica,
    ReplicaState,
    Target,
    TargetSpec,
    Version,
)
from modelyard_inference.planner import plan
from modelyard_inference.planner.desired import desired_groups
from modelyard_inference.planner.observed import (
    Admitted,
    ArtifactStatus,
    EvidenceStatus,
    Gateway,
    Gateways,
    Observed,
    Process,
)
from modelyard_inference.resources import Resources

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNNING = Process(running=True)
READY = Process(running=True, ready=True)
YES = Admitted(allowed=True)
KNOWN = EvidenceStatus(ready=True)


def version(number: int) -> Version:
    return Version(
        f"v{number}",
        f"prod.ml.iris/{number}",
        number,
        "m",
        "prod.ml.iris",
        f"sha256:{number}",
        "sklearn",
        {},
        "u",
    )


def target(number: int, weight: int = 1, **changes: object) -> Target:
    spec = TargetSpec(f"prod.ml.iris/{number}", "prod.ml.iris", follows=False, weight=weight)
    return replace(Target(spec, version(number)), **changes)  # type: ignore[arg-type]


def deployment(
    *targets: Target, state: DeploymentState = DeploymentState.CREATING, **changes: object
) -> Deployment:
    made = Deployment(
        "d",
        "prod.ml.iris",
        "s",
        "",
        "c",
        "",
        "",
        1,
        100,
        1000,
        state,
        "",
        "u",
        1,
        NOW,
        NOW,
        targets or (target(1),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def group(number: int, state: GroupState, *, weight: int = 0, table: int = 5) -> Group:
    return Group(f"g{number}", f"iris-v{number}", "d", version(number), 100, state, weight, table, NOW)


def replica(
    number: int, state: ReplicaState = ReplicaState.READY, *, ordinal: int = 0, **changes: object
) -> Replica:
    made = Replica(
        id=f"r{number}.{ordinal}",
        group_id=f"g{number}",
        deployment_id="d",
        ordinal=ordinal,
        address=f"unix:/s/{number}.{ordinal}",
        state=state,
        routed=state is ReplicaState.READY,
        table_version=0,
        process_id=1,
        process_started="x",
        restarts=0,
        failures=0,
        message="",
        create_time=NOW,
        start_time=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def gateway(version: int = 9, *healthy: str, name: str = "gw", problem: str = "") -> Gateway:
    return Gateway(name, version, frozenset(healthy), problem)


def observed(
    deployed: Deployment,
    groups: tuple[Group, ...] = (),
    replicas: tuple[Replica, ...] = (),
    *,
    processes: dict[str, Process] | None = None,
    gateways: tuple[Gateway, ...] = (gateway(9, "iris-v1", "iris-v2"),),
    present: bool = True,
    problem: str = "",
    settled: bool = True,
    now: datetime = NOW,
    admitted: Admitted | None = YES,
    evidence: EvidenceStatus | None = KNOWN,
) -> Observed:
    if processes is None:
        processes = {r.id: READY if r.state is ReplicaState.READY else RUNNING for r in replicas}
    artifacts = {g.version.artifact_digest: ArtifactStatus(present=present, problem=problem) for g in groups}
    return Observed(
        deployed,
        groups,
        replicas,
        processes,
        artifacts,
        {g.version.id: evidence for g in groups} if evidence else {},
        Gateways(gateways, settled=settled),
        now,
        timedelta(seconds=60),
        {t.wanted.id: admitted for t in deployed.targets} if admitted else {},
    )


def steps(found: Observed) -> list[a.Action]:
    return [action for action in plan(found) if not isinstance(action, a.Report)]


def report(found: Observed) -> tuple[DeploymentState, str]:
    for action in plan(found):
        if isinstance(action, a.Report):
            return action.state, action.message
    return found.deployment.state, found.deployment.state_message


SERVED = (group(1, GroupState.SERVING, weight=1),)
ACTIVE = deployment(state=DeploymentState.ACTIVE)
WATCHED = Rollout(frozenset(("g2",)), {}, 0, NOW, {"gw": {}}, watching=True)
"""What begins when version 2 has taken over at once."""


# ---- the straight path, one state after the other


def test_new_deployment_gets_a_group() -> None:
    assert steps(observed(deployment())) == [a.AddGroup(version(1), 100, 1)]
    assert report(observed(deployment())) == (DeploymentState.CREATING, "starting")


def test_the_catalog_is_asked_before_a_group_is_made() -> None:
    assert steps(observed(deployment(), admitted=None)) == [a.AskUse(version(1))]
    assert report(observed(deployment(), admitted=None)) == (DeploymentState.CREATING, "starting")


def test_a_version_that_is_being_deleted_is_waited_for() -> None:
    found = observed(deployment(), admitted=Admitted(allowed=False, problem="is being deleted"))
    assert steps(found) == [a.AskUse(version(1))]
    assert report(found) == (DeploymentState.CREATING, "is being deleted")


def test_a_version_that_is_gone_fails_the_deployment_and_is_asked_about_again() -> None:
    found = observed(deployment(), admitted=Admitted(allowed=False, gone=True, problem="was deleted"))
    assert steps(found) == [a.AskUse(version(1))]
    assert report(found) == (DeploymentState.FAILED, "was deleted")


def test_what_has_a_group_is_not_asked_about() -> None:
    groups = (group(1, GroupState.SERVING, weight=1),)
    assert steps(observed(deployment(), groups, (replica(1, routed=True),), admitted=None)) == []


def test_artifact_is_fetched_before_anything_starts() -> None:
    starting = replica(1, ReplicaState.STARTING)
    found = observed(deployment(), (group(1, GroupState.STARTING),), (starting,), processes={}, present=False)
    assert steps(found) == [a.Fetch(version(1))]
    assert report(found) == (DeploymentState.CREATING, "downloading prod.ml.iris/1")


def test_signatures_are_asked_about_before_anything_starts() -> None:
    two = (replica(1, ReplicaState.STARTING), replica(1, ReplicaState.STARTING, ordinal=1))
    found = observed(
        deployment(replicas=2), (group(1, GroupState.STARTING),), two, processes={}, evidence=None
    )
    assert steps(found) == [a.AskEvidence(version(1))]
    unknown = replace(found, evidence={"v1": EvidenceStatus(ready=False, problem="nobody can be asked")})
    assert steps(unknown) == [a.AskEvidence(version(1))]
    assert report(unknown) == (DeploymentState.CREATING, "nobody can be asked")


def test_a_requirement_of_signatures_makes_another_group_before_the_old_one_goes() -> None:
    required = deployment(state=DeploymentState.ACTIVE, require_signature=True)
    found = observed(required, (group(1, GroupState.SERVING, weight=1),), (replica(1, routed=True),))
    assert steps(found) == [a.AddGroup(version(1), 100, 1, require_signature=True)]


def test_what_a_replica_found_about_signatures_is_noted() -> None:
    verdict = Verdict(SignatureState.TRUSTED, "sha256:1", "team")
    process = Process(running=True, ready=True, verdict=verdict)
    starting = replica(1, ReplicaState.STARTING)
    found = observed(deployment(), (group(1, GroupState.STARTING),), (starting,), processes={"r1.0": process})
    assert steps(found) == [a.RecordReady("r1.0", verdict)]


def test_a_start_from_before_a_change_says_nothing_when_it_fails() -> None:
    changed = deployment(state=DeploymentState.UPDATING, update_time=NOW)
    ended = {"r1.0": Process(running=False, ending="boom")}
    before = replica(1, ReplicaState.STARTING, start_time=NOW - timedelta(seconds=1), failures=3)
    found = observed(changed, (group(1, GroupState.STARTING),), (before,), processes=ended)
    assert steps(found) == [a.RecordEnd("r1.0", "", 0, NOW)]
    after = replace(found, replicas=(replace(before, start_time=NOW),))
    assert steps(after) == [
        a.RecordEnd("r1.0", "boom", 4, NOW + timedelta(seconds=4), ReplicaState.CRASH_LOOP)
    ]


INACTIVE = deployment(state=DeploymentState.UPDATING, active=False)


def test_a_deployment_without_activity_drains_and_then_rests() -> None:
    serving = observed(INACTIVE, SERVED, (replica(1, routed=True),))
    assert steps(serving) == [a.Shift({})]
    draining = (group(1, GroupState.DRAINING),)
    assert steps(observed(INACTIVE, draining, (replica(1, routed=True),))) == [a.EndGroup("g1")]
    stopping = (group(1, GroupState.STOPPING),)
    found = observed(INACTIVE, stopping, (replica(1, ReplicaState.DRAINING),), processes={"r1.0": RUNNING})
    assert steps(found) == [a.Stop("r1.0")]
    assert report(found) == (DeploymentState.UPDATING, "waiting for 1 replicas to end")
    assert steps(observed(INACTIVE)) == []
    assert report(observed(INACTIVE)) == (DeploymentState.INACTIVE, "")


def test_an_activated_deployment_takes_back_what_still_drains() -> None:
    again = replace(INACTIVE, active=True)
    found = observed(again, (group(1, GroupState.DRAINING),), (replica(1, routed=True),))
    assert steps(found) == [a.ReviveGroup("g1")]


def test_an_inactive_deployment_needs_no_gateway_to_rest() -> None:
    draining = (group(1, GroupState.DRAINING),)
    found = observed(INACTIVE, draining, (replica(1, routed=True),), gateways=())
    assert steps(found) == [a.EndGroup("g1")]


def test_replica_starts_gets_ready_and_its_group_is_admitted() -> None:
    groups = (group(1, GroupState.STARTING),)
    starting = replica(1, ReplicaState.STARTING)
    assert steps(observed(deployment(), groups, (starting,), processes={})) == [a.Start("r1.0")]
    loading = observed(deployment(), groups, (starting,))
    assert steps(loading) == []
    assert report(loading)[1] == "starting prod.ml.iris/1: 0 of 1 replicas ready"
    assert steps(observed(deployment(), groups, (starting,), processes={"r1.0": READY})) == [
        a.RecordReady("r1.0")
    ]
    assert steps(observed(deployment(), groups, (replica(1, routed=False),))) == [
        a.AdmitGroup("g1", ("r1.0",))
    ]


@pytest.mark.parametrize(
    ("gateways", "message"),
    [
        ((), "waiting for a gateway"),
        ((gateway(4, "iris-v1"),), "waiting for gateway 'gw' to find prod.ml.iris/1 healthy"),
        ((gateway(5),), "waiting for gateway 'gw' to find prod.ml.iris/1 healthy"),
        (
            (gateway(5, "iris-v1", name="a"), gateway(5, name="b", problem="no room")),
            "waiting for gateway 'b' to find prod.ml.iris/1 healthy (no room)",
        ),
    ],
)
def test_warm_group_waits_for_every_gateway(gateways: tuple[Gateway, ...], message: str) -> None:
    found = observed(deployment(), (group(1, GroupState.WARM),), (replica(1),), gateways=gateways)
    assert steps(found) == []
    assert report(found) == (DeploymentState.CREATING, message)


def test_traffic_shifts_when_every_gateway_finds_the_group_healthy() -> None:
    found = observed(
        deployment(target(1, 7)),
        (group(1, GroupState.WARM),),
        (replica(1),),
        gateways=(gateway(5, "iris-v1"),),
    )
    assert steps(found) == [a.Shift({"g1": 7})]


def test_active_only_when_every_gateway_confirmed_the_shift() -> None:
    waiting = observed(deployment(), SERVED, (replica(1),), gateways=(gateway(4),))
    assert report(waiting) == (DeploymentState.CREATING, "waiting for gateway 'gw' to apply the routes")
    changed = replace(waiting, deployment=deployment(state=DeploymentState.FAILED))
    assert report(changed)[0] is DeploymentState.UPDATING
    assert report(observed(deployment(), SERVED, (replica(1),))) == (DeploymentState.ACTIVE, "")
    # Once it was told, a gateway that comes or goes does not take it back.
    came = observed(ACTIVE, SERVED, (replica(1),), gateways=(gateway(0),))
    assert (steps(came), report(came)) == ([], (DeploymentState.ACTIVE, ""))
    left = observed(ACTIVE, SERVED, (replica(1),), gateways=())
    assert (steps(left), report(left)) == ([], (DeploymentState.ACTIVE, ""))


# ---- changes


def test_old_group_answers_until_the_new_one_can() -> None:
    changed = deployment(target(2), state=DeploymentState.UPDATING)
    old = (replica(1),)
    assert steps(observed(changed, SERVED, old)) == [a.AddGroup(version(2), 100, 1)]
    both = (*SERVED, group(2, GroupState.STARTING))
    assert steps(observed(changed, both, (*old, replica(2, ReplicaState.STARTING)))) == []
    warm = (*SERVED, group(2, GroupState.WARM))
    assert steps(observed(changed, warm, (*old, replica(2)))) == [a.Shift({"g2": 1}, WATCHED)]


def test_old_group_drains_leaves_the_table_and_stops_one_confirmation_after_the_other() -> None:
    changed = deployment(target(2), state=DeploymentState.ACTIVE)
    new = group(2, GroupState.SERVING, weight=1)
    replicas = (replica(1), replica(2))
    draining = (group(1, GroupState.DRAINING, table=6), new)
    assert steps(observed(changed, draining, replicas, gateways=(gateway(5),))) == []
    assert steps(observed(changed, draining, replicas, gateways=(gateway(6),))) == [a.EndGroup("g1")]
    gone = (replica(1, ReplicaState.DRAINING), replica(2))
    stopping = (group(1, GroupState.STOPPING, table=7), new)
    assert steps(observed(changed, stopping, gone, gateways=(gateway(6),))) == []
    assert steps(observed(changed, stopping, gone, gateways=())) == []
    assert steps(observed(changed, stopping, gone, gateways=(gateway(7),))) == [a.Stop("r1.0")]
    ended = observed(
        changed,
        stopping,
        gone,
        gateways=(gateway(7),),
        processes={"r1.0": Process(running=False), "r2.0": READY},
    )
    assert steps(ended) == [a.RemoveReplica("r1.0")]
    assert steps(observed(changed, stopping, (replica(2),))) == [a.RemoveGroup("g1")]


def test_all_targets_shift_together() -> None:
    split = deployment(target(1, 9), target(2, 1), state=DeploymentState.UPDATING)
    half = (*SERVED, group(2, GroupState.STARTING))
    assert steps(observed(split, half, (replica(1), replica(2, ReplicaState.STARTING)))) == []
    both = (*SERVED, group(2, GroupState.WARM))
    assert steps(observed(split, both, (replica(1), replica(2)))) == [a.Shift({"g1": 9, "g2": 1}, WATCHED)]


@pytest.mark.parametrize(("weight", "waits"), [(1, False), (2, True)])
def test_what_stays_may_be_ill_unless_it_is_to_get_more(weight: int, waits: bool) -> None:
    groups = (group(1, GroupState.SERVING, weight=1), group(2, GroupState.SERVING, weight=1))
    groups = (*groups, group(3, GroupState.WARM))
    ill = replica(1, ReplicaState.CRASH_LOOP, routed=True, message="it is broken", failures=3, process_id=0)
    found = observed(
        deployment(target(1, weight), target(3)),
        groups,
        (ill, replica(2), replica(3)),
        processes={"r2.0": READY, "r3.0": READY},
        gateways=(gateway(9, "iris-v2", "iris-v3"),),
    )
    shifts = [action.weights for action in steps(found) if isinstance(action, a.Shift)]
    assert shifts == ([] if waits else [{"g1": weight, "g3": 1}])


def test_targets_that_mean_one_version_share_a_group() -> None:
    wanted = desired_groups(deployment(target(1, 3), target(1, 4)))
    assert [desired.weight for desired in wanted.values()] == [7]


def test_going_back_while_the_old_group_drains_revives_it() -> None:
    groups = (group(1, GroupState.DRAINING), group(2, GroupState.SERVING, weight=1))
    found = observed(deployment(state=DeploymentState.UPDATING), groups, (replica(1), replica(2)))
    assert steps(found) == [a.ReviveGroup("g1")]


def test_going_back_while_the_old_group_stops_makes_a_new_one() -> None:
    groups = (group(1, GroupState.STOPPING), group(2, GroupState.SERVING, weight=1))
    found = observed(
        deployment(state=DeploymentState.UPDATING), groups, (replica(1, ReplicaState.DRAINING), replica(2))
    )
    assert steps(found) == [a.AddGroup(version(1), 100, 1), a.Stop("r1.0")]


@pytest.mark.parametrize("state", [GroupState.STARTING, GroupState.WARM])
def test_group_that_is_no_longer_wanted_before_it_served_ends(state: GroupState) -> None:
    found = observed(ACTIVE, (*SERVED, group(2, state)), (replica(1), replica(2)))
    assert steps(found) == [a.EndGroup("g2")]


def test_other_body_limit_means_another_group() -> None:
    changed = replace(ACTIVE, max_request_bytes=200, state=DeploymentState.UPDATING)
    assert steps(observed(changed, SERVED, (replica(1),))) == [a.AddGroup(version(1), 200, 1)]


def test_other_resources_mean_another_group() -> None:
    bounds = Resources(cpus=2, memory_bytes=2**30)
    changed = replace(ACTIVE, resources=bounds, state=DeploymentState.UPDATING)
    found = observed(changed, SERVED, (replica(1),))
    assert steps(found) == [a.AddGroup(version(1), 100, 1, resources=bounds)]


# ---- replicas


def test_more_replicas_join_when_they_are_ready() -> None:
    more = replace(ACTIVE, replicas=2, state=DeploymentState.UPDATING)
    assert steps(observed(more, SERVED, (replica(1),))) == [a.AddReplicas("g1", 1)]
    second = replica(1, routed=False, ordinal=1)
    found = observed(more, SERVED, (replica(1), second))
    assert steps(found) == [a.RouteReplicas("g1", ("r1.1",))]
    assert report(found) == (DeploymentState.UPDATING, "scaling prod.ml.iris/1: 1 of 2 replicas routed")
    joined = replace(second, routed=True, table_version=8)
    assert (
        report(observed(more, SERVED, (replica(1), joined), gateways=(gateway(7),)))[0]
        is DeploymentState.UPDATING
    )
    assert report(observed(more, SERVED, (replica(1), joined))) == (DeploymentState.ACTIVE, "")


def test_surplus_replicas_leave_the_table_then_stop() -> None:
    two = (replica(1), replica(1, ordinal=1))
    assert steps(observed(ACTIVE, SERVED, two)) == [a.UnrouteReplicas("g1", ("r1.1",))]
    leaving = (two[0], replica(1, ReplicaState.DRAINING, ordinal=1, table_version=8))
    assert steps(observed(ACTIVE, SERVED, leaving, gateways=(gateway(7),))) == []
    assert steps(observed(ACTIVE, SERVED, leaving, gateways=(gateway(8),))) == [a.Stop("r1.1")]


def test_surplus_waits_until_the_kept_replicas_answer() -> None:
    two = (replica(1, ReplicaState.STARTING), replica(1, ordinal=1))
    assert steps(observed(ACTIVE, SERVED, two)) == []


def test_ended_replica_is_noted_and_started_again_after_a_pause() -> None:
    ended = observed(
        ACTIVE, SERVED, (replica(1),), processes={"r1.0": Process(running=False, ending="killed")}
    )
    assert steps(ended) == [a.RecordEnd("r1.0", "killed", 1, NOW + timedelta(seconds=0.5))]
    stopped = replica(1, ReplicaState.STOPPED, not_before=NOW + timedelta(seconds=0.5), message="killed")
    waiting = observed(ACTIVE, SERVED, (stopped,), processes={})
    assert steps(waiting) == []
    assert report(waiting) == (DeploymentState.ACTIVE, "0 of 1 replicas of prod.ml.iris/1 answer: killed")
    later = observed(ACTIVE, SERVED, (stopped,), processes={}, now=NOW + timedelta(seconds=1))
    assert steps(later) == [a.Start("r1.0")]


@pytest.mark.parametrize(("failures", "pause"), [(0, 0.5), (1, 1.0), (3, 4.0), (7, 60.0), (1000, 60.0)])
def test_pause_grows_with_every_end_in_a_row(failures: int, pause: float) -> None:
    failing = replica(1, ReplicaState.STARTING, failures=failures)
    found = observed(
        deployment(), (group(1, GroupState.STARTING),), (failing,), processes={"r1.0": Process(running=False)}
    )
    (end,) = steps(found)
    assert isinstance(end, a.RecordEnd)
    assert (end.failures, end.not_before) == (failures + 1, NOW + timedelta(seconds=pause))
    looping = failures + 1 >= 3
    assert end.state is (ReplicaState.CRASH_LOOP if looping else ReplicaState.STOPPED)


def test_good_minute_resets_the_pause() -> None:
    good = replica(1, failures=9, ready_time=NOW - timedelta(seconds=61))
    (end,) = steps(observed(ACTIVE, SERVED, (good,), processes={"r1.0": Process(running=False)}))
    assert isinstance(end, a.RecordEnd)
    assert end.failures == 1


def test_replica_that_keeps_ending_fails_the_deployment() -> None:
    ended = replica(
        1, ReplicaState.STOPPED, failures=2, message="out of memory", not_before=NOW + timedelta(1)
    )
    found = observed(ACTIVE, SERVED, (ended,), processes={})
    assert report(found) == (
        DeploymentState.FAILED,
        "every replica of prod.ml.iris/1 keeps ending: out of memory",
    )


def test_a_crash_loop_is_told_with_its_next_start() -> None:
    changes = {"failures": 3, "message": "no module", "not_before": NOW + timedelta(seconds=4)}
    looping = replica(1, ReplicaState.CRASH_LOOP, **changes)
    two = replace(ACTIVE, replicas=2)
    found = observed(two, SERVED, (looping, replica(1, ordinal=1)), processes={"r1.1": READY})
    assert steps(found) == []
    told = "crash loop, 3 ends in a row; next start at 00:00:04 UTC: no module"
    assert report(found) == (DeploymentState.ACTIVE, f"1 of 2 replicas of prod.ml.iris/1 answer: {told}")
    later = observed(ACTIVE, SERVED, (looping,), processes={}, now=NOW + timedelta(seconds=4))
    assert steps(later) == [a.Start("r1.0")]


def test_replica_that_does_not_get_ready_is_aborted() -> None:
    late = replica(1, ReplicaState.STARTING)
    found = observed(
        deployment(),
        (group(1, GroupState.STARTING),),
        (late,),
        processes={"r1.0": Process(running=True, ending="loading")},
        now=NOW + timedelta(seconds=61),
    )
    (abort,) = steps(found)
    assert isinstance(abort, a.Abort)
    assert abort.end.message == "not ready within 60 s: loading"


# ---- failures


def test_version_that_cannot_start_fails_the_deployment_and_the_old_keeps_serving() -> None:
    changed = deployment(target(2), state=DeploymentState.UPDATING)
    broken = replica(2, ReplicaState.STOPPED, message="no module", not_before=NOW + timedelta(seconds=9))
    found = observed(
        changed, (*SERVED, group(2, GroupState.STARTING)), (replica(1), broken), processes={"r1.0": READY}
    )
    assert steps(found) == []
    assert report(found) == (DeploymentState.FAILED, "prod.ml.iris/2 could not be started: no module")


def test_artifact_that_cannot_be_downloaded_fails_the_deployment() -> None:
    starting = (group(1, GroupState.STARTING),)
    found = observed(deployment(), starting, (), present=False, problem="damaged")
    assert report(found) == (DeploymentState.FAILED, "prod.ml.iris/1: damaged")


def test_refused_alias_is_told_beside_the_state() -> None:
    refused = replace(ACTIVE, targets=(target(1, problem="2 is not approved"),))
    assert report(observed(refused, SERVED, (replica(1),))) == (DeploymentState.ACTIVE, "2 is not approved")


# ---- deletion


def test_deletion_takes_the_traffic_away_and_ends_in_nothing() -> None:
    leaving = deployment(state=DeploymentState.DELETING)
    assert steps(observed(leaving, SERVED, (replica(1),))) == [a.Shift({})]
    assert steps(observed(leaving, (group(1, GroupState.DRAINING),), (replica(1),))) == [a.EndGroup("g1")]
    assert steps(observed(leaving)) == [a.RemoveDeployment()]


def test_deletion_does_not_wait_for_gateways_that_are_not_there() -> None:
    leaving = deployment(state=DeploymentState.DELETING)
    stopping, last = (group(1, GroupState.STOPPING),), (replica(1, ReplicaState.DRAINING),)
    early = observed(leaving, stopping, last, gateways=(), settled=False)
    assert steps(early) == []
    assert report(early) == (DeploymentState.DELETING, "waiting for a gateway")
    assert steps(observed(leaving, stopping, last, gateways=())) == [a.Stop("r1.0")]


def test_deletion_of_what_never_was_routed_waits_for_nobody() -> None:
    leaving = deployment(state=DeploymentState.DELETING)
    starting = replica(1, ReplicaState.STARTING)
    assert steps(observed(leaving, (group(1, GroupState.STARTING, table=0),), (starting,), gateways=())) == [
        a.EndGroup("g1")
    ]
    stopping = group(1, GroupState.STOPPING, table=0)
    found = observed(leaving, (stopping,), (replica(1, ReplicaState.DRAINING),), gateways=(), settled=False)
    assert steps(found) == [a.Stop("r1.0")]


# ---- shadows


def shadow(number: int, percent: int) -> Target:
    spec = TargetSpec(
        f"prod.ml.iris/{number}", "prod.ml.iris", follows=False, weight=0, shadow_percent=percent
    )
    return Target(spec, version(number))


def test_a_shadow_has_a_group_of_its_own_even_of_the_version_that_answers() -> None:
    found = observed(deployment(target(1), shadow(1, 10)), SERVED, (replica(1),))
    assert a.AddGroup(version(1), 100, 1, shadow=True) in steps(found)


def test_a_shadow_begins_when_it_is_healthy_and_takes_no_weight() -> None:
    copy = replace(group(2, GroupState.WARM), shadow=True)
    found = observed(deployment(target(1), shadow(2, 10)), (*SERVED, copy), (replica(1), replica(2)))
    assert steps(found) == [a.Shift({"g1": 1, "g2": 10})]


def test_another_percentage_starts_nothing() -> None:
    copy = replace(group(2, GroupState.SERVING, weight=10), shadow=True)
    found = observed(deployment(target(1), shadow(2, 25)), (*SERVED, copy), (replica(1), replica(2)))
    assert steps(found) == [a.Shift({"g1": 1, "g2": 25})]


def test_a_shadow_that_is_to_answer_is_started_anew() -> None:
    copy = replace(group(2, GroupState.SERVING, weight=10), shadow=True)
    found = observed(deployment(target(2)), (*SERVED, copy), (replica(1), replica(2)))
    assert steps(found) == [a.AddGroup(version(2), 100, 1)]  # and the copies go on until that one answers
