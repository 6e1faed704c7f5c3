"""The configuration file, the status file and the signature in them."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from modelyard_inference.replica.config import ReplicaConfig, read_status, status_path, write_status
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature, TensorSpec

SIGNATURE = {
    "methods": [
        {
            "name": "predict",
            "inputs": [{"name": "a", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "y", "datatype": "FP64", "shape": ["-1", 3]}],
            "input_layout": "INPUT_LAYOUT_COLUMNS",
        }
    ]
}


def valid(**changes: Any) -> dict[str, Any]:
    value = {
        "deployment": "prod.ml.iris",
        "model": "prod.ml.iris",
        "version": 1,
        "artifact_digest": "sha256:00",
        "model_directory": "/models/1",
        "runtime": "sklearn",
        "signature": SIGNATURE,
        "listen": "unix:/run/modelyard/1.sock",
    }
    return {**value, **changes}


def test_round_trip(tmp_path: Path) -> None:
    config = ReplicaConfig.from_json(valid(max_queue_rows=7))
    path = tmp_path / "replica.json"
    config.dump(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ReplicaConfig.load(path) == config
    assert config.socket == Path("/run/modelyard/1.sock")
    assert [entry.name for entry in tmp_path.iterdir()] == ["replica.json"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 0}, "version: must be at least 1"),
        ({"version": "1"}, "version: must be a whole number"),
        ({"version": True}, "version: must be a whole number"),
        ({"deployment": ""}, "deployment: must not be empty"),
        ({"listen": "0.0.0.0:1"}, "listen: must be unix:/path"),
        ({"listen": "unix:/" + "x" * 200}, "listen: the path of a socket has at most 103 bytes"),
        ({"log_level": "loud"}, "log_level: must be one of"),
        ({"drain_seconds": -1}, "drain_seconds: must not be negative"),
        ({"instances": 0}, "instances: must be at least 1"),
        ({"memory_bytes": -1}, "memory_bytes: must not be negative"),
        ({"colour": "red"}, "colour: is no setting of a replica"),
        ({"signature": {}}, "signature.methods: must name at least one method"),
        ({"signature": []}, "signature: must be an object"),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ReplicaConfig.from_json(valid(**changes))


def test_every_problem_at_once() -> None:
    value = valid(version="x", threads=1.5)
    del value["runtime"]
    with pytest.raises(ValueError, match="runtime: is missing; version: .*; threads: "):
        ReplicaConfig.from_json(value)


def test_status(tmp_path: Path) -> None:
    path = tmp_path / "replica.json"
    assert read_status(path) == {}
    write_status(path, "failed", "no file")
    status = json.loads(status_path(path).read_text())
    assert (status["state"], status["message"]) == ("failed", "no file")
    assert read_status(path) == status
    assert stat.S_IMODE(status_path(path).stat().st_mode) == 0o600


def test_signature() -> None:
    signature = Signature.from_json(SIGNATURE)
    assert signature.methods == (
        MethodSignature(
            "predict",
            (TensorSpec("a", "BYTES", (-1,)),),
            (TensorSpec("y", "FP64", (-1, 3)),),
            InputLayout.COLUMNS,
        ),
    )
    assert Signature.from_json(signature.to_json()) == signature
    assert signature.method("predict").row_wise
    with pytest.raises(KeyError):
        signature.method("fit")


def _with(path: str, value: Any) -> Any:
    changed = json.loads(json.dumps(SIGNATURE))
    holder = changed["methods"][0]
    *parents, last = path.split(".")
    for part in parents:
        holder = holder[int(part)] if part.isdigit() else holder[part]
    holder[int(last) if last.isdigit() else last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("name", "", r"signature\.methods\[0\]\.name: must be text"),
        ("inputs", [], r"signature\.methods\[0\]\.inputs: must name at least one tensor"),
        ("inputs", "a", r"inputs: must be a list"),
        ("inputs.0.datatype", "FLOAT", r"inputs\[0\]\.datatype: 'FLOAT' is none of BOOL"),
        ("inputs.0.shape", [0], r"inputs\[0\]\.shape: every dimension"),
        ("inputs.0.shape", [-2], r"inputs\[0\]\.shape: every dimension"),
        ("inputs.0.shape", [1.5], r"inputs\[0\]\.shape: every dimension"),
        ("inputs.0", 5, r"inputs\[0\]: must be an object"),
        ("input_layout", "ROWS", "input_layout: must be TENSORS or COLUMNS"),
    ],
)
def test_bad_signatures_are_named(path: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Signature.from_json(_with(path, value))


def test_names_are_unique() -> None:
    tensor = {"name": "a", "datatype": "BYTES", "shape": [-1]}
    with pytest.raises(ValueError, match="names must be unique"):
        Signature.from_json(_with("inputs", [tensor, tensor]))
    with pytest.raises(ValueError, match="names must be unique"):
        Signature.from_json({"methods": [SIGNATURE["methods"][0]] * 2})
