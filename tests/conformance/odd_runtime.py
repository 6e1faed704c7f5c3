"""A runtime for tests: it echoes, fails, and waits until it is told to go on."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelyard_inference.runtimes import RejectedInput
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature, TensorSpec

NAME = "odd"
MODULE = __name__

DATATYPES = (
    "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip


def _same(name: str, *specs: TensorSpec, layout: InputLayout = InputLayout.TENSORS) -> MethodSignature:
    return MethodSignature(name, specs, specs, layout)


SIGNATURE = Signature(
    (
        _same("echo", TensorSpec("x", "FP32", (-1, 2)), TensorSpec("y", "INT64", (-1,))),
        _same("texts", TensorSpec("t", "BYTES", (-1, -1))),
        _same("fixed", TensorSpec("f", "FP32", (3,))),
        _same("picky", TensorSpec("x", "FP32", (-1,))),
        _same("wait", TensorSpec("x", "FP32", (-1,))),
        _same("greedy", TensorSpec("x", "FP32", (-1,))),
        _same("talk", TensorSpec("x", "FP32", (-1,))),
        *(_same(f"echo_{datatype}", TensorSpec("d", datatype, (-1, 2))) for datatype in DATATYPES),
    )
)


class OddRuntime:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs: list[tuple[str, int]] = []
        self.leaked: list[Any] = []

    def predict(self, method: str, inputs: Mapping[str, Any]) -> Mapping[str, object]:
        first = next(iter(inputs.values()))
        self.runs.append((method, len(first)))
        if method == "picky":
            if (first < 0).any():
                raise ArithmeticError("secret words of the model")
            if (first == 666).any():
                raise SystemExit("models must not do this")
            if (first == 13).any():
                raise RejectedInput("x", "holds 13")
        if method == "greedy":
            self._need(float(first[0]))
        if method == "wait" and (first != 0).any():
            (self.directory / "started").touch()
            while not (self.directory / "release").exists():
                time.sleep(0.005)
        if method == "talk" and (first != 0).any():
            print("row", int(first[0]))
            logging.getLogger("odd").warning("logged %d", int(first[0]))
            print("complaint", file=sys.stderr)
        return inputs

    def _need(self, mebibytes: float) -> None:
        """Fill so much memory, at least 8 MiB, and with a negative number never give it back."""
        filled = np.ones(int(max(abs(mebibytes), 8)) * 2**20, np.uint8)
        if mebibytes < 0:
            self.leaked.append(filled)

    def unload(self) -> None:
        (self.directory / "unloaded").touch()


loaded: list[OddRuntime] = []
"""What this process loaded, for tests to look at."""


def load(directory: Path, signature: Signature, *, threads: int = 1) -> OddRuntime:
    del signature, threads
    loaded.append(OddRuntime(directory))
    return loaded[-1]
