"""From the contract's messages to this service's own types. Every check of a request's shape is here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from modelyard import references
from modelyard.api.inference.v1 import deployment_pb2 as d
from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard_inference import (
    limit_messages,
    logging_messages,
    rollout_messages,
    scale_messages,
    setup_messages,
)
from modelyard_inference.commands import (
    ControlRollout,
    CreateDeployment,
    ListDeployments,
    ListReplicas,
    ListRevisions,
    RollbackDeployment,
    SetActive,
    UpdateDeployment,
)
from modelyard_inference.models import TargetSpec
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField, Violation
from modelyard_kit.filters import Asked
from modelyard_kit.idempotency import fingerprint

MAX_WEIGHT = 1_000_000
MAX_PERCENT = 100
MAX_FOUND_VERSIONS = 10_000
UPDATABLE = (
    "description",
    "targets",
    "replicas",
    "max_request_bytes",
    "timeout",
    "require_signature",
    "sticky_header",
    "rollout_policy",
    "resources",
    "autoscaling",
    "traffic_limits",
    "private",
    "logging",
    "batching",
    "environment_variables",
    "environment",
    "update_strategy",
    "owner_id",
)

_HEADER = re.compile(r"[a-z][a-z0-9-]{0,63}")
# What carries credentials, steers the call, or means something to the proxy.
_RESERVED_HEADER = re.compile(
    r"(authorization|cookie|host|te|connection|content-.*|grpc-.*|modelyard-.*|proxy-.*|x-envoy-.*|.*-bin)"
)
_ID = re.compile(r"[0-9a-f-]{1,64}")

Problems = list[Violation]
T = TypeVar("T")


# ---- requests -----------------------------------------------------------------------------------------------------------


def parse_create(request: s.CreateDeploymentRequest) -> CreateDeployment:
    """Read a request for an endpoint.

    Raises:
        InvalidField: naming every field that is missing or malformed.
        LimitExceeded: too many targets or replicas, or too long a text.
    """
    wanted = request.deployment
    limits.check("request_id_length", len(request.request_id))
    problems: Problems = []
    _check_name(wanted.name, "deployment.name", 3, problems)
    targets = _targets(wanted.targets, problems)
    replicas = scale_messages.parse_replicas(wanted.replicas, problems)
    size = limit_messages.max_request_bytes(wanted.max_request_bytes, problems)
    timeout = limit_messages.timeout_ms(wanted, problems)
    sticky = _sticky_header(wanted.sticky_header, problems)
    policy = rollout_messages.parse_policy(wanted.rollout_policy, problems)
    resources = scale_messages.parse_resources(wanted.resources, problems)
    autoscaling = scale_messages.parse_autoscaling(wanted.autoscaling, problems)
    traffic = limit_messages.parse_limits(wanted.traffic_limits, problems)
    log_policy = logging_messages.parse_policy(wanted.logging, problems)
    batching = setup_messages.parse_batching(wanted.batching, problems)
    variables = setup_messages.parse_variables(wanted.environment_variables, problems)
    environment = setup_messages.parse_environment(wanted.environment, problems)
    strategy = rollout_messages.parse_strategy(wanted.update_strategy, problems)
    _raise(problems)
    content = s.CreateDeploymentRequest(deployment=wanted).SerializeToString(deterministic=True)
    return CreateDeployment(
        name=wanted.name,
        description=_description(wanted.description),
        targets=targets,
        replicas=replicas,
        max_request_bytes=size,
        timeout_ms=timeout,
        require_signature=wanted.require_signature,
        request_id=request.request_id,
        fingerprint=fingerprint(content),
        reason=_reason(request.reason),
        sticky_header=sticky,
        rollout_policy=policy,
        resources=resources,
        autoscaling=autoscaling,
        traffic_limits=traffic,
        private=wanted.private,
        log_policy=log_policy,
        batching=batching,
        environment_variables=variables,
        environment=environment,
        update_strategy=strategy,
    )


def parse_update(request: s.UpdateDeploymentRequest) -> UpdateDeployment:
    """Read a request for changes; only the fields in the mask count.

    Raises:
        InvalidField: naming every field that is missing or malformed.
        LimitExceeded: too many targets or replicas, or too long a text.
    """
    wanted, mask = request.deployment, set(request.update_mask.paths)
    problems: Problems = []
    _check_name(wanted.name, "deployment.name", 3, problems)
    if not mask:
        problems.append(Violation("update_mask", f"name the fields to change: {', '.join(UPDATABLE)}"))
    problems += [
        Violation("update_mask", f"{path!r} cannot be changed; these can: {', '.join(UPDATABLE)}")
        for path in sorted(mask - set(UPDATABLE))
    ]

    def read(name: str, parse: Callable[[Any, Problems], T]) -> T | None:
        return parse(getattr(wanted, name), problems) if name in mask else None

    targets = read("targets", _targets)
    replicas = read("replicas", scale_messages.parse_replicas)
    size = read("max_request_bytes", limit_messages.max_request_bytes)
    timeout = limit_messages.timeout_ms(wanted, problems) if "timeout" in mask else None
    sticky = read("sticky_header", _sticky_header)
    policy = read("rollout_policy", rollout_messages.parse_policy)
    resources = read("resources", scale_messages.parse_resources)
    autoscaling = read("autoscaling", scale_messages.parse_autoscaling)
    traffic = read("traffic_limits", limit_messages.parse_limits)
    log_policy = read("logging", logging_messages.parse_policy)
    batching = read("batching", setup_messages.parse_batching)
    variables = read("environment_variables", setup_messages.parse_variables)
    environment = read("environment", setup_messages.parse_environment)
    strategy = read("update_strategy", rollout_messages.parse_strategy)
    if "owner_id" in mask and not _ID.fullmatch(wanted.owner_id):
        told = f"{wanted.owner_id[:80]!r} is not an id" if wanted.owner_id else "must be given"
        problems.append(Violation("deployment.owner_id", told))
    _raise(problems)
    return UpdateDeployment(
        wanted.name,
        wanted.etag,
        description=_description(wanted.description) if "description" in mask else None,
        targets=targets,
        replicas=replicas,
        max_request_bytes=size,
        timeout_ms=timeout,
        require_signature=wanted.require_signature if "require_signature" in mask else None,
        sticky_header=sticky,
        rollout_policy=policy,
        resources=resources,
        autoscaling=autoscaling,
        traffic_limits=traffic,
        private=wanted.private if "private" in mask else None,
        log_policy=log_policy,
        batching=batching,
        environment_variables=variables,
        environment=environment,
        update_strategy=strategy,
        owner_id=wanted.owner_id if "owner_id" in mask else None,
        reason=_reason(request.reason),
    )


def parse_rollback(request: s.RollbackDeploymentRequest) -> RollbackDeployment:
    """Read a request for the settings of an earlier revision.

    Raises:
        InvalidField: a malformed name or a revision below zero.
        LimitExceeded: too long a reason.
    """
    name = parse_deployment_name(request.name)
    if request.revision < 0:
        raise InvalidField("revision", f"{request.revision} is below zero; 0 means the one before")
    return RollbackDeployment(
        name,
        request.etag,
        request.revision,
        pin_versions=request.pin_versions,
        reason=_reason(request.reason),
    )


def parse_set_active(request: s.ActivateDeploymentRequest | s.DeactivateDeploymentRequest) -> SetActive:
    """Read a request to let a deployment answer or rest.

    Raises:
        InvalidField: a malformed name.
        LimitExceeded: too long a reason.
    """
    return SetActive(parse_deployment_name(request.name), request.etag, _reason(request.reason))


def parse_control(request: s.ControlRolloutRequest) -> ControlRollout:
    """Read what to do with a rollout.

    Raises:
        InvalidField: a malformed name or no verb.
        LimitExceeded: too long a reason.
    """
    name, verb = parse_deployment_name(request.name), rollout_messages.parse_verb(request)
    return ControlRollout(name, verb, request.etag, _reason(request.reason))


def parse_list(request: s.ListDeploymentsRequest) -> ListDeployments:
    """Read a request for a page.

    Raises:
        InvalidField: a malformed schema name or page size.
    """
    schema = _name(request.schema, "schema", 2) if request.schema else ""
    return ListDeployments(schema, Asked.of(request))


def parse_list_replicas(request: s.ListReplicasRequest) -> ListReplicas:
    """Read a request for a page of replicas.

    Raises:
        InvalidField: a malformed name or page size.
    """
    return ListReplicas(parse_deployment_name(request.deployment, "deployment"), Asked.of(request))


def parse_list_revisions(request: s.ListDeploymentRevisionsRequest) -> ListRevisions:
    """Read a request for a page of the history of a deployment.

    Raises:
        InvalidField: a malformed name or page size.
    """
    return ListRevisions(parse_deployment_name(request.deployment, "deployment"), Asked.of(request))


def parse_schema_of(name: str) -> str:
    """Return the full name of the schema in a deployment's name.

    Raises:
        InvalidField: it is no name of a deployment.
    """
    return _name(name, "deployment.name", 3).rpartition(".")[0]


def parse_deployment_name(name: str, field: str = "name") -> str:
    """Return the full name of a deployment.

    Raises:
        InvalidField: it is none.
    """
    return _name(name, field, 3)


def parse_resolve(request: s.ResolveResourceRequest) -> tuple[str, str]:
    """Return the name or the id of a deployment; the other is empty.

    Raises:
        InvalidField: not exactly one of them is given, or it is malformed.
    """
    if bool(request.name) == bool(request.id):
        raise InvalidField("name", "give either name or id")
    if request.id:
        return "", parse_id(request.id, "id")
    return _name(request.name, "name", 3), ""


def parse_find(request: s.FindDeploymentsRequest) -> tuple[str, ...]:
    """Return the ids of versions, each once.

    Raises:
        InvalidField: there is none, there are too many, or one is malformed.
    """
    ids = tuple(dict.fromkeys(request.model_version_ids))
    if not ids:
        raise InvalidField("model_version_ids", "give at least one id")
    if len(ids) > MAX_FOUND_VERSIONS:
        raise InvalidField("model_version_ids", f"has {len(ids)} ids; at most {MAX_FOUND_VERSIONS} at a time")
    for position, version_id in enumerate(ids):
        parse_id(version_id, f"model_version_ids[{position}]")
    return ids


def parse_id(text: str, field: str) -> str:
    """Return an id.

    Raises:
        InvalidField: it is none.
    """
    if not _ID.fullmatch(text):
        raise InvalidField(field, f"{text[:80]!r} is not an id")
    return text


def _name(text: str, field: str, parts: int) -> str:
    problems: Problems = []
    _check_name(text, field, parts, problems)
    _raise(problems)
    return text


def _check_name(text: str, field: str, parts: int, problems: Problems) -> None:
    try:
        references.parse_name(text, parts)
    except references.InvalidReference as error:
        problems.append(Violation(field, str(error) if text else "must be given"))


def _targets(messages: Sequence[d.TrafficTarget], problems: Problems) -> tuple[TargetSpec, ...]:
    limits.check("targets_per_deployment", len(messages))
    if not messages:
        problems.append(Violation("deployment.targets", "give at least one target"))
    found: dict[str, TargetSpec] = {}
    for index, message in enumerate(messages):
        field = f"deployment.targets[{index}]"
        _check_share(message, field, problems)
        try:
            reference = references.parse_version_reference(message.model_version)
        except references.InvalidReference as error:
            text = str(error) if message.model_version else "must be given"
            problems.append(Violation(f"{field}.model_version", text))
            continue
        if str(reference) in found:
            problems.append(Violation(f"{field}.model_version", f"{str(reference)!r} is a target already"))
        follows = reference.number is None
        weight = 0 if message.shadow_percent else message.weight or 1
        found[str(reference)] = TargetSpec(
            message.model_version, reference.model, follows, weight, message.shadow_percent
        )
    shadows = [spec for spec in found.values() if spec.shadow]
    answering = [spec for spec in found.values() if not spec.shadow]
    if len(shadows) > 1:
        told = f"{shadows[1].reference!r} is a second shadow; at most one target may be one"
        problems.append(Violation("deployment.targets", told))
    if shadows and not answering:
        problems.append(Violation("deployment.targets", "a shadow answers nobody: give a target that does"))
    return (*answering, *shadows)


def _check_share(message: d.TrafficTarget, field: str, problems: Problems) -> None:
    if not 0 <= message.weight <= MAX_WEIGHT:
        problems.append(Violation(f"{field}.weight", f"{message.weight} is not between 1 and {MAX_WEIGHT}"))
    if not 0 <= message.shadow_percent <= MAX_PERCENT:
        told = f"{message.shadow_percent} is not between 1 and {MAX_PERCENT}; 0 means that it answers"
        problems.append(Violation(f"{field}.shadow_percent", told))
    elif message.shadow_percent and message.weight:
        told = f"a shadow answers nobody, so it has no weight: leave out {message.weight}"
        problems.append(Violation(f"{field}.weight", told))


def _sticky_header(name: str, problems: Problems) -> str:
    if name and not _HEADER.fullmatch(name):
        told = f"{name[:80]!r} is not a header: use 1 to 64 lower-case letters, digits or '-', a letter first"
        problems.append(Violation("deployment.sticky_header", told))
    elif _RESERVED_HEADER.fullmatch(name):
        told = f"{name!r} has a meaning of its own; choose one of your own, such as x-customer"
        problems.append(Violation("deployment.sticky_header", told))
    return name


def _description(text: str) -> str:
    limits.check("description_length", len(text))
    return text


def _reason(text: str) -> str:
    limits.check("change_reason_length", len(text))
    return text


def _raise(problems: Problems) -> None:
    if problems:
        raise InvalidField.many(problems)
