from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from modelyard import CustomMetadata, ModelMetadata
from modelyard._metadata import MAX_BYTES, complete, hyperparameters, of_estimator, size

X, binary = np.eye(4), [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("estimator", "use_case"),
    [
        (LogisticRegression().fit(X, binary), "binary_classification"),
        (LogisticRegression().fit(X, [0, 1, 2, 3]), "multinomial_classification"),
        (make_pipeline(StandardScaler(), LogisticRegression()).fit(X, binary), "binary_classification"),
        (LogisticRegression(), ""),
        (LinearRegression().fit(X, binary), "regression"),
        (KMeans(2, n_init=1).fit(X), "clustering"),
        (IsolationForest(n_estimators=2).fit(X), "anomaly_detection"),
        (StandardScaler().fit(X), ""),
        (object(), ""),
    ],
)
def test_the_use_case_is_told_from_a_fitted_estimator(estimator: Any, use_case: str) -> None:
    assert of_estimator(estimator).use_case == use_case


def test_the_algorithm_of_a_pipeline_is_what_learns() -> None:
    assert (
        of_estimator(make_pipeline(StandardScaler(), LogisticRegression())).algorithm == "LogisticRegression"
    )
    assert of_estimator(Pipeline([("a", StandardScaler()), ("b", "passthrough")])).algorithm == "Pipeline"
    assert of_estimator(GridSearchCV(GaussianNB(), {})).algorithm == "GridSearchCV"


def test_hyperparameters_are_json_whatever_they_were() -> None:
    class Odd(BaseEstimator):  # type: ignore[misc]
        def __init__(self, **values: Any) -> None:
            self.values = values

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            return self.values

    told = hyperparameters(
        Odd(
            scalar=np.float32(0.5),
            flag=np.bool_(True),
            missing=np.nan,
            infinite=-np.inf,
            big=2**60,
            array=np.zeros((3, 2)),
            long=list(range(1000)),
            function=np.log,
            method=json.dumps,
            kind=dict,
            pair=("a", 1),
            deep={"a": {"b": [np.int64(1)]}},
            bottomless=[[[[[[1]]]]]],
            text="x" * 1000,
            secret=object(),
            nothing=None,
            unstorable="a\0b\ud800",
            group={1, 2},
        )
    )
    assert told == {
        "scalar": 0.5,
        "flag": True,
        "missing": "nan",
        "infinite": "-inf",
        "big": str(2**60),
        "array": "ndarray of shape [3, 2]",
        "long": "list of 1000",
        "function": "log",
        "method": "dumps",
        "kind": "dict",
        "pair": ["a", 1],
        "deep": {"a": {"b": [1]}},
        "bottomless": [[[["list of 1"]]]],
        "text": "x" * 500,
        "secret": "object",
        "nothing": None,
        "unstorable": "a\\0b\\ud800",
        "group": "set of 2",
    }


def test_inner_estimators_are_told_by_class_and_by_their_parameters() -> None:
    imputed = ColumnTransformer([("fill", SimpleImputer(), [0])])
    pipeline = make_pipeline(imputed, FunctionTransformer(np.log1p), LogisticRegression(C=0.5))
    told = hyperparameters(pipeline)
    assert told["logisticregression"] == "LogisticRegression"
    assert told["logisticregression__C"] == 0.5
    assert told["columntransformer__fill__missing_values"] == "nan"
    assert told["functiontransformer__func"] == "log1p"
    names = list(told)
    assert names.index("steps") < names.index("logisticregression__C")
    json.dumps(told, allow_nan=False)


def test_an_estimator_that_cannot_tell_its_parameters_has_none() -> None:
    class Broken:
        def get_params(self, deep: bool) -> dict[str, Any]:
            raise RuntimeError

    assert of_estimator(Broken()).hyperparameters == {}


@pytest.mark.parametrize("given_bytes", [0, 15_000, 30_000, 31_500])
def test_what_is_told_never_pushes_what_is_given_over_the_limit(given_bytes: int) -> None:
    half = given_bytes // 2
    given = ModelMetadata(custom=(CustomMetadata("a", "x" * half), CustomMetadata("b", "x" * half)))
    told = ModelMetadata(hyperparameters={f"p{i:04}": "é" * 30 for i in range(1000)})
    after = complete(given, told)
    assert after.custom == given.custom
    assert size(after) <= MAX_BYTES
    assert bool(after.hyperparameters) == (given_bytes < 31_000)


def test_without_anything_given_all_is_told() -> None:
    told = ModelMetadata(use_case="regression", hyperparameters={"a": 1})
    assert complete(None, told) == told


def test_the_framework_is_that_of_the_class() -> None:
    mine = type("Mine", (LogisticRegression,), {})
    theirs = type("XGBClassifier", (BaseEstimator,), {"__module__": "xgboost.sklearn"})
    assert of_estimator(mine()).framework == "scikit-learn"
    assert of_estimator(theirs()).framework == "xgboost"
    assert (of_estimator(object()).framework, of_estimator(object()).framework_version) == ("", "")
