"""Principals, tokens and grants."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from google.protobuf import timestamp_pb2

from modelyard import _namespace
from modelyard._connection import new_request_id
from modelyard._convert import from_proto, parse_enum, rows, to_proto
from modelyard._namespace import Namespace, resource_type_number
from modelyard._pager import AsyncPager
from modelyard.api.governance.v1 import access_pb2, identity_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.types import (
    ApiToken,
    Effect,
    EffectivePrivilege,
    Grant,
    NewToken,
    PermissionDecision,
    Principal,
    PrincipalKind,
    Privilege,
    ResourceType,
    SigningKey,
    SigningKeys,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class AsyncPrincipals(Namespace):
    """`client.principals`: users, service accounts and groups."""

    async def create(
        self,
        name: str,
        *,
        kind: PrincipalKind | str = PrincipalKind.USER,
        display_name: str = "",
        issuer: str = "",
        subject: str = "",
        request_id: str = "",
    ) -> Principal:
        """Make a user, a service account or a group.

        Args:
            name: Its name.
            kind: USER, SERVICE_ACCOUNT or GROUP.
            display_name: Name to show.
            issuer: Name of the external issuer it comes from, if it does.
            subject: Who it is to that issuer: the claim `sub` of its tokens.
            request_id: Makes a repetition safe.
        """
        wanted = Principal(
            name=name,
            kind=parse_enum(PrincipalKind, kind, "kind"),
            display_name=display_name,
            issuer=issuer,
            subject=subject,
        )
        request = pb.CreatePrincipalRequest(
            principal=to_proto(identity_pb2.Principal, wanted), request_id=request_id or new_request_id()
        )
        answer = await self._connection.call(self._connection.governance.CreatePrincipal, request)
        return from_proto(Principal, answer.principal)

    async def get(self, name: str) -> Principal:
        """Read one principal."""
        request = pb.GetPrincipalRequest(name=name)
        answer = await self._connection.call(self._connection.governance.GetPrincipal, request)
        return from_proto(Principal, answer.principal)

    async def disable(self, name: str) -> Principal:
        """Take everything from a user or service account, within a second and everywhere."""
        request = pb.DisablePrincipalRequest(name=name)
        answer = await self._connection.call(self._connection.governance.DisablePrincipal, request)
        return from_proto(Principal, answer.principal)

    async def enable(self, name: str) -> Principal:
        """Give back what `disable` took."""
        request = pb.EnablePrincipalRequest(name=name)
        answer = await self._connection.call(self._connection.governance.EnablePrincipal, request)
        return from_proto(Principal, answer.principal)

    async def get_caller(self) -> Principal:
        """Who you are to the services."""
        answer = await self._connection.call(self._connection.governance.GetCaller, pb.GetCallerRequest())
        return from_proto(Principal, answer.principal)

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Principal]:
        """Walk through principals.

        Args:
            filter: Which ones, `"kind = 'USER'"`; see docs/filters.md.
            order_by: Order, `"create_time desc"`; by default by name.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Principal], str]:
            request = pb.ListPrincipalsRequest(
                page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListPrincipals, request)
            return rows(Principal, answer.principals), answer.next_page_token

        return AsyncPager(fetch)


class AsyncTokens(Namespace):
    """`client.tokens`: long-lived secrets of principals, and what verifies the short-lived ones."""

    async def create(
        self,
        *,
        principal: str = "",
        description: str = "",
        expire_time: datetime | None = None,
        privileges: Sequence[Privilege | str] = (),
        request_id: str = "",
    ) -> NewToken:
        """Make an API token; its secret is in the answer and nowhere else.

        Args:
            principal: Whose it is; by default yours.
            description: What it is for.
            expire_time: When it stops working (aware); by default in 90 days.
            privileges: The only ones it gives, of those that the principal has; by default all.
            request_id: Makes a repetition safe; a repeated answer has no secret.
        """
        request = pb.CreateTokenRequest(
            principal=principal,
            description=description,
            privileges=map(_privilege, privileges),
            request_id=request_id or new_request_id(),
        )
        if expire_time is not None:
            request.expire_time.CopyFrom(_timestamp(expire_time))
        answer = await self._connection.call(self._connection.governance.CreateToken, request)
        return NewToken(from_proto(ApiToken, answer.token), answer.secret)

    def list(
        self,
        *,
        principal: str = "",
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[ApiToken]:
        """Walk through the API tokens of a principal.

        Args:
            principal: Whose; by default yours.
            filter: Which ones, `"revoke_time IS NULL"`; see docs/filters.md.
            order_by: Order, `"expire_time"`; by default that of creation.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[ApiToken], str]:
            request = pb.ListTokensRequest(
                principal=principal,
                page_size=page_size,
                page_token=token,
                filter=filter,
                order_by=order_by,
            )
            answer = await self._connection.call(self._connection.governance.ListTokens, request)
            return rows(ApiToken, answer.tokens), answer.next_page_token

        return AsyncPager(fetch)

    async def revoke(self, token_id: str) -> ApiToken:
        """End an API token."""
        request = pb.RevokeTokenRequest(token_id=token_id)
        answer = await self._connection.call(self._connection.governance.RevokeToken, request)
        return from_proto(ApiToken, answer.token)

    async def signing_keys(self) -> SigningKeys:
        """The public keys that verify the tokens of calls."""
        answer = await self._connection.call(self._connection.governance.GetJwks, pb.GetJwksRequest())
        return from_proto(SigningKeys, answer)

    async def rotate_signing_key(self, *, withdraw_now: bool = False) -> Sequence[SigningKey]:
        """Let another key sign the tokens of calls, and return those that verify them, the newest first.

        Args:
            withdraw_now: Let no older key verify any more, because one has leaked; else both overlap and nobody notices.
        """
        request = pb.RotateSigningKeyRequest(withdraw_now=withdraw_now)
        answer = await self._connection.call(self._connection.governance.RotateSigningKey, request)
        return rows(SigningKey, answer.keys)


class AsyncGrants(Namespace):
    """`client.grants`: who may do what.

    A resource is named by its name: empty for the whole installation, `prod`, `prod.ml_team`; for three parts say
    `resource_type` MODEL or DEPLOYMENT.
    """

    async def create(
        self,
        principal: str,
        privilege: Privilege | str,
        resource: str = "",
        *,
        resource_type: ResourceType | str | None = None,
        effect: Effect | str = Effect.ALLOW,
    ) -> Grant:
        """Give a principal a privilege on a resource and everything inside it, or deny it; twice is once."""
        request = pb.CreateGrantRequest(
            principal=principal,
            privilege=_privilege(privilege),
            effect=_effect(effect),
            resource_type=resource_type_number(_namespace.resource_type(resource, resource_type)),
            resource=resource,
        )
        answer = await self._connection.call(self._connection.governance.CreateGrant, request)
        return from_proto(Grant, answer.grant)

    async def delete(
        self,
        principal: str,
        privilege: Privilege | str,
        resource: str = "",
        *,
        resource_type: ResourceType | str | None = None,
        effect: Effect | str = Effect.ALLOW,
    ) -> bool:
        """Take a grant back; tells whether there was one."""
        request = pb.DeleteGrantRequest(
            principal=principal,
            privilege=_privilege(privilege),
            effect=_effect(effect),
            resource_type=resource_type_number(_namespace.resource_type(resource, resource_type)),
            resource=resource,
        )
        return (await self._connection.call(self._connection.governance.DeleteGrant, request)).deleted

    def list(
        self,
        resource: str = "",
        *,
        resource_type: ResourceType | str | None = None,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Grant]:
        """Walk through the grants on a resource itself; inherited ones stand on its containers.

        Args:
            resource: Its name; empty for the whole installation.
            resource_type: MODEL or DEPLOYMENT, for a name of three parts.
            filter: Which ones, `"privilege IN ('MANAGE', 'EDIT')"`; see docs/filters.md.
            order_by: Order, `"principal, privilege"`; by default that of creation.
            page_size: Rows asked for at once.
        """
        kind = resource_type_number(_namespace.resource_type(resource, resource_type))

        async def fetch(token: str) -> tuple[Sequence[Grant], str]:
            request = pb.ListGrantsRequest(
                resource_type=kind,
                resource=resource,
                page_size=page_size,
                page_token=token,
                filter=filter,
                order_by=order_by,
            )
            answer = await self._connection.call(self._connection.governance.ListGrants, request)
            return rows(Grant, answer.grants), answer.next_page_token

        return AsyncPager(fetch)

    def held_by(
        self,
        principal: str = "",
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Grant]:
        """Walk through what a principal or group was given itself, on whatever resource.

        Args:
            principal: Its name; by default you.
            filter: Which ones, `"effect = 'DENY'"`; see docs/filters.md.
            order_by: Order, `"resource, privilege"`; by default that of creation.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Grant], str]:
            request = pb.ListPrincipalGrantsRequest(
                principal=principal, page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListPrincipalGrants, request)
            return rows(Grant, answer.grants), answer.next_page_token

        return AsyncPager(fetch)

    async def effective(
        self, resource: str = "", *, resource_type: ResourceType | str | None = None, principal: str = ""
    ) -> Sequence[EffectivePrivilege]:
        """Every privilege on a resource: whether a principal (by default you) has it, and which grant decided."""
        request = pb.ExplainPrivilegesRequest(
            principal=principal,
            resource_type=resource_type_number(_namespace.resource_type(resource, resource_type)),
            resource=resource,
        )
        answer = await self._connection.call(self._connection.governance.ExplainPrivileges, request)
        return rows(EffectivePrivilege, answer.privileges)

    async def check(
        self,
        privilege: Privilege | str,
        resource: str = "",
        *,
        resource_type: ResourceType | str | None = None,
        principal: str = "",
    ) -> PermissionDecision:
        """Whether a principal (by default you) has a privilege, and why."""
        request = pb.CheckPermissionRequest(
            principal=principal,
            privilege=_privilege(privilege),
            resource_type=resource_type_number(_namespace.resource_type(resource, resource_type)),
            resource=resource,
        )
        answer = await self._connection.call(self._connection.governance.CheckPermission, request)
        return from_proto(PermissionDecision, answer)


def _privilege(value: Privilege | str) -> access_pb2.Privilege.ValueType:
    name = parse_enum(Privilege, value, "privilege")
    return access_pb2.Privilege.Value(f"PRIVILEGE_{name}")


def _effect(value: Effect | str) -> access_pb2.Effect.ValueType:
    return access_pb2.Effect.Value(f"EFFECT_{parse_enum(Effect, value, 'effect')}")


def _timestamp(value: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(value.astimezone(UTC))
    return stamp
