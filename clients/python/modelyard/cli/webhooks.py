"""webhooks."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Annotated

import typer

from modelyard.cli._life_cycle import Filter, OrderBy
from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import Limit, connect
from modelyard.types import NewWebhook

webhooks = typer.Typer(help="Addresses that are told of events.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the webhook.", metavar="NAME")]


@webhooks.command("create")
def create(
    name: Name,
    url: Annotated[str, typer.Argument(help="Address: https://…", metavar="URL")],
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only this type: catalog.alias.moved, catalog.alias.*; may be repeated.",
        ),
    ] = None,
    resource: Annotated[
        str,
        typer.Option("--resource", "-r", help="Only about what has this name, or is inside it."),
    ] = "",
    output: Output = TABLE,
) -> None:
    """Send events to an address from now on. Its secret is shown only now: keep it."""
    with connect() as client:
        made = client.webhooks.create(name, url, types=types or (), resource=resource)
    _show_new(made, output)


def _show_new(made: NewWebhook, output: Output) -> None:
    shown = {field.name: getattr(made.webhook, field.name) for field in dataclasses.fields(made.webhook)}
    show_one({**shown, "secret": made.secret}, output)


@webhooks.command("show")
def show(name: Name, output: Output = TABLE) -> None:
    """Show a webhook."""
    with connect() as client:
        show_one(client.webhooks.get(name), output)


@webhooks.command("list")
def list_webhooks(
    filter_: Filter = "", order_by: OrderBy = "", limit: Limit = None, output: Output = TABLE
) -> None:
    """List webhooks."""
    columns = ("name", "url", "state", "types", "resource", "failures")
    with connect() as client:
        found = client.webhooks.list(filter=filter_, order_by=order_by).collect(limit)
    show_rows(found, columns, output, empty="no webhooks")


@webhooks.command("update")
def update(
    name: Name,
    url: Annotated[str | None, typer.Option("--url", help="Address: https://…")] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Only this type, in the place of those there; may be repeated. '' means all.",
        ),
    ] = None,
    resource: Annotated[
        str | None,
        typer.Option(
            "--resource", "-r", help="Only about what has this name, or is inside it; '' means all."
        ),
    ] = None,
    output: Output = TABLE,
) -> None:
    """Change what is given. The secret stays; what waits to be sent goes to the new address."""
    wanted = None if types is None else [each for each in types if each]
    with connect() as client:
        show_one(client.webhooks.update(name, url=url, types=wanted, resource=resource), output)


@webhooks.command("rotate-secret")
def rotate_secret(
    name: Name,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Earlier secrets count no more from now on, as after a leak.")
    ] = False,
    output: Output = TABLE,
) -> None:
    """Make another secret, shown only now. Requests are signed with the one before as well for 24 hours."""
    with connect() as client:
        _show_new(client.webhooks.rotate_secret(name, revoke=revoke), output)


@webhooks.command("pause")
def pause(name: Name, output: Output = TABLE) -> None:
    """Stop sending; what happens meanwhile is sent after a resume."""
    with connect() as client:
        show_one(client.webhooks.pause(name), output)


@webhooks.command("resume")
def resume(name: Name, output: Output = TABLE) -> None:
    """Send again, at once."""
    with connect() as client:
        show_one(client.webhooks.resume(name), output)


@webhooks.command("delete")
def delete(name: Name) -> None:
    """Take a webhook away with its log."""
    with connect() as client:
        deleted = client.webhooks.delete(name)
    typer.echo(f"deleted {name}" if deleted else f"there was no {name}")


@webhooks.command("deliveries")
def deliveries(
    name: Name,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = None,
    output: Output = TABLE,
) -> None:
    """List what was sent, what was not, and why."""
    columns = ("id", "sequence", "type", "state", "attempts", "status_code", "error", "next_attempt_time")
    with connect() as client:
        found = client.webhooks.deliveries(name, filter=filter_, order_by=order_by).collect(limit)
    show_rows(found, columns, output, empty="no deliveries")


@webhooks.command("replay")
def replay(
    name: Name,
    delivery: Annotated[str, typer.Option("--delivery", help="Only this delivery.", metavar="ID")] = "",
    since: Annotated[
        datetime | None,
        typer.Option(
            "--since",
            help="Everything since this time (UTC).",
            formats=["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"],
        ),
    ] = None,
) -> None:
    """Send again: one delivery, everything since a time, or by default all that failed."""
    moment = since.replace(tzinfo=UTC) if since else None
    with connect() as client:
        count = client.webhooks.replay(name, delivery_id=delivery, since=moment)
    typer.echo(f"{count} {'delivery' if count == 1 else 'deliveries'} in the queue again")
