"""What the rules need from the rest of the world, without saying how it is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from modelyard.types import FileEntry
from modelyard_inference.evidence import Evidence
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.models import Version
from modelyard_inference.notes import Note
from modelyard_kit.access import Chain


class Upstream(Protocol):
    """The catalog and governance, asked with this service's own rights."""

    async def version(self, reference: str) -> Version:
        """Return the version that a reference means now.

        Raises:
            NotFound: there is none.
            InvalidState: it is not READY.
            PeerUnavailable: the catalog does not answer.
        """

    async def version_chain(self, name: str) -> Chain:
        """Return the chain of a version: version, model, schema, catalog, system.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """

    async def version_name(self, version_id: str) -> str:
        """Return what a version is called now.

        Raises:
            NotFound: there is no such version any more.
            PeerUnavailable: the catalog does not answer.
        """

    async def model_name(self, model_id: str) -> str:
        """Return what a model is called now.

        Raises:
            NotFound: there is no such model any more.
            PeerUnavailable: the catalog does not answer.
        """

    async def schema_of_id(self, schema_id: str) -> Chain:
        """Return the chain of a schema by its id.

        Raises:
            NotFound: there is no such schema any more.
            PeerUnavailable: the catalog does not answer.
        """

    async def schema_chain(self, name: str) -> Chain:
        """Return the chain of a schema.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """

    async def nearest_chain(self, name: str) -> Chain:
        """Return the chain of the innermost of model, schema, catalog and system that exists for a dotted name.

        Raises:
            PeerUnavailable: the catalog does not answer.
        """

    async def require_usable(self, version_id: str, schema_id: str) -> None:
        """Return if a version, and the schema of a deployment of it, are there and not being deleted.

        What is asked about must be committed before: then a deletion that begins later finds it.

        Raises:
            NotFound: one is deleted.
            InvalidState: one is being deleted at this moment.
            PeerUnavailable: the catalog does not answer.
        """

    async def gate(self, version: Version, chain: Chain) -> None:
        """Ask whether policies let a version answer predictions.

        Raises:
            PolicyUnmet: they do not, with every unmet condition.
            PeerUnavailable: governance does not answer.
        """

    async def evidence(self, version_id: str, digest: str) -> Evidence:
        """Return the signatures of a version's artifact, and the trust roots that count for its model.

        Raises:
            NotFound: there is no such version any more.
            PeerUnavailable: the catalog, the artifact service or governance does not answer.
        """

    async def record_deployment(self, note: Note) -> None:
        """Tell the lineage graph of a deployment; again is harmless.

        Raises:
            PeerUnavailable: the catalog does not answer.
            DomainError: it refuses.
        """


class ArtifactSource(Protocol):
    """Where artifacts come from."""

    async def version_name(self, version_id: str) -> str:
        """Return what a version is called now.

        Raises:
            DomainError: there is no such version any more, or nobody can tell.
        """

    async def files(self, version: str) -> tuple[str, list[FileEntry]]:
        """Return the digest and the files of a version's artifact, in byte order of their paths.

        Raises:
            DomainError: it cannot be listed.
        """

    def read(self, version: str, path: str) -> AsyncIterator[bytes]:
        """Yield the bytes of one file of a version's artifact.

        Raises:
            DomainError: it cannot be read.
        """


@dataclass(frozen=True)
class Sample:
    """What a replica answered to a prediction that is compared with its copy."""

    id: str
    digest: bytes
    """Of the outputs; empty if there was an error."""
    error: str
    """Reason of the error; empty if there was none."""


@dataclass(frozen=True)
class Taken:
    """Samples of one replica since it was asked last, and how many more it forgot."""

    samples: tuple[Sample, ...]
    forgotten: int


class Sampler(Protocol):
    """Asks replicas what they answered."""

    async def take_samples(self, address: str) -> Taken:
        """Return what the replica at `address` kept since it was asked last; nothing if it does not answer."""


@dataclass(frozen=True)
class Counters:
    """What a replica counted since its process began, or several did; see InferenceCounters of the contract."""

    success: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """By why."""
    inferences: int = 0
    executions: int = 0
    request_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    bounds: tuple[float, ...] = ()
    """Upper bounds of latencies in seconds."""
    latencies: tuple[int, ...] = ()
    """Answers up to each of the bounds and above the one before, then above the last."""

    def __add__(self, other: Counters) -> Counters:
        """Return the sum; of the latencies only those with the same bounds."""
        if not self.bounds:
            return other
        same = self.bounds == other.bounds
        return Counters(
            self.success + other.success,
            dict(Counter(self.failures) + Counter(other.failures)),
            self.inferences + other.inferences,
            self.executions + other.executions,
            self.request_ns + other.request_ns,
            self.queue_ns + other.queue_ns,
            self.input_ns + other.input_ns,
            self.infer_ns + other.infer_ns,
            self.output_ns + other.output_ns,
            self.bounds,
            tuple(map(sum, zip(self.latencies, other.latencies, strict=True))) if same else self.latencies,
        )


@dataclass(frozen=True)
class Measured:
    """What one replica counted and is at."""

    counters: Counters
    in_flight: int
    pending: int
    """Of those in flight, predictions that wait for the model."""
    memory_bytes: int


class Meter(Protocol):
    """Asks replicas what they counted."""

    async def statistics(self, address: str) -> Measured | None:
        """Return what the replica at `address` counted and is at; None if it does not answer."""


class Switch(Protocol):
    """Tells replicas what to write down."""

    async def set_logging(self, address: str, policy: LogPolicy) -> bool:
        """Tell the replica at `address` what to write down about predictions; return whether it took it."""


class Prober(Protocol):
    """Asks replicas whether they answer."""

    async def ready(self, address: str) -> bool:
        """Return whether the replica at `address` says that it serves."""

    async def forget(self, address: str) -> None:
        """Let go of what is held for an address that is no longer asked."""
