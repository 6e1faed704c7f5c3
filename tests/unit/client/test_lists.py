"""Every list of the client and of the command line takes `filter` and `order_by`, and sends them as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modelyard import Client, contexts
from modelyard.contexts import Context

from .fake import MODULES, Fake
from .test_cli import modelyard

MODEL, VERSION = "prod.ml.iris", "prod.ml.iris/1"
LISTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "ListCatalogs": (lambda c, **asked: c.catalogs.list(**asked).collect(), ("catalogs", "list")),
    "ListSchemas": (
        lambda c, **asked: c.schemas.list("prod", **asked).collect(),
        ("schemas", "list", "prod"),
    ),
    "ListModels": (
        lambda c, **asked: c.models.list("prod.ml", **asked).collect(),
        ("models", "list", "prod.ml"),
    ),
    "ListModelVersions": (
        lambda c, **asked: c.versions.list(MODEL, **asked).collect(),
        ("versions", "list", MODEL),
    ),
    "ListAliasHistory": (
        lambda c, **asked: c.aliases.history(MODEL, **asked).collect(),
        ("aliases", "history", MODEL),
    ),
    "ListFiles": (
        lambda c, **asked: c.artifacts.list_files(VERSION, **asked).collect(),
        ("artifacts", "files", VERSION),
    ),
    "ListArtifacts": (
        lambda c, **asked: c.artifacts.list(MODEL, **asked).collect(),
        ("artifacts", "list", MODEL),
    ),
    "ListPrincipals": (lambda c, **asked: c.principals.list(**asked).collect(), ("principals", "list")),
    "ListTokens": (lambda c, **asked: c.tokens.list(**asked).collect(), ("tokens", "list")),
    "ListPrincipalGrants": (
        lambda c, **asked: c.grants.held_by("ada", **asked).collect(),
        ("grants", "of", "ada"),
    ),
    "ListMemberships": (lambda c, **asked: c.groups.list(**asked).collect(), ("groups", "list")),
    "ListIssuers": (lambda c, **asked: c.issuers.list(**asked).collect(), ("issuers", "list")),
    "ListPolicies": (lambda c, **asked: c.policies.list(**asked).collect(), ("policies", "list")),
    "ListGrants": (lambda c, **asked: c.grants.list("prod", **asked).collect(), ("grants", "list", "prod")),
    "ListApprovals": (lambda c, **asked: c.approvals.list(**asked).collect(), ("approvals", "list")),
    "ListActivity": (
        lambda c, **asked: c.audit.activity("prod.ml.iris/1", **asked).collect(),
        ("audit", "activity", "prod.ml.iris/1"),
    ),
    "ListModelCardRevisions": (
        lambda c, **asked: c.cards.revisions("prod.ml.iris/1", **asked).collect(),
        ("cards", "revisions", "prod.ml.iris/1"),
    ),
    "ListWebhooks": (lambda c, **asked: c.webhooks.list(**asked).collect(), ("webhooks", "list")),
    "ListShares": (lambda c, **asked: c.shares.list(**asked).collect(), ("shares", "list")),
    "ListWebhookDeliveries": (
        lambda c, **asked: c.webhooks.deliveries("ops", **asked).collect(),
        ("webhooks", "deliveries", "ops"),
    ),
    "ListAuditEntries": (lambda c, **asked: c.audit.list(**asked).collect(), ("audit", "list")),
    "ListDeploymentRevisions": (
        lambda c, **asked: c.deployments.history(MODEL, **asked).collect(),
        ("deployments", "history", MODEL),
    ),
    "ListDeployments": (lambda c, **asked: c.deployments.list(**asked).collect(), ("deployments", "list")),
    "ListReplicas": (
        lambda c, **asked: c.deployments.replicas(MODEL, **asked),
        ("deployments", "replicas", MODEL),
    ),
}
FIXED_ORDER = {"ListAliasHistory"}
EACH_LIST = pytest.mark.parametrize("rpc", sorted(LISTS))


def test_these_are_all_lists() -> None:
    services = (service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values())
    methods = (method.name for service in services for method in service.methods)
    assert {name for name in methods if name.startswith("List")} == set(LISTS)


def asked(rpc: str) -> dict[str, str]:
    return {"filter": "a = 'b'"} | ({} if rpc in FIXED_ORDER else {"order_by": "a desc"})


@EACH_LIST
def test_the_client_sends_filter_and_order(rpc: str, fake: Fake, client: Client) -> None:
    LISTS[rpc][0](client, **asked(rpc))
    (request,) = fake.requests(rpc)
    assert {name: getattr(request, name) for name in asked(rpc)} == asked(rpc)


@pytest.mark.parametrize("rpc", ["ListActivity", "ListAuditEntries"])
def test_the_command_line_lists_the_newest_of_the_chain_first(rpc: str, fake: Fake) -> None:
    contexts.save("test", Context(fake.target, "secret"))
    assert modelyard(*LISTS[rpc][1], "--limit", "5").exit_code == 0
    (request,) = fake.requests(rpc)
    assert request.order_by == "sequence desc"


@EACH_LIST
def test_the_command_line_sends_filter_and_order(rpc: str, fake: Fake) -> None:
    contexts.save("test", Context(fake.target, "secret"))
    options = [text for name, value in asked(rpc).items() for text in (f"--{name.replace('_', '-')}", value)]
    assert modelyard(*LISTS[rpc][1], *options).exit_code == 0
    (request,) = fake.requests(rpc)
    assert {name: getattr(request, name) for name in asked(rpc)} == asked(rpc)
