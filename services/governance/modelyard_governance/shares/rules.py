"""The use cases of shares: made, read, changed, deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.models import Directory
from modelyard_governance.shares import store
from modelyard_governance.shares.models import CreateShare, Share, WantedShare
from modelyard_governance.store.identity import account_by_name
from modelyard_kit import idempotency, limits
from modelyard_kit.access import SYSTEM, Link, Privilege
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, NotFound
from modelyard_kit.filters import Asked
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import Event, append

KIND = "share"
_METHOD = "CreateShare"


class Shares:
    """Keeps shares. That the caller may manage them was checked before, but for `get`."""

    def __init__(self, *, database: Database, directory: Directory, grants: Grants, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._grants = grants
        self._clock = clock

    async def create(self, call: Call, command: CreateShare) -> Share:
        """Make a share.

        Raises:
            NotFound: a member or exporter is unknown.
            AlreadyExists: the name is taken.
            LimitExceeded: there are too many.
            RequestIdReused: the request id came before with other content.
            PeerUnavailable: the catalog cannot be reached.
        """
        members = await self._members(command.content)
        once = {"principal_id": call.principal.id, "method": _METHOD, "request_id": command.request_id}
        once["fingerprint"] = command.fingerprint

        async def work(connection: AsyncConnection) -> Share:
            made = await idempotency.replay(connection, **once)
            found = await store.get(connection, made) if made else None
            if found is not None:
                return found
            if await store.named(connection, command.name) is not None:
                raise AlreadyExists(KIND, command.name)
            limits.check("shares", await store.count(connection) + 1)
            now, creator = self._clock(), call.principal.name
            empty = Share(new_id(), command.name, "", "", (), (), creator, now, now)
            share = await _changed(connection, empty, command.content, members)
            await store.add(connection, share)
            await idempotency.remember(connection, **once, resource_id=share.id)
            await append(connection, _event("created", share, call, after=_content(share)))
            return share

        return await self._database.in_tx(work)

    async def get(self, call: Call, name: str) -> Share:
        """Return a share with the names that its members have now, to who may export it or manages shares.

        Raises:
            PermissionDenied: the caller is neither; whether there is such a share, it is not told.
            NotFound: there is none.
            PeerUnavailable: the catalog cannot be reached.
        """
        share = await self._database.read(lambda connection: store.named(connection, name))
        if share is None or not may_export(self._grants, call, share):
            self._grants.require(call.principal, Privilege.MANAGE, (SYSTEM,))
        if share is None:
            raise NotFound(KIND, name)
        return replace(share, members=tuple([await self._now(member) for member in share.members]))

    async def _now(self, member: Link) -> Link:
        """Return what a member is called now, or what it was called when it is gone."""
        try:
            return replace((await self._directory.chain_of_id(member.type, member.id))[0], owner_id="")
        except NotFound:
            return member

    async def page(self, asked: Asked) -> tuple[list[Share], str]:
        """Return a page of shares and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        return await self._database.read(lambda connection: store.page(connection, asked))

    async def update(self, call: Call, name: str, wanted: WantedShare) -> Share:
        """Change a share; errors as `create`.

        Raises:
            NotFound: there is none of that name.
        """
        members = await self._members(wanted)

        async def work(connection: AsyncConnection) -> Share:
            before = await store.named(connection, name, lock=True)
            if before is None:
                raise NotFound(KIND, name)
            share = await _changed(connection, before, wanted, members)
            if share == before:
                return before
            share = replace(share, update_time=self._clock())
            await store.replace(connection, share)
            sides = {"before": _content(before), "after": _content(share)}
            await append(connection, _event("updated", share, call, **sides))
            return share

        return await self._database.in_tx(work)

    async def delete(self, call: Call, name: str) -> bool:
        """Take a share away; return False when there was none."""

        async def work(connection: AsyncConnection) -> bool:
            share = await store.named(connection, name, lock=True)
            if share is None:
                return False
            await store.remove(connection, share.id)
            await append(connection, _event("deleted", share, call, before=_content(share)))
            return True

        return await self._database.in_tx(work)

    async def _members(self, wanted: WantedShare) -> tuple[Link, ...] | None:
        """Return what the members are now, each once."""
        if wanted.members is None:
            return None
        found = [(await self._directory.chain(*member))[0] for member in wanted.members]
        return tuple({link.id: replace(link, owner_id="") for link in found}.values())


def may_export(grants: Grants, call: Call, share: Share) -> bool:
    """Return whether the caller is an exporter of a share, or in a group that is one."""
    return not grants.holder(call.principal.id).parties.keys().isdisjoint(share.exporters)


async def _changed(
    connection: AsyncConnection, share: Share, wanted: WantedShare, members: tuple[Link, ...] | None
) -> Share:
    values: dict[str, Any] = {
        "description": wanted.description,
        "recipient": wanted.recipient,
        "members": members,
    }
    if wanted.exporters is not None:
        values["exporters"] = tuple([await _account_id(connection, name) for name in wanted.exporters])
    return replace(share, **{name: value for name, value in values.items() if value is not None})


async def _account_id(connection: AsyncConnection, name: str) -> str:
    account = await account_by_name(connection, name)
    if account is None:
        raise NotFound("principal", name)
    return account.id


def _content(share: Share) -> dict[str, Any]:
    return {
        "description": share.description,
        "recipient": share.recipient,
        "members": [{"type": str(link.type), "id": link.id, "name": link.name} for link in share.members],
        "exporters": list(share.exporters),
    }


def _event(verb: str, share: Share, call: Call, **data: Any) -> Event:
    told = {"share": share.name, "share_id": share.id, **data}
    return Event(f"governance.share.{verb}", SYSTEM, call.principal, call.request_id, told)
