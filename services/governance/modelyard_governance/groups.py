"""Groups: who is in them, and that none is in itself."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.errors import GroupCycle
from modelyard_governance.identity_models import Membership
from modelyard_governance.models import Account
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.store import grants as grant_rows
from modelyard_governance.store import groups as rows
from modelyard_governance.store import identity as identity_rows
from modelyard_governance.store import standings
from modelyard_governance.store.approvals import policed_by_groups
from modelyard_kit import limits
from modelyard_kit.access import Link, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidField, NotFound
from modelyard_kit.filters import Asked
from modelyard_kit.outbox import Event, append


class Groups:
    """The use cases of groups. That the caller may was checked before."""

    def __init__(self, *, database: Database, feed: PermissionFeed, clock: Clock) -> None:
        self._database = database
        self._feed = feed
        self._clock = clock

    async def add(self, call: Call, group: str, member: str) -> Membership:
        """Put a principal or group into a group; return the membership, which may have been there already.

        Raises:
            NotFound: there is no such group or member.
            InvalidField: `group` is no group.
            GroupCycle: the group is in the member, or is the member.
            LimitExceeded: the group has too many members, or the member is in too many groups.
        """

        async def work(connection: AsyncConnection) -> Membership:
            whole, part = await _both(connection, group, member)
            # Changes of memberships wait for each other here, so that two together make no cycle.
            revision = await identity_rows.next_revision(connection)
            if whole.id == part.id or await rows.contains(connection, part.id, whole.id):
                raise GroupCycle(group, member)
            if await rows.put(connection, whole.id, part.id, now=self._clock()):
                members, groups = await rows.counts(connection, whole.id, part.id)
                limits.check("members_per_group", members)
                limits.check("groups_per_principal", groups)
                await grant_rows.mark_changed(connection, [part.id], revision=revision)
                await mark_standings(connection)
                await append(connection, _event("member_added", whole, part, call))
            return await rows.get(connection, whole.id, part.id)

        membership = await self._database.in_tx(work)
        await self._feed.refresh()
        return membership

    async def remove(self, call: Call, group: str, member: str) -> bool:
        """Take a member out of a group; return False when it was none.

        Raises:
            NotFound: there is no such group or member.
            InvalidField: `group` is no group.
        """

        async def work(connection: AsyncConnection) -> bool:
            whole, part = await _both(connection, group, member)
            revision = await identity_rows.next_revision(connection)
            if not await rows.remove(connection, whole.id, part.id):
                return False
            await grant_rows.mark_changed(connection, [part.id], revision=revision)
            await mark_standings(connection)
            await append(connection, _event("member_removed", whole, part, call))
            return True

        removed = await self._database.in_tx(work)
        await self._feed.refresh()
        return removed

    async def page(self, asked: Asked) -> tuple[list[Membership], str]:
        """Return a page of memberships and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        return await self._database.read(lambda connection: rows.page(connection, asked))


async def _both(connection: AsyncConnection, group: str, member: str) -> tuple[Account, Account]:
    whole = await identity_rows.account_by_name(connection, group)
    part = await identity_rows.account_by_name(connection, member)
    if whole is None or part is None:
        raise NotFound("principal", member if whole else group)
    if whole.kind != "group":
        raise InvalidField("group", f"{group!r} is a {whole.kind.replace('_', ' ')}, not a group")
    return whole, part


async def mark_standings(connection: AsyncConnection) -> None:
    """Let standings be looked at again where approvals count by membership."""
    policed = await policed_by_groups(connection)
    if policed:
        await standings.mark(connection, policed, look_up=False)


def _event(verb: str, group: Account, member: Account, call: Call) -> Event:
    link = Link(ResourceType.PRINCIPAL, group.id, group.name)
    data = {"member": member.name, "member_id": member.id, "member_kind": member.kind}
    return Event(f"governance.group.{verb}", link, call.principal, call.request_id, data)
