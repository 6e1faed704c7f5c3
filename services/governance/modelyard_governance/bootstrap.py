"""The first principals: the administrator and the services, from the token files of the installation.

The folder holds one file `<name>.token` for each, made by whoever installs. At every start the principals are brought in line with
it: a file that was replaced replaces the token, a file that is missing changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.identity import principal_created, token_event
from modelyard_governance.models import Account, ApiToken, Grant
from modelyard_governance.signing import warn_if_exposed
from modelyard_governance.store import grants as grant_rows
from modelyard_governance.store import identity as rows
from modelyard_kit import api_tokens
from modelyard_kit.access import SYSTEM, Effect, Privilege
from modelyard_kit.auth import Call, Kind, Principal
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import append

SUFFIX = ".token"

_log = structlog.get_logger()


class UnusableBootstrapError(Exception):
    """A file of the installation cannot be used."""


@dataclass(frozen=True)
class FirstPrincipal:
    """A principal that every installation has, with its rights on the system."""

    name: str
    kind: Kind
    display_name: str
    privileges: tuple[Privilege, ...]


_SEE = (Privilege.READ_METADATA, Privilege.USE_CATALOG, Privilege.USE_SCHEMA)
_SERVE = (*_SEE, Privilege.READ_ARTIFACT, Privilege.EXECUTE)

FIRST = (
    FirstPrincipal("governance", "service", "Governance service", _SEE),
    FirstPrincipal("catalog", "service", "Catalog service", _SEE),
    FirstPrincipal("artifact", "service", "Artifact service", _SEE),
    FirstPrincipal("inference", "service", "Inference service", _SERVE),
    FirstPrincipal("gateway", "service", "Gateway agent", _SEE),
    FirstPrincipal("admin", "user", "Administrator", (Privilege.OWNERSHIP,)),
)

_INSTALLATION = Call(Principal("installation", "installation", "service"), "bootstrap")


async def bootstrap(database: Database, folder: Path, *, clock: Clock) -> None:
    """Make the first principals, their rights and their tokens what the folder says.

    Raises:
        UnusableBootstrapError: a file holds no API token, or a first principal's name belongs to somebody else.
    """
    secrets = await asyncio.to_thread(_read_all, folder)

    async def work(connection: AsyncConnection) -> None:
        for first, secret in secrets.items():
            account = await _account(connection, first, now=clock())
            await _grant(connection, first, account, now=clock())
            await _token(connection, account, secret, now=clock())

    await database.in_tx(work)
    _log.info("bootstrapped", principals=[first.name for first in secrets])


def _read_all(folder: Path) -> dict[FirstPrincipal, str]:
    if not folder.is_dir():
        raise UnusableBootstrapError(
            f"{folder}: MODELYARD_BOOTSTRAP_DIRECTORY must be a folder with files like admin{SUFFIX}"
        )
    return {first: secret for first in FIRST if (secret := _read(folder / f"{first.name}{SUFFIX}"))}


def _read(path: Path) -> str:
    """Return the API token in a file, or an empty text when there is no such file."""
    try:
        secret = path.read_text().strip()
    except FileNotFoundError:
        return ""
    if api_tokens.token_id(secret) is None:
        raise UnusableBootstrapError(f"{path}: holds no API token (mya_<id>_<secret>)")
    warn_if_exposed(path)
    return secret


async def _account(connection: AsyncConnection, first: FirstPrincipal, *, now: datetime) -> Account:
    account = await rows.account_by_name(connection, first.name)
    if account is None:
        account = Account(new_id(), first.name, first.kind, first.display_name, now)
        await rows.insert_account(connection, account, revision=await rows.next_revision(connection))
        await append(connection, principal_created(account, _INSTALLATION))
    if account.kind != first.kind:
        raise UnusableBootstrapError(
            f"the name {first.name!r} belongs to a {account.kind}, but the installation needs it for a {first.kind}"
        )
    return account


async def _grant(
    connection: AsyncConnection, first: FirstPrincipal, account: Account, *, now: datetime
) -> None:
    missing = [
        privilege
        for privilege in first.privileges
        if await grant_rows.like(connection, account.id, SYSTEM.id, privilege, Effect.ALLOW) is None
    ]
    if not missing:
        return
    revision = await rows.next_revision(connection)
    for privilege in missing:
        grant = Grant(new_id(), account.id, account.name, privilege, Effect.ALLOW, SYSTEM, now)
        await grant_rows.add(connection, grant)
    await grant_rows.mark_changed(connection, [account.id], revision=revision)


async def _token(connection: AsyncConnection, account: Account, secret: str, *, now: datetime) -> None:
    lookup = api_tokens.token_id(secret) or ""
    for token_id in await rows.revoke_bootstrap_tokens(connection, account.id, keep_lookup=lookup, now=now):
        token = await rows.token_by_id(connection, token_id)
        if token is not None:
            await append(connection, token_event("revoked", token, _INSTALLATION))
    stored = await rows.secret(connection, lookup)
    if stored is None:
        token = ApiToken(new_id(), account.id, account.name, "made by the installation", now)
        secret_hash = api_tokens.hash_secret(secret)
        await rows.insert_token(connection, token, lookup=lookup, secret_hash=secret_hash, bootstrap=True)
        await append(connection, token_event("created", token, _INSTALLATION))
    elif (
        stored.account.id != account.id
        or not api_tokens.matches(secret, stored.secret_hash)
        or stored.token.revoke_time
    ):
        raise UnusableBootstrapError(
            f"{account.name}{SUFFIX}: this API token was revoked or belongs to somebody else; put a newly made one there"
        )
