"""What is kept about predictions that the gateway copies to a shadow, until the inference service takes it to compare.

Prediction and copy carry the same id. Both replicas keep a digest of what they answered; neither knows on which side it is.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

from modelyard.api.inference.v1 import replica_service_pb2 as pb
from modelyard_inference.replica.batching import Outputs
from modelyard_inference.replica.contract import Prediction
from modelyard_inference.replica.front import Call
from modelyard_inference.runtimes.datatypes import to_raw
from modelyard_kit.errors import DomainError

HEADER: Final = "modelyard-sample"
TAKE_SAMPLES: Final = "/modelyard.api.inference.v1.ReplicaService/TakeSamples"
_MAX_KEPT: Final = 4096
_MAX_ID: Final = 64


class Samples:
    """The last samples that nobody took yet."""

    def __init__(self, max_kept: int = _MAX_KEPT) -> None:
        self._kept: deque[pb.Sample] = deque()
        self._max_kept = max_kept
        self._forgotten = 0

    def answered(self, sample_id: str, digest: bytes) -> None:
        """Keep what was answered to a prediction."""
        self._add(pb.Sample(id=sample_id, digest=digest))

    def refused(self, call: Call, error: DomainError) -> None:
        """Keep that a prediction was refused, if it is sampled. UNAVAILABLE is no answer: the gateway asks another replica."""
        sample_id = sample_id_of(call)
        if sample_id and error.code != "UNAVAILABLE":
            self._add(pb.Sample(id=sample_id, error=error.reason))

    def take(self) -> bytes:
        """Return an encoded TakeSamplesResponse of everything that is kept, and forget it."""
        response = pb.TakeSamplesResponse(samples=self._kept, forgotten=self._forgotten)
        self._kept.clear()
        self._forgotten = 0
        return response.SerializeToString()

    def _add(self, sample: pb.Sample) -> None:
        if len(self._kept) == self._max_kept:
            self._kept.popleft()
            self._forgotten += 1
        self._kept.append(sample)


def sample_id_of(call: Call) -> str:
    """Return the id of a prediction that is compared with another; empty if it is not."""
    for name, value in call.metadata:
        if name == HEADER and isinstance(value, str):
            return value[:_MAX_ID]
    return ""


def digest_of(prediction: Prediction, outputs: Outputs) -> bytes:
    """Return a digest that is the same for equal answers: names, types, shapes and bytes, in the order of the answer."""
    digest = hashlib.sha256()
    for spec in prediction.wanted:
        array, raw = outputs[spec.name], to_raw(spec.datatype, outputs[spec.name])
        digest.update(f"{spec.name}\0{spec.datatype}\0{array.shape}\0{len(raw)}\0".encode())
        digest.update(raw)
    return digest.digest()
