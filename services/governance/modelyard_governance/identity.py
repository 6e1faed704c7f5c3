"""Principals and their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.models import Account, ApiToken, CreatePrincipal, CreateToken
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.signing import Signer, SigningKey
from modelyard_governance.store import grants as grant_rows
from modelyard_governance.store import identity as rows
from modelyard_governance.store import issuers as issuer_rows
from modelyard_kit import api_tokens, idempotency, limits
from modelyard_kit.access import SYSTEM, Link, Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, InvalidField, NotFound, TokenExpired, TokenInvalid
from modelyard_kit.filters import Asked
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import Event, append

T = TypeVar("T")

DEFAULT_TOKEN_LIFETIME = timedelta(days=90)
# The last use of a token is kept to the minute, so that a busy one is not a write for every exchange.
_USE_STEP = timedelta(minutes=1)


class Identity:
    """Who there is, and how they prove it."""

    def __init__(
        self, *, database: Database, grants: Grants, feed: PermissionFeed, signer: Signer, clock: Clock
    ) -> None:
        self._database = database
        self._grants = grants
        self._feed = feed
        self._signer = signer
        self._clock = clock

    @property
    def issuer(self) -> str:
        """Value of the `iss` claim of every JWT."""
        return self._signer.issuer

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """Keys that verify JWTs now or soon, the newest first."""
        return self._signer.published

    async def exchange(self, api_token: str) -> tuple[str, datetime]:
        """Turn an API token into a JWT, and tell when that stops working.

        Raises:
            TokenInvalid: it is no API token, unknown, or revoked, or its principal is disabled.
            TokenExpired: its time is over.
        """
        lookup = api_tokens.token_id(api_token)
        if lookup is None:
            raise TokenInvalid("an API token reads mya_<id>_<secret>")
        stored = await self._database.read(lambda connection: rows.secret(connection, lookup))
        if stored is None or not api_tokens.matches(api_token, stored.secret_hash):
            raise TokenInvalid("nobody was given this API token")
        now, token = self._clock(), stored.token
        if token.revoke_time is not None:
            raise TokenInvalid("this API token was revoked")
        if token.expire_time is not None and token.expire_time <= now:
            raise TokenExpired
        if stored.account.disable_time is not None:
            raise TokenInvalid(f"the principal {stored.account.name!r} is disabled")
        if token.last_use_time is None or token.last_use_time < now - _USE_STEP:
            await self._database.in_tx(lambda connection: rows.note_use(connection, token.id, now=now))
        return self._signer.sign(
            stored.account, now=now, until=token.expire_time, privileges=token.privileges
        )

    async def caller(self, call: Call) -> Account:
        """Return the caller.

        Raises:
            TokenInvalid: the JWT names a principal that this installation does not know.
        """
        account = await self._database.read(
            lambda connection: rows.account_by_id(connection, call.principal.id)
        )
        if account is None:
            raise TokenInvalid("its principal is unknown here")
        return account

    async def create_principal(self, call: Call, command: CreatePrincipal) -> Account:
        """Make a user, service account or group.

        Raises:
            AlreadyExists: the name is taken, or somebody else is that user of that issuer.
            NotFound: there is no such issuer.
            RequestIdReused: the request id was used with other content.
        """

        async def work(connection: AsyncConnection) -> Account:
            key = _request_key(call, "CreatePrincipal", command)
            made = await idempotency.replay(connection, **key)
            if made is not None:
                return _present(await rows.account_by_id(connection, made), "principal", command.name)
            issuer = await issuer_rows.by_name(connection, command.issuer) if command.issuer else None
            if command.issuer and issuer is None:
                raise NotFound(ResourceType.ISSUER, command.issuer)
            account = Account(
                new_id(),
                command.name,
                command.kind,
                command.display_name,
                self._clock(),
                issuer_id=issuer.id if issuer else None,
                issuer=issuer.name if issuer else None,
                subject=command.subject or None,
            )
            revision = await rows.next_revision(connection)
            if not await rows.insert_account(connection, account, revision=revision):
                raise AlreadyExists("principal", command.name)
            await idempotency.remember(connection, **key, resource_id=account.id)
            await append(connection, principal_created(account, call))
            return account

        account = await self._database.in_tx(work)
        await self._feed.refresh()
        return account

    async def get_principal(self, name: str) -> Account:
        """Return the principal of that name.

        Raises:
            NotFound: there is none.
        """
        return _present(
            await self._database.read(lambda connection: rows.account_by_name(connection, name)),
            "principal",
            name,
        )

    async def set_disabled(self, call: Call, name: str, *, disabled: bool) -> Account:
        """Take everything from a principal, or give it back; doing it again changes nothing.

        Raises:
            NotFound: there is none.
            InvalidField: it is the caller, or neither a user nor a service account.
        """

        async def work(connection: AsyncConnection) -> Account:
            account = _present(await rows.account_by_name(connection, name), "principal", name)
            if account.kind not in ("user", "service_account"):
                raise InvalidField(
                    "name", f"{name!r} is a {account.kind}: only users and service accounts can be disabled"
                )
            if account.id == call.principal.id:
                raise InvalidField(
                    "name", "is you: nobody can disable itself, or soon nobody could enable anybody"
                )
            if not await rows.set_disabled(connection, account.id, self._clock() if disabled else None):
                return account
            revision = await rows.next_revision(connection)
            await grant_rows.mark_changed(connection, [account.id], revision=revision)
            link = Link(ResourceType.PRINCIPAL, account.id, account.name)
            verb = "disabled" if disabled else "enabled"
            event = Event(f"governance.principal.{verb}", link, call.principal, call.request_id, {})
            await append(connection, event)
            return _present(await rows.account_by_name(connection, name), "principal", name)

        account = await self._database.in_tx(work)
        await self._feed.refresh()
        return account

    async def list_principals(self, asked: Asked) -> tuple[list[Account], str]:
        """Return a page of principals and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        return await self._database.read(lambda connection: rows.page_of_accounts(connection, asked))

    async def create_token(self, call: Call, command: CreateToken) -> tuple[ApiToken, str]:
        """Make an API token; return it and its secret, which is empty when the request was seen before.

        Raises:
            NotFound: there is no such principal.
            PermissionDenied: it is somebody else's, and the caller lacks MANAGE on the system.
            InvalidField: it would have expired already, or it is for a group or gives more than the caller's own token.
            LimitExceeded: the principal has too many.
            RequestIdReused: the request id was used with other content.
        """
        name = self._own_or_managed(call, command.principal)
        _require_no_more(call, command.privileges)
        now = self._clock()
        expire_time = command.expire_time or now + DEFAULT_TOKEN_LIFETIME
        if expire_time <= now:
            raise InvalidField(
                "expire_time",
                f"{expire_time:%Y-%m-%dT%H:%M:%SZ} is over already; it is {now:%Y-%m-%dT%H:%M:%SZ}",
            )
        secret = api_tokens.generate()

        async def work(connection: AsyncConnection) -> tuple[ApiToken, str]:
            key = _request_key(call, "CreateToken", command)
            made = await idempotency.replay(connection, **key)
            if made is not None:
                return _present(await rows.token_by_id(connection, made), "token", made), ""
            account = _present(await rows.account_by_name(connection, name), "principal", name)
            if account.kind == "group":
                raise InvalidField(
                    "principal", f"{name!r} is a group, which cannot act: name one of its members"
                )
            live = await rows.count_live_tokens(connection, account.id, now=now)
            limits.check("tokens_per_principal", live + 1)
            token = ApiToken(
                new_id(),
                account.id,
                account.name,
                command.description,
                now,
                expire_time,
                privileges=command.privileges,
            )
            await rows.insert_token(
                connection, token, lookup=secret.split("_")[1], secret_hash=api_tokens.hash_secret(secret)
            )
            await idempotency.remember(connection, **key, resource_id=token.id)
            await append(connection, token_event("created", token, call))
            return token, secret

        return await self._database.in_tx(work)

    async def list_tokens(self, call: Call, principal: str, asked: Asked) -> tuple[list[ApiToken], str]:
        """Return a page of a principal's API tokens and the token of the next page; an empty name means the caller.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
            NotFound: there is no such principal.
            PermissionDenied: it is somebody else, and the caller lacks MANAGE on the system.
        """
        name = self._own_or_managed(call, principal)

        async def work(connection: AsyncConnection) -> tuple[list[ApiToken], str]:
            account = _present(await rows.account_by_name(connection, name), "principal", name)
            return await rows.page_of_tokens(connection, account.id, asked)

        return await self._database.read(work)

    async def revoke_token(self, call: Call, token_id: str) -> ApiToken:
        """End an API token; ending it again changes nothing.

        Raises:
            NotFound: there is no such token.
            PermissionDenied: it is somebody else's, and the caller lacks MANAGE on the system.
        """

        async def work(connection: AsyncConnection) -> ApiToken:
            token = _present(await rows.token_by_id(connection, token_id), "token", token_id)
            self._own_or_managed(call, token.principal)
            if not await rows.revoke_token(connection, token_id, now=self._clock()):
                return token
            await append(connection, token_event("revoked", token, call))
            return _present(await rows.token_by_id(connection, token_id), "token", token_id)

        return await self._database.in_tx(work)

    def _own_or_managed(self, call: Call, principal: str) -> str:
        """Return the name of whom a call is about: the caller, or with MANAGE on the system anybody."""
        if principal in ("", call.principal.name):
            return call.principal.name
        self._grants.require(call.principal, Privilege.MANAGE, (SYSTEM,))
        return principal


def _require_no_more(call: Call, privileges: tuple[Privilege, ...]) -> None:
    """Refuse a token that would give more than the one it is made with."""
    own = call.principal.privileges
    if own is not None and (not privileges or not own.issuperset(privileges)):
        raise InvalidField(
            "privileges", f"must be some of {', '.join(sorted(own))}, which your own token is limited to"
        )


def principal_created(account: Account, call: Call) -> Event:
    """Return the event that tells of a new principal."""
    link = Link(ResourceType.PRINCIPAL, account.id, account.name)
    data = {"kind": account.kind, "display_name": account.display_name}
    if account.issuer:
        data |= {"issuer": account.issuer, "subject": account.subject or ""}
    return Event("governance.principal.created", link, call.principal, call.request_id, data)


def token_event(verb: str, token: ApiToken, call: Call) -> Event:
    """Return the event that tells what happened to an API token, without its secret."""
    data = {
        "principal": token.principal,
        "principal_id": token.principal_id,
        "description": token.description,
        "expire_time": token.expire_time.isoformat() if token.expire_time else None,
        "privileges": list(token.privileges),
    }
    link = Link(ResourceType.TOKEN, token.id, token.id)
    return Event(f"governance.token.{verb}", link, call.principal, call.request_id, data)


def _request_key(call: Call, method: str, command: CreatePrincipal | CreateToken) -> Mapping[str, Any]:
    return {
        "principal_id": call.principal.id,
        "method": method,
        "request_id": command.request_id,
        "fingerprint": command.fingerprint,
    }


def _present(found: T | None, resource_type: str, name: str) -> T:
    if found is None:
        raise NotFound(resource_type, name)
    return found
