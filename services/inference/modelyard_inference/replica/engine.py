"""The model of this replica: each of its copies loaded, warmed up, and run by a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import structlog

from modelyard_inference import runtimes
from modelyard_inference.replica.batching import Batcher, Outputs
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.contract import Prediction
from modelyard_inference.replica.errors import InvalidTensor, ModelFailed, OutOfMemory, OutputMismatch
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.statistics import Statistics
from modelyard_inference.replica.warm_up import example, warm_up
from modelyard_inference.runtimes import RejectedInput
from modelyard_inference.runtimes.datatypes import Array, cast
from modelyard_inference.runtimes.signature import MethodSignature
from modelyard_kit.errors import DomainError

log: Any = structlog.get_logger()
# As C++, ONNX Runtime and PyTorch (of the memory of a machine, and of a GPU) say it.
_SHORT_OF_MEMORY: Final = (
    "bad_alloc",
    "bad allocation",
    "can't allocate memory",
    "Failed to allocate memory",
    "out of memory. Tried to allocate",
)


class Predictor(Protocol):
    """What answers checked predictions: a model in this process, or one that another server runs."""

    statistics: Statistics
    exhausted: asyncio.Event

    @property
    def pending(self) -> int:
        """Return how many predictions wait for the model."""

    async def load(self) -> None:
        """Get ready to answer.

        Raises:
            LoadError: that cannot be done.
            MemoryError: there is too little memory for it.
        """

    def submit(self, prediction: Prediction, call: Call) -> asyncio.Future[Outputs]:
        """Begin to answer a prediction; see `Batcher.submit`."""

    async def close(self, *, within_seconds: float) -> bool:
        """Let go of the model; return whether that was done in time."""


class _Copies(threading.local):
    """The copy of the model that belongs to the thread that asks."""

    own: runtimes.Runtime | None = None


class Engine:
    """Runs predictions. `load` comes first; the methods are for the event loop."""

    def __init__(self, config: ReplicaConfig) -> None:
        self.statistics = Statistics()
        self._config = config
        self._methods = {method.name: method for method in config.signature.methods}
        self._executors = [
            ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model-{copy}")
            for copy in range(config.instances)
        ]
        self._copies = _Copies()
        self._loop = asyncio.get_running_loop()
        self.exhausted = asyncio.Event()
        """Whether there is not even memory left for the smallest input: only a new process helps."""
        self._batcher = Batcher(
            self._run,
            self._explain,
            self._executors,
            max_queue_rows=config.max_queue_rows,
            max_batch_rows=config.max_batch_rows,
            delay_seconds=config.batch_delay_seconds,
            statistics=self.statistics,
        )

    @property
    def pending(self) -> int:
        """Return how many predictions wait for the model."""
        return self._batcher.pending

    async def load(self) -> None:
        """Load every copy of the model and warm it up, one after the other, each in its thread.

        Raises:
            LoadError: if the artifact cannot be loaded or the model does not keep to its signature.
            MemoryError: if there is too little memory for it.
        """
        for executor in self._executors:
            await self._loop.run_in_executor(executor, self._load)

    def submit(self, prediction: Prediction, call: Call) -> asyncio.Future[Outputs]:
        """Queue a prediction; see `Batcher.submit`."""
        return self._batcher.submit(
            prediction.method,
            prediction.inputs,
            rows=prediction.rows,
            key=prediction.key,
            deadline=call.deadline,
            call=call,
        )

    async def close(self, *, within_seconds: float) -> bool:
        """Let go of the model, after what it is doing; return whether its threads came to an end in time."""
        executors, self._executors = self._executors, []
        try:
            async with asyncio.timeout(within_seconds):
                await asyncio.gather(*(self._loop.run_in_executor(e, self._unload) for e in executors))
        except TimeoutError:
            return False
        finally:
            for executor in executors:
                executor.shutdown(wait=False)
        return True

    def _load(self) -> None:
        load = runtimes.find(self._config.runtime, allow_code=self._config.allow_code)
        self._copies.own = load(
            self._config.model_directory, self._config.signature, threads=self._config.threads
        )
        warm_up(self._config, self._run)

    def _unload(self) -> None:
        own, self._copies.own = self._copies.own, None
        if own is not None:
            own.unload()

    def _run(self, name: str, inputs: Mapping[str, Array]) -> Outputs:
        own = self._copies.own
        assert own is not None  # noqa: S101  load() comes first
        return keeping_to(self._methods[name], own.predict(name, inputs))

    def _explain(self, method: str, error: BaseException) -> DomainError:
        if isinstance(error, RejectedInput):
            return InvalidTensor(
                error.tensor, f"input '{error.tensor}' for model '{self._config.deployment}' {error.problem}"
            )
        error_id = uuid.uuid4().hex
        if _is_short_of_memory(error):
            error.__traceback__ = None  # and with it go the arrays of the run
            log.error("model_out_of_memory", error_id=error_id, method=method, problem=str(error)[:500])
            self._check_memory(method)
            return OutOfMemory(error_id)
        log.error("model_failed", error_id=error_id, method=method, exc_info=error)
        return ModelFailed(error_id)

    def _check_memory(self, method: str) -> None:
        """Find out whether the smallest input still has an answer: a large one is harmless, a leak is not."""
        try:
            self._run(method, example(self._methods[method], 1))
        except Exception as error:  # noqa: BLE001  a model may raise anything, and refuse zeros: only memory counts
            if _is_short_of_memory(error):
                self._loop.call_soon_threadsafe(self.exhausted.set)


def keeping_to(method: MethodSignature, given: Mapping[str, object]) -> Outputs:
    """Return what a model gives as arrays of the types that its signature names.

    Raises:
        OutputMismatch: an output is missing, or of another type or shape.
    """
    outputs: dict[str, Array] = {}
    for spec in method.outputs:
        try:
            array = cast(spec.datatype, given[spec.name])
        except (KeyError, TypeError, ValueError) as error:
            raise OutputMismatch(f"output {spec.name!r} of method {method.name!r}: {error}") from error
        if not spec.fits(array.shape):
            raise OutputMismatch(
                f"output {spec.name!r} of method {method.name!r}: the model gives the shape {list(array.shape)}, "
                f"the signature says {list(spec.shape)}"
            )
        outputs[spec.name] = array
    return outputs


def _is_short_of_memory(error: BaseException) -> bool:
    """Return whether a model failed for want of memory: Python says so by type, libraries in C++ by text."""
    return isinstance(error, MemoryError) or any(told in str(error) for told in _SHORT_OF_MEMORY)
