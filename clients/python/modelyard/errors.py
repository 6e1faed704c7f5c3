"""Everything a call can raise, rebuilt from the reason the service gives and never from its text.

::

    ModelyardError
    ├── InvalidArgument (ValueError)       violations
    │   ├── LimitExceeded                  limit, maximum, actual
    │   ├── DigestMismatch, RequestIdReused
    │   └── SignatureInvalid, InvalidTensor  problem; tensor
    ├── NotFound (LookupError)             resource_type, name
    ├── AlreadyExists                      resource_type, name
    ├── Conflict                           read again, then repeat
    │   ├── EtagMismatch, Contention
    │   └── AliasMoved                     alias, expected, actual
    ├── Unauthenticated
    │   └── TokenMissing, TokenInvalid, TokenExpired
    ├── PermissionDenied (PermissionError) privilege, resource_type, name
    ├── FailedPrecondition
    │   ├── PolicyUnmet, ResourceInUse     unmet: conditions, what uses it
    │   ├── SelfApproval, LineageCycle, GroupCycle, UploadIncomplete
    │   ├── InvalidState                   state, wanted
    │   ├── DirectTransferUnavailable      send and read through the service
    │   └── DeploymentFailed               raised while waiting for a deployment
    ├── ResourceExhausted
    │   ├── StorageFull, QueueFull, TooManyWatches
    │   ├── RateLimited, Overloaded        more predictions a second, at once, than the deployment takes
    │   └── RequestTooLarge                maximum
    ├── Unavailable (ConnectionError)      repeat with backoff
    │   └── PeerUnavailable, PermissionsStale, ReplicaNotReady, TlsFailed
    ├── DeadlineExceeded (TimeoutError)
    ├── OffsetMismatch, Cancelled, Unimplemented
    ├── InternalError                      error_id
    │   └── ModelFailed
    └── ConfigurationError                 contexts, credentials, targets of this machine

    MissingExtra (ImportError)             an optional package is not installed; says which `pip install`

A reason this version does not know, and an answer without one (from a proxy), becomes the class of its gRPC code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request that cannot be accepted, and why."""

    field: str
    description: str


class ModelyardError(Exception):
    """Base of every error of this package.

    Attributes:
        message: What went wrong and what to do, for people.
        reason: Name in the catalogue of reasons, for programs; empty when the answer had none.
        code: Canonical gRPC code, `NOT_FOUND`; empty for errors of this machine.
        metadata: Every value the message mentions.
        request_id: Id of the call, as in the logs of the services.
    """

    default_code: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        code: str = "",
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
        violations: Sequence[FieldViolation] = (),
        unmet: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = code or self.default_code
        self.metadata = dict(metadata or {})
        self.request_id = request_id
        self.violations, self.unmet = tuple(violations), tuple(unmet)

    def __str__(self) -> str:
        return self.message

    @property
    def resource_type(self) -> str:
        """Kind of the resource it is about, `model`; empty when it is about none."""
        return self.metadata.get("resource_type", "")

    @property
    def name(self) -> str:
        """Name of the resource it is about; empty when it is about none."""
        return self.metadata.get("name", "")


class InvalidArgument(ModelyardError, ValueError):
    """The request is wrong in itself; `violations` lists every wrong field."""

    default_code = "INVALID_ARGUMENT"


class RequestIdReused(InvalidArgument):
    """The request id was used before with other content."""


class LimitExceeded(InvalidArgument):
    """A size or count is over a published limit."""

    @property
    def limit(self) -> str:
        """Name of the limit."""
        return self.metadata.get("limit", "")

    @property
    def maximum(self) -> int:
        """Largest value allowed; 0 when the answer does not say."""
        return int(self.metadata.get("maximum") or 0)

    @property
    def actual(self) -> int:
        """Value that was sent; 0 when the answer does not say."""
        return int(self.metadata.get("actual") or 0)


class DigestMismatch(InvalidArgument):
    """Bytes do not have the SHA-256 or size that was announced."""


class SignatureInvalid(InvalidArgument):
    """What was sent as a signature is none of these files."""

    @property
    def problem(self) -> str:
        """What is wrong with it."""
        return self.metadata.get("problem", "")


class InvalidTensor(InvalidArgument):
    """An input or requested output of a prediction does not fit the model."""

    @property
    def tensor(self) -> str:
        """Name of the tensor."""
        return self.metadata.get("tensor", "")


class NotFound(ModelyardError, LookupError):
    """Nothing of that type has that name or id."""

    default_code = "NOT_FOUND"


class AlreadyExists(ModelyardError):
    """The name is taken."""

    default_code = "ALREADY_EXISTS"


class Conflict(ModelyardError):
    """Somebody else changed it first: read it again and repeat the change."""

    default_code = "ABORTED"


class EtagMismatch(Conflict):
    """The resource changed since it was read."""


class AliasMoved(Conflict):
    """An alias does not point where the change expected it; no alias was moved."""

    @property
    def alias(self) -> str:
        """Name of the alias."""
        return self.metadata.get("alias", "")


class Contention(Conflict):
    """Concurrent changes kept winning; nothing was changed."""


class Unauthenticated(ModelyardError):
    """The services do not know who calls."""

    default_code = "UNAUTHENTICATED"


class TokenMissing(Unauthenticated):
    """The call carries no token."""


class TokenInvalid(Unauthenticated):
    """The token is malformed, revoked, or from another issuer."""


class TokenExpired(Unauthenticated):
    """The token's time is over."""


class PermissionDenied(ModelyardError, PermissionError):
    """The caller lacks a privilege."""

    default_code = "PERMISSION_DENIED"

    @property
    def privilege(self) -> str:
        """The privilege that is missing, `EXECUTE`."""
        return self.metadata.get("privilege", "")


class FailedPrecondition(ModelyardError):
    """The state of things does not allow it; repeating the call alone does not help."""

    default_code = "FAILED_PRECONDITION"


class PolicyUnmet(FailedPrecondition):
    """A policy holds the action back; `unmet` lists every condition."""


class SelfApproval(FailedPrecondition):
    """The policy wants a reviewer other than the author."""


class InvalidState(FailedPrecondition):
    """The resource is not in a state that allows the action."""


class ResourceInUse(FailedPrecondition):
    """Something still uses what was to be deleted; `unmet` lists what."""


class GroupCycle(FailedPrecondition):
    """The group would be in itself, directly or through other groups."""


class LineageCycle(FailedPrecondition):
    """The edge would make something its own origin; `metadata` names its `source` and `target`."""


class UploadIncomplete(FailedPrecondition):
    """Blobs of the upload are still missing."""


class DirectTransferUnavailable(FailedPrecondition):
    """The blob store gives no addresses; bytes go through the service."""


class DeploymentFailed(FailedPrecondition):
    """A deployment that was waited for could not be brought up."""


class OffsetMismatch(ModelyardError):
    """An upload must continue elsewhere, or a read begins beyond the end."""

    default_code = "OUT_OF_RANGE"


class ResourceExhausted(ModelyardError):
    """No room, no quota, or a message over the size limit."""

    default_code = "RESOURCE_EXHAUSTED"


class StorageFull(ResourceExhausted):
    """The blob store has no room."""


class RequestTooLarge(ResourceExhausted):
    """The request has more bytes than may be sent to the deployment."""


class QueueFull(ResourceExhausted):
    """The replica's queue is full."""


class TooManyWatches(ResourceExhausted):
    """As many watches run at once as are allowed; end one, then watch again."""


class RateLimited(ResourceExhausted):
    """The deployment was asked for more predictions per second than it allows; ask more slowly."""


class Overloaded(ResourceExhausted):
    """As many predictions as the replicas may have at once are under way, or a service is at as many calls as it can; repeat with backoff."""


class Unavailable(ModelyardError, ConnectionError):
    """A service cannot be reached at the moment; repeat with backoff."""

    default_code = "UNAVAILABLE"


class PeerUnavailable(Unavailable):
    """A service that is needed for the answer cannot be reached."""


class PermissionsStale(Unavailable):
    """Grants were not refreshed for too long, so nothing is decided from them."""


class ReplicaNotReady(Unavailable):
    """The replica is starting or draining."""


class TlsFailed(Unavailable):
    """No connection, because of a certificate: the message says which, and how to give another."""


class DeadlineExceeded(ModelyardError, TimeoutError):
    """The time given to the call passed."""

    default_code = "DEADLINE_EXCEEDED"


class Cancelled(ModelyardError):
    """The call was cancelled."""

    default_code = "CANCELLED"


class Unimplemented(ModelyardError):
    """The service does not know this call: it is older than this client, or the address is not Modelyard."""

    default_code = "UNIMPLEMENTED"


class InternalError(ModelyardError):
    """A fault of the service; `error_id` finds the cause in its log."""

    default_code = "INTERNAL"

    @property
    def error_id(self) -> str:
        """Id to look for in the log of the service."""
        return self.metadata.get("error_id", "")


class ModelFailed(InternalError):
    """The model's own code failed on this input."""


class ConfigurationError(ModelyardError):
    """A context, credential or target of this machine cannot be used."""


class MissingExtra(ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package}: pip install 'modelyard[{extra}]'", name=package)


BY_REASON: dict[str, type[ModelyardError]] = {
    "INVALID_FIELD": InvalidArgument,
    "RESOURCE_NOT_FOUND": NotFound,
    "RESOURCE_ALREADY_EXISTS": AlreadyExists,
    "ETAG_MISMATCH": EtagMismatch,
    "ALIAS_MOVED": AliasMoved,
    "REQUEST_ID_REUSED": RequestIdReused,
    "CONTENTION": Contention,
    "LIMIT_EXCEEDED": LimitExceeded,
    "REQUEST_TOO_LARGE": RequestTooLarge,
    "TOKEN_MISSING": TokenMissing,
    "TOKEN_INVALID": TokenInvalid,
    "TOKEN_EXPIRED": TokenExpired,
    "PERMISSION_DENIED": PermissionDenied,
    "POLICY_UNMET": PolicyUnmet,
    "SELF_APPROVAL": SelfApproval,
    "INVALID_STATE": InvalidState,
    "RESOURCE_IN_USE": ResourceInUse,
    "LINEAGE_CYCLE": LineageCycle,
    "GROUP_CYCLE": GroupCycle,
    "DIGEST_MISMATCH": DigestMismatch,
    "SIGNATURE_INVALID": SignatureInvalid,
    "UPLOAD_INCOMPLETE": UploadIncomplete,
    "DIRECT_TRANSFER_UNAVAILABLE": DirectTransferUnavailable,
    "OFFSET_MISMATCH": OffsetMismatch,
    "STORAGE_FULL": StorageFull,
    "PEER_UNAVAILABLE": PeerUnavailable,
    "PERMISSIONS_STALE": PermissionsStale,
    "INVALID_TENSOR": InvalidTensor,
    "MODEL_FAILED": ModelFailed,
    "REPLICA_NOT_READY": ReplicaNotReady,
    "QUEUE_FULL": QueueFull,
    "TOO_MANY_WATCHES": TooManyWatches,
    "RATE_LIMITED": RateLimited,
    "OVERLOADED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "INTERNAL": InternalError,
}
