"""Groups, and external issuers of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard._connection import new_request_id
from modelyard._convert import from_proto, rows, to_proto
from modelyard._namespace import Namespace
from modelyard._pager import AsyncPager
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1 import identity_pb2
from modelyard.types import Issuer, Membership

if TYPE_CHECKING:
    from collections.abc import Sequence


class AsyncGroups(Namespace):
    """`client.groups`: who is in which group; a group itself is made by `client.principals`."""

    async def add(self, group: str, member: str) -> Membership:
        """Put a principal or group into a group; twice is once."""
        request = pb.AddGroupMemberRequest(group=group, member=member)
        answer = await self._connection.call(self._connection.governance.AddGroupMember, request)
        return from_proto(Membership, answer.membership)

    async def remove(self, group: str, member: str) -> bool:
        """Take a member out of a group; tells whether it was one."""
        request = pb.RemoveGroupMemberRequest(group=group, member=member)
        return (await self._connection.call(self._connection.governance.RemoveGroupMember, request)).removed

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Membership]:
        """Walk through memberships.

        Args:
            filter: Which ones, `"group = 'ml-team'"` or `"member = 'ada'"`; see docs/filters.md.
            order_by: Order, `"create_time desc"`; by default by group and member.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Membership], str]:
            request = pb.ListMembershipsRequest(
                page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListMemberships, request)
            return rows(Membership, answer.memberships), answer.next_page_token

        return AsyncPager(fetch)


class AsyncIssuers(Namespace):
    """`client.issuers`: OpenID Connect providers whose tokens are accepted."""

    async def create(
        self,
        name: str,
        url: str,
        audience: str,
        *,
        principal_claim: str = "",
        principal_prefix: str = "",
        groups_claim: str = "",
        group_prefix: str = "",
        create_principals: bool = False,
        request_id: str = "",
    ) -> Issuer:
        """Accept the tokens of a provider.

        Args:
            name: What to call it.
            url: Value of the claim `iss`; its keys are found from there by discovery.
            audience: Value that the claim `aud` must contain.
            principal_claim: Claim with the name of the principal; by default `sub`.
            principal_prefix: Put before that name.
            groups_claim: Claim with a list of names of groups; by default the provider says nothing of groups.
            group_prefix: Put before each of these names; only groups that exist count.
            create_principals: Make a principal of an unknown user; else refuse it.
            request_id: Makes a repetition safe.
        """
        wanted = Issuer(
            name=name,
            url=url,
            audience=audience,
            principal_claim=principal_claim,
            principal_prefix=principal_prefix,
            groups_claim=groups_claim,
            group_prefix=group_prefix,
            create_principals=create_principals,
        )
        request = pb.CreateIssuerRequest(
            issuer=to_proto(identity_pb2.Issuer, wanted), request_id=request_id or new_request_id()
        )
        answer = await self._connection.call(self._connection.governance.CreateIssuer, request)
        return from_proto(Issuer, answer.issuer)

    async def delete(self, name: str) -> bool:
        """Accept its tokens no more; tells whether there was such an issuer."""
        request = pb.DeleteIssuerRequest(name=name)
        return (await self._connection.call(self._connection.governance.DeleteIssuer, request)).deleted

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Issuer]:
        """Walk through issuers.

        Args:
            filter: Which ones; see docs/filters.md.
            order_by: Order; by default by name.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Issuer], str]:
            request = pb.ListIssuersRequest(
                page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListIssuers, request)
            return rows(Issuer, answer.issuers), answer.next_page_token

        return AsyncPager(fetch)
