"""What can be logged as a model, one module for each: how it is saved, and how its signature is told."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import InvalidArgument
from modelyard.remote import RemoteModel
from modelyard.types import ModelMetadata

if TYPE_CHECKING:
    from modelyard.types import Signature


@dataclass(frozen=True)
class Prepared:
    """A model ready to upload: its file or folder, what loads it, what it takes and gives, what it tells of itself."""

    path: Path
    runtime: str
    signature: Signature | None
    packages: tuple[str, ...]
    metadata: ModelMetadata = field(default_factory=ModelMetadata)


def prepare(
    model: Any, folder: Path, *, runtime: str | None, example: Any, signature: Signature | None
) -> Prepared:
    """Save a model under `folder` (or take it from where it is) and tell its signature.

    Args:
        model: A fitted estimator of scikit-learn, XGBoost or LightGBM (also their boosters), an ONNX model (object or bytes),
            a PyTorch module or exported program, a pipeline of transformers, a `RemoteModel`, or the path of a file or folder.
        folder: Empty folder to save into.
        runtime: Runtime that shall load it; by default told from the model.
        example: Rows as the model takes them, to tell the signature from.
        signature: The signature, instead of an example.

    Raises:
        InvalidArgument: the model is of no known kind, or its signature cannot be told.
        MissingExtra: the package for this kind of model is not installed.
    """
    if isinstance(model, (str, Path)):
        from modelyard.flavors import files

        return files.prepare(Path(model).expanduser(), runtime=runtime, example=example, signature=signature)
    if isinstance(model, RemoteModel):
        from modelyard.flavors import remote

        return remote.prepare(model, folder, signature=signature)
    if isinstance(model, bytes) or hasattr(model, "SerializeToString"):
        from modelyard.flavors import onnx

        return onnx.prepare(model, folder, signature=signature)
    packages = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    name = next((name for name in ("xgboost", "lightgbm", "transformers", "torch") if name in packages), "")
    if (
        not name
        and hasattr(model, "get_params")
        and (hasattr(model, "predict") or hasattr(model, "transform"))
    ):
        name = "sklearn"
    if name:
        flavor = importlib.import_module(f"modelyard.flavors.{name}")
        prepared: Prepared = flavor.prepare(model, folder, example=example, signature=signature)
        return prepared
    raise InvalidArgument(
        f"model: a {type(model).__module__}.{type(model).__qualname__} cannot be logged as it is; give an estimator of "
        "scikit-learn, XGBoost or LightGBM, an ONNX model, a PyTorch module, a pipeline of transformers, a RemoteModel, or the "
        "path of a saved model with its runtime and signature"
    )
