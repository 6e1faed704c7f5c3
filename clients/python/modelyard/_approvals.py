"""Approval policies, and the reviews of versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard import _namespace
from modelyard._convert import from_proto, parse_enum, rows, to_proto
from modelyard._namespace import Namespace, resource_type_number, version_reference
from modelyard._pager import AsyncPager
from modelyard.api.governance.v1 import approval_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.types import (
    Approval,
    ApprovalPolicy,
    Condition,
    GatedAction,
    GateExplanation,
    GateOverride,
    ResourceType,
    ReviewDecision,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta


class AsyncPolicies(Namespace):
    """`client.policies`: what a version needs before it may be used."""

    async def set(
        self,
        resource: str,
        *,
        required_approvals: int = 1,
        allow_self_approval: bool = False,
        protected_aliases: Sequence[str] = (),
        protect_deployments: bool = False,
        approver_group: str = "",
        approval_lifetime: timedelta | None = None,
        conditions: Mapping[str, str] | None = None,
    ) -> ApprovalPolicy:
        """Put a policy on a catalog, schema or model, or replace the one there.

        Args:
            resource: Name of the catalog, schema or model.
            required_approvals: Principals that must have approved.
            allow_self_approval: Whether the author of a version may be one of them.
            protected_aliases: Aliases that may point at approved versions only; `*` means every alias.
            protect_deployments: Whether only approved versions may be deployed.
            approver_group: Group whose members' approvals count; by default everybody's.
            approval_lifetime: How long an approval counts; by default for ever.
            conditions: Required evidence: CEL over the facts of docs/policies.md, by what a refusal calls it:
                `{"accurate": "metrics.accuracy >= 0.9"}`.
        """
        policy = ApprovalPolicy(
            required_approvals=required_approvals,
            allow_self_approval=allow_self_approval,
            protected_aliases=tuple(protected_aliases),
            protect_deployments=protect_deployments,
            approver_group=approver_group,
            approval_lifetime=approval_lifetime,
            conditions=tuple(Condition(name, expression) for name, expression in (conditions or {}).items()),
        )
        request = pb.SetApprovalPolicyRequest(
            resource_type=resource_type_number(_governed(resource)),
            resource=resource,
            policy=to_proto(approval_pb2.ApprovalPolicy, policy),
        )
        answer = await self._connection.call(self._connection.governance.SetApprovalPolicy, request)
        return from_proto(ApprovalPolicy, answer.policy)

    async def get(self, resource: str) -> ApprovalPolicy | None:
        """The policy that applies to a catalog, schema or model; None when there is none."""
        request = pb.GetApprovalPolicyRequest(
            resource_type=resource_type_number(_governed(resource)), resource=resource
        )
        answer = await self._connection.call(self._connection.governance.GetApprovalPolicy, request)
        return from_proto(ApprovalPolicy, answer.policy) if answer.HasField("policy") else None

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[ApprovalPolicy]:
        """Walk through every policy.

        Args:
            filter: Which ones, `"resource LIKE 'prod.%'"`; see docs/filters.md.
            order_by: Order; by default by resource.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[ApprovalPolicy], str]:
            request = pb.ListPoliciesRequest(
                page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListPolicies, request)
            return rows(ApprovalPolicy, answer.policies), answer.next_page_token

        return AsyncPager(fetch)

    async def explain(
        self, reference: str, action: GatedAction | str = GatedAction.DEPLOY, *, aliases: Sequence[str] = ()
    ) -> GateExplanation:
        """What the gate would say of a use of a version now, condition by condition; nothing is changed.

        Args:
            reference: The version.
            action: DEPLOY, or MOVE_ALIAS with `aliases`.
            aliases: Aliases that would point at it.
        """
        request = pb.ExplainGateRequest(
            model_version=version_reference(reference), action=_action(action), aliases=aliases
        )
        answer = await self._connection.call(self._connection.governance.ExplainGate, request)
        return from_proto(GateExplanation, answer.explanation)

    async def override(
        self,
        reference: str,
        reason: str,
        action: GatedAction | str = GatedAction.DEPLOY,
        *,
        aliases: Sequence[str] = (),
        lifetime: timedelta | None = None,
    ) -> GateOverride:
        """Let a version pass a gate for a while, whatever the policy says: for emergencies, and audited.

        Args:
            reference: The version.
            reason: Why.
            action: DEPLOY, or MOVE_ALIAS with `aliases`.
            aliases: Aliases that may point at it.
            lifetime: How long; by default an hour, at most a day.
        """
        request = pb.OverrideGateRequest(
            model_version=version_reference(reference), action=_action(action), aliases=aliases, reason=reason
        )
        if lifetime is not None:
            request.lifetime.FromTimedelta(lifetime)
        answer = await self._connection.call(self._connection.governance.OverrideGate, request)
        return from_proto(GateOverride, answer.override)


class AsyncApprovals(Namespace):
    """`client.approvals`: reviews of versions."""

    async def review(self, reference: str, decision: ReviewDecision | str, *, comment: str = "") -> Approval:
        """Approve or reject a version; a rejection needs a comment."""
        kind = parse_enum(ReviewDecision, decision, "decision")
        request = pb.ReviewVersionRequest(
            model_version=version_reference(reference),
            decision=approval_pb2.Review.Decision.Value(f"DECISION_{kind}"),
            comment=comment,
        )
        answer = await self._connection.call(self._connection.governance.ReviewVersion, request)
        return from_proto(Approval, answer.approval)

    async def get(self, reference: str) -> Approval:
        """Where a version stands."""
        request = pb.GetApprovalRequest(model_version=version_reference(reference))
        answer = await self._connection.call(self._connection.governance.GetApproval, request)
        return from_proto(Approval, answer.approval)

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Approval]:
        """Walk through where versions stand that somebody reviewed; renames and new policies show within seconds.

        Args:
            filter: Which ones, `"state = 'PENDING' AND model = 'prod.ml.iris'"`; see docs/filters.md.
            order_by: Order, `"review_time desc"`; by default the oldest version first.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Approval], str]:
            request = pb.ListApprovalsRequest(
                page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListApprovals, request)
            return rows(Approval, answer.approvals), answer.next_page_token

        return AsyncPager(fetch)


def _action(value: GatedAction | str) -> approval_pb2.GatedAction.ValueType:
    return approval_pb2.GatedAction.Value(f"GATED_ACTION_{parse_enum(GatedAction, value, 'action')}")


def _governed(resource: str) -> ResourceType:
    """Policies stand on catalogs, schemas and models only, so three parts are a model."""
    return _namespace.resource_type(resource, ResourceType.MODEL if resource.count(".") == 2 else None)
