"""The model of this replica: loaded, warmed up, run by one thread of its own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from modelyard_inference import runtimes
from modelyard_inference.replica.batching import Batcher, Outputs
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.contract import Prediction
from modelyard_inference.replica.errors import InvalidTensor, ModelFailed
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.statistics import Statistics
from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.datatypes import Array, cast, zeros
from modelyard_inference.runtimes.signature import MethodSignature
from modelyard_kit.errors import DomainError

log: Any = structlog.get_logger()
_WARM_UP_ROWS: Final = (1, 4)


class OutputMismatch(Exception):
    """The model answers something else than its signature says."""


class Engine:
    """Runs predictions. `load` comes first; the methods are for the event loop."""

    def __init__(self, config: ReplicaConfig) -> None:
        self.statistics = Statistics()
        self._config = config
        self._methods = {method.name: method for method in config.signature.methods}
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._runtime: runtimes.Runtime | None = None
        self._batcher = Batcher(
            self._run,
            self._explain,
            self._executor,
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
        """Load the model and warm it up, in its thread.

        Raises:
            LoadError: if the artifact cannot be loaded or the model does not keep to its signature.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, self._load)

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
        """Let go of the model, after what it is doing; return whether its thread came to an end in time."""
        runtime, self._runtime = self._runtime, None
        try:
            if runtime is not None:
                unloading = asyncio.get_running_loop().run_in_executor(self._executor, runtime.unload)
                await asyncio.wait_for(unloading, within_seconds)
        except TimeoutError:
            return False
        finally:
            self._executor.shutdown(wait=False)
        return True

    def _load(self) -> None:
        load = runtimes.find(self._config.runtime, allow_code=self._config.allow_code)
        self._runtime = load(
            self._config.model_directory, self._config.signature, threads=self._config.threads
        )
        for method in self._config.signature.methods:
            for rows in _WARM_UP_ROWS if method.row_wise else _WARM_UP_ROWS[:1]:
                self._warm_up(method, rows)

    def _warm_up(self, method: MethodSignature, rows: int) -> None:
        inputs = {
            spec.name: zeros(spec.datatype, [rows if size == -1 else size for size in spec.shape])
            for spec in method.inputs
        }
        try:
            self._run(method.name, inputs)
        except OutputMismatch as error:
            raise LoadError(str(error)) from error
        except (ValueError, RejectedInput) as error:
            # Zeros and empty texts are not every model's values; real ones may well do.
            log.warning("warm_up_refused", method=method.name, rows=rows, problem=str(error)[:500])
        except Exception as error:
            raise LoadError(
                f"method {method.name!r} failed on {rows} example row(s): {type(error).__name__}: {str(error)[:500]}"
            ) from error

    def _run(self, name: str, inputs: Mapping[str, Array]) -> Outputs:
        assert self._runtime is not None  # noqa: S101  load() comes first
        method = self._methods[name]
        given = self._runtime.predict(name, inputs)
        outputs: dict[str, Array] = {}
        for spec in method.outputs:
            try:
                array = cast(spec.datatype, given[spec.name])
            except (KeyError, TypeError, ValueError) as error:
                raise OutputMismatch(f"output {spec.name!r} of method {name!r}: {error}") from error
            if not spec.fits(array.shape):
                raise OutputMismatch(
                    f"output {spec.name!r} of method {name!r}: the model gives the shape {list(array.shape)}, "
                    f"the signature says {list(spec.shape)}"
                )
            outputs[spec.name] = array
        return outputs

    def _explain(self, method: str, error: BaseException) -> DomainError:
        if isinstance(error, RejectedInput):
            return InvalidTensor(
                error.tensor, f"input '{error.tensor}' for model '{self._config.deployment}' {error.problem}"
            )
        error_id = uuid.uuid4().hex
        log.error("model_failed", error_id=error_id, method=method, exc_info=error)
        return ModelFailed(error_id)
