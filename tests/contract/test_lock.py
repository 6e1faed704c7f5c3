"""requirements/lock.txt (and frameworks.txt, for what is too large to be always there) is what pyproject.toml asks for: everything fits, nothing is left over, all is hashed.

Offline on purpose: it reads the pins and the metadata of what is installed from them.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from functools import cache
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .catalogue import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = (ROOT / "requirements/lock.txt").read_text(encoding="utf-8")
FRAMEWORKS = (ROOT / "requirements/frameworks.txt").read_text(encoding="utf-8")
LARGE = ("torch", "transformers")
"""Extras that only frameworks.txt pins."""
UV = (ROOT / "requirements/uv.txt").read_text(encoding="utf-8")
FIX = "run `make fix-lock`"


@cache
def pins() -> dict[str, str]:
    """Version by package, from the lock."""
    return pins_of(LOCK)


def pins_of(text: str) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


@cache
def pyproject() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml names but the large: the client, every other extra, and the development group."""
    project, groups = pyproject()["project"], pyproject()["dependency-groups"]
    assert isinstance(project, dict)
    assert isinstance(groups, dict)
    extras = [lines for name, lines in project["optional-dependencies"].items() if name not in LARGE]
    lists = [project["dependencies"], *extras, groups["dev"]]
    found = [Requirement(line) for lines in lists for line in lines]
    return [requirement for requirement in found if requirement.name != project["name"]]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_is_pinned_and_fits(requirement: Requirement) -> None:
    version = pins().get(canonicalize_name(requirement.name))
    assert version, f"{requirement.name} is not in the lock; {FIX}"
    assert requirement.specifier.contains(version, prereleases=True), f"the lock has {version}; {FIX}"


def test_nothing_is_left_over() -> None:
    """A pin that nothing needs any more would still be installed everywhere."""
    installed = {canonicalize_name(d.metadata["Name"]) for d in importlib.metadata.distributions()}
    unneeded = (set(pins()) & installed) - reachable()
    assert not unneeded, f"nothing needs {sorted(unneeded)}; {FIX}"


def reachable() -> set[str]:
    """Packages that the requirements lead to on this machine, and those that are not installed on it."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(r.name), extra) for r in requirements() for extra in ("", *r.extras)]
    while waiting:
        step = waiting.pop()
        if step not in seen:
            seen.add(step)
            waiting += list(_needs(*step))
    return {name for name, _ in seen}


def _needs(name: str, extra: str) -> Iterator[tuple[str, str]]:
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield from ((canonicalize_name(requirement.name), wanted) for wanted in ("", *requirement.extras))


@pytest.mark.parametrize("text", [LOCK, FRAMEWORKS, UV], ids=["lock.txt", "frameworks.txt", "uv.txt"])
def test_every_pin_is_hashed_and_no_registry_is_named(text: str) -> None:
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert not re.search(r"://|--(extra-)?index-url|--find-links", text)


@pytest.mark.parametrize(("name", "text"), [("COMPILE_LOCK", LOCK), ("COMPILE_FRAMEWORKS", FRAMEWORKS)])
def test_the_locks_were_compiled_as_the_makefile_compiles_them(name: str, text: str) -> None:
    recipe = re.search(name + r" := (.*\\\n.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert recipe
    assert " ".join(recipe[1].replace("\\\n", " ").split()) in text.splitlines()[1]


def test_the_large_are_pinned_beside_the_lock() -> None:
    """Both are installed into one environment, so what both pin they pin alike."""
    large = pins_of(FRAMEWORKS)
    project = pyproject()["project"]
    assert isinstance(project, dict)
    named = [Requirement(line) for extra in LARGE for line in project["optional-dependencies"][extra]]
    for requirement in named:
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(large[canonicalize_name(requirement.name)]), FIX
    common = large.keys() & pins().keys()
    assert {name: large[name] for name in common} == {name: pins()[name] for name in common}, FIX
