"""What a model is asked before it answers anybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard import MethodSignature as ClientMethod
from modelyard import Signature as ClientSignature
from modelyard import TensorSpec as ClientSpec
from modelyard._warm_up import record
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.errors import OutputMismatch
from modelyard_inference.replica.warm_up import RECORDED, warm_up
from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.signature import MethodSignature, Signature, TensorSpec
from modelyard_kit.limits import LIMITS

NUMBERS, TEXTS = TensorSpec("x", "FP64", (-1, 2)), TensorSpec("t", "BYTES", (3,))
SIGNATURE = Signature(
    (MethodSignature("rows", (NUMBERS,), (NUMBERS,)), MethodSignature("fixed", (TEXTS,), (TEXTS,)))
)


class Model:
    """Notes what it is asked; raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.error = error

    def run(self, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        (array,) = inputs.values()
        self.asked.append((method, array.tolist()))
        if self.error:
            raise self.error
        return inputs


def config(folder: Path, *recorded: object) -> ReplicaConfig:
    if recorded:
        (folder / RECORDED).write_text("\n".join(map(json.dumps, recorded)) + "\n\n")
    return ReplicaConfig(
        deployment="prod.ml.iris",
        model="prod.ml.iris",
        version=1,
        artifact_digest="sha256:0",
        model_directory=folder,
        runtime="odd",
        signature=SIGNATURE,
        listen="unix:/nowhere/s",
    )


def request(value: float, method: str = "rows") -> dict[str, object]:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [value, value]}
    return {"inputs": [tensor], "parameters": {"method": method}}


ROWS = ("rows", [[0.0, 0.0]]), ("rows", [[0.0, 0.0]] * 4)
FIXED = ("fixed", [b"", b"", b""])


def test_without_a_record_every_method_is_asked_with_zeros(tmp_path: Path) -> None:
    model = Model()
    warm_up(config(tmp_path), model.run)
    assert model.asked == [*ROWS, FIXED]


def test_what_is_recorded_is_asked_in_order_and_instead(tmp_path: Path) -> None:
    model = Model()
    warm_up(config(tmp_path, request(1), request(2)), model.run)
    assert model.asked == [("rows", [[1.0, 1.0]]), ("rows", [[2.0, 2.0]]), FIXED]


@pytest.mark.parametrize("error", [ValueError("no zeros"), RejectedInput("x", "no zeros")])
def test_a_model_may_refuse_zeros_but_not_what_is_recorded(tmp_path: Path, error: Exception) -> None:
    model = Model(error)
    warm_up(config(tmp_path), model.run)
    assert len(model.asked) == 3
    with pytest.raises(LoadError, match=r"request 1 of warmup.jsonl failed: .*no zeros"):
        warm_up(config(tmp_path, request(1)), model.run)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ArithmeticError("odd"), r"method 'rows' failed on 1 example row\(s\): ArithmeticError: odd"),
        (OutputMismatch("output 'y': the shape"), "output 'y': the shape"),
    ],
)
def test_a_model_that_fails_is_not_ready(tmp_path: Path, error: Exception, told: str) -> None:
    with pytest.raises(LoadError, match=told):
        warm_up(config(tmp_path), Model(error).run)


def test_want_of_memory_stays_what_it_is(tmp_path: Path) -> None:
    for recorded in ((), (request(1),)):
        with pytest.raises(MemoryError):
            warm_up(config(tmp_path, *recorded), Model(MemoryError()).run)


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        (request(1, "fit"), "request 2 of warmup.jsonl failed: .*fit"),
        ({"inputs": []}, "request 2 of warmup.jsonl failed: "),
        ("text", "request 2 of warmup.jsonl failed: .*must be a JSON object"),
    ],
)
def test_what_is_no_request_of_the_model_is_told(tmp_path: Path, recorded: object, told: str) -> None:
    with pytest.raises(LoadError, match=told):
        warm_up(config(tmp_path, request(1), recorded), Model().run)


def test_a_record_is_bounded(tmp_path: Path) -> None:
    most, model = LIMITS["warm_up_requests"].maximum, Model()
    warm_up(config(tmp_path, *[request(1)] * most), model.run)
    assert len(model.asked) == most + 1
    with pytest.raises(LoadError, match=f"{most + 1} requests, more than {most}"):
        warm_up(config(tmp_path, *[request(1)] * (most + 1)), Model().run)
    given, size = config(tmp_path), LIMITS["warm_up_bytes"].maximum
    (tmp_path / RECORDED).write_bytes(b" " * size)
    warm_up(given, Model().run)
    (tmp_path / RECORDED).write_bytes(b" " * (size + 1))
    with pytest.raises(LoadError, match=f"{size + 1} bytes, more than {size}"):
        warm_up(given, Model().run)


def client_method(name: str, *specs: tuple[str, str, tuple[int, ...]]) -> ClientMethod:
    tensors = tuple(ClientSpec(*spec) for spec in specs)
    return ClientMethod(name, tensors, tensors)


PAIR = ("x", "FP64", (-1, 2))


def recorded(folder: Path, example: Any, *methods: ClientMethod) -> list[dict[str, Any]]:
    path = folder / "model.skops"
    path.touch()
    found = record(path, folder, ClientSignature(methods), example)
    assert found in (path, folder)
    assert (folder / RECORDED).exists() is (found == folder)
    return (
        [json.loads(line) for line in (folder / RECORDED).read_text().splitlines()] if found == folder else []
    )


def test_the_example_of_a_model_is_a_record(tmp_path: Path) -> None:
    """What the client writes is what a replica reads."""
    example, model = np.arange(20).reshape(10, 2), Model()
    assert recorded(
        tmp_path, example, client_method("rows", PAIR), client_method("fixed", ("t", "BYTES", (3,)))
    )
    warm_up(config(tmp_path), model.run)
    assert model.asked == [("rows", example[:8].tolist()), FIXED]


@pytest.mark.parametrize(
    ("spec", "example", "values"),
    [
        (PAIR, [[1.5, float("nan")], [float("inf"), 2]], [1.5, "NaN", "Infinity", 2.0]),
        (PAIR, {"input": [[1, 2]]}, [1.0, 2.0]),
        (("x", "FP32", (-1,)), np.array([0.1]), [float(np.float32(0.1))]),
        (("flag", "BOOL", (-1,)), [True, False], [True, False]),
        (("text", "BYTES", (-1,)), "a text", ["a text"]),
        (("text", "BYTES", (-1,)), np.array([b"a", "\u00fc".encode()], object), ["a", "\u00fc"]),
        (("all", "INT64", (3,)), [1, 2, 3], [1, 2, 3]),
    ],
)
def test_values_of_an_example(
    tmp_path: Path, spec: tuple[str, str, tuple[int, ...]], example: Any, values: list[Any]
) -> None:
    (request,) = recorded(tmp_path, example, client_method("m", spec))
    assert (request["parameters"], request["inputs"][0]["data"]) == ({"method": "m"}, values)


@pytest.mark.parametrize(
    "example",
    [
        [[1, 2, 3]],
        [[1, 2], [3]],
        [["a", "b"]],
        {"x": [[1, 2]], "y": [1]},
        np.zeros((0, 2)),
        np.zeros((1, 2), complex),
    ],
)
def test_what_is_no_request_is_not_recorded(tmp_path: Path, example: Any) -> None:
    assert recorded(tmp_path, example, client_method("rows", PAIR)) == []


def test_an_example_that_is_large_is_cut_and_one_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    wide = client_method("m", ("x", "INT64", (-1, 200_000)))
    (request,) = recorded(tmp_path, np.ones((9, 200_000), int), wide)
    assert request["inputs"][0]["shape"] == [2, 200_000]
    (tmp_path / RECORDED).unlink()
    assert recorded(tmp_path, np.full((1, 200_000), 10**9), wide) == []
    text = client_method("m", ("t", "BYTES", (-1,)))
    assert recorded(tmp_path, np.array(["a", None], object), text) == []


def test_a_model_that_is_logged_as_it_is_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    other = tmp_path / "ours"
    other.mkdir()
    assert record(path, other, ClientSignature((client_method("rows", PAIR),)), [[1, 2]]) == path
    assert not list(path.iterdir())
