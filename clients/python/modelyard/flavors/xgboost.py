"""XGBoost models, saved in XGBoost's own binary format: no pickle, no code."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modelyard import _metadata
from modelyard.flavors import Prepared, sklearn

if TYPE_CHECKING:
    from pathlib import Path

    from modelyard.types import Signature

FILE_NAME = "model.ubj"
RUNTIME = "xgboost"
PACKAGES = ("xgboost", "xgboost-cpu", "scikit-learn", "numpy", "modelyard")


def prepare(model: Any, folder: Path, *, example: Any, signature: Signature | None) -> Prepared:
    """Save an estimator or a booster as `model.ubj`, with the signature its methods show on the example."""
    estimator = model if hasattr(model, "get_params") else _Booster(model)
    signature = signature or sklearn.infer(estimator, example)
    path = folder / FILE_NAME
    model.save_model(path)
    metadata = replace(
        _metadata.of_estimator(model), framework_version=str(sys.modules["xgboost"].__version__)
    )
    return Prepared(path, RUNTIME, signature, PACKAGES, metadata)


class _Booster:
    """A booster that takes rows, as a replica gives it some."""

    def __init__(self, booster: Any) -> None:
        self.predict = booster.inplace_predict
