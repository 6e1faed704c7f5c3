"""approvals, policies."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Format, Output, show_one, show_rows
from modelyard.cli._session import Limit, connect
from modelyard.cli.catalog import Reference
from modelyard.types import GatedAction

approvals = typer.Typer(help="Reviews of versions.", no_args_is_help=True)
policies = typer.Typer(help="What a version needs before it may be used.", no_args_is_help=True)

Alias = Annotated[
    list[str] | None,
    typer.Option("--alias", help="Alias to be moved; without it, a deployment. May be repeated."),
]
Governed = Annotated[str, typer.Argument(help="Name of a catalog, schema or model.", metavar="RESOURCE")]


@approvals.command("review")
def review(
    reference: Reference,
    decision: Annotated[str, typer.Argument(help="approve or reject.", metavar="DECISION")],
    comment: Annotated[str, typer.Option("--comment", "-m", help="Why; a rejection needs it.")] = "",
    output: Output = TABLE,
) -> None:
    """Approve or reject a version."""
    with connect() as client:
        show_one(client.approvals.review(reference, decision, comment=comment), output)


@approvals.command("show")
def show_approval(reference: Reference, output: Output = TABLE) -> None:
    """Show where a version stands."""
    with connect() as client:
        show_one(client.approvals.get(reference), output)


@approvals.command("list")
def list_approvals(
    filter_: Filter = "", order_by: OrderBy = "", limit: Limit = None, output: Output = TABLE
) -> None:
    """List where versions stand that somebody reviewed."""
    columns = ("model_version.name", "state", "approvals", "required_approvals", "reviews")
    with connect() as client:
        pager = client.approvals.list(filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), columns, output, empty="no approvals")


@policies.command("set")
def set_policy(
    resource: Governed,
    required_approvals: Annotated[
        int, typer.Option("--approvals", min=1, help="Principals that must approve.")
    ] = 1,
    allow_self_approval: Annotated[
        bool, typer.Option("--allow-self-approval", help="The author may be one of them.")
    ] = False,
    protected_alias: Annotated[
        list[str] | None,
        typer.Option(
            "--protect-alias", help="Alias for approved versions only; `*` for all. May be repeated."
        ),
    ] = None,
    protect_deployments: Annotated[
        bool, typer.Option("--protect-deployments", help="Only approved versions may be deployed.")
    ] = False,
    approver_group: Annotated[
        str, typer.Option("--approver-group", help="Group whose members' approvals count.")
    ] = "",
    approval_days: Annotated[
        int | None,
        typer.Option("--approval-days", min=1, help="Days that an approval counts; by default all."),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require", help="NAME=CEL, evidence over the facts of docs/policies.md. May be repeated."
        ),
    ] = None,
    output: Output = TABLE,
) -> None:
    """Put a policy on a catalog, schema or model, or replace the one there."""
    with connect() as client:
        policy = client.policies.set(
            resource,
            required_approvals=required_approvals,
            allow_self_approval=allow_self_approval,
            protected_aliases=protected_alias or (),
            protect_deployments=protect_deployments,
            approver_group=approver_group,
            approval_lifetime=timedelta(days=approval_days) if approval_days else None,
            conditions=_conditions(require or ()),
        )
        show_one(policy, output)


def _conditions(given: Iterable[str]) -> dict[str, str]:
    conditions = {}
    for text in given:
        name, equals, expression = text.partition("=")
        if not (name and equals and expression):
            raise typer.BadParameter(
                f"{text!r}: write NAME=EXPRESSION, for example accurate='metrics.f1 > 0.9'"
            )
        conditions[name] = expression
    return conditions


@policies.command("list")
def list_policies(
    filter_: Filter = "", order_by: OrderBy = "", limit: Limit = None, output: Output = TABLE
) -> None:
    """List every policy."""
    columns = (
        "resource.name",
        "required_approvals",
        "approver_group",
        "protected_aliases",
        "protect_deployments",
    )
    with connect() as client:
        pager = client.policies.list(filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), columns, output, empty="no policies")


@policies.command("explain")
def explain(reference: Reference, alias: Alias = None, output: Output = TABLE) -> None:
    """Tell what the gate would say of a deployment now, or of moving aliases. Exit code 1 when it refuses."""
    with connect() as client:
        action = GatedAction.MOVE_ALIAS if alias else GatedAction.DEPLOY
        found = client.policies.explain(reference, action, aliases=alias or ())
    if output is Format.JSON:
        show_one(found, output)
    elif not found.gated:
        typer.echo("No policy holds this back.")
    else:
        show_rows(found.conditions, ("met", "name", "problem"), output)
        if found.override is not None:
            typer.echo(f"Overridden by {found.override.principal}: {found.override.reason}")
    if not found:
        raise typer.Exit(1)


@policies.command("override")
def override(
    reference: Reference,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; it is audited.")],
    alias: Alias = None,
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=1440, help="How long it counts.")] = 60,
    output: Output = TABLE,
) -> None:
    """Let a version be deployed, or aliases move to it, whatever the policy says: for emergencies."""
    action = GatedAction.MOVE_ALIAS if alias else GatedAction.DEPLOY
    with connect() as client:
        made = client.policies.override(
            reference, reason, action, aliases=alias or (), lifetime=timedelta(minutes=minutes)
        )
        show_one(made, output)


@policies.command("show")
def show_policy(resource: Governed, output: Output = TABLE) -> None:
    """Show the policy that applies to a catalog, schema or model."""
    with connect() as client:
        policy = client.policies.get(resource)
    if policy is not None:
        show_one(policy, output)
    elif output is Format.JSON:
        typer.echo("null")
    else:
        typer.echo(f"No policy applies to {resource}.")
