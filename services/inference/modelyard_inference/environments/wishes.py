"""What is asked for: by a deployment, or by an artifact with `requirements.txt` and the Python or packed environment of `runtime.yaml`."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modelyard.oci import runtime_yaml
from modelyard_inference.environment_policy import OLDEST, Environment, minor_version, requirement_of
from modelyard_inference.environments import EnvironmentFailed
from modelyard_inference.environments.archives import Archive
from modelyard_kit.limits import LIMITS

REQUIREMENTS: Final = "requirements.txt"
RUNTIME: Final = "runtime.yaml"
_OCI: Final = ("MODEL_DEPLOYMENT", "INFERENCE_CONDA_ENV")
_PYTHON_KEY: Final = "INFERENCE_PYTHON_VERSION"
_PATH_KEY: Final = "INFERENCE_ENV_PATH"
_EXTRA: Final = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_REPLICA: Final = (
    "grpcio", "grpcio-health-checking", "googleapis-common-protos", "numpy", "protobuf", "structlog", "uvloop",
)  # fmt: skip
"""What the replica itself imports, from Modelyard's own requirements."""
_SAME: Final = {"xgboost-cpu": "xgboost", "mlflow-skinny": "mlflow"}
"""Packages that must not be installed beside the larger ones that hold the same files, if an artifact names those."""
_TRACING: Final = ("opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-sdk")


@dataclass(frozen=True)
class Wish:
    """An environment that is asked for."""

    python: str
    """`3.12`: the minor version."""
    requirements: tuple[str, ...]
    """Names with versions, sorted; those that were asked for and those of the replica that will run in it."""

    @property
    def id(self) -> str:
        """Return what two equal wishes have in common."""
        return hashlib.sha256(json.dumps([self.python, self.requirements]).encode()).hexdigest()[:32]


def read(folder: Path, needs: Iterable[str], digest: str) -> Wish | Archive | None:
    """Return what the files of an artifact ask for; None if they ask for nothing but this Python.

    Args:
        folder: the files of the artifact.
        needs: requirements of the replica.
        digest: of the artifact.

    Raises:
        EnvironmentFailed: a file cannot be read or asks for what cannot be had; the text names file and line.
    """
    here = _here()
    runtime = _runtime(folder / RUNTIME)
    named_python = _python(runtime)
    archive = _archive(folder, runtime)
    if archive:
        inside = folder / archive
        return Archive(inside, digest, archive, named_python, tuple(sorted(needs)))
    python = named_python or here
    path = folder / REQUIREMENTS
    if not path.is_file() and python == here:
        return None
    lines = _requirements(path) if path.is_file() else []
    return _wish(python, lines, needs)


def chosen(environment: Environment, needs: Iterable[str]) -> Wish:
    """Return what a deployment asks for by itself.

    Args:
        environment: what it says.
        needs: requirements of the replica.
    """
    return _wish(environment.python_version or _here(), environment.requirements, needs)


def _here() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _wish(python: str, lines: Iterable[str], needs: Iterable[str]) -> Wish:
    named = {canonicalize_name(Requirement(line).name) for line in lines}
    kept = [need for need in needs if _SAME.get(Requirement(need).name, "") not in named]
    return Wish(python, tuple(sorted({*lines, *kept})))


def needs_of(runtime: str, *, signed: bool, traced: bool) -> tuple[str, ...]:
    """Return the requirements of a replica, as this installation of Modelyard has them.

    Args:
        runtime: of the model; its extra comes along.
        signed: whether the artifact has signatures to check.
        traced: whether predictions become spans.
    """
    names = {*_REPLICA, *(_TRACING if traced else ())}
    extras = [runtime, *(("signing",) if signed else ())]
    lines = [(Requirement(line), _EXTRA.search(line)) for line in metadata.requires("modelyard") or ()]
    found = set()
    for wanted in extras:
        for requirement, match in lines:
            extra = match[1] if match else ""
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue  # of another system
            if requirement.name == "modelyard" and extra == wanted:
                extras.extend(one for one in sorted(requirement.extras) if one not in extras)
            elif requirement.name in names or extra == wanted:
                found.add(f"{requirement.name}{_extras(requirement)}{requirement.specifier}")
    return tuple(sorted(found))


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def _requirements(path: Path) -> list[str]:
    limit = LIMITS["requirements_bytes"]
    if path.stat().st_size > limit.maximum:
        raise EnvironmentFailed(f"{path.name} is larger than {limit.maximum:,} bytes")
    try:
        return list(_parsed(path.name, path.read_text("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise EnvironmentFailed(f"{path.name} is not UTF-8: {error}") from error


def _parsed(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        try:
            requirement = requirement_of(line)
        except ValueError as error:
            raise EnvironmentFailed(f"{name}, line {number}: {error}") from error
        if requirement:
            yield requirement


def _runtime(path: Path) -> runtime_yaml.Runtime:
    if not path.is_file():
        return runtime_yaml.Runtime({})
    try:
        with path.open("rb") as file:
            return runtime_yaml.parse(file.read(runtime_yaml.MAX_BYTES + 1))
    except runtime_yaml.RuntimeInvalid as error:
        raise EnvironmentFailed(f"{path.name} is not valid: {error}") from error


def _archive(folder: Path, runtime: runtime_yaml.Runtime) -> str:
    """Return the file in the artifact that the environment is in; empty if it is at an address, which is never opened."""
    given = runtime.get(*_OCI, _PATH_KEY)
    if given is None or "://" in str(given):
        return ""
    path = (folder / str(given)).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise EnvironmentFailed(
            f"{RUNTIME}: {_PATH_KEY} is {given!r}, and the artifact has no such file; it must be an address, or a tar archive "
            "inside the artifact"
        )
    return path.relative_to(folder.resolve()).as_posix()


def _python(runtime: runtime_yaml.Runtime) -> str:
    given = runtime.get(*_OCI, _PYTHON_KEY)
    if given is None:
        return ""
    version = minor_version(str(given))
    if version is None:
        raise EnvironmentFailed(f"{RUNTIME}: {_PYTHON_KEY} is {given!r}, no version like '3.12'")
    if version < OLDEST:
        raise EnvironmentFailed(
            f"{RUNTIME} asks for Python {given}, and replicas need {OLDEST[0]}.{OLDEST[1]} or later: train the model "
            "with a newer one, or remove INFERENCE_PYTHON_VERSION if it does without"
        )
    return f"{version[0]}.{version[1]}"
