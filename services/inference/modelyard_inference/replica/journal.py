"""The access log and the predict log of a replica: what it was asked and answered, as far as its deployment wants it written down.

Both are files of lines as in the log of the replica, kept small in the same way. Nothing is lost on the way to the disk but what a full
disk refuses; a prediction that is not written down pays one look at the policy. Lines are numbered, also over restarts of the replica, so
that whoever carries them elsewhere knows what is missing.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from modelyard_inference import log_files
from modelyard_inference.log_policy import SILENT, LogPolicy
from modelyard_inference.replica.batching import Outputs
from modelyard_inference.replica.contract import Prediction
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.serving import request_id_of, trace_of
from modelyard_inference.runtimes.datatypes import Array
from modelyard_kit.errors import DomainError
from modelyard_kit.limits import LIMITS

_FULL: Final = LIMITS["replica_log_bytes"].maximum
_MAX_VALUES: Final = LIMITS["predict_log_values"].maximum
_MAX_VALUE_LENGTH: Final = 1000
_LONGEST: Final = LIMITS["log_line_bytes"].maximum
_WHOLE: Final = 100
_LAST: Final = log_files.Wanted(tail=1)

log: Any = structlog.get_logger()


class Journal:
    """Writes predictions down; for the event loop only.

    Args:
        folder: where its files are; None: there is no place for them, and nothing is written down.
        policy: what is wanted at first.
        chance: a number from 0 to 1 for each prediction.
    """

    def __init__(
        self,
        folder: Path | None,
        policy: LogPolicy = SILENT,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.switch(policy)
        self._access = _Lines(folder / log_files.ACCESS if folder else None)
        self._predict = _Lines(folder / log_files.PREDICT if folder else None)
        self._chance = chance

    def switch(self, policy: LogPolicy) -> None:
        """Write down what a policy wants from now on."""
        self.on = policy != SILENT
        """Whether anything is written down, to be asked before anything is told."""
        self._policy = policy

    def answered(self, call: Call, prediction: Prediction, outputs: Outputs, nanoseconds: int) -> None:
        """Write down a prediction that was answered."""
        policy = self._policy
        if policy.access_log:
            self._access.write(
                "answered",
                call,
                method=prediction.method,
                rows=prediction.rows,
                milliseconds=nanoseconds / 1e6,
            )
        if policy.predict_percent and self._chance() * _WHOLE < policy.predict_percent:
            self._predict.write(
                "prediction",
                call,
                method=prediction.method,
                id=prediction.id,
                inputs=_tensors(prediction.inputs, values=policy.include_payload),
                outputs=_tensors(
                    {spec.name: outputs[spec.name] for spec in prediction.wanted},
                    values=policy.include_payload,
                ),
            )

    def refused(self, call: Call, error: BaseException | None, nanoseconds: int) -> None:
        """Write down a prediction that was not answered; None: its caller went."""
        if self._policy.access_log:
            reason = "CANCELLED" if error is None else getattr(error, "reason", "INTERNAL")
            code = error.code if isinstance(error, DomainError) else reason
            self._access.write("refused", call, reason=reason, code=code, milliseconds=nanoseconds / 1e6)


class _Lines:
    """A file of lines that is put aside when it is full."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._failed = False
        self._file: int | None = None
        self._size = 0
        self._number = 0
        """Of the last line; 0 until it is looked up."""

    def write(self, event: str, call: Call, **facts: Any) -> None:
        if self._path is None:
            return
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {"event": event, "level": "info", "timestamp": now, "logger": self._path.name, **facts}
        self._number = (self._number or _last_number(self._path)) + 1
        line["number"] = self._number
        if request_id := request_id_of(call.metadata):
            line["request_ids"] = [request_id]
        if trace := trace_of(call.metadata):
            line["traceparent"] = trace
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        try:
            self._append(self._path, data)
        except OSError as error:
            if not self._failed:  # once, not for each prediction
                log.warning("predictions_not_logged", file=str(self._path), problem=str(error))
            self._failed = True

    def _append(self, path: Path, data: bytes) -> None:
        if (
            self._file is None
        ):  # kept open: opening it for each line would cost a prediction more than writing the line
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._size = os.fstat(self._file).st_size
        try:
            os.write(self._file, data)
        except OSError:
            self._close()
            raise
        self._size += len(data)
        if self._size >= _FULL:
            self._close()
            log_files.rotate(path)
        self._failed = False

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


def _last_number(path: Path) -> int:
    """Return the number of the last line that is there; 0 if there is none."""
    for line in log_files.tail(path, _LAST).lines:
        number = line.attributes.get("number", "")
        if number.isdecimal():
            return int(number)
    return 0


def _tensors(arrays: Mapping[str, Array], *, values: bool) -> dict[str, Any]:
    """Return tensors as JSON can hold them, no more of them than a reader of the log would be shown."""
    for with_values in (True, False) if values else (False,):
        told = {name: _tensor(array, values=with_values) for name, array in arrays.items()}
        if len(log_files.plain(told)) <= _LONGEST:
            return told
    return {"tensors_left_out": len(arrays)}


def _tensor(array: Array, *, values: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if values:
        told["values"] = _plain(array.ravel()[:_MAX_VALUES].tolist())
        if array.size > _MAX_VALUES:
            told["values_left_out"] = array.size - _MAX_VALUES
    return told


def _plain(values: Sequence[Any]) -> list[Any]:
    """Return values as JSON can hold them: bytes as text, and numbers that it lacks as their names."""
    return [_one(value) for value in values]


def _one(value: Any) -> Any:
    if isinstance(value, bytes):
        return value[:_MAX_VALUE_LENGTH].decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
