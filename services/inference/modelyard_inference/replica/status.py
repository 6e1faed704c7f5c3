"""A `DomainError` on the wire: canonical code, text and encoded google.rpc.Status."""

from __future__ import annotations

from typing import Final

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from modelyard_kit.errors import DomainError

DETAILS_KEY: Final = "grpc-status-details-bin"
_DOMAIN: Final = "modelyard"


def code(error: DomainError) -> int:
    """Return the number of the canonical code."""
    return int(code_pb2.Code.Value(error.code))


def details(error: DomainError) -> bytes:
    """Return the encoded status with ErrorInfo and the violations."""
    status = status_pb2.Status(code=code(error), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=_DOMAIN, metadata=error.metadata)
    status.details.append(_packed(info))
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad_request.field_violations.add(field=violation.field, description=violation.description)
        status.details.append(_packed(bad_request))
    return bytes(status.SerializeToString())


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
