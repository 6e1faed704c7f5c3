"""Metadata of versions, as the OCI model catalog has it: checked on the way in, rendered on the way out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from modelyard.api.catalog.v1 import metadata_pb2
from modelyard_catalog import values
from modelyard_catalog.models import CustomMetadata, MetadataCategory, ModelMetadata
from modelyard_catalog.rows import metadata_to_json
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField

USE_CASES = (
    "binary_classification",
    "regression",
    "multinomial_classification",
    "clustering",
    "recommender",
    "dimensionality_reduction/representation",
    "time_series_forecasting",
    "anomaly_detection",
    "topic_modeling",
    "ner",
    "sentiment_analysis",
    "image_classification",
    "object_localization",
    "other",
)
"""OCI's values of `UseCaseType`."""

FRAMEWORKS = (
    "scikit-learn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "mxnet",
    "keras",
    "lightgbm",
    "pymc3",
    "pyod",
    "spacy",
    "prophet",
    "sktime",
    "statsmodels",
    "cuml",
    "oracle_automl",
    "h2o",
    "transformers",
    "nltk",
    "emcee",
    "pystan",
    "bert",
    "gensim",
    "flair",
    "word2vec",
    "ensemble",
    "pyspark",
    "embedding_onnx",
    "other",
)
"""OCI's values of `Framework`."""

_CATEGORIES = {
    MetadataCategory.PERFORMANCE: metadata_pb2.CustomMetadata.CATEGORY_PERFORMANCE,
    MetadataCategory.TRAINING_PROFILE: metadata_pb2.CustomMetadata.CATEGORY_TRAINING_PROFILE,
    MetadataCategory.TRAINING_AND_VALIDATION_DATASETS: (
        metadata_pb2.CustomMetadata.CATEGORY_TRAINING_AND_VALIDATION_DATASETS
    ),
    MetadataCategory.TRAINING_ENVIRONMENT: metadata_pb2.CustomMetadata.CATEGORY_TRAINING_ENVIRONMENT,
    MetadataCategory.OTHER: metadata_pb2.CustomMetadata.CATEGORY_OTHER,
}
_FROM_PROTO = {number: category for category, number in _CATEGORIES.items()} | {
    metadata_pb2.CustomMetadata.CATEGORY_UNSPECIFIED: MetadataCategory.OTHER
}


def metadata_from_proto(field: str, message: metadata_pb2.ModelMetadata) -> ModelMetadata:
    """Return metadata, with use case and framework in the spelling of their lists.

    Raises:
        InvalidField: a value is in no list, malformed, there twice, or cannot be stored.
        LimitExceeded: all of it together, or a part of it, is too large.
    """
    found = ModelMetadata(
        use_case=_one_of(f"{field}.use_case", message.use_case, USE_CASES),
        framework=_one_of(f"{field}.framework", message.framework, FRAMEWORKS),
        framework_version=values.text(
            f"{field}.framework_version", message.framework_version, "metadata_bytes"
        ),
        algorithm=values.text(f"{field}.algorithm", message.algorithm, "metadata_bytes"),
        hyperparameters=values.struct(f"{field}.hyperparameters", message.hyperparameters),
        test_results=values.struct(f"{field}.test_results", message.test_results),
        custom=tuple(
            _custom(f"{field}.custom[{position}]", item) for position, item in enumerate(message.custom)
        ),
    )
    seen: set[str] = set()
    for position, item in enumerate(found.custom):
        if item.key in seen:
            raise InvalidField(
                f"{field}.custom[{position}].key", f"{values.shown(item.key)!r} is there twice"
            )
        seen.add(item.key)
    limits.check("metadata_bytes", size(found))
    return found


def size(metadata: ModelMetadata) -> int:
    """Return the bytes that metadata has as JSON in UTF-8: only what was given, without white space."""
    stored = metadata_to_json(metadata)
    return len(json.dumps(stored, ensure_ascii=False, separators=(",", ":")).encode())


def metadata_fields(metadata: ModelMetadata) -> dict[str, Any]:
    """Return the fields of the message of metadata."""
    return {
        "use_case": metadata.use_case,
        "framework": metadata.framework,
        "framework_version": metadata.framework_version,
        "algorithm": metadata.algorithm,
        "hyperparameters": metadata.hyperparameters or None,
        "test_results": metadata.test_results or None,
        "custom": [
            {
                "key": item.key,
                "value": item.value,
                "category": _CATEGORIES[item.category],
                "description": item.description,
            }
            for item in metadata.custom
        ],
    }


def _one_of(field: str, value: str, known: Iterable[str]) -> str:
    if not value:
        return ""
    for spelling in known:
        if spelling == value.lower():
            return spelling
    raise InvalidField(field, f"{values.shown(value)!r} is none of {', '.join(known)}")


def _custom(field: str, message: metadata_pb2.CustomMetadata) -> CustomMetadata:
    if not message.key:
        raise InvalidField(f"{field}.key", "is required")
    if message.category not in _FROM_PROTO:
        raise InvalidField(
            f"{field}.category",
            f"{message.category} is none of {', '.join(category for category in _CATEGORIES)}",
        )
    return CustomMetadata(
        key=values.text(f"{field}.key", message.key, "metadata_key_length"),
        value=values.text(f"{field}.value", message.value, "metadata_value_length"),
        category=_FROM_PROTO[message.category],
        description=values.text(f"{field}.description", message.description, "metadata_description_length"),
    )
