"""Variables of the environment that replicas of a deployment start with.

Their values may be what their authors would not print, so events and logs tell their names alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Variables = tuple[tuple[str, str], ...]
"""Names and values, by name."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# By which the shell, the loader, Python or libraries find code and files, or what a replica is told in another way.
_RESERVED = re.compile(
    r"PYTHON.*|(LD|DYLD|MODELYARD|GLIBC|OPENSSL|SSL|CONDA|UV|PIP)_.*"
    r"|PATH|HOME|TMPDIR|IFS|ENV|BASH_ENV|SHELLOPTS|PS4|VIRTUAL_ENV|GCONV_PATH|LOCPATH"
)
_THREADS = re.compile(r"(OMP|OPENBLAS|MKL|NUMEXPR)_NUM_THREADS")


def sorted_variables(values: Mapping[str, str]) -> Variables:
    """Return variables in the order in which they are kept."""
    return tuple(sorted(values.items()))


def problem_with(name: str, value: str) -> str:
    """Return why a variable cannot be set, without its value; empty if it can."""
    if not _NAME.fullmatch(name):
        return "is no name of a variable: use letters, digits and '_', no digit first"
    if _THREADS.fullmatch(name):
        return "follows from resources.cpus and resources.instances: set those"
    if _RESERVED.fullmatch(name):
        return "decides where code and files are found, and is reserved: choose a name of your own"
    if "\0" in value:
        return "has a value with a NUL character, which no variable can hold"
    return ""
