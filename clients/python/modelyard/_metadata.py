"""Metadata told from a model itself. Nothing here can make logging a model fail."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from importlib import metadata as distributions
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from modelyard._convert import to_proto
from modelyard.api.catalog.v1 import metadata_pb2
from modelyard.types import ModelMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 32_000
"""All metadata of a version, as JSON in UTF-8."""

_FRAMEWORKS = {"sklearn": "scikit-learn", "xgboost": "xgboost", "lightgbm": "lightgbm"}
_TOLD_BYTES = 12_000
_RESERVE_BYTES = 500
_TEXT_CHARACTERS = 500
_ITEMS = 50
_DEPTH = 4
_EXACT = 2**53  # numbers of JSON documents are doubles here


def complete(given: ModelMetadata | None, told: ModelMetadata) -> ModelMetadata:
    """What was given, with what was told from the model where nothing was given.

    Told hyperparameters never push what was given over the limit: those that find no room are left out.
    """
    given = given or ModelMetadata()
    room = min(_TOLD_BYTES, MAX_BYTES - _RESERVE_BYTES - size(given))
    return _fill(given, replace(told, hyperparameters=_within(told.hyperparameters, room)))


def package_version(package: str) -> str:
    """The version of an installed package; empty if there is none."""
    try:
        return distributions.version(package)
    except distributions.PackageNotFoundError:
        return ""


def of_estimator(estimator: Any) -> ModelMetadata:
    """What an estimator tells of itself."""
    framework = _framework(estimator)
    return ModelMetadata(
        use_case=_use_case(estimator),
        framework=framework,
        framework_version=package_version(framework) if framework else "",
        algorithm=_algorithm(estimator),
        hyperparameters=hyperparameters(estimator),
    )


def hyperparameters(estimator: Any) -> dict[str, Any]:
    """The parameters of an estimator as JSON can hold them; inner objects become the names of their classes."""
    try:
        found = estimator.get_params(deep=True)
        return {_storable(str(name)): _clean(found[name], _DEPTH) for name in sorted(found, key=_outer_first)}
    except Exception:  # noqa: BLE001  (an estimator of anybody; what it does not tell is left out)
        return {}


def _framework(estimator: Any) -> str:
    """OCI's name of the package its class comes from, which is the name on PyPI too; empty for one's own classes."""
    packages = (kind.__module__.partition(".")[0] for kind in type(estimator).__mro__)
    return next((_FRAMEWORKS[package] for package in packages if package in _FRAMEWORKS), "")


def _outer_first(name: object) -> tuple[int, str]:
    """Parameters of the estimator before those of the estimators in it."""
    return str(name).count("__"), str(name)


def _algorithm(estimator: Any) -> str:
    """The class; of a pipeline that of its last step, which is what learns."""
    steps = getattr(estimator, "steps", None)
    try:
        last = steps[-1][1] if steps else estimator
    except (TypeError, IndexError, KeyError):
        last = estimator
    return type(estimator if isinstance(last, str) or last is None else last).__name__


def _use_case(estimator: Any) -> str:
    """One of OCI's use cases; empty when the estimator does not tell."""
    try:
        kind = _kind(estimator)
        if kind == "classifier":
            return "binary_classification" if len(estimator.classes_) == 2 else "multinomial_classification"
    except Exception:  # noqa: BLE001  (not fitted, or several targets: then it is not told)
        return ""
    return {
        "regressor": "regression",
        "clusterer": "clustering",
        "outlier_detector": "anomaly_detection",
    }.get(kind, "")


def _kind(estimator: Any) -> str:
    """`classifier`, `regressor` …: from scikit-learn 1.6 on an estimator has tags, before it an attribute."""
    tags = getattr(estimator, "__sklearn_tags__", None)
    return str((tags().estimator_type if tags else getattr(estimator, "_estimator_type", "")) or "")


def _clean(value: Any, depth: int) -> Any:
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # missing_values=nan is a usual parameter
    if isinstance(value, str):
        return _storable(value)[:_TEXT_CHARACTERS]
    if isinstance(value, Mapping) and depth and len(value) <= _ITEMS:
        return {_storable(str(key)): _clean(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and depth and len(value) <= _ITEMS:
        return [_clean(item, depth - 1) for item in value]
    return _described(value)


def _storable(text: str) -> str:
    """The text without what a service cannot store: U+0000 and halves of surrogate pairs."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _described(value: Any) -> str:
    """What stands for a value that is too large, or no JSON: never its `repr`, which may hold data or addresses."""
    if getattr(value, "shape", ()):
        return f"{type(value).__name__} of shape {list(value.shape)}"
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return str(value.__qualname__)
    return type(value).__name__


def _within(parameters: Mapping[str, Any], room: int) -> dict[str, Any]:
    """The parameters that fit into so many bytes of JSON, each whole."""
    kept: dict[str, Any] = {}
    for name, value in parameters.items():
        size = len(json.dumps({name: value}, ensure_ascii=False).encode())
        if size <= room:
            kept[name] = value
            room -= size
    return kept


def size(given: ModelMetadata) -> int:
    """Bytes as JSON in UTF-8, at least as many as the service counts.

    Raises:
        InvalidArgument: a value is not JSON.
    """
    message = to_proto(metadata_pb2.ModelMetadata, given)
    text = json_format.MessageToJson(
        message, indent=None, ensure_ascii=False, always_print_fields_with_no_presence=True
    )
    return len(text.encode())


def _fill(given: ModelMetadata, told: ModelMetadata) -> ModelMetadata:
    return replace(given, **dict(_missing(given, told)))


def _missing(given: ModelMetadata, told: ModelMetadata) -> Iterator[tuple[str, Any]]:
    for field in fields(ModelMetadata):
        if not getattr(given, field.name):
            yield field.name, getattr(told, field.name)
