"""Between the contract's messages of what is written down about predictions and this service's own types."""

from __future__ import annotations

from modelyard.api.inference.v1 import log_pb2 as pb
from modelyard_inference.log_policy import OTLP, PARQUET, SILENT, LogPolicy
from modelyard_kit.errors import Violation

_WHOLE = 100


def parse_policy(message: pb.LoggingPolicy, problems: list[Violation]) -> LogPolicy:
    """Read what is to be written down; what is wrong is added to `problems`."""
    percent = message.predict_log_percent
    if not 0 <= percent <= _WHOLE:
        told = f"{percent} is not a percentage from 0 to {_WHOLE}"
        problems.append(Violation("deployment.logging.predict_log_percent", told))
    if message.include_payload and not percent:
        told = "says what the predict log holds: set predict_log_percent too"
        problems.append(Violation("deployment.logging.include_payload", told))
    if not (message.access_log or percent):
        told = "says where logs go: set access_log or predict_log_percent too"
        problems += [
            Violation(f"deployment.logging.{name}", told)
            for name in (OTLP, PARQUET)
            if getattr(message, name)
        ]
    return LogPolicy(message.access_log, percent, message.include_payload, message.otlp, message.parquet)


def policy_to_proto(policy: LogPolicy) -> pb.LoggingPolicy | None:
    """Return the message of a policy; None if it wants nothing."""
    if policy == SILENT:
        return None
    return pb.LoggingPolicy(
        access_log=policy.access_log,
        predict_log_percent=policy.predict_percent,
        include_payload=policy.include_payload,
        otlp=policy.otlp,
        parquet=policy.parquet,
    )
