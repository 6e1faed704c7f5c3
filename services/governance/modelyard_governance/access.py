"""Who may call what: every RPC and its rule, as `governance_service.proto` says."""

from __future__ import annotations

from typing import Any

from modelyard_governance import messages
from modelyard_governance.directory import PeerDirectory
from modelyard_kit.access import SYSTEM, Chain, Privilege
from modelyard_kit.authorization import AUTHENTICATED, PUBLIC, SERVICES, AccessTable, Requires


def access_table(directory: PeerDirectory) -> AccessTable:
    """Return the rule of every RPC.

    AUTHENTICATED where the caller may act for itself: the rules then ask for MANAGE to act for others.
    """

    async def system(_request: Any) -> Chain:
        return (SYSTEM,)

    async def grantable(request: Any) -> Chain:
        return await directory.chain_or_phantom(*messages.parse_grantable(request))

    async def policed(request: Any) -> Chain:
        return await directory.chain_or_phantom(*messages.parse_policed(request))

    async def trusted(request: Any) -> Chain:
        return await directory.chain_or_phantom(*messages.parse_trusted(request))

    async def model(request: Any) -> Chain:
        return await directory.model_of(messages.parse_reference(request))

    return {
        "ExchangeToken": PUBLIC,
        "GetJwks": PUBLIC,
        "GetCaller": AUTHENTICATED,
        "CreatePrincipal": Requires(Privilege.MANAGE, system),
        "GetPrincipal": AUTHENTICATED,
        "ListPrincipals": AUTHENTICATED,
        "CreateToken": AUTHENTICATED,
        "ListTokens": AUTHENTICATED,
        "RevokeToken": AUTHENTICATED,
        "DisablePrincipal": Requires(Privilege.MANAGE, system),
        "EnablePrincipal": Requires(Privilege.MANAGE, system),
        "AddGroupMember": Requires(Privilege.MANAGE, system),
        "RemoveGroupMember": Requires(Privilege.MANAGE, system),
        "ListMemberships": AUTHENTICATED,
        "CreateIssuer": Requires(Privilege.MANAGE, system),
        "DeleteIssuer": Requires(Privilege.MANAGE, system),
        "ListIssuers": Requires(Privilege.MANAGE, system),
        "RotateSigningKey": Requires(Privilege.MANAGE, system),
        "CreateGrant": Requires(Privilege.MANAGE, grantable),
        "DeleteGrant": Requires(Privilege.MANAGE, grantable),
        "ListGrants": Requires(Privilege.MANAGE, grantable),
        "ListPrincipalGrants": AUTHENTICATED,
        "CheckPermission": AUTHENTICATED,
        "ExplainPrivileges": AUTHENTICATED,
        "WatchPermissions": SERVICES,
        "SetApprovalPolicy": Requires(Privilege.MANAGE, policed),
        "GetApprovalPolicy": Requires(Privilege.READ_METADATA, policed),
        "ListPolicies": Requires(Privilege.MANAGE, system),
        "ReviewVersion": Requires(Privilege.APPROVE, model),
        "GetApproval": Requires(Privilege.READ_METADATA, model),
        "ListApprovals": AUTHENTICATED,  # the query shows only what the caller may see
        "EvaluateGate": SERVICES,
        "ExplainGate": Requires(Privilege.READ_METADATA, model),
        "OverrideGate": Requires(Privilege.MANAGE, model),
        "CreateTrustRoot": Requires(Privilege.MANAGE, trusted),
        "DeleteTrustRoot": Requires(Privilege.MANAGE, trusted),
        "FindTrustRoots": Requires(Privilege.READ_METADATA, trusted),
        "RecordEvents": SERVICES,
        "ListAuditEntries": Requires(Privilege.MANAGE, system),
        "VerifyAudit": Requires(Privilege.MANAGE, system),
        "CheckpointAudit": Requires(Privilege.MANAGE, system),
        "GetAuditKeys": AUTHENTICATED,
        "ExportAudit": Requires(Privilege.MANAGE, system),
        "ListActivity": Requires(Privilege.READ_METADATA, model),
        "DraftModelCard": Requires(Privilege.READ_METADATA, model),
        "SetModelCard": Requires(Privilege.EDIT, model),
        "GetModelCard": Requires(Privilege.READ_METADATA, model),
        "ListModelCardRevisions": Requires(Privilege.READ_METADATA, model),
        "DiffModelCards": Requires(Privilege.READ_METADATA, model),
        "RenderModelCard": Requires(Privilege.READ_METADATA, model),
        "CreateWebhook": Requires(Privilege.MANAGE, system),
        "GetWebhook": Requires(Privilege.MANAGE, system),
        "ListWebhooks": Requires(Privilege.MANAGE, system),
        "UpdateWebhook": Requires(Privilege.MANAGE, system),
        "RotateWebhookSecret": Requires(Privilege.MANAGE, system),
        "PauseWebhook": Requires(Privilege.MANAGE, system),
        "ResumeWebhook": Requires(Privilege.MANAGE, system),
        "DeleteWebhook": Requires(Privilege.MANAGE, system),
        "ListWebhookDeliveries": Requires(Privilege.MANAGE, system),
        "ReplayWebhookDeliveries": Requires(Privilege.MANAGE, system),
        "CreateShare": Requires(Privilege.MANAGE, system),
        "GetShare": AUTHENTICATED,  # exporters read their shares, too
        "ListShares": Requires(Privilege.MANAGE, system),
        "UpdateShare": Requires(Privilege.MANAGE, system),
        "DeleteShare": Requires(Privilege.MANAGE, system),
        "DescribeVersionForExport": Requires(Privilege.READ_METADATA, model),
        "SignBundle": AUTHENTICATED,  # the rules ask for each model
    }
