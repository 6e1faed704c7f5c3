"""Models that are saved already: a file or a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard import _metadata
from modelyard._examples import ExampleNeeded
from modelyard.errors import InvalidArgument
from modelyard.flavors import Prepared, lightgbm, mlflow, onnx, remote, sklearn, torch, transformers, xgboost
from modelyard.remote import FILE_NAME as REMOTE_FILE
from modelyard.types import ModelMetadata

if TYPE_CHECKING:
    from modelyard.types import Signature

_RUNTIMES = {
    onnx.FILE_NAME: onnx.RUNTIME,
    sklearn.FILE_NAME: sklearn.RUNTIME,
    xgboost.FILE_NAME: xgboost.RUNTIME,
    lightgbm.FILE_NAME: lightgbm.RUNTIME,
    torch.FILE_NAME: torch.RUNTIME,
    transformers.FILE_NAME: transformers.RUNTIME,
    mlflow.FILE_NAME: mlflow.RUNTIME,
    REMOTE_FILE: remote.RUNTIME,
    "score.py": "score",
    "model.py": "python",
}
"""Runtime by the file in a folder that it begins with; the first one there tells, and formats without code come first."""
_SUFFIXES = {Path(flavor.FILE_NAME).suffix: flavor.RUNTIME for flavor in (onnx, sklearn, xgboost, torch)}
"""Runtime by the suffix of a single file, for those that no other files have."""
_FRAMEWORKS = {"sklearn": "scikit-learn", "xgboost": "xgboost", "lightgbm": "lightgbm", "torch": "pytorch"}
_FLAVORS = (onnx, sklearn, xgboost, lightgbm, torch, transformers, mlflow)
_PACKAGES = {flavor.RUNTIME: flavor.PACKAGES for flavor in _FLAVORS}


def prepare(path: Path, *, runtime: str | None, example: Any, signature: Signature | None) -> Prepared:
    """Take a saved model where it is; ONNX and MLflow tell the signature themselves, a remote server does, a skops file needs an example."""
    if not path.exists():
        raise InvalidArgument(f"model: {path} does not exist")
    main = _main_file(path)
    told = _runtime_of(main) if main else ""
    runtime = runtime or told
    if not runtime:
        raise InvalidArgument(
            f"runtime: cannot be told from {path}; say which runtime loads it, such as sklearn"
        )
    metadata = ModelMetadata(framework=_FRAMEWORKS.get(told, ""))
    if signature is None and main and told == onnx.RUNTIME:
        signature, metadata = onnx.infer(main)
    elif signature is None and main and told == remote.RUNTIME:
        signature = remote.infer(remote.read(main))
    elif signature is None and path.is_dir() and runtime == mlflow.RUNTIME:
        signature = mlflow.infer(path)
    elif signature is None and main and told == sklearn.RUNTIME and example is not None:
        estimator = _load(main)
        signature = sklearn.infer(estimator, example)
        # Which version of scikit-learn saved it is not known; ours only read it.
        metadata = replace(_metadata.of_estimator(estimator), framework_version="")
    if signature is None:
        raise ExampleNeeded(
            f"signature: cannot be told from {path.name} alone, without rows as the model takes them",
            "give example=X[:5], or signature=modelyard.infer_signature(inputs, outputs)",
        )
    return Prepared(path, runtime, signature, _PACKAGES.get(runtime, ("modelyard",)), metadata)


def _main_file(path: Path) -> Path | None:
    """The file that a runtime would load."""
    if path.is_file():
        return path if _runtime_of(path) else None
    return next((path / name for name in _RUNTIMES if (path / name).is_file()), None)


def _runtime_of(path: Path) -> str:
    return _RUNTIMES.get(path.name) or _SUFFIXES.get(path.suffix, "")


def _load(path: Path) -> Any:
    """Read a skops file, with types of scikit-learn and NumPy only."""
    skops = sklearn.load_skops()
    try:
        unknown = skops.get_untrusted_types(file=path)
        return skops.load(path, trusted=[name for name in unknown if sklearn.is_harmless(name)])
    except Exception as error:
        raise InvalidArgument(f"model: {path.name} cannot be loaded to try the example: {error}") from error
