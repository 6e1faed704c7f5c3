"""Artifacts and configurations of replicas under test."""

from __future__ import annotations

import functools
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.runtimes.signature import MethodSignature, Signature, TensorSpec

DEPLOYMENT = "prod.ml.iris"

IRIS = Signature(
    (
        MethodSignature(
            "predict", (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("label", "INT64", (-1,)),)
        ),
        MethodSignature(
            "predict_proba", (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("scores", "FP64", (-1, 3)),)
        ),
    )
)


@functools.cache
def iris_rows() -> Any:
    """The 150 rows of the data set as FP32."""
    return load_iris().data.astype(np.float32)


@functools.cache
def iris_model() -> LogisticRegression:
    """A classifier of irises."""
    return LogisticRegression(max_iter=500).fit(iris_rows(), load_iris().target)


def write_iris(directory: Path) -> Path:
    """Write the artifact of the classifier and return its folder."""
    directory.mkdir(parents=True, exist_ok=True)
    skops.io.dump(iris_model(), directory / "model.skops")
    return directory


def iris_config(directory: Path, socket_directory: Path, **changes: Any) -> ReplicaConfig:
    """Return the configuration of a replica that runs the classifier."""
    values: dict[str, Any] = {
        "deployment": DEPLOYMENT,
        "model": "prod.ml.iris_model",
        "version": 3,
        "artifact_digest": "sha256:" + "ab" * 32,
        "model_directory": directory,
        "runtime": "sklearn",
        "signature": IRIS,
        "listen": f"unix:{socket_directory}/{uuid.uuid4().hex[:12]}.sock",
        "drain_seconds": 10.0,
    }
    return ReplicaConfig(**{**values, **changes})
