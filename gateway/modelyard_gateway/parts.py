"""Parts of a configuration that are made once and used as long as what they are made from stays the same.

With thousands of deployments one changes at a time: the others are neither rendered nor written as JSON nor digested again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterator
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
    return "".join(_pieces(node, lambda part: part.text))


def digest_of(node: Any) -> str:
    """Return a digest of JSON, from the digests of the parts it is made of."""
    return _digest("".join(_pieces(node, lambda part: part.digest)))


def _pieces(node: Any, of_part: Callable[[Part], str]) -> Iterator[str]:
    """Yield what to join, once: joined at each level, tens of megabytes would be copied at each."""
    if isinstance(node, Part):
        yield of_part(node)
    elif isinstance(node, dict):
        for number, key in enumerate(sorted(node)):
            yield f"{', ' if number else '{'}{json.dumps(key)}: "
            yield from _pieces(node[key], of_part)
        yield "}" if node else "{}"
    elif isinstance(node, list | tuple):
        for number, item in enumerate(node):
            yield ", " if number else "["
            yield from _pieces(item, of_part)
        yield "]" if node else "[]"
    else:
        yield json.dumps(node)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
