"""Models that are saved already: a file or a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard import _metadata
from modelyard._examples import AnswersNeeded, ExampleNeeded
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
"""Runtime by the suffix of its file, for those that no other files have: then it may have any name, if there is no second."""
_OTHER_NAMES = {xgboost.RUNTIME: ("model.json",)}
"""Names that a runtime loads too, but that do not tell it."""
_FRAMEWORKS = {"sklearn": "scikit-learn", "xgboost": "xgboost", "lightgbm": "lightgbm", "torch": "pytorch"}
_FLAVORS = (onnx, sklearn, xgboost, lightgbm, torch, transformers, mlflow)
_PACKAGES = {flavor.RUNTIME: flavor.PACKAGES for flavor in _FLAVORS}


def prepare(path: Path, *, runtime: str | None, example: Any, signature: Signature | None) -> Prepared:
    """Take a saved model where it is; ONNX and MLflow tell the signature themselves, a remote server does, a skops file needs an example."""
    if not path.exists():
        raise InvalidArgument(f"model: {path} does not exist")
    main = _main_file(path, runtime)
    told = _runtime_of(main) if main else ""
    runtime = runtime or told
    if not runtime:
        raise InvalidArgument(
            f"runtime: cannot be told from {path}; say which runtime loads it, such as sklearn"
        )
    _require_loadable(path, runtime)
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
    if signature is None and told == sklearn.RUNTIME:
        raise ExampleNeeded(
            f"signature: cannot be told from {path.name} alone, without rows as the model takes them",
            "give example=X[:5], or signature=modelyard.infer_signature(inputs, outputs)",
        )
    if signature is None:
        raise AnswersNeeded(
            f"signature: cannot be told from {path.name} without running it",
            "give signature=modelyard.infer_signature(inputs, outputs)",
        )
    return Prepared(path, runtime, signature, _PACKAGES.get(runtime, ("modelyard",)), metadata)


def _main_file(path: Path, runtime: str | None) -> Path | None:
    """The file that tells the runtime: the first with a name of its own, else the only one with a suffix of its own (or of `runtime`)."""
    files = _files(path)
    named = [file for name in _RUNTIMES for file in files if file.name == name]
    suffixed = [
        file
        for file in files
        if _SUFFIXES.get(file.suffix) in ({runtime} if runtime else {*_SUFFIXES.values()})
    ]
    return next(iter(named or (suffixed if len(suffixed) == 1 else ())), None)


def _require_loadable(path: Path, runtime: str) -> None:
    """Refuse now what a replica would refuse when it is deployed: a runtime whose file is not there.

    Raises:
        InvalidArgument: naming the file.
    """
    names = [name for name, told in _RUNTIMES.items() if told == runtime] + [*_OTHER_NAMES.get(runtime, ())]
    files = _files(path)
    if not names or any(file.name in names for file in files):
        return
    suffixed = [file.name for file in files if _SUFFIXES.get(file.suffix) == runtime]
    if len(suffixed) == 1:
        return
    found = f"{path.name} is none" if path.is_file() else f"{path} holds {', '.join(suffixed) or 'none'}"
    raise InvalidArgument(
        f"model: the runtime {runtime} loads {' or '.join(names)}, and {found}; rename it, or name another runtime"
    )


def _files(path: Path) -> list[Path]:
    """What lies at the root of the artifact."""
    return [path] if path.is_file() else sorted(child for child in path.iterdir() if child.is_file())


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
