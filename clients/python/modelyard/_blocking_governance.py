"""The verbs of governance for programs without `async`; see `client`."""

from __future__ import annotations

from modelyard import _approvals, _audit, _cards, _governance, _identities, _sharing, _webhooks
from modelyard._sync import Blocking, blocking, paging, streaming


class Principals(Blocking[_governance.AsyncPrincipals]):
    """`client.principals`: users and service accounts."""

    create = blocking(_governance.AsyncPrincipals.create)
    get = blocking(_governance.AsyncPrincipals.get)
    disable = blocking(_governance.AsyncPrincipals.disable)
    enable = blocking(_governance.AsyncPrincipals.enable)
    get_caller = blocking(_governance.AsyncPrincipals.get_caller)
    list = paging(_governance.AsyncPrincipals.list)


class Tokens(Blocking[_governance.AsyncTokens]):
    """`client.tokens`: long-lived secrets of principals, and what verifies the short-lived ones."""

    create = blocking(_governance.AsyncTokens.create)
    list = paging(_governance.AsyncTokens.list)
    revoke = blocking(_governance.AsyncTokens.revoke)
    signing_keys = blocking(_governance.AsyncTokens.signing_keys)
    rotate_signing_key = blocking(_governance.AsyncTokens.rotate_signing_key)


class Groups(Blocking[_identities.AsyncGroups]):
    """`client.groups`: who is in which group; a group itself is made by `client.principals`."""

    add = blocking(_identities.AsyncGroups.add)
    remove = blocking(_identities.AsyncGroups.remove)
    list = paging(_identities.AsyncGroups.list)


class Issuers(Blocking[_identities.AsyncIssuers]):
    """`client.issuers`: OpenID Connect providers whose tokens are accepted."""

    create = blocking(_identities.AsyncIssuers.create)
    delete = blocking(_identities.AsyncIssuers.delete)
    list = paging(_identities.AsyncIssuers.list)


class Grants(Blocking[_governance.AsyncGrants]):
    """`client.grants`: who may do what."""

    create = blocking(_governance.AsyncGrants.create)
    delete = blocking(_governance.AsyncGrants.delete)
    list = paging(_governance.AsyncGrants.list)
    held_by = paging(_governance.AsyncGrants.held_by)
    effective = blocking(_governance.AsyncGrants.effective)
    check = blocking(_governance.AsyncGrants.check)


class Policies(Blocking[_approvals.AsyncPolicies]):
    """`client.policies`: what a version needs before it may be used."""

    set = blocking(_approvals.AsyncPolicies.set)
    get = blocking(_approvals.AsyncPolicies.get)
    list = paging(_approvals.AsyncPolicies.list)
    explain = blocking(_approvals.AsyncPolicies.explain)
    override = blocking(_approvals.AsyncPolicies.override)


class Approvals(Blocking[_approvals.AsyncApprovals]):
    """`client.approvals`: reviews of versions."""

    review = blocking(_approvals.AsyncApprovals.review)
    get = blocking(_approvals.AsyncApprovals.get)
    list = paging(_approvals.AsyncApprovals.list)


class Audit(Blocking[_audit.AsyncAudit]):
    """`client.audit`: everything that was changed, and everything that was refused, in a chain of hashes."""

    list = paging(_audit.AsyncAudit.list)
    follow = streaming(_audit.AsyncAudit.follow)
    activity = paging(_audit.AsyncAudit.activity)
    verify = blocking(_audit.AsyncAudit.verify)
    checkpoint = blocking(_audit.AsyncAudit.checkpoint)
    keys = blocking(_audit.AsyncAudit.keys)
    export = blocking(_audit.AsyncAudit.export)


class Cards(Blocking[_cards.AsyncCards]):
    """`client.cards`: cards of versions in the format of SageMaker's model cards, as revisions."""

    draft = blocking(_cards.AsyncCards.draft)
    set = blocking(_cards.AsyncCards.set)
    get = blocking(_cards.AsyncCards.get)
    revisions = paging(_cards.AsyncCards.revisions)
    diff = blocking(_cards.AsyncCards.diff)
    render = blocking(_cards.AsyncCards.render)


class Webhooks(Blocking[_webhooks.AsyncWebhooks]):
    """`client.webhooks`: events as signed CloudEvents by HTTP, at least once."""

    create = blocking(_webhooks.AsyncWebhooks.create)
    get = blocking(_webhooks.AsyncWebhooks.get)
    list = paging(_webhooks.AsyncWebhooks.list)
    update = blocking(_webhooks.AsyncWebhooks.update)
    rotate_secret = blocking(_webhooks.AsyncWebhooks.rotate_secret)
    pause = blocking(_webhooks.AsyncWebhooks.pause)
    resume = blocking(_webhooks.AsyncWebhooks.resume)
    delete = blocking(_webhooks.AsyncWebhooks.delete)
    deliveries = paging(_webhooks.AsyncWebhooks.deliveries)
    replay = blocking(_webhooks.AsyncWebhooks.replay)


class Shares(Blocking[_sharing.AsyncShares]):
    """`client.shares`: what may leave the installation as bundles, and who may export it."""

    create = blocking(_sharing.AsyncShares.create)
    get = blocking(_sharing.AsyncShares.get)
    list = paging(_sharing.AsyncShares.list)
    update = blocking(_sharing.AsyncShares.update)
    delete = blocking(_sharing.AsyncShares.delete)


class Bundles(Blocking[_sharing.AsyncBundles]):
    """`client.bundles`: models as files that are signed and complete, written here and taken in elsewhere."""

    export = blocking(_sharing.AsyncBundles.export)
    import_bundle = blocking(_sharing.AsyncBundles.import_bundle)
    verify = blocking(_sharing.AsyncBundles.verify)
    describe = blocking(_sharing.AsyncBundles.describe)
    sign = blocking(_sharing.AsyncBundles.sign)
