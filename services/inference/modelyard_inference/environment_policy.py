"""In which Python environment the replicas of a deployment run, and how one is written down: as lines of a requirements.txt."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement

from modelyard_kit.errors import InvalidField

OLDEST: Final = (3, 11)
"""Oldest Python that replicas run on."""
_PYTHON: Final = re.compile(r"(\d+)\.(\d+)(\.\d+)?")
_SHOWN: Final = 40
NOT_BUILT: Final = (
    "this installation builds no environments: whoever runs it sets MODELYARD_BUILD_ENVIRONMENTS=true of the inference service;"
    " or choose DEFAULT, its own Python"
)


class EnvironmentSource(StrEnum):
    """Who says what an environment holds; the names are those of the contract."""

    DEFAULT = "DEFAULT"
    """Nobody: it is the Python of the inference service."""
    ARTIFACT = "ARTIFACT"
    """The artifact, where environments are built; else as DEFAULT."""
    REQUIREMENTS = "REQUIREMENTS"
    """The deployment, and what the artifact says counts for nothing."""


@dataclass(frozen=True)
class Environment:
    """The environment that a deployment chooses."""

    source: EnvironmentSource = EnvironmentSource.ARTIFACT
    requirements: tuple[str, ...] = ()
    """Names with versions, each once, sorted."""
    python_version: str = ""
    """`3.12`; empty for that of the inference service."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Environment:
        """Read what `asdict` makes; what is missing has its default."""
        if not value:
            return OF_ARTIFACT
        source = EnvironmentSource(value["source"])
        return cls(source, tuple(value["requirements"]), value["python_version"])

    def use(self, digest: str) -> str:
        """Return what replicas that run the artifact `digest` in it are called where environments are kept; empty: they need none."""
        match self.source:
            case EnvironmentSource.DEFAULT:
                return ""
            case EnvironmentSource.ARTIFACT:
                return digest
        told = json.dumps([digest, self.requirements, self.python_version])
        return hashlib.sha256(told.encode()).hexdigest()


OF_ARTIFACT: Final = Environment()


def require(environment: Environment | None, *, builds: bool) -> None:
    """Return if replicas can run in an environment; None: nothing is asked for.

    Args:
        environment: what is asked for.
        builds: whether this installation builds environments.

    Raises:
        InvalidField: it would have to be built, and this installation builds none.
    """
    if environment and environment.source is EnvironmentSource.REQUIREMENTS and not builds:
        raise InvalidField("deployment.environment", NOT_BUILT)


def requirement_of(line: str) -> str:
    """Return the name with versions that a line holds, as it is always written; empty if it holds none.

    Nothing that a client writes may name a file or an address to fetch from.

    Raises:
        ValueError: it holds something else; the text says what, and what to write instead.
    """
    content = re.sub(r"(^|\s)#.*$", "", line).strip()
    if not content:
        return ""
    if len(content.splitlines()) > 1:
        raise ValueError(f"{content[:_SHOWN]!r} holds a line break: give each line by itself")
    if content.startswith("-") or " --" in content or content.endswith("\\"):
        raise ValueError(
            f"options of pip such as {content[:_SHOWN]!r} are not taken, only names with versions: numpy==2.1.0"
        )
    try:
        requirement = Requirement(content)
    except InvalidRequirement as error:
        raise ValueError(
            f"{content[:_SHOWN]!r} is no requirement, as numpy==2.1.0 is one: {_first_line(error)}"
        ) from error
    if requirement.url:
        raise ValueError(
            f"{requirement.name[:_SHOWN]} is named by an address; name a version of the index instead"
        )
    if requirement.name.lower() == "modelyard":
        return ""  # a replica runs this installation's own
    return str(requirement)


def minor_version(text: str) -> tuple[int, int] | None:
    """Return the minor version of Python that a text such as `3.12` or `3.12.1` says; None if it says none."""
    match = _PYTHON.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def _first_line(error: Exception) -> str:
    """Return what an error says, without the picture of where that packaging draws below."""
    return str(error).partition("\n")[0]
