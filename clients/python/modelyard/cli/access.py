"""principals, tokens, grants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import Description, Limit, connect
from modelyard.types import Effect, PrincipalKind, Privilege, ResourceType

principals = typer.Typer(help="Users and service accounts.", no_args_is_help=True)
tokens = typer.Typer(help="API tokens: long-lived secrets.", no_args_is_help=True)
grants = typer.Typer(help="Who may do what.", no_args_is_help=True)

PrincipalName = Annotated[
    str, typer.Argument(help="Name of the user or service account.", metavar="PRINCIPAL")
]
OtherPrincipal = Annotated[str, typer.Option("--principal", help="Name of the principal; by default you.")]
PrivilegeName = Annotated[
    str, typer.Argument(help=f"One of {', '.join(Privilege)}.", metavar="PRIVILEGE", case_sensitive=False)
]
ResourceName = Annotated[
    str, typer.Argument(help="Name of the resource; by default the whole installation.", metavar="RESOURCE")
]
Kind = Annotated[str, typer.Option("--type", help="MODEL or DEPLOYMENT, for a name of three parts.")]
Deny = Annotated[bool, typer.Option("--deny", help="A denial, which wins over every grant.")]


@principals.command("list")
def list_principals(
    filter_: Filter = "", order_by: OrderBy = "", limit: Limit = None, output: Output = TABLE
) -> None:
    """List principals."""
    columns = ("name", "kind", "display_name", "create_time", "disable_time", "id")
    with connect() as client:
        show_rows(client.principals.list(filter=filter_, order_by=order_by).collect(limit), columns, output)


@principals.command("show")
def show_principal(name: PrincipalName, output: Output = TABLE) -> None:
    """Show one principal."""
    with connect() as client:
        show_one(client.principals.get(name), output)


@principals.command("create")
def create_principal(
    name: PrincipalName,
    service_account: Annotated[
        bool, typer.Option("--service-account", help="A program, not a person.")
    ] = False,
    group: Annotated[bool, typer.Option("--group", help="Several principals together.")] = False,
    display_name: Annotated[str, typer.Option("--display-name", help="Name to show.")] = "",
    issuer: Annotated[str, typer.Option("--issuer", help="External issuer it comes from.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="Its claim `sub` at that issuer.")] = "",
    output: Output = TABLE,
) -> None:
    """Make a user, a service account or a group."""
    if group and service_account:
        raise typer.BadParameter("say --group or --service-account, not both")
    kind = PrincipalKind.SERVICE_ACCOUNT if service_account else PrincipalKind.USER
    with connect() as client:
        made = client.principals.create(
            name,
            kind=PrincipalKind.GROUP if group else kind,
            display_name=display_name,
            issuer=issuer,
            subject=subject,
        )
        show_one(made, output)


@principals.command("disable")
def disable_principal(name: PrincipalName, output: Output = TABLE) -> None:
    """Take everything from a user or service account, within a second and everywhere."""
    with connect() as client:
        show_one(client.principals.disable(name), output)


@principals.command("enable")
def enable_principal(name: PrincipalName, output: Output = TABLE) -> None:
    """Give back what `disable` took."""
    with connect() as client:
        show_one(client.principals.enable(name), output)


@tokens.command("list")
def list_tokens(
    principal: OtherPrincipal = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List API tokens, without their secrets."""
    columns = ("id", "principal", "description", "privileges", "expire_time", "revoke_time", "last_use_time")
    with connect() as client:
        pager = client.tokens.list(principal=principal, filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), columns, output, empty="no tokens")


@tokens.command("create")
def create_token(
    principal: OtherPrincipal = "",
    description: Description = "",
    days: Annotated[
        int | None, typer.Option("--days", min=1, help="Days until it stops working; by default 90.")
    ] = None,
    privilege: Annotated[
        list[str] | None, typer.Option("--privilege", help="Give this one only. May be repeated.")
    ] = None,
    output: Output = TABLE,
) -> None:
    """Make an API token. Its secret is shown only now: keep it."""
    expire_time = datetime.now(UTC) + timedelta(days=days) if days else None
    with connect() as client:
        made = client.tokens.create(
            principal=principal,
            description=description,
            expire_time=expire_time,
            privileges=privilege or (),
        )
        show_one(
            {
                "id": made.token.id,
                "principal": made.token.principal,
                "expire_time": made.token.expire_time,
                "secret": made.secret,
            },
            output,
        )


@tokens.command("revoke")
def revoke_token(
    token_id: Annotated[
        str, typer.Argument(help="Id of the token: see `modelyard tokens list`.", metavar="ID")
    ],
    output: Output = TABLE,
) -> None:
    """End an API token."""
    with connect() as client:
        show_one(client.tokens.revoke(token_id), output)


@grants.command("list")
def list_grants(
    resource: ResourceName = "",
    kind: Kind = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List the grants on a resource itself; inherited ones stand on its containers."""
    columns = ("principal", "privilege", "effect", "resource.name", "create_time")
    with connect() as client:
        pager = client.grants.list(resource, resource_type=kind or None, filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), columns, output, empty="no grants")


@grants.command("create")
def create_grant(
    principal: PrincipalName,
    privilege: PrivilegeName,
    resource: ResourceName = "",
    kind: Kind = "",
    deny: Deny = False,
    output: Output = TABLE,
) -> None:
    """Give a privilege on a resource and everything inside it, now and later."""
    effect = Effect.DENY if deny else Effect.ALLOW
    with connect() as client:
        show_one(
            client.grants.create(principal, privilege, resource, resource_type=_kind(kind), effect=effect),
            output,
        )


@grants.command("delete")
def delete_grant(
    principal: PrincipalName,
    privilege: PrivilegeName,
    resource: ResourceName = "",
    kind: Kind = "",
    deny: Deny = False,
) -> None:
    """Take a grant back."""
    effect = Effect.DENY if deny else Effect.ALLOW
    with connect() as client:
        deleted = client.grants.delete(
            principal, privilege, resource, resource_type=_kind(kind), effect=effect
        )
    typer.echo("Taken back." if deleted else "There was no such grant.")


@grants.command("of")
def grants_of(
    principal: Annotated[str, typer.Argument(help="Principal or group; by default you.")] = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List what a principal or group was given itself, on whatever resource."""
    columns = ("resource.type", "resource.name", "privilege", "effect", "create_time")
    with connect() as client:
        pager = client.grants.held_by(principal, filter=filter_, order_by=order_by)
        show_rows(pager.collect(limit), columns, output, empty="no grants")


@grants.command("effective")
def effective(
    resource: ResourceName = "",
    kind: Kind = "",
    principal: OtherPrincipal = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also which grant decides, and what is missing.")
    ] = False,
    output: Output = TABLE,
) -> None:
    """Show what a principal may do with a resource, from all grants, groups and ownership together."""
    with connect() as client:
        found = client.grants.effective(resource, resource_type=_kind(kind), principal=principal)
    columns = ("privilege", "allowed", "explanation") if explain else ("privilege", "allowed")
    show_rows(found, columns, output)


@grants.command("check")
def check(
    privilege: PrivilegeName,
    resource: ResourceName = "",
    kind: Kind = "",
    principal: OtherPrincipal = "",
    output: Output = TABLE,
) -> None:
    """Tell whether a principal has a privilege, and why. Exit code 1 when not."""
    with connect() as client:
        decision = client.grants.check(privilege, resource, resource_type=_kind(kind), principal=principal)
    show_one(decision, output)
    if not decision:
        raise typer.Exit(1)


def _kind(text: str) -> ResourceType | str | None:
    return text or None
