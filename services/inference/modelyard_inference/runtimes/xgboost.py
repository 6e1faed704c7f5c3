"""XGBoost models in XGBoost's own formats, which hold no code: `model.ubj`, `model.json` or the only `.ubj` at the artifact's root.

A model that an estimator saved (XGBClassifier, XGBRegressor, XGBRanker) has the methods of that estimator; any other has the
method `predict` of a booster. See `estimators` for what they take; NaN is a missing value, texts are not taken.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import xgboost

from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.estimators import EstimatorRuntime, check, first_line
from modelyard_inference.runtimes.files import find_file
from modelyard_inference.runtimes.signature import Signature

FILES: Final = ("model.ubj", "model.json")
_ESTIMATORS: Final = {
    "classifier": xgboost.XGBClassifier,
    "regressor": xgboost.XGBRegressor,
    "ranker": xgboost.XGBRanker,
}


class Booster:
    """A model that no estimator saved."""

    def __init__(self, booster: xgboost.Booster) -> None:
        self._booster = booster

    def predict(self, rows: Array) -> Any:
        """Return what the booster predicts for a matrix or a table."""
        return self._booster.inplace_predict(rows)


def load(directory: Path, signature: Signature, *, threads: int = 1) -> EstimatorRuntime:
    """Load the model; see `Load`."""
    path = find_file(directory, *FILES, suffix=".ubj", runtime="XGBoost")
    try:
        booster = xgboost.Booster(params={"nthread": threads}, model_file=path)
        model = _estimator(booster, path, threads)
    except Exception as error:  # a broken file raises several kinds
        raise LoadError(
            f"{path.name} cannot be loaded by XGBoost {xgboost.__version__}: {first_line(error)}"
        ) from error
    check(model, signature, width=booster.num_features(), numbers_only=True)
    return EstimatorRuntime(model, signature)


def _estimator(booster: xgboost.Booster, path: Path, threads: int) -> Any:
    saved_by = booster.attr("scikit_learn")
    kind = json.loads(saved_by).get("_estimator_type") if saved_by else None
    if kind not in _ESTIMATORS:
        return Booster(booster)
    estimator = _ESTIMATORS[kind](n_jobs=threads)
    estimator.load_model(path)
    return estimator
