"""Every refusal of a request names its field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard_inference import gateway_messages, messages, render
from modelyard_inference.batching_policy import USUAL, Batching
from modelyard_inference.canary import Figures, Rollout, RolloutPolicy
from modelyard_inference.commands import RolloutVerb
from modelyard_inference.environment_policy import OF_ARTIFACT, Environment, EnvironmentSource
from modelyard_inference.models import DeploymentState, GroupState
from modelyard_inference.planner.observed import Gateway
from modelyard_inference.resources import UNBOUNDED, Resources
from modelyard_inference.route_table import Route, RouteTable, RouteTarget
from modelyard_inference.scaling import FIXED, Autoscaling
from modelyard_inference.strategies import UpdateStrategy
from modelyard_kit.access import SYSTEM
from modelyard_kit.errors import InvalidField, LimitExceeded
from modelyard_kit.interceptors import status_of
from modelyard_kit.limits import LIMITS
from tests.unit.inference.test_planner import NOW, deployment, group, replica, target


def scaling(**changes: object) -> d.Autoscaling:
    return d.Autoscaling(**{"max_replicas": 4, **changes})  # type: ignore[arg-type]


ONE = d.TrafficTarget(model_version="a.b.c/1")


def rollout(**fields: Any) -> d.RolloutPolicy:
    return d.RolloutPolicy(**{"steps": [5, 100], **fields})


def shadow(number: int, percent: int, weight: int = 0) -> d.TrafficTarget:
    return d.TrafficTarget(model_version=f"a.b.c/{number}", shadow_percent=percent, weight=weight)


def wanted(**changes: object) -> d.Deployment:
    given: dict[str, object] = {
        "name": "prod.ml.iris",
        "targets": [d.TrafficTarget(model_version="prod.ml.iris@champion")],
    }
    return d.Deployment(**{**given, **changes})  # type: ignore[arg-type]


def test_create_fills_in_the_defaults() -> None:
    command = messages.parse_create(s.CreateDeploymentRequest(deployment=wanted(), request_id="r"))
    assert (command.replicas, command.max_request_bytes, command.timeout_ms) == (1, 64 * 2**20, 60_000)
    (target_spec,) = command.targets
    assert (target_spec.weight, target_spec.follows, target_spec.model) == (1, True, "prod.ml.iris")
    assert command.schema == "prod.ml"


def test_a_rollout_ends_with_everything_and_has_defaults() -> None:
    given = wanted(rollout_policy=d.RolloutPolicy(steps=[5, 25], pause=Duration(seconds=2)))
    command = messages.parse_create(s.CreateDeploymentRequest(deployment=given))
    assert command.rollout_policy == RolloutPolicy(
        (5, 25, 100), pause_ms=2000, min_requests=100, max_error_percent=1.0, max_error_rise=1.0
    )
    again = render.deployment_to_proto(deployment(rollout_policy=command.rollout_policy))
    parsed = messages.parse_create(
        s.CreateDeploymentRequest(deployment=wanted(rollout_policy=again.rollout_policy))
    )
    assert parsed.rollout_policy == command.rollout_policy
    assert (
        messages.parse_create(s.CreateDeploymentRequest(deployment=wanted())).rollout_policy
        == RolloutPolicy()
    )


def test_a_rollout_is_steered_by_a_known_verb() -> None:
    verbs = s.ControlRolloutRequest.Verb
    found = messages.parse_control(
        s.ControlRolloutRequest(name="prod.ml.iris", verb=verbs.VERB_ABORT, reason="r")
    )
    assert (found.verb, found.reason) == (RolloutVerb.ABORT, "r")
    for verb in (verbs.VERB_UNSPECIFIED, 77):
        with pytest.raises(InvalidField, match="PAUSE, RESUME, PROMOTE, ABORT"):
            messages.parse_control(s.ControlRolloutRequest(name="prod.ml.iris", verb=verb))  # type: ignore[arg-type]


def test_figures_of_gateways_are_checked() -> None:
    def confirm(**fields: Any) -> Gateway:
        figures = s.GroupFigures(**{"group": "g", **fields})
        return gateway_messages.parse_confirm(s.ConfirmRoutesRequest(gateway_id="gw", figures=[figures]))

    latencies = [s.LatencyBucket(upper_milliseconds=2.0, count=3)]
    assert confirm(answered=2, failed=1, latencies=latencies).figures == {"g": Figures(2, 1, {2.0: 3})}
    for wrong in (
        {"answered": -1},
        {"latencies": [s.LatencyBucket(count=-1)]},
        {"latencies": [s.LatencyBucket(upper_milliseconds=n) for n in range(101)]},
    ):
        with pytest.raises(InvalidField, match="figures"):
            confirm(**wrong)


def test_a_shadow_comes_last_and_has_no_weight() -> None:
    command = messages.parse_create(
        s.CreateDeploymentRequest(deployment=wanted(targets=[shadow(2, 10), ONE]))
    )
    assert [(t.reference, t.weight, t.shadow_percent) for t in command.targets] == [
        ("a.b.c/1", 1, 0),
        ("a.b.c/2", 0, 10),
    ]


def test_fingerprint_ignores_the_request_id_only() -> None:
    def of(request_id: str, **changes: object) -> str:
        request = s.CreateDeploymentRequest(deployment=wanted(**changes), request_id=request_id)
        return messages.parse_create(request).fingerprint

    assert of("a") == of("b")
    assert of("a") != of("a", replicas=2)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "deployment.name"),
        ({"name": "prod.iris"}, "deployment.name"),
        ({"targets": []}, "deployment.targets"),
        ({"targets": [d.TrafficTarget()]}, "deployment.targets[0].model_version"),
        ({"targets": [d.TrafficTarget(model_version="iris/x")]}, "deployment.targets[0].model_version"),
        ({"targets": [d.TrafficTarget(model_version="a.b.c/1", weight=-1)]}, "deployment.targets[0].weight"),
        ({"targets": [ONE, shadow(2, 101)]}, "deployment.targets[1].shadow_percent"),
        ({"targets": [ONE, shadow(2, -1)]}, "deployment.targets[1].shadow_percent"),
        ({"targets": [ONE, shadow(2, 10, weight=1)]}, "deployment.targets[1].weight"),
        ({"targets": [ONE, shadow(2, 10), shadow(3, 10)]}, "deployment.targets"),
        ({"targets": [shadow(1, 10)]}, "deployment.targets"),
        (
            {
                "targets": [
                    d.TrafficTarget(model_version="a.b.c/1"),
                    d.TrafficTarget(model_version="models:/a.b.c/1"),
                ]
            },
            "deployment.targets[1].model_version",
        ),
        ({"replicas": -1}, "deployment.replicas"),
        ({"max_request_bytes": -1}, "deployment.max_request_bytes"),
        ({"max_request_bytes": 2**40}, "deployment.max_request_bytes"),
        ({"timeout": Duration()}, "deployment.timeout"),
        ({"sticky_header": "X-Customer"}, "deployment.sticky_header"),
        ({"sticky_header": "x" * 65}, "deployment.sticky_header"),
        ({"sticky_header": "authorization"}, "deployment.sticky_header"),
        ({"sticky_header": "modelyard-version"}, "deployment.sticky_header"),
        ({"timeout": Duration(seconds=-1)}, "deployment.timeout"),
        ({"rollout_policy": rollout(steps=[0])}, "deployment.rollout_policy.steps[0]"),
        ({"rollout_policy": rollout(steps=[5, 5])}, "deployment.rollout_policy.steps[1]"),
        ({"rollout_policy": rollout(steps=[5, 101])}, "deployment.rollout_policy.steps[1]"),
        ({"rollout_policy": rollout(steps=[], min_requests=1)}, "deployment.rollout_policy.steps"),
        ({"rollout_policy": rollout(min_requests=-1)}, "deployment.rollout_policy.min_requests"),
        ({"rollout_policy": rollout(max_error_percent=101)}, "deployment.rollout_policy.max_error_percent"),
        (
            {"rollout_policy": rollout(max_error_rise=float("nan"))},
            "deployment.rollout_policy.max_error_rise",
        ),
        ({"rollout_policy": rollout(max_latency_ratio=-1)}, "deployment.rollout_policy.max_latency_ratio"),
        ({"rollout_policy": rollout(pause=Duration(seconds=-1))}, "deployment.rollout_policy.pause"),
        (
            {"rollout_policy": rollout(max_latency=Duration(seconds=3601))},
            "deployment.rollout_policy.max_latency",
        ),
        ({"timeout": Duration(seconds=3601)}, "deployment.timeout"),
        ({"resources": d.Resources(cpus=-1)}, "deployment.resources.cpus"),
        ({"autoscaling": scaling(max_replicas=0, min_replicas=1)}, "deployment.autoscaling.max_replicas"),
        ({"autoscaling": scaling(max_replicas=-1)}, "deployment.autoscaling.max_replicas"),
        ({"autoscaling": scaling(min_replicas=5)}, "deployment.autoscaling.min_replicas"),
        ({"autoscaling": scaling(min_replicas=-1)}, "deployment.autoscaling.min_replicas"),
        ({"autoscaling": scaling(min_replicas=1, scale_to_zero=True)}, "deployment.autoscaling.min_replicas"),
        ({"autoscaling": scaling(target_in_flight=-1)}, "deployment.autoscaling.target_in_flight"),
        ({"autoscaling": scaling(target_in_flight=float("nan"))}, "deployment.autoscaling.target_in_flight"),
        (
            {"autoscaling": scaling(scale_down_delay=Duration(seconds=3601))},
            "deployment.autoscaling.scale_down_delay",
        ),
        ({"resources": d.Resources(instances=-1)}, "deployment.resources.instances"),
        ({"resources": d.Resources(memory_bytes=-1)}, "deployment.resources.memory_bytes"),
        ({"resources": d.Resources(memory_bytes=64 * 2**20 - 1)}, "deployment.resources.memory_bytes"),
        ({"batching": d.Batching(max_batch_rows=-1)}, "deployment.batching.max_batch_rows"),
        ({"batching": d.Batching(max_queue_rows=-1)}, "deployment.batching.max_queue_rows"),
        ({"batching": d.Batching(max_queue_rows=1_023)}, "deployment.batching.max_queue_rows"),
        ({"batching": d.Batching(max_batch_rows=10_001)}, "deployment.batching.max_queue_rows"),
        ({"batching": d.Batching(max_delay=Duration(nanos=-1_000))}, "deployment.batching.max_delay"),
        ({"update_strategy": 7}, "deployment.update_strategy"),
        ({"environment": d.Environment(source=7)}, "deployment.environment.source"),  # type: ignore[arg-type]
        *(
            (
                {"environment": d.Environment(source=source, requirements=["numpy"])},
                "deployment.environment.source",
            )
            for source in (d.Environment.SOURCE_DEFAULT, d.Environment.SOURCE_ARTIFACT)
        ),
        *(
            (
                {"environment": d.Environment(requirements=["numpy", "", line])},
                "deployment.environment.requirements[2]",
            )
            for line in ("-e .", "a @ file:///x", "a==", "a\nb", 'a; sys_platform == "x\n--index-url y"')
        ),
        *(
            ({"environment": d.Environment(python_version=version)}, "deployment.environment.python_version")
            for version in ("3", "three", "3.10", "2.7")
        ),
        *(
            ({"environment_variables": {name: value}}, "deployment.environment_variables")
            for name, value in (
                ("", "x"),
                ("1ST", "x"),
                ("A-B", "x"),
                ("PATH", "/tmp"),
                ("LD_PRELOAD", "x.so"),
                ("PYTHONPATH", "x"),
                ("MODELYARD_TOKEN", "x"),
                ("OMP_NUM_THREADS", "4"),
                ("A", "b\0c"),
            )
        ),
        *(
            ({"traffic_limits": d.TrafficLimits(**{name: value})}, f"deployment.traffic_limits.{name}")
            for name, value in (
                ("requests_per_second", -1),
                ("requests_per_second", 1_000_001),
                ("bandwidth_mbps", 100_001),
                ("concurrent_per_replica", 10_001),
            )
        ),
    ],
)
def test_create_refuses(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        messages.parse_create(s.CreateDeploymentRequest(deployment=wanted(**changes)))
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"replicas": 65}, "replicas_per_target"),
        ({"autoscaling": d.Autoscaling(max_replicas=65)}, "replicas_per_target"),
        ({"description": "x" * 5_001}, "description_length"),
        ({"rollout_policy": d.RolloutPolicy(steps=range(1, 22))}, "rollout_steps"),
        ({"resources": d.Resources(cpus=1_025)}, "cpus_per_replica"),
        ({"resources": d.Resources(instances=2_049)}, "instances_per_replica"),
        ({"resources": d.Resources(memory_bytes=2**50 + 1)}, "memory_bytes_per_replica"),
        ({"batching": d.Batching(max_batch_rows=65_537)}, "rows_per_batch"),
        ({"batching": d.Batching(max_queue_rows=1_000_001)}, "rows_waiting_per_replica"),
        ({"batching": d.Batching(max_delay=Duration(seconds=1, nanos=1_000))}, "batch_delay_microseconds"),
        ({"environment_variables": {f"A{n}": "" for n in range(101)}}, "environment_variables"),
        ({"environment_variables": {"A": "x" * 32_768}}, "environment_variables_bytes"),
        ({"environment": d.Environment(requirements=["a"] * 1_001)}, "environment_requirements"),
        ({"environment": d.Environment(requirements=["#" * 65_537])}, "environment_requirements_bytes"),
        (
            {"targets": [d.TrafficTarget(model_version=f"a.b.c/{n + 1}") for n in range(17)]},
            "targets_per_deployment",
        ),
    ],
)
def test_create_refuses_what_is_over_a_limit(changes: dict[str, object], limit: str) -> None:
    with pytest.raises(LimitExceeded) as refused:
        messages.parse_create(s.CreateDeploymentRequest(deployment=wanted(**changes)))
    assert refused.value.metadata["limit"] == limit


def test_resources_up_to_their_limits() -> None:
    most = d.Resources(cpus=1_024, memory_bytes=2**50, instances=2_048)
    made = messages.parse_create(s.CreateDeploymentRequest(deployment=wanted(resources=most)))
    assert made.resources == Resources(1_024, 2**50, 2_048)
    changed = s.UpdateDeploymentRequest(deployment=wanted(), update_mask=FieldMask(paths=["resources"]))
    assert messages.parse_update(changed).resources == UNBOUNDED


def test_batching_and_variables_up_to_their_limits_and_back_to_nothing() -> None:
    most = d.Batching(max_batch_rows=65_536, max_delay=Duration(seconds=1), max_queue_rows=1_000_000)
    variables = {"LEVEL": "x" * (32_768 - 104), **{f"A{n}": "" for n in range(10, 43)}}
    given = wanted(batching=most, environment_variables=variables)
    made = messages.parse_create(s.CreateDeploymentRequest(deployment=given))
    assert made.batching == Batching(65_536, 1_000_000, 1_000_000)
    assert made.environment_variables == tuple(sorted(variables.items()))
    told = render.deployment_to_proto(
        deployment(batching=made.batching, environment_variables=made.environment_variables)
    )
    assert (told.batching, dict(told.environment_variables)) == (most, variables)
    mask = FieldMask(paths=["batching", "environment_variables"])
    changed = messages.parse_update(s.UpdateDeploymentRequest(deployment=wanted(), update_mask=mask))
    assert (changed.batching, changed.environment_variables) == (USUAL, ())
    assert not render.deployment_to_proto(deployment()).HasField("batching")


def test_an_environment_is_read_and_told() -> None:
    def read(**fields: Any) -> Environment:
        given = wanted(environment=d.Environment(**fields))
        made = messages.parse_create(s.CreateDeploymentRequest(deployment=given)).environment
        told = render.deployment_to_proto(deployment(environment=made))
        again = messages.parse_create(
            s.CreateDeploymentRequest(deployment=wanted(environment=told.environment))
        )
        assert again.environment == made
        return made

    assert read() == OF_ARTIFACT
    assert read(source=d.Environment.SOURCE_DEFAULT) == Environment(EnvironmentSource.DEFAULT)
    assert read(source=d.Environment.SOURCE_REQUIREMENTS) == Environment(EnvironmentSource.REQUIREMENTS)
    lines = [
        "# captured",
        "",
        "scikit-learn >= 1.5",
        "numpy==2.1.0  # exactly",
        "modelyard==0.1",
        "numpy == 2.1.0",
    ]
    own = Environment(EnvironmentSource.REQUIREMENTS, ("numpy==2.1.0", "scikit-learn>=1.5"), "3.12")
    assert read(requirements=lines, python_version="3.12.1") == own
    assert read(requirements=["#" * 65_536]).requirements == ()
    assert read(requirements=["a"] * 1_000).requirements == ("a",)
    mask = FieldMask(paths=["environment"])
    changed = messages.parse_update(s.UpdateDeploymentRequest(deployment=wanted(), update_mask=mask))
    assert changed.environment == OF_ARTIFACT


def test_wrong_lines_are_told_by_their_numbers_as_many_as_fit_into_an_answer() -> None:
    lines = ["numpy==2.1.0 --hash=sha256:00", "numpy", *["x" * 500 + " y"] * 98]
    given = wanted(environment=d.Environment(requirements=lines))
    with pytest.raises(InvalidField, match="line 1: options of pip such as") as refused:
        messages.parse_create(s.CreateDeploymentRequest(deployment=given))
    assert "line 3: 'xxx" in str(refused.value)
    assert str(refused.value).endswith("deployment.environment.requirements: 91 more lines are wrong")
    assert len(status_of(refused.value).SerializeToString()) < 4_000


def test_a_strategy_is_read_and_told() -> None:
    given = wanted(update_strategy=d.UPDATE_STRATEGY_RESOURCE_PRESERVING)
    made = messages.parse_create(s.CreateDeploymentRequest(deployment=given))
    assert made.update_strategy is UpdateStrategy.RESOURCE_PRESERVING
    told = render.deployment_to_proto(deployment(update_strategy=made.update_strategy))
    assert told.update_strategy == given.update_strategy
    usual = messages.parse_create(s.CreateDeploymentRequest(deployment=wanted()))
    assert usual.update_strategy is UpdateStrategy.AVAILABILITY_PRESERVING


def test_an_exchange_tells_its_places() -> None:
    rollout = Rollout(frozenset(("g2",)), {"g1": 1}, 1, NOW, {}, exchange=True)
    assert Rollout.from_json(rollout.to_json()) == rollout
    told = render.deployment_to_proto(deployment(replicas=4, rollout=rollout)).rollout
    assert (told.step, told.steps, told.percent) == (2, 4, 25)


def test_a_refused_variable_is_named_without_its_value() -> None:
    given = wanted(environment_variables={"PATH": "my-secret"})
    with pytest.raises(InvalidField, match="'PATH'") as refused:
        messages.parse_create(s.CreateDeploymentRequest(deployment=given))
    assert "my-secret" not in str(refused.value.violations)


def test_autoscaling_has_defaults_and_can_be_turned_off() -> None:
    def read(**changes: object) -> Autoscaling:
        return messages.parse_create(s.CreateDeploymentRequest(deployment=wanted(**changes))).autoscaling

    assert read() == FIXED
    assert read(autoscaling=scaling()) == Autoscaling(1, 4, 2.0, 60_000)
    given = scaling(min_replicas=2, max_replicas=64, target_in_flight=0.5, scale_down_delay=Duration())
    assert read(autoscaling=given) == Autoscaling(2, 64, 0.5, 0)
    assert read(autoscaling=scaling(scale_to_zero=True)).to_zero
    request = s.UpdateDeploymentRequest(deployment=wanted(), update_mask=FieldMask(paths=["autoscaling"]))
    assert messages.parse_update(request).autoscaling == FIXED


@pytest.mark.parametrize("in_flight", [-1, float("nan"), float("inf")])
def test_odd_numbers_in_flight_are_refused(in_flight: float) -> None:
    figures = [s.GroupFigures(group="g", in_flight=in_flight)]
    with pytest.raises(InvalidField, match="figures.in_flight"):
        gateway_messages.parse_confirm(s.ConfirmRoutesRequest(gateway_id="gw", figures=figures))


def test_create_names_every_problem() -> None:
    with pytest.raises(InvalidField) as refused:
        messages.parse_create(s.CreateDeploymentRequest(deployment=d.Deployment(replicas=-1)))
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["deployment.name", "deployment.targets", "deployment.replicas"]


def test_update_takes_only_what_the_mask_names() -> None:
    request = s.UpdateDeploymentRequest(
        deployment=wanted(replicas=-5, description="new", etag="3"),
        update_mask=FieldMask(paths=["description"]),
    )
    command = messages.parse_update(request)
    assert (command.description, command.replicas, command.targets, command.etag) == ("new", None, None, "3")


@pytest.mark.parametrize(
    ("parse", "kind"),
    [
        (messages.parse_rollback, s.RollbackDeploymentRequest),
        (messages.parse_set_active, s.ActivateDeploymentRequest),
        (messages.parse_set_active, s.DeactivateDeploymentRequest),
    ],
)
def test_reasons_have_a_limit(parse: Any, kind: Any) -> None:
    longest = "x" * LIMITS["change_reason_length"].maximum
    assert parse(kind(name="a.b.c", reason=longest)).reason == longest
    with pytest.raises(LimitExceeded, match="change_reason_length"):
        parse(kind(name="a.b.c", reason=longest + "x"))


@pytest.mark.parametrize("owner", ["", "somebody else"])
def test_update_refuses_an_owner(owner: str) -> None:
    request = s.UpdateDeploymentRequest(
        deployment=wanted(owner_id=owner), update_mask=FieldMask(paths=["owner_id"])
    )
    with pytest.raises(InvalidField) as refused:
        messages.parse_update(request)
    assert refused.value.metadata["field"] == "deployment.owner_id"


def test_update_can_set_a_field_back_to_its_default() -> None:
    mask = FieldMask(paths=["replicas", "timeout", "max_request_bytes", "description"])
    command = messages.parse_update(
        s.UpdateDeploymentRequest(deployment=d.Deployment(name="a.b.c"), update_mask=mask)
    )
    assert (command.replicas, command.timeout_ms, command.max_request_bytes) == (1, 60_000, 64 * 2**20)
    assert command.description == ""


@pytest.mark.parametrize("paths", [[], ["name"], ["description", "state"], ["*"]])
def test_update_refuses_a_mask(paths: list[str]) -> None:
    request = s.UpdateDeploymentRequest(deployment=wanted(), update_mask=FieldMask(paths=paths))
    with pytest.raises(InvalidField) as refused:
        messages.parse_update(request)
    assert {violation.field for violation in refused.value.violations} == {"update_mask"}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (s.ListDeploymentsRequest(schema="prod"), "schema"),
        (s.ListDeploymentsRequest(page_size=-1), "page_size"),
    ],
)
def test_list_refuses(request_: s.ListDeploymentsRequest, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        messages.parse_list(request_)
    assert refused.value.metadata["field"] == field


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (s.ResolveResourceRequest(), "name"),
        (s.ResolveResourceRequest(name="a.b.c", id="1"), "name"),
        (s.ResolveResourceRequest(name="a.b"), "name"),
        (s.ResolveResourceRequest(id="x y"), "id"),
    ],
)
def test_resolve_refuses(request_: s.ResolveResourceRequest, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        messages.parse_resolve(request_)
    assert refused.value.metadata["field"] == field


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (s.ConfirmRoutesRequest(), "gateway_id"),
        (s.ConfirmRoutesRequest(gateway_id="a b"), "gateway_id"),
        (s.ConfirmRoutesRequest(gateway_id="g", version=-1), "version"),
    ],
)
def test_confirm_refuses(request_: s.ConfirmRoutesRequest, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        gateway_messages.parse_confirm(request_)
    assert refused.value.metadata["field"] == field


def test_deployment_tells_what_answers_and_what_comes() -> None:
    serving = replace(target(2), serving="prod.ml.iris/1", serving_digest="sha256:1", serving_weight=4)
    message = render.deployment_to_proto(
        deployment(serving, state=DeploymentState.UPDATING, ready={"prod.ml.iris/1": 3})
    )
    (status,) = message.target_statuses
    assert (status.model_version, status.next_model_version) == ("prod.ml.iris/1", "prod.ml.iris/2")
    assert (status.ready_replicas, status.weight, status.artifact_digest) == (3, 4, "sha256:1")
    assert message.state == d.Deployment.STATE_UPDATING
    assert message.timeout == Duration(seconds=1)
    assert message.etag == "1"


def test_replica_and_table_reach_the_wire() -> None:
    message = render.replica_to_proto(deployment(), replica(1), group(1, GroupState.SERVING))
    assert (message.model_version, message.state) == ("prod.ml.iris/1", d.Replica.STATE_READY)
    routes = (Route((SYSTEM,), (RouteTarget("g", "prod.ml.iris/1", 2, ("unix:/s",)),), 5, 1500),)
    table = render.table_to_proto(RouteTable(7, routes))
    (route,) = table.routes
    assert (table.version, route.targets[0].addresses, route.timeout.nanos) == (7, ["unix:/s"], 500_000_000)


def test_versions_to_find_are_read_once_each() -> None:
    request = s.FindDeploymentsRequest(model_version_ids=["0198-a", "0198-b", "0198-a"])
    assert messages.parse_find(request) == ("0198-a", "0198-b")


@pytest.mark.parametrize(
    ("ids", "field"),
    [
        ([], "model_version_ids"),
        ([f"{number:x}" for number in range(10_001)], "model_version_ids"),
        (["0198", "prod.ml.iris/1"], "model_version_ids[1]"),
        ([""], "model_version_ids[0]"),
    ],
    ids=["none", "too many", "a name", "empty"],
)
def test_malformed_versions_to_find_are_named(ids: list[str], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        messages.parse_find(s.FindDeploymentsRequest(model_version_ids=ids))
    assert caught.value.violations[0].field == field
