"""A `DomainError` on the wire: canonical code, text and encoded google.rpc.Status."""

from __future__ import annotations

from typing import Final

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from modelyard_kit.errors import DomainError

DETAILS_KEY: Final = "grpc-status-details-bin"
_DOMAIN: Final = "modelyard"
# Trailers beyond 8 KiB are cut off or refused on the way, and names in an error's text are as long as the caller likes.
_MESSAGE_BYTES: Final = 1500
_DESCRIPTION_BYTES: Final = 500
_VALUE_BYTES: Final = 200
_VIOLATIONS: Final = 3


def code(error: DomainError) -> int:
    """Return the number of the canonical code."""
    return int(code_pb2.Code.Value(error.code))


def message(error: DomainError) -> str:
    """Return the text, shortened if it would not fit into the trailers."""
    return _short(error.message, _MESSAGE_BYTES)


def details(error: DomainError) -> bytes:
    """Return the encoded status with ErrorInfo and the violations."""
    status = status_pb2.Status(code=code(error), message=message(error))
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=_DOMAIN,
        metadata={key: _short(value, _VALUE_BYTES) for key, value in error.metadata.items()},
    )
    status.details.append(_packed(info))
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations[:_VIOLATIONS]:
            bad_request.field_violations.add(
                field=_short(violation.field, _VALUE_BYTES),
                description=_short(violation.description, _DESCRIPTION_BYTES),
            )
        status.details.append(_packed(bad_request))
    return bytes(status.SerializeToString())


def _short(text: str, limit: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode("utf-8")
    return encoded[: limit - 3].decode("utf-8", "ignore") + "…"


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
