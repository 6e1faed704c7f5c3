"""Domain errors: what a service can refuse, without a word about gRPC.

Each class carries one reason of the catalogue in `common/v1/errors.proto` and its canonical code. Only
`interceptors.py` turns one into a status. Reasons that a single service raises have their class in that service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True)
class Violation:
    """One field (or condition) and what is wrong with it."""

    field: str
    description: str


class DomainError(Exception):
    """Something was refused for a reason that the caller can act on."""

    reason: ClassVar[str]
    code: ClassVar[str]
    resource_id: str = ""
    """Of what was refused, for the audit chain; never told to the caller."""

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)


class InvalidField(DomainError):
    """A field of the request is missing or malformed."""

    reason = "INVALID_FIELD"
    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(
            f"{field}: {problem}", metadata={"field": field}, violations=[Violation(field, problem)]
        )

    @classmethod
    def many(cls, violations: Sequence[Violation]) -> Self:
        """Return one error that names every violation; there must be at least one."""
        error = cls(violations[0].field, violations[0].description)
        error.message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        error.args = (error.message,)
        error.violations = tuple(violations)
        return error


class NotFound(DomainError):
    """Nothing of that type has that name."""

    reason = "RESOURCE_NOT_FOUND"
    code = "NOT_FOUND"

    def __init__(self, resource_type: str, name: str) -> None:
        label = resource_type.replace("_", " ")
        super().__init__(
            f"{label} {name!r} does not exist", metadata={"resource_type": resource_type, "name": name}
        )


class AlreadyExists(DomainError):
    """The name is taken."""

    reason = "RESOURCE_ALREADY_EXISTS"
    code = "ALREADY_EXISTS"

    def __init__(self, resource_type: str, name: str) -> None:
        label = resource_type.replace("_", " ")
        super().__init__(
            f"{label} {name!r} exists already; choose another name",
            metadata={"resource_type": resource_type, "name": name},
        )


class ResourceInUse(DomainError):
    """Something still uses the resource; the violations say what.

    Args:
        resource_type: what it is.
        name: its full name.
        uses: what uses it, as in "alias champion"; at least one.
        way_out: what to do, if there is more than to end every use.
    """

    reason = "RESOURCE_IN_USE"
    code = "FAILED_PRECONDITION"

    def __init__(
        self, resource_type: str, name: str, uses: Sequence[str], *, way_out: str = "end that first"
    ) -> None:
        label = resource_type.replace("_", " ")
        super().__init__(
            f"{label} {name!r} is in use: {'; '.join(uses)}; {way_out}",
            metadata={"resource_type": resource_type, "name": name},
            violations=[Violation(name, use) for use in uses],
        )


class EtagMismatch(DomainError):
    """The resource changed since the caller read it."""

    reason = "ETAG_MISMATCH"
    code = "ABORTED"

    def __init__(self, resource_type: str, name: str, *, expected: str, actual: str) -> None:
        super().__init__(
            f"{resource_type} {name!r} has changed (etag {actual!r}, not {expected!r}); read it again and repeat",
            metadata={"resource_type": resource_type, "name": name, "expected": expected, "actual": actual},
        )


class RequestIdReused(DomainError):
    """The request id was used before with other content."""

    reason = "REQUEST_ID_REUSED"
    code = "INVALID_ARGUMENT"

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"request_id {request_id!r} was used before with different content; choose a new one",
            metadata={"request_id": request_id},
        )


class Contention(DomainError):
    """Concurrent changes kept winning."""

    reason = "CONTENTION"
    code = "ABORTED"

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"concurrent changes won {attempts} times in a row; nothing was changed, repeat the call",
            metadata={"attempts": str(attempts)},
        )


class LimitExceeded(DomainError):
    """A size or count is over a published limit."""

    reason = "LIMIT_EXCEEDED"
    code = "INVALID_ARGUMENT"

    def __init__(self, limit: str, *, maximum: int, actual: int, what: str = "") -> None:
        super().__init__(
            f"{what or limit}: {actual:,} is over the limit of {maximum:,} ({limit})",
            metadata={"limit": limit, "maximum": str(maximum), "actual": str(actual)},
        )


class TooManyWatches(DomainError):
    """As many watches run at once as are allowed."""

    reason = "TOO_MANY_WATCHES"
    code = "RESOURCE_EXHAUSTED"

    def __init__(self, limit: str, *, maximum: int, what: str) -> None:
        super().__init__(
            f"{maximum:,} {what} is the most there can be ({limit}); end one that is no longer read,"
            " or let one watch serve several readers, and watch again",
            metadata={"limit": limit, "maximum": str(maximum)},
        )


class Overloaded(DomainError):
    """The service is at as many calls as it has connections to its database, and none became free in time."""

    reason = "OVERLOADED"
    code = "RESOURCE_EXHAUSTED"

    def __init__(self, maximum: int) -> None:
        super().__init__(
            f"the service is busy: all of its {maximum:,} connections to the database are in use; nothing was done, repeat later,"
            " with growing pauses",
            metadata={"maximum": str(maximum)},
        )


class RequestTooLarge(DomainError):
    """The request has more bytes than may be sent there."""

    reason = "REQUEST_TOO_LARGE"
    code = "RESOURCE_EXHAUSTED"

    def __init__(self, maximum: int) -> None:
        super().__init__(
            f"the request is larger than {maximum:,} bytes; send fewer rows, or raise max_request_bytes of the deployment",
            metadata={"maximum": str(maximum)},
        )


class TokenMissing(DomainError):
    """The call carries no bearer token."""

    reason = "TOKEN_MISSING"
    code = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__(
            "no token: send 'authorization: Bearer <JWT>'; `modelyard login` and `modelyard token` get one"
        )


class TokenInvalid(DomainError):
    """The token is malformed, revoked, or from another issuer."""

    reason = "TOKEN_INVALID"
    code = "UNAUTHENTICATED"

    def __init__(self, why: str) -> None:
        super().__init__(f"the token is not valid: {why}")


class TokenExpired(DomainError):
    """The token's time is over."""

    reason = "TOKEN_EXPIRED"
    code = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__(
            "the token has expired; exchange the API token for a new one, or make a new API token"
        )


class PermissionDenied(DomainError):
    """The caller lacks a privilege."""

    reason = "PERMISSION_DENIED"
    code = "PERMISSION_DENIED"

    def __init__(self, privilege: str, resource_type: str, name: str, explanation: str = "") -> None:
        label = resource_type.replace("_", " ")
        where = f"{label} {name!r}" if name else f"the {label}"
        detail = f": {explanation}" if explanation else ""
        super().__init__(
            f"this needs {privilege} on {where}{detail}",
            metadata={"privilege": privilege, "resource_type": resource_type, "name": name},
        )


class PolicyUnmet(DomainError):
    """A policy forbids the action until its conditions are met."""

    reason = "POLICY_UNMET"
    code = "FAILED_PRECONDITION"

    def __init__(self, action: str, name: str, policy: str, unmet: Sequence[str]) -> None:
        super().__init__(
            f"the policy on {policy!r} does not allow {action} for {name!r}: {'; '.join(unmet)}",
            metadata={"action": action, "name": name, "policy": policy},
            violations=[Violation(name, condition) for condition in unmet],
        )


class InvalidState(DomainError):
    """The resource is not in a state that allows the action."""

    reason = "INVALID_STATE"
    code = "FAILED_PRECONDITION"

    def __init__(self, resource_type: str, name: str, *, state: str, wanted: str) -> None:
        label = resource_type.replace("_", " ")
        super().__init__(
            f"{label} {name!r} is {state}; this needs it {wanted}",
            metadata={"resource_type": resource_type, "name": name, "state": state, "wanted": wanted},
        )


class PeerUnavailable(DomainError):
    """A service that this one needs cannot be reached."""

    reason = "PEER_UNAVAILABLE"
    code = "UNAVAILABLE"

    def __init__(self, service: str) -> None:
        super().__init__(
            f"the {service} service cannot be reached at the moment; repeat later",
            metadata={"service": service},
        )


class PermissionsStale(DomainError):
    """Grants have not been refreshed for too long to decide from them, or never."""

    reason = "PERMISSIONS_STALE"
    code = "UNAVAILABLE"

    def __init__(self, seconds: float | None) -> None:
        if seconds is None:
            super().__init__(
                "this service has just started and does not know the grants yet; repeat in a moment"
            )
        else:
            super().__init__(
                f"grants were last confirmed {seconds:.0f} s ago, which is too long to decide from; repeat later",
                metadata={"seconds": f"{seconds:.0f}"},
            )


class DeadlineExceeded(DomainError):
    """The caller's deadline passed before the work was done."""

    reason = "DEADLINE_EXCEEDED"
    code = "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__("the deadline passed before the work was done")


class Internal(DomainError):
    """A fault of the service."""

    reason = "INTERNAL"
    code = "INTERNAL"

    def __init__(self, error_id: str) -> None:
        super().__init__(
            f"the service failed; its log says why under error id {error_id}", metadata={"error_id": error_id}
        )
