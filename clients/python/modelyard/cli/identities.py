"""groups, issuers, and the keys that sign tokens."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import Limit, connect

groups = typer.Typer(help="Who is in which group.", no_args_is_help=True)
issuers = typer.Typer(help="OpenID Connect providers whose tokens are accepted.", no_args_is_help=True)

GroupName = Annotated[str, typer.Argument(help="Name of the group.", metavar="GROUP")]
MemberName = Annotated[str, typer.Argument(help="Name of a principal or group.", metavar="MEMBER")]
IssuerName = Annotated[str, typer.Argument(help="What it is called.", metavar="NAME")]


@groups.command("list")
def list_memberships(
    filter_: Filter = "", order_by: OrderBy = "", limit: Limit = None, output: Output = TABLE
) -> None:
    """List who is directly in which group; of one group with --filter "group = 'ml-team'"."""
    columns = ("group", "member", "member_kind", "issuer", "create_time")
    with connect() as client:
        pager = client.groups.list(filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), columns, output, empty="no members")


@groups.command("add")
def add_member(group: GroupName, member: MemberName, output: Output = TABLE) -> None:
    """Put a principal or group into a group."""
    with connect() as client:
        show_one(client.groups.add(group, member), output)


@groups.command("remove")
def remove_member(group: GroupName, member: MemberName) -> None:
    """Take a member out of a group."""
    with connect() as client:
        removed = client.groups.remove(group, member)
    typer.echo("Taken out." if removed else "It was no member.")


@issuers.command("list")
def list_issuers(
    filter_: Filter = "", order_by: OrderBy = "", limit: Limit = None, output: Output = TABLE
) -> None:
    """List external issuers."""
    columns = ("name", "url", "audience", "principal_claim", "groups_claim", "create_principals")
    with connect() as client:
        pager = client.issuers.list(filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), columns, output, empty="no issuers")


@issuers.command("create")
def create_issuer(
    name: IssuerName,
    url: Annotated[str, typer.Argument(help="Value of the claim `iss`.")],
    audience: Annotated[str, typer.Argument(help="Value that the claim `aud` must contain.")],
    principal_claim: Annotated[str, typer.Option(help="Claim with the name; by default `sub`.")] = "",
    principal_prefix: Annotated[str, typer.Option(help="Put before that name.")] = "",
    groups_claim: Annotated[str, typer.Option(help="Claim with the names of groups.")] = "",
    group_prefix: Annotated[str, typer.Option(help="Put before these names.")] = "",
    create_principals: Annotated[
        bool, typer.Option("--create-principals", help="Make a principal of an unknown user.")
    ] = False,
    output: Output = TABLE,
) -> None:
    """Accept the tokens of an OpenID Connect provider."""
    with connect() as client:
        made = client.issuers.create(
            name,
            url,
            audience,
            principal_claim=principal_claim,
            principal_prefix=principal_prefix,
            groups_claim=groups_claim,
            group_prefix=group_prefix,
            create_principals=create_principals,
        )
        show_one(made, output)


@issuers.command("delete")
def delete_issuer(name: IssuerName) -> None:
    """Accept its tokens no more."""
    with connect() as client:
        deleted = client.issuers.delete(name)
    typer.echo("Deleted." if deleted else "There was no such issuer.")


def add_to(tokens: typer.Typer) -> None:
    """Add the verb that is about the keys behind tokens."""

    @tokens.command("rotate-key")
    def rotate_key(
        withdraw_now: Annotated[
            bool, typer.Option("--withdraw-now", help="An older key leaked: let none of them count any more.")
        ] = False,
        output: Output = TABLE,
    ) -> None:
        """Let another key sign the short-lived tokens of calls."""
        with connect() as client:
            keys = client.tokens.rotate_signing_key(withdraw_now=withdraw_now)
        show_rows(keys, ("kid", "alg", "sign_time", "withdraw_time"), output)
