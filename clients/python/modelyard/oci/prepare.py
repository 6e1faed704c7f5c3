"""Writes a correct OCI model artifact from a fitted model, as ADS's `prepare` does, but without pickle.

The score.py that is written loads the model by skops or ONNX Runtime, takes what OCI's model deployments send, and answers
`{"prediction": [...]}`.
"""

from __future__ import annotations

import json
import platform
import re
from importlib import metadata as distributions
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard import flavors
from modelyard.errors import InvalidArgument
from modelyard.oci.tests import run
from modelyard.oci.tree import FolderTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from modelyard.types import Signature, TensorSpec

_PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,3})?")
_PACKAGES = {
    "sklearn": ("scikit-learn", "skops", "numpy", "scipy"),
    "onnx": ("onnxruntime", "numpy"),
}
_IGNORE = ".ipynb_checkpoints\n.DS_Store\n__pycache__\n*.pyc\n"
_DTYPES = {
    "BOOL": "bool",
    "BYTES": "object",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}


def prepare(
    model: Any,
    folder: str | Path,
    *,
    example: Any = None,
    signature: Signature | None = None,
    environment_path: str,
    environment_slug: str = "",
    environment_type: str = "published",
    python_version: str = "",
    requirements: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model artifact: score.py, runtime.yaml, requirements.txt, schemas, README.md and the model.

    Args:
        model: A fitted scikit-learn estimator, an ONNX model (object or bytes), or the path of a saved one.
        folder: Folder to make.
        example: Rows as the model takes them, to tell the schemas from; ONNX needs none.
        signature: What the model takes and gives, instead of an example.
        environment_path: Where the conda environment is that OCI shall run it in: `oci://bucket@namespace/path`.
        environment_slug: Name of that environment; may be empty.
        environment_type: `published` or `data_science`.
        python_version: Python of the environment, `3.11`; by default this one.
        requirements: Lines of requirements.txt; by default the versions of what the model needs that are installed here.
        overwrite: Whether to write into a folder that holds files already.

    Returns:
        The folder. It passes `validate`.

    Raises:
        InvalidArgument: an argument is wrong, or the model is of no known kind.
        MissingExtra: a package for this kind of model is not installed.
    """
    python = python_version or ".".join(platform.python_version_tuple()[:2])
    _check(environment_path, environment_type, python)
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not overwrite)):
        raise InvalidArgument(
            f"folder: {target} exists and is not empty; choose another or say overwrite=True"
        )
    target.mkdir(parents=True, exist_ok=True)
    prepared = flavors.prepare(model, target, runtime=None, example=example, signature=signature)
    if prepared.path.is_dir() or prepared.runtime not in _PACKAGES:
        raise InvalidArgument(
            f"model: {prepared.path} cannot be made an OCI artifact; give a model or its one file"
        )
    if prepared.path.parent.resolve() != target.resolve():
        (target / prepared.path.name).write_bytes(prepared.path.read_bytes())
    lines = _requirements(prepared.runtime) if requirements is None else list(requirements)
    texts = {
        "score.py": _template(f"score_{prepared.runtime}.py.txt", model_name=prepared.path.name),
        "runtime.yaml": _runtime_yaml(environment_path, environment_slug, environment_type, python),
        "requirements.txt": "".join(f"{line}\n" for line in lines),
        ".model-ignore": _IGNORE,
        "README.md": _template("README.md.txt", model_name=prepared.path.name, runtime=prepared.runtime),
        **_schemas(prepared.signature),
    }
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")
    _prove(target)
    return target


def _check(environment_path: str, environment_type: str, python: str) -> None:
    if not environment_path.strip():
        raise InvalidArgument(
            "environment_path: say where OCI finds the conda environment, oci://bucket@namespace/path"
        )
    if environment_type not in {"published", "data_science"}:
        raise InvalidArgument(
            f"environment_type: {environment_type!r} is neither 'published' nor 'data_science'"
        )
    if not _PYTHON.fullmatch(python):
        raise InvalidArgument(f"python_version: {python!r} is no version like '3.11'")


def _prove(folder: Path) -> None:
    """Refuse to hand out what the tests would refuse, for example because of an odd environment path."""
    failures = run(FolderTree(folder)).failures
    if failures:
        raise InvalidArgument(
            f"the artifact in {folder} is not right: {'; '.join(test.message for test in failures)}"
        )


def _requirements(runtime: str) -> list[str]:
    return [f"{package}=={distributions.version(package)}" for package in _PACKAGES[runtime]]


def _runtime_yaml(path: str, slug: str, kind: str, python: str) -> str:
    """The file with every text in quotes, so that 3.10 stays 3.10 for every reader; JSON's texts are YAML's too."""
    quoted = {"path": json.dumps(path), "kind": json.dumps(kind), "python": json.dumps(python)}
    return _template("runtime.yaml.txt", slug=json.dumps(slug) if slug else "", **quoted)


def _schemas(signature: Signature | None) -> dict[str, str]:
    """Input and output schema in ADS's form; none when nothing is known of them."""
    method = next((one for one in signature.methods if one.name == "predict"), None) if signature else None
    if method is None:
        return {}
    return {"input_schema.json": _schema(method.inputs), "output_schema.json": _schema(method.outputs)}


def _schema(specs: Iterable[TensorSpec]) -> str:
    columns = [
        {
            "name": spec.name,
            "dtype": _dtype(spec.datatype),
            "feature_type": "Unknown",
            "required": True,
            "description": f"{spec.datatype}{list(spec.shape)}",
            "domain": {"values": "", "stats": {}, "constraints": []},
            "order": order,
        }
        for order, spec in enumerate(specs)
    ]
    return json.dumps({"schema": columns, "version": "1.1"}, indent=2, ensure_ascii=False) + "\n"


def _dtype(datatype: str) -> str:
    return _DTYPES.get(datatype, datatype.lower())


def _template(name: str, **values: str) -> str:
    text = resources.files("modelyard.oci").joinpath("templates", name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", value)
    return text
