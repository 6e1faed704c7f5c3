"""Models of MLflow's own kind, for tests. Importing this warns of their missing hints, which MLflow would check rows by."""

from __future__ import annotations

from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd


class Tables(mlflow.pyfunc.PythonModel):
    """A model of tables that gives several columns."""

    def predict(self, context, model_input, params=None):  # noqa: ANN001, ANN201
        total = model_input.sum(axis=1)
        return pd.DataFrame({"total": total, "count": np.full(len(total), model_input.shape[1])})


class Codes(mlflow.pyfunc.PythonModel):
    """A model of texts."""

    def predict(self, context, model_input, params=None):  # noqa: ANN001, ANN201
        colours, sizes = model_input["colour"], model_input["size"]
        known = ("red", "blue", "green")
        return [known.index(c) * 10 + "sml".index(s) for c, s in zip(colours, sizes, strict=True)]


class Labels(mlflow.pyfunc.PythonModel):
    """A model of one matrix."""

    def __init__(self, weights: Any) -> None:
        self.weights = weights

    def predict(self, context, model_input, params=None):  # noqa: ANN001, ANN201
        return (model_input @ self.weights[0].T + self.weights[1]).argmax(axis=1)
