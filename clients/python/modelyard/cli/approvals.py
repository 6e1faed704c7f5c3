"""approvals, policies."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Format, Output, show_one, show_rows
from modelyard.cli._session import Limit, connect
from modelyard.cli.catalog import Reference

approvals = typer.Typer(help="Reviews of versions.", no_args_is_help=True)
policies = typer.Typer(help="What a version needs before it may be used.", no_args_is_help=True)

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
        )
        show_one(policy, output)


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
