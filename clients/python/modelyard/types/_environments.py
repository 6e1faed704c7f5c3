"""In which Python environments replicas run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EnvironmentSource(StrEnum):
    """Who says what an environment holds: nobody (it is the inference service's own Python), the artifact, or the deployment."""

    DEFAULT = "DEFAULT"
    ARTIFACT = "ARTIFACT"
    REQUIREMENTS = "REQUIREMENTS"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """In which Python environment replicas run.

    Args:
        source: Who says what it holds; None means REQUIREMENTS if one of the others is given, else ARTIFACT.
        requirements: Names with versions, `("numpy==2.1.0",)`, or the lines of a requirements.txt as they are.
        python_version: Minor version of Python, `"3.12"`; empty for that of the inference service.
    """

    source: EnvironmentSource | None = None
    requirements: tuple[str, ...] = ()
    python_version: str = ""
