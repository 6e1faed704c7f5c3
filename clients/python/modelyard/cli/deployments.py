"""deployments."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import Description, Limit, connect
from modelyard.types import DeploymentState, TrafficTarget

deployments = typer.Typer(help="Names that answer predictions.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Full name of the deployment: prod.ml_team.iris.", metavar="NAME")]
Replicas = Annotated[
    int | None, typer.Option("--replicas", "-r", min=1, max=64, help="Processes per target.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it answers.")]
WaitSeconds = Annotated[float, typer.Option("--wait-timeout", min=0, help="Longest wait in seconds.")]
RequestSeconds = Annotated[
    float | None, typer.Option("--timeout", min=0.001, help="Longest time a prediction may take, in seconds.")
]
MaxBytes = Annotated[int | None, typer.Option("--max-request-bytes", min=1, help="Largest request.")]
RequireSignature = Annotated[
    bool | None,
    typer.Option(
        "--require-signature/--no-require-signature", help="Load only models that a trust root vouches for."
    ),
]
_TARGET_HELP = "Version reference, if wanted with a weight: prod.ml_team.iris/2=10. An alias is followed."


@deployments.command("list")
def list_deployments(
    schema: Annotated[str, typer.Argument(help="Full name of a schema; by default all.")] = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List deployments."""
    columns = ("name", "state", "replicas", "targets", "state_message", "update_time")
    with connect() as client:
        pager = client.deployments.list(schema, filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), columns, output, empty="no deployments")


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
    etag: Annotated[
        str, typer.Option("--etag", help="Change it only if nobody did since you read this.")
    ] = "",
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
            etag=etag,
        )
        show_one(client.deployments.wait(name, timeout=wait_timeout) if wait else deployment, output)


@deployments.command("activate")
def activate(name: Name, wait: Wait = True, wait_timeout: WaitSeconds = 300, output: Output = TABLE) -> None:
    """Let an inactive endpoint answer again."""
    with connect() as client:
        deployment = client.deployments.activate(name)
        show_one(client.deployments.wait(name, timeout=wait_timeout) if wait else deployment, output)


@deployments.command("deactivate")
def deactivate(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until nothing runs any more.")] = True,
    wait_timeout: WaitSeconds = 120,
    output: Output = TABLE,
) -> None:
    """End everything that an endpoint runs and keep its settings."""
    with connect() as client:
        deployment = client.deployments.deactivate(name)
        if wait:
            deployment = client.deployments.wait(name, state=DeploymentState.INACTIVE, timeout=wait_timeout)
        show_one(deployment, output)


@deployments.command("delete")
def delete(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone.")] = True,
    wait_timeout: WaitSeconds = 120,
) -> None:
    """Drain and remove an endpoint."""
    with connect() as client:
        client.deployments.delete(name)
        if wait:
            client.deployments.wait_deleted(name, timeout=wait_timeout)
    typer.echo(f"Deployment {name} is {'gone' if wait else 'being drained'}.")


@deployments.command("replicas")
def replicas(name: Name, filter_: Filter = "", order_by: OrderBy = "", output: Output = TABLE) -> None:
    """List the processes behind a deployment."""
    columns = (
        "id", "model_version", "state", "process_id", "restarts", "signature_state", "address", "state_message",
    )  # fmt: skip
    with connect() as client:
        found = client.deployments.replicas(name, filter=filter_, order_by=order_by)
        show_rows(found, columns, output, empty="no replicas")


def _targets(texts: list[str]) -> list[TrafficTarget]:
    return [_target(text) for text in texts]


def _target(text: str) -> TrafficTarget:
    reference, equals, weight = text.partition("=")
    if equals and not (weight.isdecimal() and int(weight)):
        raise typer.BadParameter(f"{weight!r} in {text!r} is not a weight: write 1, 2, 3 …")
    return TrafficTarget(reference, int(weight) if equals else 1)
