"""LightGBM models, saved in LightGBM's own text format: no pickle, no code. Labels of a classifier lie beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from modelyard import _metadata
from modelyard.errors import InvalidArgument
from modelyard.flavors import Prepared, sklearn

if TYPE_CHECKING:
    from pathlib import Path

    from modelyard.types import Signature

FILE_NAME = "model.txt"
LABELS_FILE_NAME = "labels.json"
RUNTIME = "lightgbm"
PACKAGES = ("lightgbm", "numpy", "scipy", "modelyard")


def prepare(model: Any, folder: Path, *, example: Any, signature: Signature | None) -> Prepared:
    """Save an estimator or a booster as `model.txt`, with the signature its methods show on the example."""
    booster = getattr(model, "booster_", model)
    if booster.pandas_categorical:
        raise InvalidArgument(
            "model: it was fitted on columns of texts (pandas categories), which replicas cannot give it; encode them as "
            "numbers before, or log a pipeline of scikit-learn or ONNX that does"
        )
    signature = signature or sklearn.infer(model, example)
    booster.save_model(folder / FILE_NAME)
    if hasattr(model, "classes_"):
        labels = json.dumps(model.classes_.tolist(), ensure_ascii=False)
        (folder / LABELS_FILE_NAME).write_text(labels, encoding="utf-8")
    return Prepared(folder, RUNTIME, signature, PACKAGES, _metadata.of_estimator(model))
