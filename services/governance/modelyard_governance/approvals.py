"""Approval policies, reviews of versions, and the gates they make."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance import policy as policies
from modelyard_governance.errors import SelfApproval
from modelyard_governance.models import (
    Account,
    Approval,
    Directory,
    Policy,
    Review,
    ReviewVersion,
    SetPolicy,
    Verdict,
    Version,
    Visible,
)
from modelyard_governance.store import approvals as rows
from modelyard_governance.store import standings as standing_rows
from modelyard_governance.store.identity import account_by_name
from modelyard_kit.access import Chain, Link, Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidField, InvalidState, NotFound
from modelyard_kit.faults import failpoint
from modelyard_kit.filters import Asked
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import Event, append

REVIEWABLE = "READY"


class Approvals:
    """The use cases of approvals. That the caller may was checked before.

    Args:
        database: where they are.
        directory: finds resources.
        grants: what principals may see.
        clock: the time.
        wake: called after every committed change of a standing.
    """

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        grants: Grants,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._directory = directory
        self._grants = grants
        self._clock = clock
        self._wake = wake

    async def set_policy(self, call: Call, command: SetPolicy) -> Policy:
        """Put a policy on a catalog, schema or model, or replace the one there.

        Raises:
            NotFound: there is no such resource, or no such group of approvers.
            InvalidField: the group of approvers is no group.
            PeerUnavailable: the catalog cannot be reached.
        """
        resource = (await self._directory.chain(command.resource_type, command.resource))[0]

        async def work(connection: AsyncConnection) -> Policy:
            before = (await rows.policies_on(connection, [resource.id])).get(resource.id)
            group = await _group(connection, command.approver_group) if command.approver_group else None
            wanted = Policy(
                id=new_id(),
                resource=resource,
                required_approvals=command.required_approvals,
                allow_self_approval=command.allow_self_approval,
                protected_aliases=command.protected_aliases,
                protect_deployments=command.protect_deployments,
                update_time=self._clock(),
                approver_group_id=group.id if group else None,
                approver_group=group.name if group else "",
                approval_lifetime=command.approval_lifetime,
                conditions=command.conditions,
            )
            policy = await rows.put_policy(connection, wanted)
            link = Link(ResourceType.POLICY, policy.id, resource.name)
            data = {
                "resource_id": resource.id,
                "before": before and _content(before),
                "after": _content(policy),
            }
            await append(
                connection, Event("governance.policy.set", link, call.principal, call.request_id, data)
            )
            await standing_rows.mark(connection, [resource.id], look_up=False)
            return policy

        policy = await self._database.in_tx(work)
        self._wake()
        return policy

    async def applying_policy(self, resource_type: ResourceType, name: str) -> Policy | None:
        """Return the policy that applies to a catalog, schema or model. Errors as `set_policy`."""
        chain = await self._directory.chain(resource_type, name)
        return await self._database.read(lambda connection: _applying(connection, chain))

    async def review(self, call: Call, command: ReviewVersion) -> Approval:
        """Approve or reject a READY version; a reviewer's word replaces what the same reviewer said before.

        Raises:
            NotFound: there is no such version.
            InvalidState: it is not READY.
            SelfApproval: the reviewer created it, and the policy forbids that.
            PeerUnavailable: the catalog cannot be reached.
        """
        version = await self._directory.version(command.reference)
        link = version.chain[0]
        if version.state != REVIEWABLE:
            raise InvalidState("model_version", link.name, state=version.state, wanted=REVIEWABLE)
        reviewer = call.principal

        async def work(connection: AsyncConnection) -> Approval:
            policy = await _applying(connection, version.chain)
            own = command.verdict is Verdict.APPROVE and reviewer.id == version.author_id
            if own and policy is not None and not policy.allow_self_approval:
                raise SelfApproval(link.name, reviewer.name, policy.resource.name)
            review = Review(reviewer.id, reviewer.name, command.verdict, command.comment, self._clock())
            await rows.put_review(connection, link.id, review)
            data = {"decision": str(review.verdict), "comment": review.comment, "by_author": own}
            await append(
                connection, Event("governance.version.reviewed", link, reviewer, call.request_id, data)
            )
            reviews = await rows.reviews_of(connection, link.id)
            approval = self._standing(version, reviews, policy)
            await standing_rows.put(connection, version, approval)
            return approval

        approval = await self._database.in_tx(work)
        await failpoint("governance.review.committed")
        self._wake()
        return approval

    async def approval(self, reference: str) -> Approval:
        """Tell where a version stands. Errors as `review`, but for its state and its author."""
        _, approval = await self.standing_of(await self._directory.version(reference))
        return approval

    async def standing_of(self, version: Version) -> tuple[Policy | None, Approval]:
        """Return the policy that applies to a version, and where the version stands by it."""

        async def work(connection: AsyncConnection) -> tuple[Policy | None, Approval]:
            policy = await _applying(connection, version.chain)
            reviews = await rows.reviews_of(connection, version.chain[0].id)
            return policy, self._standing(version, reviews, policy)

        return await self._database.read(work)

    def _standing(self, version: Version, reviews: Iterable[Review], policy: Policy | None) -> Approval:
        approves = approvers(self._grants, policy)
        return policies.standing(
            version.chain[0], version.author_id, reviews, policy, now=self._clock(), approves=approves
        )

    async def policies(self, asked: Asked) -> tuple[list[Policy], str]:
        """Return a page of every policy and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        return await self._database.read(lambda connection: rows.page_of_policies(connection, asked))

    async def page(self, call: Call, asked: Asked) -> tuple[list[Approval], str]:
        """Return a page of where reviewed versions stand that the caller may see, and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        visible = Visible(
            *(
                self._grants.scope(call.principal.id, privilege)
                for privilege in (Privilege.READ_METADATA, Privilege.USE_SCHEMA, Privilege.USE_CATALOG)
            )
        )
        return await self._database.read(lambda connection: standing_rows.page(connection, asked, visible))


async def _applying(connection: AsyncConnection, chain: Chain) -> Policy | None:
    return policies.nearest(chain, await rows.policies_on(connection, [link.id for link in chain]))


async def _group(connection: AsyncConnection, name: str) -> Account:
    account = await account_by_name(connection, name)
    if account is None:
        raise NotFound("principal", name)
    if account.kind != "group":
        raise InvalidField(
            "policy.approver_group", f"{name!r} is a {account.kind.replace('_', ' ')}, not a group"
        )
    return account


def approvers(grants: Grants, policy: Policy | None) -> Callable[[str], bool]:
    """Return what tells whether a principal is in the group of approvers, directly or through other groups, now."""
    group_id = policy.approver_group_id if policy else None
    if group_id is None:
        return policies.everybody
    return lambda reviewer_id: group_id in grants.holder(reviewer_id).parties


def _content(policy: Policy) -> dict[str, object]:
    return {
        "required_approvals": policy.required_approvals,
        "allow_self_approval": policy.allow_self_approval,
        "protected_aliases": list(policy.protected_aliases),
        "protect_deployments": policy.protect_deployments,
        "approver_group": policy.approver_group,
        "approval_lifetime": policy.approval_lifetime.total_seconds() if policy.approval_lifetime else None,
        "conditions": [{"name": one.name, "expression": one.expression} for one in policy.conditions],
    }
