"""login, logout, context, token, whoami."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelyard import contexts
from modelyard._channel import DEFAULT_TARGET
from modelyard.cli._output import TABLE, Format, Output, show_one, show_rows
from modelyard.cli._session import connect, selected_context
from modelyard.client import Client
from modelyard.errors import ConfigurationError

context = typer.Typer(help="Saved installations: which there are, and which is used.", no_args_is_help=True)


def login(
    target: Annotated[
        str, typer.Argument(help="Address of the gateway: host:port, https://host, unix:/path.")
    ] = DEFAULT_TARGET,
    token_file: Annotated[
        str,
        typer.Option(
            "--token-file", help="File that holds the API token, `-` for standard input; else you are asked."
        ),
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Name under which to save it.")] = "default",
    ca_certificate: Annotated[
        Path | None,
        typer.Option(
            "--ca-certificate",
            envvar="MODELYARD_CA_CERTIFICATE",
            help="Certificates to trust (PEM), if not those of the system.",
        ),
    ] = None,
    client_certificate: Annotated[
        Path | None,
        typer.Option(
            "--client-certificate",
            envvar="MODELYARD_CLIENT_CERTIFICATE",
            help="Certificate (PEM) to show, where the gateway asks its clients for one (mTLS).",
        ),
    ] = None,
    client_key: Annotated[
        Path | None,
        typer.Option(
            "--client-key",
            envvar="MODELYARD_CLIENT_KEY",
            help="Key of the client certificate (PEM). Both are saved as paths and read again when they are renewed.",
        ),
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow another machine without TLS.")] = False,
) -> None:
    """Connect to an installation: check the token there and save both as a context."""
    saved = contexts.Context(
        target,
        _token(token_file),
        _absolute(ca_certificate),
        insecure,
        _absolute(client_certificate),
        _absolute(client_key),
    )
    with Client(**saved.connection()) as client:
        caller = client.whoami()
    path = contexts.save(name, saved)
    typer.echo(f"You are {caller.name} at {target}. Saved as context {name} in {path}.")


def logout(
    name: Annotated[str, typer.Argument(help="Context to forget; by default the one in use.")] = "",
) -> None:
    """Forget a saved context and its token. The token itself stays valid: see `modelyard tokens revoke`."""
    name = name or selected_context() or contexts.read().current
    if not name:
        raise ConfigurationError("no context is saved")
    contexts.remove(name)
    typer.echo(f"Context {name} is forgotten.")


@context.command("list")
def list_contexts(output: Output = TABLE) -> None:
    """List the saved contexts."""
    saved = contexts.read()
    rows = [_Row(name, saved.by_name[name], current=name == saved.current) for name in sorted(saved.by_name)]
    if output is Format.JSON:
        show_rows([row.public() for row in rows], (), output)
    else:
        show_rows(rows, ("name", "target", "current"), output, empty="no context is saved: modelyard login")


@context.command("use")
def use(name: Annotated[str, typer.Argument(help="Name of the context.")]) -> None:
    """Make a context the current one."""
    typer.echo(f"Context {name} is {contexts.use(name).target}.")


@context.command("show")
def show(output: Output = TABLE) -> None:
    """Show what verbs use: the current context with what the environment overrides. Never shows the token."""
    resolved = contexts.resolve(selected_context() or None)
    show_one(
        {
            "target": resolved.target,
            "token": "set" if resolved.token else "none",
            "ca_certificate": resolved.ca_certificate,
            "client_certificate": resolved.client_certificate,
            "client_key": resolved.client_key,
            "insecure": resolved.insecure,
        },
        output,
    )


def token() -> None:
    """Print a short-lived token for other programs.

    curl -H "authorization: Bearer $(modelyard token)" http://127.0.0.1:8080/v2/models/prod.ml_team.iris
    """
    with connect() as client:
        typer.echo(client.access_token())


def whoami(output: Output = TABLE) -> None:
    """Show who you are to the services."""
    with connect() as client:
        show_one(client.whoami(), output)


class _Row:
    """A context as a row, without its token."""

    def __init__(self, name: str, saved: contexts.Context, *, current: bool) -> None:
        self.name, self.target, self.current = name, saved.target, current

    def public(self) -> dict[str, str | bool]:
        return {"name": self.name, "target": self.target, "current": self.current}


def _absolute(path: Path | None) -> str:
    return str(path.expanduser().absolute()) if path else ""


def _token(file: str) -> str:
    if file and file != "-":
        text = contexts.read_secret(Path(file))
    elif file == "-" or not sys.stdin.isatty():
        text = sys.stdin.readline().strip()
    else:
        text = typer.prompt("API token", hide_input=True).strip()
    if not text:
        raise typer.BadParameter("no token was given", param_hint="--token-file")
    return text
