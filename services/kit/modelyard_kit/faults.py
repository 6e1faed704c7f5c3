"""Named failpoints: places at which a test can make a process crash, fail or wait.

Off unless the setting `failpoints` (MODELYARD_FAILPOINTS) names them: `name=crash`, `name=error`, `name=sleep:0.5`, several
separated by `;`. A `*N` after the action makes it happen only the first N times: `name=error*1`.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass

CRASH_EXIT_CODE = 86

_FORM = re.compile(r"(crash|error|sleep:([0-9.]+))(?:\*([0-9]+))?")


class InjectedFault(RuntimeError):
    """Raised by a failpoint with the action `error`."""


@dataclass
class _Action:
    kind: str
    seconds: float
    remaining: int | None


_active: dict[str, _Action] = {}


def configure(text: str) -> None:
    """Replace all active failpoints by those in `text`; empty switches all off.

    Raises:
        ValueError: an action is unknown.
    """
    parsed = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, _, action = item.partition("=")
        match = _FORM.fullmatch(action)
        if not match:
            raise ValueError(
                f"failpoint {item!r}: write name=crash, name=error or name=sleep:SECONDS, then *N if wanted"
            )
        parsed[name] = _Action(
            match.group(1).split(":")[0],
            float(match.group(2) or 0),
            int(match.group(3)) if match.group(3) else None,
        )
    _active.clear()
    _active.update(parsed)


async def failpoint(name: str) -> None:
    """Do what was configured for this place; normally nothing."""
    if not _active or name not in _active:
        return
    action = _active[name]
    if action.remaining is not None:
        if action.remaining == 0:
            return
        action.remaining -= 1
    if action.kind == "crash":
        os._exit(CRASH_EXIT_CODE)  # as kill -9 would: nothing is flushed or closed
    if action.kind == "error":
        raise InjectedFault(name)
    await asyncio.sleep(action.seconds)
