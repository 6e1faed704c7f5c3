"""What the catalog tells of a version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """Data that a version was made or tested with."""

    name: str
    version: str
    digest: str
    role: str


@dataclass(frozen=True, slots=True)
class Described:
    """What the catalog knows of a version."""

    id: str
    name: str
    number: int
    label: str
    digest: str
    state: str
    description: str
    author: str
    create_time: datetime
    use_case: str = ""
    framework: str = ""
    framework_version: str = ""
    algorithm: str = ""
    hyperparameters: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[DatasetUse] = ()
    git_repository: str = ""
    git_commit: str = ""
    python_version: str = ""
