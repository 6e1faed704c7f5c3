"""Approval policies, reviews of versions, and the gates they make."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance import policy as policies
from modelyard_governance.errors import SelfApproval
from modelyard_governance.models import (
    Approval,
    Directory,
    Gate,
    GateQuestion,
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
from modelyard_kit.access import Chain, Grants, Link, Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidState
from modelyard_kit.faults import failpoint
from modelyard_kit.filters import Asked
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
            NotFound: there is no such resource.
            PeerUnavailable: the catalog cannot be reached.
        """
        resource = (await self._directory.chain(command.resource_type, command.resource))[0]

        async def work(connection: AsyncConnection) -> Policy:
            before = (await rows.policies_on(connection, [resource.id])).get(resource.id)
            wanted = Policy(
                id=new_id(),
                resource=resource,
                required_approvals=command.required_approvals,
                allow_self_approval=command.allow_self_approval,
                protected_aliases=command.protected_aliases,
                protect_deployments=command.protect_deployments,
                update_time=self._clock(),
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
            approval = policies.standing(link, version.author_id, reviews, policy)
            await standing_rows.put(connection, version, approval)
            return approval

        approval = await self._database.in_tx(work)
        await failpoint("governance.review.committed")
        self._wake()
        return approval

    async def approval(self, reference: str) -> Approval:
        """Tell where a version stands. Errors as `review`, but for its state and its author."""
        version = await self._directory.version(reference)
        _, approval = await self._database.read(lambda connection: _standing(connection, version))
        return approval

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

    async def gate(self, question: GateQuestion) -> Gate:
        """Decide whether policies let a version be used, and list what is unmet."""
        version = Version(question.chain, question.author_id, "", REVIEWABLE)
        policy, approval = await self._database.read(lambda connection: _standing(connection, version))
        return policies.gate(approval, policy, question.action, question.aliases)


async def _applying(connection: AsyncConnection, chain: Chain) -> Policy | None:
    return policies.nearest(chain, await rows.policies_on(connection, [link.id for link in chain]))


async def _standing(connection: AsyncConnection, version: Version) -> tuple[Policy | None, Approval]:
    policy = await _applying(connection, version.chain)
    link = version.chain[0]
    reviews = await rows.reviews_of(connection, link.id)
    return policy, policies.standing(link, version.author_id, reviews, policy)


def _content(policy: Policy) -> dict[str, object]:
    return {
        "required_approvals": policy.required_approvals,
        "allow_self_approval": policy.allow_self_approval,
        "protected_aliases": list(policy.protected_aliases),
        "protect_deployments": policy.protect_deployments,
    }
