"""Grants: who may do what, given and taken back, and the explanation of a decision."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.models import Account, Directory, Grant, GrantContent
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.store import grants as rows
from modelyard_governance.store import identity as identity_rows
from modelyard_kit.access import SYSTEM, Chain, Decision, Effect, Link, Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import NotFound
from modelyard_kit.filters import Asked
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import Event, append


class GrantRules:
    """The use cases of grants. That the caller holds MANAGE on the resource was checked before, where it is needed."""

    def __init__(
        self, *, database: Database, grants: Grants, feed: PermissionFeed, directory: Directory, clock: Clock
    ) -> None:
        self._database = database
        self._grants = grants
        self._feed = feed
        self._directory = directory
        self._clock = clock

    async def create(self, call: Call, content: GrantContent) -> Grant:
        """Give or deny a privilege; return the grant, which may have been there already.

        Raises:
            NotFound: there is no such principal or resource.
            PeerUnavailable: the service that knows the resource cannot be reached.
        """
        resource = (await self._directory.chain(content.resource_type, content.resource))[0]

        async def work(connection: AsyncConnection) -> Grant:
            account = await _account(connection, content.principal)
            there = await rows.like(connection, account.id, resource.id, content.privilege, content.effect)
            if there is not None:
                return there
            grant = Grant(
                id=new_id(),
                principal_id=account.id,
                principal=account.name,
                privilege=content.privilege,
                effect=content.effect,
                resource=replace(resource, owner_id=""),  # owners change; the answer is what will be read
                create_time=self._clock(),
            )
            revision = await identity_rows.next_revision(connection)
            await rows.add(connection, grant)
            await rows.mark_changed(connection, [account.id], revision=revision)
            await append(connection, _event("created", account, content, resource, call))
            return grant

        grant = await self._database.in_tx(work)
        await self._feed.refresh()
        return grant

    async def delete(self, call: Call, content: GrantContent) -> bool:
        """Take a grant back; return False when there was none. Errors as `create`."""
        resource = (await self._directory.chain(content.resource_type, content.resource))[0]

        async def work(connection: AsyncConnection) -> bool:
            account = await _account(connection, content.principal)
            if not await rows.remove(connection, account.id, resource.id, content.privilege, content.effect):
                return False
            revision = await identity_rows.next_revision(connection)
            await rows.mark_changed(connection, [account.id], revision=revision)
            await append(connection, _event("deleted", account, content, resource, call))
            return True

        deleted = await self._database.in_tx(work)
        await self._feed.refresh()
        return deleted

    async def list_on(self, resource_type: ResourceType, name: str, asked: Asked) -> tuple[list[Grant], str]:
        """Return a page of the grants on a resource itself and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
            NotFound: there is no such resource.
            PeerUnavailable: the service that knows the resource cannot be reached.
        """
        resource = (await self._directory.chain(resource_type, name))[0]
        return await self._database.read(lambda connection: rows.page_on(connection, resource.id, asked))

    async def check(self, call: Call, content: GrantContent) -> Decision:
        """Decide and explain, for the caller (an empty or its own name) or for anybody.

        Raises:
            NotFound: there is no such principal; or no such resource, and the principal would have the privilege on it.
            PermissionDenied: it is about somebody else, and the caller lacks MANAGE on the resource.
            PeerUnavailable: the service that knows the resource cannot be reached.
        """
        chain = await self._directory.chain_or_phantom(content.resource_type, content.resource)
        principal_id = await self._subject(call, content.principal, chain)
        decision = self._grants.decide(principal_id, content.privilege, chain)
        if decision.allowed:
            # Whoever may do it may know whether the resource exists; everybody else is told the same in both cases.
            await self._directory.chain(content.resource_type, content.resource)
        return decision

    async def effective(
        self, call: Call, principal: str, resource_type: ResourceType, name: str
    ) -> list[tuple[Privilege, Decision]]:
        """Decide and explain every privilege, for the caller (an empty or its own name) or for anybody.

        Raises:
            NotFound: there is no such principal; or no such resource, and the principal would have a privilege on it.
            PermissionDenied: it is about somebody else, and the caller lacks MANAGE on the resource.
            PeerUnavailable: the service that knows the resource cannot be reached.
        """
        chain = await self._directory.chain_or_phantom(resource_type, name)
        principal_id = await self._subject(call, principal, chain)
        decisions: list[tuple[Privilege, Decision]] = [
            (privilege, self._grants.decide(principal_id, privilege, chain))
            for privilege in Privilege
            if privilege is not Privilege.OWNERSHIP
        ]
        if any(decision.allowed for _, decision in decisions):
            await self._directory.chain(resource_type, name)  # as in `check`
        return decisions

    async def list_of(self, call: Call, principal: str, asked: Asked) -> tuple[list[Grant], str]:
        """Return a page of what a principal was given itself, and the token of the next; an empty name means the caller.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
            NotFound: there is no such principal.
            PermissionDenied: it is somebody else, and the caller lacks MANAGE on the system.
        """
        principal_id = await self._subject(call, principal, (SYSTEM,))
        return await self._database.read(lambda connection: rows.page_of(connection, principal_id, asked))

    async def _subject(self, call: Call, principal: str, chain: Chain) -> str:
        """Return the id of whom a question is about; about others, who may MANAGE the resource asks."""
        if principal in ("", call.principal.name):
            return call.principal.id
        self._grants.require(call.principal, Privilege.MANAGE, chain)
        return (await self._database.read(lambda connection: _account(connection, principal))).id


async def _account(connection: AsyncConnection, name: str) -> Account:
    account = await identity_rows.account_by_name(connection, name)
    if account is None:
        raise NotFound("principal", name)
    return account


def _event(verb: str, account: Account, content: GrantContent, resource: Link, call: Call) -> Event:
    data = {
        "principal": account.name,
        "principal_id": account.id,
        "privilege": str(content.privilege),
        "effect": str(content.effect),
    }
    return Event(f"governance.grant.{verb}", resource, call.principal, call.request_id, data)


async def set_owner(connection: AsyncConnection, resource: Link, *, clock: Clock) -> bool:
    """Note who owns a resource, so that every service learns it; return whether that is new.

    An owner that governance does not know is passed over: no principal is there who could use it.
    """
    owner = await identity_rows.account_by_id(connection, resource.owner_id)
    if owner is None:
        return False
    if await rows.like(connection, owner.id, resource.id, Privilege.OWNERSHIP, Effect.ALLOW) is not None:
        return False
    revision = await identity_rows.next_revision(connection)
    grant = Grant(new_id(), owner.id, owner.name, Privilege.OWNERSHIP, Effect.ALLOW, resource, clock())
    await rows.add(connection, grant)
    lost = await rows.remove_other_owners(connection, resource.id, owner.id)
    await rows.mark_changed(connection, [owner.id, *lost], revision=revision)
    return True
