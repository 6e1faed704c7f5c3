"""What gateways say of themselves."""

from __future__ import annotations

import re

from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard_inference import rollout_messages, scale_messages
from modelyard_inference.planner.observed import Gateway
from modelyard_kit.errors import InvalidField

MAX_CONFIRMED_GROUPS = 100_000
MAX_PROBLEM_LENGTH = 2_000

_GATEWAY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


def parse_gateway(gateway_id: str) -> str:
    """Return the id of a gateway.

    Raises:
        InvalidField: it is empty or malformed.
    """
    if not _GATEWAY.fullmatch(gateway_id):
        raise InvalidField("gateway_id", "use 1 to 128 letters, digits, '.', '_', ':' or '-'")
    return gateway_id


def parse_confirm(request: s.ConfirmRoutesRequest) -> Gateway:
    """Read what a gateway serves.

    Raises:
        InvalidField: a malformed gateway id, a negative number, or too many groups.
    """
    gateway_id = parse_gateway(request.gateway_id)
    if request.version < 0:
        raise InvalidField("version", f"{request.version} is below zero")
    if len(request.healthy_groups) > MAX_CONFIRMED_GROUPS:
        raise InvalidField("healthy_groups", f"more than {MAX_CONFIRMED_GROUPS} groups")
    problem = request.problem[:MAX_PROBLEM_LENGTH]
    figures = rollout_messages.parse_figures(request.figures)
    in_flight = scale_messages.parse_in_flight(request.figures)
    return Gateway(
        gateway_id, request.version, frozenset(request.healthy_groups), problem, figures, in_flight
    )
