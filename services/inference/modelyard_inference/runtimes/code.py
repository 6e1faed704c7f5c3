"""Code that an artifact brings: imported from its files, and how its failures are told."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from modelyard_inference.runtimes import LoadError

_FRAMES: Final = 3


def import_file(path: Path) -> ModuleType:
    """Import one file of an artifact; it may import the modules beside it.

    Raises:
        LoadError: the file is missing, or fails; the text has the line of the artifact where it did.
    """
    if not path.is_file():
        raise LoadError(f"the artifact has no {path.name}, which this runtime loads")
    # Else the folder of the artifact, which is checked against its digest, would get `__pycache__`.
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"modelyard_artifact_{path.stem}", path)
    assert spec is not None  # noqa: S101  a path that ends with .py has one
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # anybody's code
        raise failed(path.name, error) from error
    return module


def call(what: str, function: Any, *arguments: Any) -> Any:
    """Call a function of the artifact while it is loaded.

    Raises:
        LoadError: it fails.
    """
    try:
        return function(*arguments)
    except Exception as error:  # anybody's code
        raise failed(what, error) from error


def failed(what: str, error: BaseException) -> LoadError:
    """Return how to tell that code of the artifact failed: the error, and where."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return LoadError(
        f"{what} of the artifact failed: {type(error).__name__}: {str(error)[:500]} (at {where})"
    )


def forget(directory: Path) -> None:
    """Let modules of an artifact no longer be found."""
    while str(directory) in sys.path:
        sys.path.remove(str(directory))
