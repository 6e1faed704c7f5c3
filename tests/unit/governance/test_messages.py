"""Shape checks: every refusal names its field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from modelyard.api.common.v1 import event_pb2, resource_pb2
from modelyard.api.governance.v1 import access_pb2, approval_pb2, identity_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard_governance import answers, messages
from modelyard_governance.chain import GENESIS, extend
from modelyard_governance.models import GatedAction, Verdict
from modelyard_kit.access import Effect, Privilege, ResourceType
from modelyard_kit.errors import DomainError, InvalidField, LimitExceeded, NotFound
from modelyard_kit.limits import LIMITS

USER = identity_pb2.Principal.KIND_USER
MODEL = resource_pb2.RESOURCE_TYPE_MODEL
SYSTEM = resource_pb2.RESOURCE_TYPE_SYSTEM
VERSION = resource_pb2.RESOURCE_TYPE_MODEL_VERSION
EXECUTE = access_pb2.PRIVILEGE_EXECUTE
MOVE_ALIAS = approval_pb2.GATED_ACTION_MOVE_ALIAS


def principal(**fields: Any) -> pb.CreatePrincipalRequest:
    return pb.CreatePrincipalRequest(principal=identity_pb2.Principal(**fields))


def grant(**fields: Any) -> pb.CreateGrantRequest:
    usual = {"principal": "ada", "privilege": EXECUTE, "resource_type": MODEL, "resource": "a.b.c"}
    return pb.CreateGrantRequest(**{**usual, **fields})


def policy(**fields: Any) -> pb.SetApprovalPolicyRequest:
    usual: dict[str, Any] = {"required_approvals": 1}
    return pb.SetApprovalPolicyRequest(
        resource_type=MODEL, resource="a.b.c", policy=approval_pb2.ApprovalPolicy(**{**usual, **fields})
    )


def chain_of_version() -> resource_pb2.ResourceChain:
    kinds = ["MODEL_VERSION", "MODEL", "SCHEMA", "CATALOG", "SYSTEM"]
    links = [
        resource_pb2.Resource(type=resource_pb2.ResourceType.Value(f"RESOURCE_TYPE_{kind}"), id=kind.lower())
        for kind in kinds
    ]
    return resource_pb2.ResourceChain(links=links)


def gate(**fields: Any) -> pb.EvaluateGateRequest:
    usual: dict[str, Any] = {
        "model_version": chain_of_version(),
        "author_id": "1",
        "action": MOVE_ALIAS,
        "aliases": ["champion"],
    }
    return pb.EvaluateGateRequest(**{**usual, **fields})


def event(**fields: Any) -> event_pb2.Event:
    usual: dict[str, Any] = {
        "id": "e1",
        "type": "catalog.model.created",
        "resource": resource_pb2.Resource(type=MODEL, id="m", name="a.b.c", owner_id="1"),
        "time": Timestamp(seconds=1_700_000_000, nanos=120_000_000),
    }
    return event_pb2.Event(**{**usual, **fields})


BAD: list[tuple[Callable[[Any], object], Any, str]] = [
    (messages.parse_exchange, pb.ExchangeTokenRequest(), "api_token"),
    (messages.parse_create_principal, principal(kind=USER), "principal.name"),
    (messages.parse_create_principal, principal(kind=USER, name="a b"), "principal.name"),
    (messages.parse_create_principal, principal(kind=USER, name="a" * 129), "principal.name"),
    (messages.parse_create_principal, principal(name="ada"), "principal.kind"),
    (
        messages.parse_create_principal,
        principal(name="ada", kind=identity_pb2.Principal.KIND_SERVICE),
        "principal.kind",
    ),
    (messages.parse_create_principal, principal(name="ada", kind=99), "principal.kind"),
    (
        messages.parse_create_principal,
        principal(name="ada", kind=USER, display_name="\0"),
        "principal.display_name",
    ),
    (messages.parse_create_token, pb.CreateTokenRequest(description="x" * 256), "description"),
    (messages.parse_create_token, pb.CreateTokenRequest(expire_time=Timestamp(seconds=2**62)), "expire_time"),
    (messages.parse_principal_name, pb.GetPrincipalRequest(), "name"),
    (messages.parse_token_id, pb.RevokeTokenRequest(), "token_id"),
    (messages.parse_grant, grant(principal=""), "principal"),
    (messages.parse_grant, grant(privilege=0), "privilege"),
    (messages.parse_grant, grant(privilege=99), "privilege"),
    (messages.parse_grant, grant(privilege=access_pb2.PRIVILEGE_OWNERSHIP), "privilege"),
    (messages.parse_grant, grant(effect=7), "effect"),
    (messages.parse_grant, grant(resource_type=0), "resource_type"),
    (messages.parse_grant, grant(resource_type=VERSION), "resource_type"),
    (messages.parse_grant, grant(resource=""), "resource"),
    (messages.parse_grant, grant(resource_type=SYSTEM), "resource"),
    (messages.parse_policed, pb.GetApprovalPolicyRequest(resource_type=SYSTEM), "resource_type"),
    (messages.parse_set_policy, policy(required_approvals=0), "policy.required_approvals"),
    (messages.parse_set_policy, policy(protected_aliases=[""]), "policy.protected_aliases"),
    (messages.parse_review, pb.ReviewVersionRequest(model_version="a.b.c/1"), "decision"),
    (
        messages.parse_review,
        pb.ReviewVersionRequest(model_version="a.b.c/1", decision=2, comment=" "),
        "comment",
    ),
    (
        messages.parse_review,
        pb.ReviewVersionRequest(
            model_version="a.b.c/1", decision=1, comment="é" * (LIMITS["comment_length"].maximum + 1)
        ),
        "comment",
    ),
    (messages.parse_review, pb.ReviewVersionRequest(decision=1), "model_version"),
    (messages.parse_gate, gate(model_version=resource_pb2.ResourceChain()), "model_version"),
    (messages.parse_gate, gate(author_id=""), "author_id"),
    (messages.parse_gate, gate(action=0), "action"),
    (messages.parse_gate, gate(aliases=[]), "aliases"),
    (messages.parse_events, pb.RecordEventsRequest(events=[event(), event(id="")]), "events[1].id"),
    (messages.parse_events, pb.RecordEventsRequest(events=[event(type="")]), "events[0].type"),
    (messages.parse_events, pb.RecordEventsRequest(events=[event(resource=None)]), "events[0].resource.type"),
    (messages.parse_events, pb.RecordEventsRequest(events=[event(time=None)]), "events[0].time"),
    (messages.parse_events, pb.RecordEventsRequest(events=[event()] * 1001), "events"),
]


@pytest.mark.parametrize(("parse", "request_message", "field"), BAD)
def test_the_refusal_names_the_field(
    parse: Callable[[Any], object], request_message: Any, field: str
) -> None:
    with pytest.raises(InvalidField) as refusal:
        parse(request_message)
    assert refusal.value.metadata["field"] == field


@pytest.mark.parametrize(
    ("parse", "request_message", "error"),
    [
        (messages.parse_grant, grant(principal="no such name"), NotFound),
        (messages.parse_set_policy, policy(required_approvals=21), LimitExceeded),
        (messages.parse_set_policy, policy(protected_aliases=map(str, range(101))), LimitExceeded),
    ],
)
def test_other_refusals(
    parse: Callable[[Any], object], request_message: Any, error: type[DomainError]
) -> None:
    with pytest.raises(error):
        parse(request_message)


def test_good_requests_become_values() -> None:
    content = messages.parse_grant(grant(effect=access_pb2.EFFECT_DENY))
    assert (content.privilege, content.effect) == (Privilege.EXECUTE, Effect.DENY)
    assert messages.parse_grant(grant()).effect is Effect.ALLOW
    assert messages.parse_grantable(grant(resource_type=SYSTEM, resource="")) == (ResourceType.SYSTEM, "")
    wanted = messages.parse_set_policy(policy(protected_aliases=["b", "a", "b"]))
    assert wanted.protected_aliases == ("a", "b")
    longest = "é" * LIMITS["comment_length"].maximum
    request = pb.ReviewVersionRequest(model_version="a.b.c/1", decision=2, comment=longest)
    assert messages.parse_review(request).comment == longest
    said = messages.parse_review(pb.ReviewVersionRequest(model_version="a.b.c/1", decision=2, comment="why"))
    assert (said.reference, said.verdict) == ("a.b.c/1", Verdict.REJECT)
    assert messages.parse_gate(gate()).action is GatedAction.MOVE_ALIAS


def test_the_fingerprint_leaves_the_request_id_out() -> None:
    one, other = principal(name="ada", kind=USER), principal(name="ada", kind=USER)
    one.request_id, other.request_id = "r1", "r2"
    first, second = messages.parse_create_principal(one), messages.parse_create_principal(other)
    assert first.fingerprint == second.fingerprint
    other.principal.display_name = "Ada"
    assert messages.parse_create_principal(other).fingerprint != first.fingerprint


def test_an_event_survives_the_chain() -> None:
    sent = event(actor_id="1", actor_name="ada", request_id="r")
    sent.data.update({"number": 3, "fraction": 0.25, "text": "ä\0€", "list": [True, None], "big": 1e300})
    recorded = messages.parse_event(sent)
    entry = extend(0, GENESIS, [recorded])[0]
    assert json.loads(entry.canonical_event)["resource"] == {
        "type": "RESOURCE_TYPE_MODEL",
        "id": "m",
        "name": "a.b.c",
        "ownerId": "1",
    }
    shown = answers.entry_out(entry)
    assert shown.event == sent
    assert (len(shown.hash), shown.previous_hash) == (64, "0" * 64)


def test_an_event_without_a_json_form_is_refused() -> None:
    sent = event()
    sent.data.update({"loss": float("nan")})
    with pytest.raises(InvalidField, match="events"):
        messages.parse_event(sent, "events[0]")
