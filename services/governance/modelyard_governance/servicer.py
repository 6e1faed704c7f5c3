"""One method per RPC: parse, call the rules, render."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceServicer
from modelyard_governance import answers, audit_messages, gate_messages, identity_messages, messages
from modelyard_governance.approvals import Approvals
from modelyard_governance.audit import Audit
from modelyard_governance.cards import messages as card_messages
from modelyard_governance.cards.rules import Cards
from modelyard_governance.checkpoints import Checkpoints
from modelyard_governance.federation import Federation
from modelyard_governance.gates import Gates
from modelyard_governance.grants import GrantRules
from modelyard_governance.groups import Groups
from modelyard_governance.identity import Identity
from modelyard_governance.keyring import KeyRing
from modelyard_governance.permissions import PermissionFeed
from modelyard_governance.shares.bundles import Bundles
from modelyard_governance.shares.rules import Shares
from modelyard_governance.shares.servicer import ShareServicer
from modelyard_governance.trust import TrustRoots
from modelyard_governance.webhooks import messages as webhook_messages
from modelyard_governance.webhooks.models import State as WebhookState
from modelyard_governance.webhooks.rules import Webhooks
from modelyard_kit.auth import current_call
from modelyard_kit.filters import Asked
from modelyard_kit.grants import Grants
from modelyard_kit.protos import timestamp


class GovernanceServicer(ShareServicer, GovernanceServiceServicer):
    """Serves `modelyard.api.governance.v1.GovernanceService`."""

    def __init__(
        self,
        *,
        identity: Identity,
        grants: GrantRules,
        feed: PermissionFeed,
        approvals: Approvals,
        trust_roots: TrustRoots,
        audit: Audit,
        groups: Groups,
        federation: Federation,
        keyring: KeyRing,
        gates: Gates,
        checkpoints: Checkpoints,
        cards: Cards,
        webhooks: Webhooks,
        shares: Shares,
        bundles: Bundles,
        known: Grants,
    ) -> None:
        super().__init__(shares=shares, bundles=bundles, known=known)
        self._gates = gates
        self._groups = groups
        self._federation = federation
        self._keyring = keyring
        self._identity = identity
        self._grants = grants
        self._feed = feed
        self._approvals = approvals
        self._trust_roots = trust_roots
        self._audit = audit
        self._checkpoints = checkpoints
        self._cards = cards
        self._webhooks = webhooks

    async def ExchangeToken(self, request: pb.ExchangeTokenRequest, context: Any) -> pb.ExchangeTokenResponse:
        api_token, id_token = messages.parse_exchange(request)
        exchanged = self._identity.exchange(api_token) if api_token else self._federation.exchange(id_token)
        token, expire_time = await exchanged
        return pb.ExchangeTokenResponse(access_token=token, expire_time=timestamp(expire_time))

    async def GetJwks(self, request: pb.GetJwksRequest, context: Any) -> pb.GetJwksResponse:
        keys = map(identity_messages.key_out, self._identity.keys)
        return pb.GetJwksResponse(keys=keys, issuer=self._identity.issuer)

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        account = await self._identity.caller(current_call())
        return pb.GetCallerResponse(principal=answers.principal_out(account))

    async def CreatePrincipal(
        self, request: pb.CreatePrincipalRequest, context: Any
    ) -> pb.CreatePrincipalResponse:
        command = messages.parse_create_principal(request)
        account = await self._identity.create_principal(current_call(), command)
        return pb.CreatePrincipalResponse(principal=answers.principal_out(account))

    async def GetPrincipal(self, request: pb.GetPrincipalRequest, context: Any) -> pb.GetPrincipalResponse:
        account = await self._identity.get_principal(messages.parse_principal_name(request))
        return pb.GetPrincipalResponse(principal=answers.principal_out(account))

    async def ListPrincipals(
        self, request: pb.ListPrincipalsRequest, context: Any
    ) -> pb.ListPrincipalsResponse:
        rows, token = await self._identity.list_principals(Asked.of(request))
        return pb.ListPrincipalsResponse(principals=map(answers.principal_out, rows), next_page_token=token)

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        command = messages.parse_create_token(request)
        token, secret = await self._identity.create_token(current_call(), command)
        return pb.CreateTokenResponse(token=answers.token_out(token), secret=secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        owner = messages.parse_owner(request)
        rows, token = await self._identity.list_tokens(current_call(), owner, Asked.of(request))
        return pb.ListTokensResponse(tokens=map(answers.token_out, rows), next_page_token=token)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        token = await self._identity.revoke_token(current_call(), messages.parse_token_id(request))
        return pb.RevokeTokenResponse(token=answers.token_out(token))

    async def DisablePrincipal(
        self, request: pb.DisablePrincipalRequest, context: Any
    ) -> pb.DisablePrincipalResponse:
        name = messages.parse_principal_name(request)
        account = await self._identity.set_disabled(current_call(), name, disabled=True)
        return pb.DisablePrincipalResponse(principal=answers.principal_out(account))

    async def EnablePrincipal(
        self, request: pb.EnablePrincipalRequest, context: Any
    ) -> pb.EnablePrincipalResponse:
        name = messages.parse_principal_name(request)
        account = await self._identity.set_disabled(current_call(), name, disabled=False)
        return pb.EnablePrincipalResponse(principal=answers.principal_out(account))

    async def AddGroupMember(
        self, request: pb.AddGroupMemberRequest, context: Any
    ) -> pb.AddGroupMemberResponse:
        membership = await self._groups.add(current_call(), *identity_messages.parse_member(request))
        return pb.AddGroupMemberResponse(membership=identity_messages.membership_out(membership))

    async def RemoveGroupMember(
        self, request: pb.RemoveGroupMemberRequest, context: Any
    ) -> pb.RemoveGroupMemberResponse:
        removed = await self._groups.remove(current_call(), *identity_messages.parse_member(request))
        return pb.RemoveGroupMemberResponse(removed=removed)

    async def ListMemberships(
        self, request: pb.ListMembershipsRequest, context: Any
    ) -> pb.ListMembershipsResponse:
        rows, token = await self._groups.page(Asked.of(request))
        memberships = map(identity_messages.membership_out, rows)
        return pb.ListMembershipsResponse(memberships=memberships, next_page_token=token)

    async def CreateIssuer(self, request: pb.CreateIssuerRequest, context: Any) -> pb.CreateIssuerResponse:
        command = identity_messages.parse_create_issuer(request)
        issuer = await self._federation.create(current_call(), command)
        return pb.CreateIssuerResponse(issuer=identity_messages.issuer_out(issuer))

    async def DeleteIssuer(self, request: pb.DeleteIssuerRequest, context: Any) -> pb.DeleteIssuerResponse:
        name = identity_messages.parse_issuer_name(request.name)
        return pb.DeleteIssuerResponse(deleted=await self._federation.delete(current_call(), name))

    async def ListIssuers(self, request: pb.ListIssuersRequest, context: Any) -> pb.ListIssuersResponse:
        rows, token = await self._federation.page(Asked.of(request))
        return pb.ListIssuersResponse(issuers=map(identity_messages.issuer_out, rows), next_page_token=token)

    async def RotateSigningKey(
        self, request: pb.RotateSigningKeyRequest, context: Any
    ) -> pb.RotateSigningKeyResponse:
        keys = await self._keyring.rotate(current_call(), withdraw_now=request.withdraw_now)
        return pb.RotateSigningKeyResponse(keys=map(identity_messages.key_out, keys))

    async def CreateGrant(self, request: pb.CreateGrantRequest, context: Any) -> pb.CreateGrantResponse:
        grant = await self._grants.create(current_call(), messages.parse_grant(request))
        return pb.CreateGrantResponse(grant=answers.grant_out(grant))

    async def DeleteGrant(self, request: pb.DeleteGrantRequest, context: Any) -> pb.DeleteGrantResponse:
        deleted = await self._grants.delete(current_call(), messages.parse_grant(request))
        return pb.DeleteGrantResponse(deleted=deleted)

    async def ListGrants(self, request: pb.ListGrantsRequest, context: Any) -> pb.ListGrantsResponse:
        rows, token = await self._grants.list_on(*messages.parse_grantable(request), Asked.of(request))
        return pb.ListGrantsResponse(grants=map(answers.grant_out, rows), next_page_token=token)

    async def ListPrincipalGrants(
        self, request: pb.ListPrincipalGrantsRequest, context: Any
    ) -> pb.ListPrincipalGrantsResponse:
        owner = messages.parse_owner(request)
        rows, token = await self._grants.list_of(current_call(), owner, Asked.of(request))
        return pb.ListPrincipalGrantsResponse(grants=map(answers.grant_out, rows), next_page_token=token)

    async def ExplainPrivileges(
        self, request: pb.ExplainPrivilegesRequest, context: Any
    ) -> pb.ExplainPrivilegesResponse:
        decisions = await self._grants.effective(current_call(), *messages.parse_effective(request))
        privileges = [answers.effective_out(*decision) for decision in decisions]
        return pb.ExplainPrivilegesResponse(privileges=privileges)

    async def CheckPermission(
        self, request: pb.CheckPermissionRequest, context: Any
    ) -> pb.CheckPermissionResponse:
        decision = await self._grants.check(current_call(), messages.parse_check(request))
        return pb.CheckPermissionResponse(allowed=decision.allowed, explanation=decision.explanation)

    async def WatchPermissions(
        self, request: pb.WatchPermissionsRequest, context: Any
    ) -> AsyncIterator[pb.WatchPermissionsResponse]:
        async for step in self._feed.watch():
            yield answers.step_out(step)

    async def SetApprovalPolicy(
        self, request: pb.SetApprovalPolicyRequest, context: Any
    ) -> pb.SetApprovalPolicyResponse:
        policy = await self._approvals.set_policy(current_call(), messages.parse_set_policy(request))
        return pb.SetApprovalPolicyResponse(policy=answers.policy_out(policy))

    async def GetApprovalPolicy(
        self, request: pb.GetApprovalPolicyRequest, context: Any
    ) -> pb.GetApprovalPolicyResponse:
        policy = await self._approvals.applying_policy(*messages.parse_policed(request))
        return pb.GetApprovalPolicyResponse(policy=answers.policy_out(policy) if policy else None)

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Any) -> pb.ListPoliciesResponse:
        rows, token = await self._approvals.policies(Asked.of(request))
        return pb.ListPoliciesResponse(policies=map(answers.policy_out, rows), next_page_token=token)

    async def ReviewVersion(self, request: pb.ReviewVersionRequest, context: Any) -> pb.ReviewVersionResponse:
        approval = await self._approvals.review(current_call(), messages.parse_review(request))
        return pb.ReviewVersionResponse(approval=answers.approval_out(approval))

    async def GetApproval(self, request: pb.GetApprovalRequest, context: Any) -> pb.GetApprovalResponse:
        approval = await self._approvals.approval(messages.parse_reference(request))
        return pb.GetApprovalResponse(approval=answers.approval_out(approval))

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: Any) -> pb.ListApprovalsResponse:
        rows, token = await self._approvals.page(current_call(), Asked.of(request))
        return pb.ListApprovalsResponse(approvals=map(answers.approval_out, rows), next_page_token=token)

    async def EvaluateGate(self, request: pb.EvaluateGateRequest, context: Any) -> pb.EvaluateGateResponse:
        gate = await self._gates.decide(current_call(), messages.parse_gate(request))
        return pb.EvaluateGateResponse(allowed=gate.allowed, unmet=gate.unmet, policy=gate.policy)

    async def ExplainGate(self, request: pb.ExplainGateRequest, context: Any) -> pb.ExplainGateResponse:
        explanation = await self._gates.explain(*gate_messages.parse_explain(request))
        return pb.ExplainGateResponse(explanation=gate_messages.explanation_out(explanation))

    async def OverrideGate(self, request: pb.OverrideGateRequest, context: Any) -> pb.OverrideGateResponse:
        override = await self._gates.override(current_call(), gate_messages.parse_override(request))
        return pb.OverrideGateResponse(override=gate_messages.override_out(override))

    async def CreateTrustRoot(
        self, request: pb.CreateTrustRootRequest, context: Any
    ) -> pb.CreateTrustRootResponse:
        command = messages.parse_create_trust_root(request)
        root = await self._trust_roots.create(current_call(), command)
        return pb.CreateTrustRootResponse(trust_root=answers.trust_root_out(root))

    async def DeleteTrustRoot(
        self, request: pb.DeleteTrustRootRequest, context: Any
    ) -> pb.DeleteTrustRootResponse:
        name = messages.parse_trust_root_name(request.name)
        deleted = await self._trust_roots.delete(current_call(), *messages.parse_trusted(request), name)
        return pb.DeleteTrustRootResponse(deleted=deleted)

    async def FindTrustRoots(
        self, request: pb.FindTrustRootsRequest, context: Any
    ) -> pb.FindTrustRootsResponse:
        found = await self._trust_roots.applying(*messages.parse_trusted(request))
        return pb.FindTrustRootsResponse(trust_roots=map(answers.trust_root_out, found))

    async def RecordEvents(self, request: pb.RecordEventsRequest, context: Any) -> pb.RecordEventsResponse:
        await self._audit.record(messages.parse_events(request))
        return pb.RecordEventsResponse()

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Any
    ) -> pb.ListAuditEntriesResponse:
        rows, token = await self._audit.page(Asked.of(request), messages.parse_resource_id(request))
        return pb.ListAuditEntriesResponse(entries=map(answers.entry_out, rows), next_page_token=token)

    async def VerifyAudit(self, request: pb.VerifyAuditRequest, context: Any) -> pb.VerifyAuditResponse:
        return audit_messages.verification_out(await self._audit.verify())

    async def CheckpointAudit(
        self, request: pb.CheckpointAuditRequest, context: Any
    ) -> pb.CheckpointAuditResponse:
        made = await self._checkpoints.make()
        return pb.CheckpointAuditResponse(checkpoint=audit_messages.checkpoint_out(made))

    async def GetAuditKeys(self, request: pb.GetAuditKeysRequest, context: Any) -> pb.GetAuditKeysResponse:
        return pb.GetAuditKeysResponse(keys=self._checkpoints.keys)

    async def ExportAudit(
        self, request: pb.ExportAuditRequest, context: Any
    ) -> AsyncIterator[pb.ExportAuditResponse]:
        async for lines in self._checkpoints.export(audit_messages.parse_after(request)):
            yield pb.ExportAuditResponse(lines=lines)

    async def ListActivity(self, request: pb.ListActivityRequest, context: Any) -> pb.ListActivityResponse:
        rows, token = await self._audit.activity(messages.parse_reference(request), Asked.of(request))
        return pb.ListActivityResponse(
            activities=map(audit_messages.activity_out, rows), next_page_token=token
        )

    async def DraftModelCard(
        self, request: pb.DraftModelCardRequest, context: Any
    ) -> pb.DraftModelCardResponse:
        card = await self._cards.draft(current_call(), messages.parse_reference(request))
        return pb.DraftModelCardResponse(card=card_messages.card_out(card))

    async def SetModelCard(self, request: pb.SetModelCardRequest, context: Any) -> pb.SetModelCardResponse:
        command = card_messages.parse_set(request, messages.parse_reference(request))
        card = await self._cards.set(current_call(), command)
        return pb.SetModelCardResponse(card=card_messages.card_out(card))

    async def GetModelCard(self, request: pb.GetModelCardRequest, context: Any) -> pb.GetModelCardResponse:
        revision = card_messages.parse_revision(request.revision)
        card = await self._cards.get(messages.parse_reference(request), revision)
        return pb.GetModelCardResponse(card=card_messages.card_out(card))

    async def ListModelCardRevisions(
        self, request: pb.ListModelCardRevisionsRequest, context: Any
    ) -> pb.ListModelCardRevisionsResponse:
        rows, token = await self._cards.page(messages.parse_reference(request), Asked.of(request))
        return pb.ListModelCardRevisionsResponse(
            cards=map(card_messages.revision_out, rows), next_page_token=token
        )

    async def DiffModelCards(
        self, request: pb.DiffModelCardsRequest, context: Any
    ) -> pb.DiffModelCardsResponse:
        before = card_messages.parse_revision(request.from_revision, "from_revision")
        after = card_messages.parse_revision(request.to_revision, "to_revision")
        old, new, changes = await self._cards.compare(messages.parse_reference(request), before, after)
        return pb.DiffModelCardsResponse(
            changes=map(card_messages.change_out, changes),
            from_revision=old.revision,
            to_revision=new.revision,
        )

    async def RenderModelCard(
        self, request: pb.RenderModelCardRequest, context: Any
    ) -> pb.RenderModelCardResponse:
        revision = card_messages.parse_revision(request.revision)
        wanted = card_messages.parse_format(request)
        painted = await self._cards.paint(messages.parse_reference(request), revision, wanted)
        return pb.RenderModelCardResponse(document=painted.content, media_type=painted.media_type)

    async def CreateWebhook(self, request: pb.CreateWebhookRequest, context: Any) -> pb.CreateWebhookResponse:
        webhook, secret = await self._webhooks.create(current_call(), webhook_messages.parse_create(request))
        return pb.CreateWebhookResponse(webhook=webhook_messages.webhook_out(webhook), secret=secret)

    async def GetWebhook(self, request: pb.GetWebhookRequest, context: Any) -> pb.GetWebhookResponse:
        webhook = await self._webhooks.get(webhook_messages.parse_name(request))
        return pb.GetWebhookResponse(webhook=webhook_messages.webhook_out(webhook))

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: Any) -> pb.ListWebhooksResponse:
        rows, token = await self._webhooks.page(Asked.of(request))
        return pb.ListWebhooksResponse(
            webhooks=map(webhook_messages.webhook_out, rows), next_page_token=token
        )

    async def UpdateWebhook(self, request: pb.UpdateWebhookRequest, context: Any) -> pb.UpdateWebhookResponse:
        webhook = await self._webhooks.update(current_call(), webhook_messages.parse_update(request))
        return pb.UpdateWebhookResponse(webhook=webhook_messages.webhook_out(webhook))

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Any
    ) -> pb.RotateWebhookSecretResponse:
        name = webhook_messages.parse_name(request)
        webhook, secret = await self._webhooks.rotate_secret(current_call(), name, revoke=request.revoke)
        return pb.RotateWebhookSecretResponse(webhook=webhook_messages.webhook_out(webhook), secret=secret)

    async def PauseWebhook(self, request: pb.PauseWebhookRequest, context: Any) -> pb.PauseWebhookResponse:
        name = webhook_messages.parse_name(request)
        webhook = await self._webhooks.set_state(current_call(), name, WebhookState.PAUSED)
        return pb.PauseWebhookResponse(webhook=webhook_messages.webhook_out(webhook))

    async def ResumeWebhook(self, request: pb.ResumeWebhookRequest, context: Any) -> pb.ResumeWebhookResponse:
        name = webhook_messages.parse_name(request)
        webhook = await self._webhooks.set_state(current_call(), name, WebhookState.ENABLED)
        return pb.ResumeWebhookResponse(webhook=webhook_messages.webhook_out(webhook))

    async def DeleteWebhook(self, request: pb.DeleteWebhookRequest, context: Any) -> pb.DeleteWebhookResponse:
        deleted = await self._webhooks.delete(current_call(), webhook_messages.parse_name(request))
        return pb.DeleteWebhookResponse(deleted=deleted)

    async def ListWebhookDeliveries(
        self, request: pb.ListWebhookDeliveriesRequest, context: Any
    ) -> pb.ListWebhookDeliveriesResponse:
        name = webhook_messages.parse_log(request)
        rows, token = await self._webhooks.deliveries(name, Asked.of(request))
        return pb.ListWebhookDeliveriesResponse(
            deliveries=map(webhook_messages.delivery_out, rows), next_page_token=token
        )

    async def ReplayWebhookDeliveries(
        self, request: pb.ReplayWebhookDeliveriesRequest, context: Any
    ) -> pb.ReplayWebhookDeliveriesResponse:
        count = await self._webhooks.replay(current_call(), webhook_messages.parse_replay(request))
        return pb.ReplayWebhookDeliveriesResponse(deliveries=count)
