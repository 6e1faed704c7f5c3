"""What a prediction can be refused for. Texts are Triton's where Triton has one: clients look for them."""

from __future__ import annotations

from modelyard_kit.errors import DomainError, Violation


class OutputMismatch(Exception):
    """The model answers something else than its signature says."""


class InvalidTensor(DomainError):
    """An input or requested output does not fit the model."""

    reason = "INVALID_TENSOR"
    code = "INVALID_ARGUMENT"

    def __init__(self, tensor: str, message: str) -> None:
        super().__init__(message, metadata={"tensor": tensor}, violations=[Violation(tensor, message)])


class ModelFailed(DomainError):
    """The model's own code failed; its words are in the replica's log only."""

    reason = "MODEL_FAILED"
    code = "INTERNAL"

    def __init__(self, error_id: str) -> None:
        super().__init__(
            f"the model failed on this input; the replica's log says why under error id {error_id}",
            metadata={"error_id": error_id},
        )


class OutOfMemory(ModelFailed):
    """The model needs more memory for this input than the replica may use."""

    def __init__(self, error_id: str) -> None:
        super().__init__(error_id)
        self.message = (
            "the model ran out of memory on this input: send less at once, or let its owner raise the memory of the"
            f" deployment's replicas; their log has more under error id {error_id}"
        )


class ReplicaNotReady(DomainError):
    """The replica is starting or draining."""

    reason = "REPLICA_NOT_READY"
    code = "UNAVAILABLE"

    def __init__(self, state: str) -> None:
        super().__init__(f"this replica is {state}; another one answers")


class QueueFull(DomainError):
    """As many rows wait as may."""

    reason = "QUEUE_FULL"
    code = "RESOURCE_EXHAUSTED"

    def __init__(self, maximum: int) -> None:
        super().__init__(
            f"the queue of this replica is full ({maximum} rows); repeat later",
            metadata={"maximum": str(maximum)},
        )


class BackendNotReady(ReplicaNotReady):
    """The server that runs the model is away, or has no such model at the moment."""

    def __init__(self) -> None:
        super().__init__("waiting for the server that runs its model")


class BackendBusy(QueueFull):
    """The server that runs the model takes no more at the moment."""

    def __init__(self, maximum: int) -> None:
        super().__init__(maximum)
        self.message = "the server that runs the model takes no more at the moment; repeat later"


class UnknownModel(DomainError):
    """The request names another model or version than the one that runs here."""

    reason = "RESOURCE_NOT_FOUND"
    code = "NOT_FOUND"

    def __init__(self, name: str, version: str = "") -> None:
        what = f"'{name}' version {version}" if version else f"'{name}'"
        super().__init__(
            f"Request for unknown model: {what} is not found",
            metadata={"resource_type": "deployment", "name": f"{name}/{version}" if version else name},
        )


class BadVersion(DomainError):
    """The version of a request is not a positive whole number."""

    reason = "INVALID_FIELD"
    code = "INVALID_ARGUMENT"

    def __init__(self, version: str) -> None:
        message = (
            f"failed to get model version from specified version string '{version}' "
            "(details: not a whole number), version should be an integral value > 0"
        )
        super().__init__(
            message, metadata={"field": "model_version"}, violations=[Violation("model_version", message)]
        )
