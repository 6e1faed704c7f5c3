"""Refusals that only the artifact service gives."""

from __future__ import annotations

from typing import ClassVar

from modelyard_kit.errors import DomainError


class DigestMismatch(DomainError):
    """The bytes received are not the bytes announced; they were thrown away."""

    reason: ClassVar[str] = "DIGEST_MISMATCH"
    code: ClassVar[str] = "INVALID_ARGUMENT"

    def __init__(self, *, expected: str, actual: str) -> None:
        super().__init__(
            f"the content was announced as {expected} but is {actual}; it was thrown away: "
            "begin an upload with what the file holds now",
            metadata={"expected": expected, "actual": actual},
        )


class UploadIncomplete(DomainError):
    """Blobs are still missing."""

    reason: ClassVar[str] = "UPLOAD_INCOMPLETE"
    code: ClassVar[str] = "FAILED_PRECONDITION"

    def __init__(self, upload_id: str, *, missing: int) -> None:
        super().__init__(
            f"upload {upload_id} still misses {missing} blob(s): ask GetUpload which, send them, commit again",
            metadata={"upload_id": upload_id, "missing": str(missing)},
        )


class OffsetMismatch(DomainError):
    """The transfer must continue, or may at most begin, somewhere else."""

    reason: ClassVar[str] = "OFFSET_MISMATCH"
    code: ClassVar[str] = "OUT_OF_RANGE"

    def __init__(self, message: str, *, expected: int, actual: int) -> None:
        super().__init__(message, metadata={"expected": str(expected), "actual": str(actual)})


class StorageFull(DomainError):
    """The blob store has no room."""

    reason: ClassVar[str] = "STORAGE_FULL"
    code: ClassVar[str] = "RESOURCE_EXHAUSTED"

    def __init__(self) -> None:
        super().__init__("the blob store has no room for this content: free space, then continue the upload")


class SignatureInvalid(DomainError):
    """What was sent as a signature is none of these files."""

    reason: ClassVar[str] = "SIGNATURE_INVALID"
    code: ClassVar[str] = "INVALID_ARGUMENT"

    def __init__(self, problem: str) -> None:
        super().__init__(f"the signature {problem}", metadata={"problem": problem})


class DirectTransferUnavailable(DomainError):
    """The blob store gives no addresses."""

    reason: ClassVar[str] = "DIRECT_TRANSFER_UNAVAILABLE"
    code: ClassVar[str] = "FAILED_PRECONDITION"

    def __init__(self) -> None:
        super().__init__(
            "this service has no object store that clients may reach: send with UploadBlobs and read with ReadFile"
        )


class BlobLost(Exception):
    """Recorded content is not in the store, or is shorter than recorded: damage, never the caller's mistake."""

    def __init__(self, sha256: str, problem: str) -> None:
        super().__init__(f"blob {sha256}: {problem}")
