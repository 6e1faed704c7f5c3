"""External issuers: which are trusted, and what their tokens mean here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance import oidc
from modelyard_governance.groups import mark_standings
from modelyard_governance.identity import principal_created
from modelyard_governance.identity_models import CreateIssuer, Issuer
from modelyard_governance.models import PRINCIPAL_NAME, Account
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.signing import Signer
from modelyard_governance.store import grants as grant_rows
from modelyard_governance.store import groups as group_rows
from modelyard_governance.store import identity as identity_rows
from modelyard_governance.store import issuers as rows
from modelyard_kit import idempotency, limits
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.auth import Call, Principal, current_call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, TokenInvalid
from modelyard_kit.filters import Asked
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import Event, append

DEFAULT_CLAIM = "sub"


class Federation:
    """The use cases of external issuers. That the caller may was checked before, where it must be somebody."""

    def __init__(
        self, *, database: Database, feed: PermissionFeed, signer: Signer, keys: oidc.IssuerKeys, clock: Clock
    ) -> None:
        self._database = database
        self._feed = feed
        self._signer = signer
        self._keys = keys
        self._clock = clock

    async def create(self, call: Call, command: CreateIssuer) -> Issuer:
        """Trust an issuer from now on.

        Raises:
            AlreadyExists: there is one of that name or address.
            LimitExceeded: there are too many.
            RequestIdReused: the request id was used with other content.
        """
        once: dict[str, Any] = {"principal_id": call.principal.id, "method": "CreateIssuer"}
        once |= {"request_id": command.request_id, "fingerprint": command.fingerprint}

        async def work(connection: AsyncConnection) -> Issuer:
            made = await idempotency.replay(connection, **once)
            there = await rows.by_id(connection, made) if made else None
            if there is not None:
                return there
            limits.check("issuers", await rows.count(connection) + 1)
            issuer = Issuer(
                id=new_id(),
                name=command.name,
                url=command.url,
                audience=command.audience,
                principal_claim=command.principal_claim,
                principal_prefix=command.principal_prefix,
                groups_claim=command.groups_claim,
                group_prefix=command.group_prefix,
                create_principals=command.create_principals,
                create_time=self._clock(),
            )
            if not await rows.add(connection, issuer):
                taken = await rows.by_name(connection, command.name)
                raise AlreadyExists(ResourceType.ISSUER, command.name if taken else command.url)
            await idempotency.remember(connection, **once, resource_id=issuer.id)
            data = {
                "url": issuer.url,
                "audience": issuer.audience,
                "create_principals": issuer.create_principals,
            }
            await append(connection, _event("issuer.created", issuer.id, issuer.name, call, data))
            return issuer

        return await self._database.in_tx(work)

    async def delete(self, call: Call, name: str) -> bool:
        """Trust an issuer no more, and forget what it said of groups; return False when there was none."""

        async def work(connection: AsyncConnection) -> bool:
            issuer_id = await rows.remove(connection, name)
            if issuer_id is None:
                return False
            revision = await identity_rows.next_revision(connection)
            members = await group_rows.remove_of_issuer(connection, issuer_id)
            await grant_rows.mark_changed(connection, members, revision=revision)
            await mark_standings(connection)
            await append(connection, _event("issuer.deleted", issuer_id, name, call, {}))
            return True

        deleted = await self._database.in_tx(work)
        await self._feed.refresh()
        return deleted

    async def page(self, asked: Asked) -> tuple[list[Issuer], str]:
        """Return a page of issuers and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        return await self._database.read(lambda connection: rows.page(connection, asked))

    async def exchange(self, id_token: str) -> tuple[str, datetime]:
        """Turn the token of an issuer into a JWT of ours, and tell when that stops working: no later than the token.

        Raises:
            TokenInvalid: its issuer is not trusted, it is not a good token, or nobody here is meant by it.
            LimitExceeded: it names too many groups.
            TokenExpired: its time is over.
            PeerUnavailable: the issuer cannot be asked for its keys.
        """
        url = oidc.issuer_of(id_token)
        issuer = await self._database.read(lambda connection: rows.by_url(connection, url))
        if issuer is None:
            raise TokenInvalid(f"its issuer {url!r} is not known here")
        claims = await self._keys.claims(issuer, id_token)
        account, changed = await self._database.in_tx(
            lambda connection: self._meant(connection, issuer, claims)
        )
        if changed:
            await self._feed.refresh()
        until = datetime.fromtimestamp(int(claims["exp"]), UTC)
        return self._signer.sign(account, now=self._clock(), until=until)

    async def _meant(
        self, connection: AsyncConnection, issuer: Issuer, claims: Mapping[str, Any]
    ) -> tuple[Account, bool]:
        """Return the principal that is meant, with the groups that the token says, and whether anything was new."""
        subject = str(claims["sub"])
        account = await identity_rows.account_by_subject(connection, issuer.id, subject)
        created = account is None
        if account is None:
            account = await self._create(connection, issuer, claims)
        if account.disable_time is not None:
            raise TokenInvalid(f"the principal {account.name!r} is disabled")
        moved = bool(issuer.groups_claim) and await self._join(connection, issuer, account, claims)
        return account, created or moved

    async def _create(
        self, connection: AsyncConnection, issuer: Issuer, claims: Mapping[str, Any]
    ) -> Account:
        """Make the principal of a new user. A name that is taken stays with whom it belongs to, or claims would make thieves."""
        claim = issuer.principal_claim or DEFAULT_CLAIM
        name = issuer.principal_prefix + str(claims.get(claim, ""))
        if not issuer.create_principals:
            raise TokenInvalid(
                f"nobody here is {claims['sub']!r} of {issuer.name!r}; an administrator can create them"
            )
        if not re.fullmatch(PRINCIPAL_NAME, name) or claim not in claims:
            raise TokenInvalid(f"its claim {claim!r} makes {name!r}, which cannot be the name of a principal")
        display_name = str(claims.get("name", ""))[:255].replace("\0", "")
        account = Account(
            new_id(),
            name,
            "user",
            display_name,
            self._clock(),
            None,
            issuer.id,
            issuer.name,
            str(claims["sub"]),
        )
        revision = await identity_rows.next_revision(connection)
        if not await identity_rows.insert_account(connection, account, revision=revision):
            raise TokenInvalid(
                f"the name {name!r} belongs to somebody who is not {claims['sub']!r} of {issuer.name!r}"
            )
        await append(connection, principal_created(account, _call(account)))
        return account

    async def _join(
        self, connection: AsyncConnection, issuer: Issuer, account: Account, claims: Mapping[str, Any]
    ) -> bool:
        """Make the groups of a principal, of those that this issuer speaks of, what the token says."""
        said = claims.get(issuer.groups_claim, [])
        if not isinstance(said, list):
            raise TokenInvalid(f"its claim {issuer.groups_claim!r} is not a list")
        limits.check("groups_per_token", len(said))
        names = {f"{issuer.group_prefix}{name}" for name in said}
        wanted = await group_rows.groups_named(connection, names)
        before = await group_rows.groups_by_issuer(connection, account.id, issuer.id)
        await group_rows.remove_from(connection, account.id, before - wanted)
        joined = [
            group_id
            for group_id in sorted(wanted - before)
            if await group_rows.put(connection, group_id, account.id, now=self._clock(), issuer_id=issuer.id)
        ]
        if not joined and before <= wanted:
            return False
        for group_id in joined[:1]:
            _, groups = await group_rows.counts(connection, group_id, account.id)
            limits.check("groups_per_principal", groups)
        revision = await identity_rows.next_revision(connection)
        await grant_rows.mark_changed(connection, [account.id], revision=revision)
        await mark_standings(connection)
        link = Link(ResourceType.PRINCIPAL, account.id, account.name)
        data = {"issuer": issuer.name, "joined": joined, "left": sorted(before - wanted)}
        call = _call(account)
        await append(
            connection,
            Event("governance.principal.groups_changed", link, call.principal, call.request_id, data),
        )
        return True


def _call(account: Account) -> Call:
    """The call of somebody who is just proving who they are."""
    return Call(Principal(account.id, account.name, "user"), current_call().request_id)


def _event(verb: str, issuer_id: str, name: str, call: Call, data: Mapping[str, object]) -> Event:
    link = Link(ResourceType.ISSUER, issuer_id, name)
    return Event(f"governance.{verb}", link, call.principal, call.request_id, data)
