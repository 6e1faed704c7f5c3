"""The verbs for groups, issuers, keys, privileges and gates: what they send and show."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from modelyard import Client, contexts
from modelyard._token import is_external
from modelyard.api.governance.v1 import access_pb2, approval_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.cli import app
from modelyard.contexts import Context

from .fake import Fake

VERSION = "prod.ml.iris/1"


def modelyard(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture
def connected(fake: Fake) -> Fake:
    contexts.save("test", Context(fake.target, "secret"))
    return fake


def sent(fake: Fake, rpc: str) -> Any:
    (request,) = fake.requests(rpc)
    return request


def test_groups_are_made_and_filled(connected: Fake) -> None:
    assert modelyard("principals", "create", "ml", "--group").exit_code == 0
    assert sent(connected, "CreatePrincipal").principal.kind == 4
    assert modelyard("groups", "add", "ml", "ada").exit_code == 0
    assert (sent(connected, "AddGroupMember").group, sent(connected, "AddGroupMember").member) == (
        "ml",
        "ada",
    )
    assert modelyard("groups", "remove", "ml", "ada").stdout == "It was no member.\n"
    assert modelyard("groups", "list", "--filter", "group = 'ml'").exit_code == 0
    assert sent(connected, "ListMemberships").filter == "group = 'ml'"
    assert modelyard("principals", "create", "x", "--group", "--service-account").exit_code == 2


def test_principals_are_disabled_and_enabled(connected: Fake) -> None:
    assert modelyard("principals", "disable", "ada").exit_code == 0
    assert modelyard("principals", "enable", "ada").exit_code == 0
    assert sent(connected, "DisablePrincipal").name == sent(connected, "EnablePrincipal").name == "ada"


def test_issuers_and_keys(connected: Fake) -> None:
    url = "https://login.example.com"
    options = ("--groups-claim", "groups", "--create-principals")
    assert modelyard("issuers", "create", "corp", url, "modelyard", *options).exit_code == 0
    issuer = sent(connected, "CreateIssuer").issuer
    assert (issuer.url, issuer.groups_claim, issuer.create_principals) == (url, "groups", True)
    assert modelyard("issuers", "delete", "corp").stdout == "There was no such issuer.\n"
    assert modelyard("tokens", "rotate-key", "--withdraw-now").exit_code == 0
    assert sent(connected, "RotateSigningKey").withdraw_now
    assert modelyard("tokens", "create", "--privilege", "execute").exit_code == 0
    assert list(sent(connected, "CreateToken").privileges) == [access_pb2.PRIVILEGE_EXECUTE]


def test_grant_and_revoke_stand_on_the_first_level_too(connected: Fake) -> None:
    assert modelyard("grant", "ada", "EXECUTE", "prod").exit_code == 0
    assert modelyard("revoke", "ada", "EXECUTE", "prod").stdout == "There was no such grant.\n"
    assert sent(connected, "CreateGrant").resource == sent(connected, "DeleteGrant").resource == "prod"


def test_effective_privileges_are_explained_when_asked(connected: Fake) -> None:
    why = "EDIT is granted on catalog 'prod' to group 'ml'"
    edit = access_pb2.EffectivePrivilege(privilege=access_pb2.PRIVILEGE_EDIT, allowed=True, explanation=why)
    connected.answers["ExplainPrivileges"] = lambda _: pb.ExplainPrivilegesResponse(privileges=[edit])
    assert why not in modelyard("grants", "effective", "prod").stdout
    rows = json.loads(modelyard("grants", "effective", "prod", "--explain", "-o", "json").stdout)
    assert rows == [{"privilege": "EDIT", "allowed": True, "explanation": why}]


def test_a_policy_takes_evidence(connected: Fake) -> None:
    options = ("--approver-group", "leads", "--approval-days", "7", "--require", "good=metrics.f1 == 1.0")
    assert modelyard("policies", "set", "prod", *options).exit_code == 0
    policy = sent(connected, "SetApprovalPolicy").policy
    assert (policy.approver_group, policy.approval_lifetime.ToTimedelta()) == ("leads", timedelta(days=7))
    assert [(one.name, one.expression) for one in policy.conditions] == [("good", "metrics.f1 == 1.0")]
    assert modelyard("policies", "set", "prod", "--require", "good").exit_code == 2


def test_a_gate_is_explained_with_an_exit_code(connected: Fake) -> None:
    unmet = approval_pb2.ConditionResult(name="accurate", problem="metrics.f1 > 0.9: is false")
    found = approval_pb2.GateExplanation(gated=True, conditions=[unmet])
    connected.answers["ExplainGate"] = lambda _: pb.ExplainGateResponse(explanation=found)
    result = modelyard("policies", "explain", VERSION, "--alias", "champion")
    assert result.exit_code == 1
    assert "accurate" in result.stdout
    assert sent(connected, "ExplainGate").aliases == ["champion"]
    connected.answers["ExplainGate"] = lambda _: pb.ExplainGateResponse(
        explanation=approval_pb2.GateExplanation(allowed=True)
    )
    free = modelyard("policies", "explain", VERSION)
    assert (free.exit_code, free.stdout) == (0, "No policy holds this back.\n")


def test_an_override_needs_a_reason(connected: Fake) -> None:
    assert modelyard("policies", "override", VERSION).exit_code == 2
    assert modelyard("policies", "override", VERSION, "-m", "outage", "--minutes", "5").exit_code == 0
    request = sent(connected, "OverrideGate")
    assert (request.reason, request.lifetime.seconds) == ("outage", 300)


def jwt_of(claims: dict[str, object]) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)
    ]
    return ".".join(["eyJ" + parts[0], parts[1], "x"])


def test_tokens_of_external_issuers_are_exchanged_and_ours_sent(fake: Fake) -> None:
    theirs, ours = jwt_of({"iss": "https://login.example.com"}), jwt_of({"iss": "modelyard", "kind": "user"})
    assert [is_external(token) for token in (theirs, ours, "eyJ.x.y", "mya_1_2")] == [
        True,
        False,
        False,
        False,
    ]
    with Client(fake.target, theirs) as client:
        client.whoami()
    assert sent(fake, "ExchangeToken").id_token == theirs
    with Client(fake.target, ours) as client:
        client.whoami()
    assert len(fake.requests("ExchangeToken")) == 1
    assert fake.calls[-1][2]["authorization"] == f"Bearer {ours}"
