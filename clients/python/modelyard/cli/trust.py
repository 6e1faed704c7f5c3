"""trust, artifacts sign, signatures, unsign."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli._output import TABLE, Output, show_one, show_rows
from modelyard.cli._session import connect
from modelyard.cli.catalog import Reference
from modelyard.errors import PermissionDenied

trust = typer.Typer(help="Keys and certificates whose model signatures count.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the trust root.", metavar="NAME")]
On = Annotated[str, typer.Option("--on", help="Catalog, schema or model; by default the whole installation.")]


@trust.command("list")
def list_roots(on: On = "", output: Output = TABLE) -> None:
    """List what counts for a resource: its own trust roots first, then those of what contains it."""
    with connect() as client:
        roots = client.trust_roots.list(on)
    columns = ("name", "kind", "resource.name", "fingerprint", "expire_time")
    show_rows(roots, columns, output, empty="no trust roots: signatures of every key are unknown")


@trust.command("add")
def add_root(
    name: Name,
    pem: Annotated[
        Path,
        typer.Argument(
            help="PEM file with one public key or certificate.", exists=True, dir_okay=False, metavar="FILE"
        ),
    ],
    on: On = "",
    output: Output = TABLE,
) -> None:
    """Let signatures of a key, or of certificates that an authority issued, count."""
    with connect() as client:
        show_one(dataclasses.replace(client.trust_roots.create(name, pem, on), pem=""), output)


@trust.command("remove")
def remove_root(name: Name, on: On = "") -> None:
    """Let its signatures count no more."""
    with connect() as client:
        removed = client.trust_roots.delete(name, on)
    typer.echo(f"removed {name}" if removed else f"there was no {name}")


def sign(
    reference: Reference,
    key: Annotated[
        Path,
        typer.Option(
            "--key", help="PEM file of your private key; it stays here.", exists=True, dir_okay=False
        ),
    ],
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate", help="PEM file of a certificate of the key.", exists=True, dir_okay=False
        ),
    ] = None,
    chain: Annotated[
        list[Path] | None,
        typer.Option(
            "--chain",
            help="PEM file of a certificate between that one and the issuer others trust; may be repeated.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    password: Annotated[
        str, typer.Option("--password", envvar="MODELYARD_KEY_PASSWORD", help="Password of the key file.")
    ] = "",
    output: Output = TABLE,
) -> None:
    """Sign the files of a version (OpenSSF model signing) by their digests, without downloading them."""
    with connect() as client:
        made = client.signatures.sign(
            reference, key, password=password or None, certificate=certificate, chain=chain or ()
        )
    show_one(dataclasses.replace(made, bundle=""), output)


def signatures(
    reference: Reference,
    bundle: Annotated[
        bool,
        typer.Option(
            "--bundle",
            help="Print the newest one as `model_signing verify` reads it; needs READ_ARTIFACT on the model.",
        ),
    ] = False,
    output: Output = TABLE,
) -> None:
    """List the signatures of a version's files, and whether they are trusted."""
    with connect() as client:
        found = client.signatures.list(reference)
    if bundle and found:
        if not found[-1].bundle:
            raise PermissionDenied(
                "a signature names the hash of every file: ask for READ_ARTIFACT on the model"
            )
        typer.echo(found[-1].bundle)
    else:
        show_rows(found, ("signer", "trust", "trust_root", "create_time", "id"), output, empty="not signed")


def unsign(
    reference: Reference,
    signature_id: Annotated[
        str, typer.Argument(help="Id of the signature; see `artifacts signatures`.", metavar="ID")
    ],
) -> None:
    """Take a signature away from a version's files, also where other versions have the same files."""
    with connect() as client:
        removed = client.signatures.remove(reference, signature_id)
    typer.echo(f"removed {signature_id}" if removed else f"there was no {signature_id}")


def add_to(artifacts: typer.Typer) -> None:
    """Add the verbs to those of artifacts."""
    artifacts.command()(sign)
    artifacts.command()(signatures)
    artifacts.command()(unsign)
