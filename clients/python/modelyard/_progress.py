"""Progress of transfers, shown as a bar or told to a function."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Progress = bool | Callable[["TransferProgress"], None] | None


@dataclass(frozen=True)
class TransferProgress:
    """How far a transfer is: `upload` or `download`, bytes done of all bytes."""

    action: str
    done: int
    total: int


@contextmanager
def report(action: str, total: int, progress: Progress) -> Iterator[Callable[[int], None]]:
    """Report a transfer; yields a function that takes the number of further bytes done.

    Args:
        action: `upload` or `download`.
        total: All bytes.
        progress: True shows a bar on stderr, False nothing, None a bar if stderr is a terminal; a function is called
            with a TransferProgress after each piece.
    """
    done = 0
    if callable(progress):
        tell = progress

        def told(more: int) -> None:
            nonlocal done
            done += more
            tell(TransferProgress(action, done, total))

        yield told
    elif progress or (progress is None and sys.stderr.isatty()):
        with _bar(action, total) as advance:
            yield advance
    else:
        yield lambda _more: None


@contextmanager
def _bar(action: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    layout = (TextColumn(action), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*layout, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(action, total=total)
        yield lambda more: bar.advance(task, more)
