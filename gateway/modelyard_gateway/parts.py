"""Parts of a configuration that are made once and used as long as what they are made from stays the same.

With thousands of deployments one changes at a time: the others are neither rendered nor written as JSON nor digested again.
"""

from __future__ import annotations

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
    if isinstance(node, Part):
        return node.text
    if isinstance(node, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {text_of(node[key])}" for key in sorted(node)) + "}"
    if isinstance(node, list | tuple):
        return "[" + ", ".join(map(text_of, node)) + "]"
    return json.dumps(node)
