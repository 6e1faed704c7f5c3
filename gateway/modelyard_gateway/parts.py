"""Parts of a configuration that are made once and used as long as what they are made from stays the same.

With thousands of deployments one changes at a time: the others are neither rendered nor written as JSON nor digested again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

Json = dict[str, Any]


class Part(Json):
    """A JSON object that nobody changes, so that what follows from it is found once."""

    mark = ""
    """Digest of what Envoy has to accept of it; set by `validation`."""

    @cached_property
    def text(self) -> str:
        """It as JSON."""
        return json.dumps(self, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        """Digest of its text."""
        return _digest(self.text)


class Parts:
    """What was made from which inputs. Not to be used by two threads at once."""

    def __init__(self) -> None:
        self._before: dict[Hashable, Part] = {}
        self._now: dict[Hashable, Part] = {}

    def part(self, make: Callable[..., Json], *inputs: Hashable) -> Part:
        """Return what `make` makes of these inputs, which alone must decide."""
        key = (make, *inputs)
        found = self._now.get(key) or self._before.get(key) or Part(make(*inputs))
        self._now[key] = found
        return found

    def forget(self) -> None:
        """Throw away what was not asked for since the last call."""
        self._before, self._now = self._now, {}


def text_of(node: Any) -> str:
    """Return JSON with sorted keys, as `json.dumps` writes it, from the texts of the parts it is made of."""
    return _written(node, lambda part: part.text)


def digest_of(node: Any) -> str:
    """Return a digest of JSON, from the digests of the parts it is made of."""
    return _digest(_written(node, lambda part: part.digest))


def _written(node: Any, of_part: Callable[[Part], str]) -> str:
    if isinstance(node, Part):
        return of_part(node)
    if isinstance(node, dict):
        pairs = (f"{json.dumps(key)}: {_written(node[key], of_part)}" for key in sorted(node))
        return "{" + ", ".join(pairs) + "}"
    if isinstance(node, list | tuple):
        return "[" + ", ".join(_written(item, of_part) for item in node) + "]"
    return json.dumps(node)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
