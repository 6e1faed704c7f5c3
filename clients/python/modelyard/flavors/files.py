"""Models that are saved already: a file or a folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modelyard import _metadata
from modelyard.errors import InvalidArgument
from modelyard.flavors import Prepared, onnx, sklearn
from modelyard.types import ModelMetadata

if TYPE_CHECKING:
    from pathlib import Path

    from modelyard.types import Signature

_RUNTIMES = {".onnx": onnx.RUNTIME, ".skops": sklearn.RUNTIME}
_FRAMEWORKS = {".skops": "scikit-learn"}
_PACKAGES = {onnx.RUNTIME: onnx.PACKAGES, sklearn.RUNTIME: sklearn.PACKAGES}


def prepare(path: Path, *, runtime: str | None, example: Any, signature: Signature | None) -> Prepared:
    """Take a saved model where it is; an ONNX file tells its own signature, a skops file needs an example."""
    if not path.exists():
        raise InvalidArgument(f"model: {path} does not exist")
    main = _main_file(path)
    runtime = runtime or (_RUNTIMES[main.suffix] if main else None)
    if not runtime:
        raise InvalidArgument(
            f"runtime: cannot be told from {path}; say which runtime loads it (runtime='sklearn')"
        )
    metadata = ModelMetadata(framework=_FRAMEWORKS.get(main.suffix, "") if main else "")
    if signature is None and main and main.suffix == ".onnx":
        signature, metadata = onnx.infer(main)
    elif signature is None and main and example is not None:
        estimator = _load(main)
        signature = sklearn.infer(estimator, example)
        # Which version of scikit-learn saved it is not known; ours only read it.
        metadata = replace(_metadata.of_estimator(estimator), framework_version="")
    if signature is None:
        raise InvalidArgument(
            f"signature: cannot be told from {path.name} alone; give an example (example=X[:5]) or "
            "signature=modelyard.infer_signature(inputs, outputs)"
        )
    return Prepared(path, runtime, signature, _PACKAGES.get(runtime, ("modelyard",)), metadata)


def _main_file(path: Path) -> Path | None:
    """The file that a runtime would load."""
    if path.is_file():
        return path if path.suffix in _RUNTIMES else None
    candidates = (path / onnx.FILE_NAME, path / sklearn.FILE_NAME)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _load(path: Path) -> Any:
    """Read a skops file, with types of scikit-learn and NumPy only."""
    skops = sklearn.load_skops()
    try:
        unknown = skops.get_untrusted_types(file=path)
        return skops.load(path, trusted=[name for name in unknown if sklearn.is_harmless(name)])
    except Exception as error:
        raise InvalidArgument(f"model: {path.name} cannot be loaded to try the example: {error}") from error
