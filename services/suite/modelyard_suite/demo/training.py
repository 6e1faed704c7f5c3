"""Two models of the breast cancer data that ships with scikit-learn: 569 rows, 30 columns, benign or malignant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 7


@dataclass(frozen=True)
class Trained:
    """A fitted model, what it is called, and how it did on the rows it has not seen."""

    name: str
    model: Any
    metrics: dict[str, float]


@dataclass(frozen=True)
class Lesson:
    """Both models and the held-out rows: `rows` is FP64 [n, 30], `truth` is INT64 [n]."""

    first: Trained
    second: Trained
    rows: np.ndarray[Any, Any]
    truth: np.ndarray[Any, Any]


def train() -> Lesson:
    """Train both models; takes less than a second."""
    features, truth = load_breast_cancer(return_X_y=True)
    seen, held_out, seen_truth, held_out_truth = train_test_split(
        features, truth, test_size=0.25, random_state=SEED, stratify=truth
    )
    candidates = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000)),
        "random forest": RandomForestClassifier(n_estimators=50, random_state=SEED),
    }
    trained = []
    for name, model in candidates.items():
        model.fit(seen, seen_truth)
        probability = model.predict_proba(held_out)[:, 1]
        metrics = {
            "accuracy": round(float(accuracy_score(held_out_truth, model.predict(held_out))), 4),
            "roc_auc": round(float(roc_auc_score(held_out_truth, probability)), 4),
        }
        trained.append(Trained(name, model, metrics))
    return Lesson(trained[0], trained[1], held_out, held_out_truth)
