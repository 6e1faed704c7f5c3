"""scikit-learn estimators, saved by skops: no pickle, nothing runs when the file is read."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from modelyard import _metadata
from modelyard._examples import ExampleNeeded
from modelyard.errors import InvalidArgument, MissingExtra
from modelyard.flavors import Prepared

if TYPE_CHECKING:
    from pathlib import Path

    from modelyard.types import MethodSignature, Signature

FILE_NAME = "model.skops"
RUNTIME = "sklearn"
_METHODS = {"predict": "output", "predict_proba": "probabilities", "transform": "transformed"}
PACKAGES = ("scikit-learn", "skops", "numpy", "scipy", "modelyard")


def prepare(estimator: Any, folder: Path, *, example: Any, signature: Signature | None) -> Prepared:
    """Save an estimator as `model.skops`, with the signature its methods show on the example."""
    skops = load_skops()
    signature = signature or infer(estimator, example)
    path = folder / FILE_NAME
    skops.dump(estimator, path)
    unknown = [name for name in skops.get_untrusted_types(file=path) if not is_harmless(name)]
    if unknown:
        warnings.warn(
            f"the model contains {', '.join(unknown)}; a replica loads only classes of scikit-learn and NumPy and "
            "will refuse this version",
            stacklevel=2,
        )
    return Prepared(path, RUNTIME, signature, PACKAGES, _metadata.of_estimator(estimator))


def infer(estimator: Any, example: Any) -> Signature:
    """The signatures of those of `predict`, `predict_proba` and `transform` that there are."""
    from modelyard import signature as signatures
    from modelyard.types import Signature

    if example is None:
        raise ExampleNeeded(
            "example: give some rows as the model takes them", "example=X[:5], or signature=…"
        )
    if not signatures.is_table(example):
        example = signatures.as_array(example)
        if example.dtype.kind in "iub":
            example = example.astype(
                "float64"
            )  # whole numbers in the example do not mean that only they will come
    return Signature(tuple(_method(estimator, name, output, example) for name, output in _methods(estimator)))


def _methods(estimator: Any) -> list[tuple[str, str]]:
    return [(name, output) for name, output in _METHODS.items() if hasattr(estimator, name)]


def _method(estimator: Any, method: str, output: str, example: Any) -> MethodSignature:
    from modelyard import signature as signatures

    # As a replica does: a table only for who was fitted with one.
    given = example if hasattr(estimator, "feature_names_in_") else signatures.as_array(example)
    try:
        result = getattr(estimator, method)(given)
    except Exception as error:
        raise InvalidArgument(f"example: the model's {method} fails on it: {error}") from error
    if isinstance(result, (list, tuple)):  # several targets, one array each
        result = {f"{output}_{i}": item for i, item in enumerate(result)}
    elif not signatures.is_table(result):
        result = {output: result}
    return signatures.infer_method(example, result, method)


def is_harmless(name: str) -> bool:
    """Whether a type in a skops file is one of scikit-learn or NumPy, as the serving runtime wants it."""
    return name.split(".", maxsplit=1)[0] in {"sklearn", "numpy"}


def load_skops() -> Any:
    """The module `skops.io`; its absence is told with the remedy."""
    try:
        import skops.io
    except ImportError as error:
        raise MissingExtra("skops", "sklearn") from error
    return skops.io
