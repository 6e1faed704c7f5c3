"""scikit-learn models, saved by skops: `model.skops` or the only `.skops` at the artifact's root; see `estimators` for what they take.

skops builds only types it knows. Types that it does not trust by itself are accepted if they are classes of scikit-learn
or NumPy; anything else, functions included, fails the load by name: a model must not bring code along.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import sklearn
import skops.io

from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.estimators import EstimatorRuntime, check, first_line
from modelyard_inference.runtimes.files import find_file
from modelyard_inference.runtimes.signature import Signature

FILE: Final = "model.skops"
_TRUSTED_PACKAGES: Final = ("sklearn", "numpy")
_NOT_IMPORTED: Final = frozenset({"tests", "conftest", "externals", "datasets", "experimental"})


def load(directory: Path, signature: Signature, *, threads: int = 1) -> EstimatorRuntime:
    """Load the estimator; see `Load`. scikit-learn's threads are those of the process, so `threads` changes nothing."""
    del threads
    model = _read(find_file(directory, FILE, suffix=".skops", runtime="scikit-learn"))
    check(model, signature, width=getattr(model, "n_features_in_", None))
    # Whether names are there is the signature's business; a warning per prediction helps nobody.
    warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
    return EstimatorRuntime(model, signature)


def _read(path: Path) -> Any:
    try:
        unknown = skops.io.get_untrusted_types(file=path)
    except Exception as error:  # the reader raises many kinds for a broken file
        raise LoadError(f"{path.name} cannot be read as a skops file: {first_line(error)}") from error
    refused = sorted(name for name in unknown if not _is_trusted_class(name))
    if refused:
        raise LoadError(
            f"{path.name} holds types that are not of scikit-learn or NumPy and are not loaded: {', '.join(refused)}"
        )
    with warnings.catch_warnings():
        # skops warns when versions differ; that the model works is shown by the warm-up.
        warnings.simplefilter("ignore")
        try:
            return skops.io.load(path, trusted=unknown)
        except Exception as error:  # as above
            raise LoadError(
                f"{path.name} cannot be loaded by scikit-learn {sklearn.__version__}: {first_line(error)}"
            ) from error


def _is_trusted_class(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    parts = module.split(".")
    # The file chooses the module, so nothing is imported that does more than define an estimator.
    if parts[0] not in _TRUSTED_PACKAGES or any(
        part.startswith("__") or part in _NOT_IMPORTED for part in parts
    ):
        return False
    if parts[0] == "numpy":
        return isinstance(getattr(sys.modules.get(module), attribute, None), type)
    try:
        return isinstance(getattr(importlib.import_module(module), attribute, None), type)
    except ImportError:
        return False
