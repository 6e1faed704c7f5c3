"""What every benchmark ends with: goals, one line each, and what they were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Goal:
    """One figure and its bound."""

    name: str
    measured: float
    bound: float
    at_least: bool = False
    where: str = ""

    def __str__(self) -> str:
        """Return the line that tools read."""
        fine = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        return f"GOAL {self.name} {self.measured:.2f} {self.bound:g} {'ok' if fine else 'short'}"


def machine(*packages: str) -> dict[str, str]:
    """Return commit, cores, load and versions, of Python and of some packages."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "commit": commit or "unknown",
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
