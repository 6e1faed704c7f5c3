"""deployments."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from modelyard.cli._autoscaling import Scaling, parse_autoscaling
from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._limits import Limits, parse_limits
from modelyard.cli._logging import Logging, parse_logging
from modelyard.cli._output import TABLE, Format, Output, brief, plain, show_one, show_rows
from modelyard.cli._resources import ResourceBounds, parse_resources
from modelyard.cli._rollout import Rollout, parse_rollout
from modelyard.cli._session import Description, Etag, Limit, connect
from modelyard.cli._setup import (
    BatchingBounds,
    PythonEnvironment,
    Strategy,
    Variables,
    parse_batching,
    parse_environment,
    parse_variables,
)
from modelyard.types import (
    ConditionStatus,
    Deployment,
    DeploymentRevision,
    DeploymentState,
    RolloutVerb,
    TrafficTarget,
)

deployments = typer.Typer(help="Names that answer predictions.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Full name of the deployment: prod.ml_team.iris.", metavar="NAME")]
Replicas = Annotated[
    int | None, typer.Option("--replicas", "-r", min=1, max=64, help="Processes per target.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers.")]
WaitSeconds = Annotated[float, typer.Option("--wait-timeout", min=0, help="Longest wait in seconds.")]
RequestSeconds = Annotated[
    float | None,
    typer.Option("--timeout", min=0.001, help="Longest time a prediction may take, in seconds; at first 60."),
]
MaxBytes = Annotated[
    int | None, typer.Option("--max-request-bytes", min=0, help="Largest request; 0 for the usual 64 MiB.")
]
RequireSignature = Annotated[
    bool | None,
    typer.Option(
        "--require-signature/--no-require-signature", help="Load only models that a trust root vouches for."
    ),
]
StickyHeader = Annotated[
    str | None,
    typer.Option(
        "--sticky-header",
        metavar="NAME",
        help="Calls with the same value of this header meet the same target: x-customer; '' for none.",
    ),
]
Private = Annotated[
    bool | None,
    typer.Option(
        "--private/--public", help="Answer on the private listener of the gateways alone, or on all."
    ),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")]
_TARGET_HELP = (
    "Version reference, if wanted with a weight: prod.ml_team.iris/2=10. An alias is followed."
    " With =shadow:PERCENT it answers nobody and gets a copy of that share of the predictions."
)
_SHADOW = "shadow:"


@deployments.command("list")
def list_deployments(
    schema: Annotated[str, typer.Argument(help="Full name of a schema; by default all.")] = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List deployments; of a state message, which may end with a replica's log, a table has the first line."""
    columns = ("name", "state", "replicas", "targets", "state_message", "update_time")
    with connect() as client:
        found = client.deployments.list(schema, filter=filter_, order_by=order_by).collect(limit)
    if output is not Format.JSON:
        found = [replace(each, state_message=each.state_message.partition("\n")[0]) for each in found]
    show_rows(found, columns, output, empty="no deployments")


@deployments.command("show")
def show(name: Name, output: Output = TABLE) -> None:
    """Show one deployment and what each target is doing."""
    with connect() as client:
        show_one(client.deployments.get(name), output)


@deployments.command("create")
def create(
    name: Name,
    targets: Annotated[list[str], typer.Argument(metavar="VERSION[=WEIGHT]...", help=_TARGET_HELP)],
    replicas: Replicas = 1,
    description: Description = "",
    timeout: RequestSeconds = None,
    max_request_bytes: MaxBytes = None,
    require_signature: RequireSignature = None,
    sticky_header: StickyHeader = None,
    rollout: Rollout = None,
    resources: ResourceBounds = None,
    autoscaling: Scaling = None,
    limits: Limits = None,
    private: Private = None,
    logging: Logging = None,
    batching: BatchingBounds = None,
    env: Variables = None,
    environment: PythonEnvironment = None,
    update_strategy: Strategy = None,
    reason: Reason = "",
    wait: Wait = True,
    wait_timeout: WaitSeconds = 300,
    output: Output = TABLE,
) -> None:
    """Make an endpoint and wait until it answers."""
    with connect() as client:
        deployment = client.deployments.create(
            name,
            _targets(targets),
            replicas=replicas or 1,
            description=description,
            timeout=timeout,
            max_request_bytes=max_request_bytes or 0,
            require_signature=bool(require_signature),
            sticky_header=sticky_header or "",
            rollout_policy=parse_rollout(rollout),
            resources=parse_resources(resources),
            autoscaling=parse_autoscaling(autoscaling),
            traffic_limits=parse_limits(limits),
            private=bool(private),
            logging=parse_logging(logging),
            batching=parse_batching(batching),
            environment_variables=parse_variables(env),
            environment=parse_environment(environment),
            update_strategy=update_strategy,
            reason=reason,
        )
        show_one(client.deployments.wait(name, timeout=wait_timeout) if wait else deployment, output)


@deployments.command("update")
def update(
    name: Name,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", metavar="VERSION[=WEIGHT]", help=_TARGET_HELP + " May be repeated."),
    ] = None,
    replicas: Replicas = None,
    description: Annotated[str | None, typer.Option("--description", "-d", help="Free text.")] = None,
    timeout: RequestSeconds = None,
    max_request_bytes: MaxBytes = None,
    require_signature: RequireSignature = None,
    sticky_header: StickyHeader = None,
    rollout: Rollout = None,
    resources: ResourceBounds = None,
    autoscaling: Scaling = None,
    limits: Limits = None,
    private: Private = None,
    logging: Logging = None,
    batching: BatchingBounds = None,
    env: Variables = None,
    environment: PythonEnvironment = None,
    update_strategy: Strategy = None,
    owner: Annotated[
        str | None, typer.Option("--owner", help="Name of the principal that is to own it.")
    ] = None,
    etag: Etag = "",
    reason: Reason = "",
    wait: Wait = True,
    wait_timeout: WaitSeconds = 300,
    output: Output = TABLE,
) -> None:
    """Change an endpoint: the old answers until the new does."""
    with connect() as client:
        deployment = client.deployments.update(
            name,
            targets=_targets(target) if target else None,
            replicas=replicas,
            description=description,
            timeout=timeout,
            max_request_bytes=max_request_bytes,
            require_signature=require_signature,
            sticky_header=sticky_header,
            rollout_policy=parse_rollout(rollout),
            resources=parse_resources(resources),
            autoscaling=parse_autoscaling(autoscaling),
            traffic_limits=parse_limits(limits),
            private=private,
            logging=parse_logging(logging),
            batching=parse_batching(batching),
            environment_variables=parse_variables(env),
            environment=parse_environment(environment),
            update_strategy=update_strategy,
            owner=owner,
            etag=etag,
            reason=reason,
        )
        show_one(client.deployments.wait(name, timeout=wait_timeout) if wait else deployment, output)


@deployments.command("history")
def history(
    name: Name, filter_: Filter = "", order_by: OrderBy = "", limit: Limit = None, output: Output = TABLE
) -> None:
    """List the revisions of an endpoint, the newest first: who changed what, when and why."""
    with connect() as client:
        found = client.deployments.history(name, filter=filter_, order_by=order_by).collect(limit)
    if output is Format.JSON:
        show_rows(found, (), output)
        return
    columns = ("revision", "time", "actor", "change", "targets", "settings", "reason")
    show_rows([_past(revision) for revision in found], columns, output, empty="no revisions")


@deployments.command("rollback")
def rollback(
    name: Name,
    revision: Annotated[
        int,
        typer.Argument(min=0, help="Number in the history; by default the newest with other settings."),
    ] = 0,
    pin_versions: Annotated[
        bool,
        typer.Option("--pin-versions", help="The versions of then, where targets follow an alias."),
    ] = False,
    etag: Etag = "",
    reason: Reason = "",
    wait: Wait = True,
    wait_timeout: WaitSeconds = 300,
    output: Output = TABLE,
) -> None:
    """Bring the settings of an earlier revision back."""
    with connect() as client:
        deployment = client.deployments.rollback(
            name, revision, pin_versions=pin_versions, etag=etag, reason=reason
        )
        show_one(client.deployments.wait(name, timeout=wait_timeout) if wait else deployment, output)


@deployments.command("rollout")
def rollout(
    name: Name,
    verb: Annotated[RolloutVerb, typer.Argument(case_sensitive=False, help="What to do.")],
    etag: Etag = "",
    reason: Reason = "",
    output: Output = TABLE,
) -> None:
    """Pause, resume, promote or abort the rollout in steps that is under way."""
    with connect() as client:
        show_one(client.deployments.control_rollout(name, verb, etag=etag, reason=reason), output)


@deployments.command("watch")
def watch(name: Name, output: Output = TABLE) -> None:
    """Follow an endpoint until it is gone or you interrupt; JSON comes as one object on each line."""
    with connect() as client:
        try:
            for deployment in client.deployments.watch(name):
                typer.echo(json.dumps(plain(deployment)) if output is Format.JSON else _line(deployment))
        except KeyboardInterrupt:
            return
    typer.echo(f"Deployment {name} is gone.", err=True)


@deployments.command("activate")
def activate(
    name: Name,
    etag: Etag = "",
    reason: Reason = "",
    wait: Wait = True,
    wait_timeout: WaitSeconds = 300,
    output: Output = TABLE,
) -> None:
    """Let an inactive endpoint answer again."""
    with connect() as client:
        deployment = client.deployments.activate(name, etag=etag, reason=reason)
        show_one(client.deployments.wait(name, timeout=wait_timeout) if wait else deployment, output)


@deployments.command("deactivate")
def deactivate(
    name: Name,
    etag: Etag = "",
    reason: Reason = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until nothing runs any more.")] = True,
    wait_timeout: WaitSeconds = 120,
    output: Output = TABLE,
) -> None:
    """End everything that an endpoint runs and keep its settings."""
    with connect() as client:
        deployment = client.deployments.deactivate(name, etag=etag, reason=reason)
        if wait:
            deployment = client.deployments.wait(name, state=DeploymentState.INACTIVE, timeout=wait_timeout)
        show_one(deployment, output)


@deployments.command("delete")
def delete(
    name: Name,
    etag: Etag = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone.")] = True,
    wait_timeout: WaitSeconds = 120,
) -> None:
    """Drain and remove an endpoint."""
    with connect() as client:
        client.deployments.delete(name, etag=etag)
        if wait:
            client.deployments.wait_deleted(name, timeout=wait_timeout)
    typer.echo(f"Deployment {name} is {'gone' if wait else 'being drained'}.")


@deployments.command("replicas")
def replicas(name: Name, filter_: Filter = "", order_by: OrderBy = "", output: Output = TABLE) -> None:
    """List the processes behind a deployment."""
    columns = (
        "id", "model_version", "state", "process_id", "restarts", "next_start_time", "signature_state", "address",
        "state_message",
    )  # fmt: skip
    with connect() as client:
        found = client.deployments.replicas(name, filter=filter_, order_by=order_by)
        show_rows(found, columns, output, empty="no replicas")


@dataclass(frozen=True)
class _Past:
    """A revision as a row for people; of its settings those that it changed."""

    revision: int
    time: datetime | None
    actor: str
    change: str
    targets: str
    settings: str
    reason: str


def _past(revision: DeploymentRevision) -> _Past:
    targets = []
    for target, version in zip(revision.settings.targets, revision.model_versions, strict=True):
        meant = "" if target.model_version == version else f" ({version})"
        share = f"{_SHADOW}{target.shadow_percent}" if target.shadow_percent else target.weight
        targets.append(f"{target.model_version}{meant}={share}")
    back = f" to {revision.rolled_back_to}" if revision.rolled_back_to else ""
    changed = [
        name for name in revision.changed_fields if name != "targets" and hasattr(revision.settings, name)
    ]
    return _Past(
        revision.revision,
        revision.create_time,
        revision.actor_name,
        f"{revision.change}{back}",
        "\n".join(targets),
        "\n".join(f"{name}: {brief(getattr(revision.settings, name)) or 'default'}" for name in changed),
        revision.reason,
    )


def _line(deployment: Deployment) -> str:
    """One state in a line: when it was seen, what it is, and which conditions do not hold."""
    waited = [c for c in deployment.conditions if c.status is not ConditionStatus.TRUE]
    time = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    told = "; ".join(f"{c.type} {c.reason}: {c.message}" for c in waited) or deployment.state_message
    return f"{time}  {deployment.state:<9}  revision {deployment.revision}  {told}".rstrip()


def _targets(texts: list[str]) -> list[TrafficTarget]:
    return [_target(text) for text in texts]


def _target(text: str) -> TrafficTarget:
    reference, equals, weight = text.partition("=")
    if weight.startswith(_SHADOW):
        percent = weight.removeprefix(_SHADOW)
        if not (percent.isdecimal() and 1 <= int(percent) <= 100):
            raise typer.BadParameter(f"{percent!r} in {text!r} is not a percentage: write 1 to 100")
        return TrafficTarget(reference, shadow_percent=int(percent))
    if equals and not (weight.isdecimal() and int(weight)):
        raise typer.BadParameter(f"{weight!r} in {text!r} is not a weight: write 1, 2, 3 …")
    return TrafficTarget(reference, int(weight) if equals else 1)
