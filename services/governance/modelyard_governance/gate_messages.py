"""Gates and overrides between protobuf messages and the values of the rules."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from google.protobuf import json_format

from modelyard.api.governance.v1 import approval_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard_governance.answers import policy_out
from modelyard_governance.gate_models import Explanation, Override, OverrideGate
from modelyard_governance.messages import parse_gated
from modelyard_governance.models import GatedAction
from modelyard_governance.shapes import required, text
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import link_to_proto, timestamp

_DEFAULT_LIFETIME = timedelta(hours=1)
_LONGEST = timedelta(days=1)


def parse_explain(request: pb.ExplainGateRequest) -> tuple[str, GatedAction, tuple[str, ...]]:
    """Return the version reference, the action and the aliases."""
    return required(request.model_version, "model_version"), *parse_gated(request)


def parse_override(request: pb.OverrideGateRequest) -> OverrideGate:
    """Return the wanted override."""
    lifetime = request.lifetime.ToTimedelta() if request.HasField("lifetime") else _DEFAULT_LIFETIME
    if not timedelta(0) < lifetime <= _LONGEST:
        raise InvalidField("lifetime", "must be more than nothing and at most a day")
    reason = text(request.reason, "reason", maximum=limits.LIMITS["comment_length"].maximum)
    if not reason.strip():
        raise InvalidField("reason", "is required: say why")
    action, aliases = parse_gated(request)
    reference = required(request.model_version, "model_version")
    return OverrideGate(reference, action, aliases, reason, lifetime)


def override_out(override: Override) -> approval_pb2.GateOverride:
    """Return the message of an override."""
    return approval_pb2.GateOverride(
        id=override.id,
        model_version=link_to_proto(override.version),
        action=approval_pb2.GatedAction.Value(f"GATED_ACTION_{override.action}"),
        aliases=override.aliases,
        reason=override.reason,
        principal=override.principal,
        create_time=timestamp(override.create_time),
        expire_time=timestamp(override.expire_time),
    )


def explanation_out(explanation: Explanation) -> approval_pb2.GateExplanation:
    """Return the message of what a gate would say."""
    message = approval_pb2.GateExplanation(
        allowed=explanation.allowed,
        policy=policy_out(explanation.policy) if explanation.policy else None,
        gated=explanation.gated,
        conditions=[
            approval_pb2.ConditionResult(name=one.name, met=one.met, problem=one.problem)
            for one in explanation.conditions
        ],
        override=override_out(explanation.override) if explanation.override else None,
    )
    if explanation.facts:
        json_format.ParseDict({key: _plain(value) for key, value in explanation.facts.items()}, message.facts)
    return message


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
