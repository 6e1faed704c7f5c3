"""A failed gRPC call becomes an exception of `errors`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.rpc import error_details_pb2, status_pb2

from modelyard import errors

if TYPE_CHECKING:
    import grpc

DOMAIN = "modelyard"
_DETAILS_KEY = "grpc-status-details-bin"
_BY_CODE: dict[str, type[errors.ModelyardError]] = {
    "INVALID_ARGUMENT": errors.InvalidArgument,
    "NOT_FOUND": errors.NotFound,
    "ALREADY_EXISTS": errors.AlreadyExists,
    "ABORTED": errors.Conflict,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "FAILED_PRECONDITION": errors.FailedPrecondition,
    "OUT_OF_RANGE": errors.OffsetMismatch,
    "RESOURCE_EXHAUSTED": errors.ResourceExhausted,
    "UNAVAILABLE": errors.Unavailable,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "CANCELLED": errors.Cancelled,
    "UNIMPLEMENTED": errors.Unimplemented,
    "INTERNAL": errors.InternalError,
    "UNKNOWN": errors.InternalError,
    "DATA_LOSS": errors.InternalError,
}
"""For answers without a reason, as proxies give them."""


def error_from_call(error: grpc.aio.AioRpcError, request_id: str) -> errors.ModelyardError:
    """The exception for a failed call: by its reason, else by its code."""
    code = error.code().name
    text = error.details() or ""
    info, violations, unmet = _details(error)
    reason = info.reason if info.domain == DOMAIN else ""
    kind = errors.BY_REASON.get(reason) or _BY_CODE.get(code, errors.ModelyardError)
    return kind(
        text or f"the call failed with {code} and gave no explanation",
        reason=reason,
        code=code,
        metadata=dict(info.metadata),
        request_id=request_id,
        violations=violations,
        unmet=unmet,
    )


def _details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo, list[errors.FieldViolation], list[str]]:
    info = error_details_pb2.ErrorInfo()
    violations: list[errors.FieldViolation] = []
    unmet: list[str] = []
    for detail in _status(error).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += [errors.FieldViolation(v.field, v.description) for v in bad.field_violations]
        elif detail.Is(error_details_pb2.PreconditionFailure.DESCRIPTOR):
            failure = error_details_pb2.PreconditionFailure()
            detail.Unpack(failure)
            unmet += [v.description for v in failure.violations]
    return info, violations, unmet


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The rich status of a call; empty when a proxy answered or the trailer cannot be read.

    `grpc_status.rpc_status` raises when code or text differ from the trailer, which a proxy may cause; a failed call
    must never turn into another failure here.
    """
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except Exception:  # noqa: BLE001  (protobuf's DecodeError differs between its backends)
                break
    return status_pb2.Status()
