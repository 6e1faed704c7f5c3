"""The first predictions of a model, before anybody waits for one: those recorded with the artifact, else made from the signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from modelyard_inference.replica import rest
from modelyard_inference.replica.batching import Outputs
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.contract import Contract
from modelyard_inference.replica.errors import OutputMismatch
from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.datatypes import Array, zeros
from modelyard_inference.runtimes.signature import MethodSignature
from modelyard_kit.limits import LIMITS

RECORDED: Final = "warmup.jsonl"
"""File of an artifact with one request in each line, as the body of a prediction by REST."""
_ROWS: Final = (1, 4)
_TOLD: Final = 500

log: Any = structlog.get_logger()

Run = Callable[[str, Mapping[str, Array]], Outputs]
"""Runs a method of the model and checks its outputs."""


def warm_up(config: ReplicaConfig, run: Run) -> None:
    """Run what is recorded, which has to succeed, and two made-up examples of every method of which nothing is recorded.

    Raises:
        LoadError: the model fails, does not keep to its signature, or what is recorded is none of its requests.
        MemoryError: there is too little memory.
    """
    known = _run_recorded(config, run)
    for method in config.signature.methods:
        if method.name not in known:
            for rows in _ROWS if method.row_wise else _ROWS[:1]:
                _run_made_up(method, rows, run)


def example(method: MethodSignature, rows: int) -> Mapping[str, Array]:
    """Return inputs of a method that hold zeros and empty texts."""
    return {
        spec.name: zeros(spec.datatype, [rows if size == -1 else size for size in spec.shape])
        for spec in method.inputs
    }


def _run_recorded(config: ReplicaConfig, run: Run) -> set[str]:
    """Run every recorded request and return the names of their methods."""
    path = config.model_directory / RECORDED
    if not path.is_file():
        return set()
    most = LIMITS["warm_up_bytes"].maximum
    if path.stat().st_size > most:
        raise LoadError(
            f"{RECORDED} has {path.stat().st_size} bytes, more than {most}: record fewer requests"
        )
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    most = LIMITS["warm_up_requests"].maximum
    if len(lines) > most:
        raise LoadError(f"{RECORDED} has {len(lines)} requests, more than {most}: record fewer")
    contract, known = Contract(config), set[str]()
    for number, line in enumerate(lines, 1):
        try:
            prediction = rest.parse(contract.name, contract.version, line, contract)
            run(prediction.method, prediction.inputs)
        except MemoryError:
            raise
        except Exception as error:
            raise LoadError(f"request {number} of {RECORDED} failed: {_text(error)}") from error
        known.add(prediction.method)
    return known


def _run_made_up(method: MethodSignature, rows: int, run: Run) -> None:
    try:
        run(method.name, example(method, rows))
    except OutputMismatch as error:
        raise LoadError(str(error)) from error
    except MemoryError:
        raise
    except (ValueError, RejectedInput) as error:
        # Zeros and empty texts are not every model's values; real ones may well do.
        log.warning("warm_up_refused", method=method.name, rows=rows, problem=str(error)[:_TOLD])
    except Exception as error:
        raise LoadError(f"method {method.name!r} failed on {rows} example row(s): {_text(error)}") from error


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:_TOLD]}"
