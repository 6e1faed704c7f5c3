"""LightGBM models in LightGBM's own format, which holds no code: `model.txt` at the root of the artifact.

The format does not keep the labels of a classifier; `labels.json` beside it does, a list of numbers or texts in the order of
the probabilities. With it the model has the methods `predict` (labels) and `predict_proba`, without it `predict` of a booster.
See `estimators` for what they take; NaN is a missing value, texts are not taken.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np

from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.estimators import EstimatorRuntime, check, first_line
from modelyard_inference.runtimes.signature import Signature

FILE: Final = "model.txt"
LABELS_FILE: Final = "labels.json"


class Booster:
    """A model without labels."""

    def __init__(self, booster: lightgbm.Booster, threads: int) -> None:
        self.predict = functools.partial(booster.predict, num_threads=threads)


class Classifier:
    """A model with labels."""

    def __init__(self, booster: lightgbm.Booster, threads: int, labels: Array) -> None:
        self._scores = functools.partial(booster.predict, num_threads=threads)
        self._labels = labels

    def predict(self, rows: Any) -> Array:
        """Return the most probable label of each row."""
        labels: Array = self._labels[self.predict_proba(rows).argmax(axis=1)]
        return labels

    def predict_proba(self, rows: Any) -> Array:
        """Return the probability of each label for each row."""
        scores = np.asarray(self._scores(rows))
        # A model of two labels gives the probability of the second alone.
        return scores if scores.ndim == 2 else np.column_stack((1.0 - scores, scores))


def load(directory: Path, signature: Signature, *, threads: int = 1) -> EstimatorRuntime:
    """Load `model.txt`; see `Load`."""
    path = directory / FILE
    if not path.is_file():
        raise LoadError(f"the artifact has no {FILE}, which the LightGBM runtime loads")
    try:
        booster = lightgbm.Booster(model_str=_whole(path))
    except Exception as error:  # a broken file raises several kinds
        raise LoadError(
            f"{FILE} cannot be loaded by LightGBM {lightgbm.__version__}: {first_line(error)}"
        ) from error
    labels = _labels(directory / LABELS_FILE, booster)
    model = Booster(booster, threads) if labels is None else Classifier(booster, threads, labels)
    check(model, signature, width=booster.num_feature(), numbers_only=True)
    return EstimatorRuntime(model, signature)


def _whole(path: Path) -> str:
    """Return the model; the library itself takes half of one for a whole."""
    text = path.read_text("utf-8")
    if "\nend of trees" not in text:
        raise ValueError("it is cut off, or no model of LightGBM")
    return text


def _labels(path: Path, booster: lightgbm.Booster) -> Array | None:
    if not path.is_file():
        return None
    try:
        labels = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise LoadError(f"{path.name} is no JSON: {error}") from error
    count = max(2, booster.num_model_per_iteration())
    whole = isinstance(labels, list) and all(isinstance(label, str | int | float) for label in labels)
    if not whole or len(labels) != count:
        raise LoadError(
            f"{path.name} must be a list of {count} labels (numbers or texts), which is how many the model tells apart"
        )
    return np.asarray(labels)
