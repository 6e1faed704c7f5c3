"""Progress of transfers, shown as a bar or told to a function."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Progress = bool | Callable[["TransferProgress"], None] | None


@dataclass(frozen=True)
class TransferProgress:
    """How far a transfer is: `hash`, `upload` or `download`; bytes done of all bytes, files done of all files."""

    action: str
    done: int
    total: int
    files_done: int = 0
    files_total: int = 0


class Advance(Protocol):
    """Takes how many further bytes and files are done; less than zero when some have to be done again."""

    def __call__(self, size: int, files: int = 0) -> None: ...


@contextmanager
def report(action: str, total: int, files: int, progress: Progress) -> Iterator[Advance]:
    """Report one phase of a transfer; to be advanced on the event loop only.

    Args:
        action: `hash`, `upload` or `download`.
        total: All bytes.
        files: All files.
        progress: True shows a bar on stderr, False nothing, None a bar if stderr is a terminal; a function is called
            with a TransferProgress after each piece.
    """
    if callable(progress):
        yield _telling(action, total, files, progress)
    elif progress or (progress is None and sys.stderr.isatty()):
        with _bar(action, total, files) as advance:
            yield advance
    else:
        yield _silent


def _silent(size: int, files: int = 0) -> None:
    """Progress that nobody wants to know."""


def _telling(action: str, total: int, files_total: int, tell: Callable[[TransferProgress], None]) -> Advance:
    done = files_done = 0

    def advance(size: int, files: int = 0) -> None:
        nonlocal done, files_done
        done += size
        files_done += files
        tell(TransferProgress(action, done, total, files_done, files_total))

    return advance


@contextmanager
def _bar(action: str, total: int, files_total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    layout = (
        TextColumn(f"{action:<8}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[files]}"),
    )
    files_done = 0

    def count() -> str:
        return f"{files_done:,}/{files_total:,} files" if files_total > 1 else ""

    with Progress(*layout, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(action, total=total, files=count())

        def advance(size: int, files: int = 0) -> None:
            nonlocal files_done
            files_done += files
            changed: dict[str, Any] = {"files": count()} if files else {}
            bar.update(task, advance=size, **changed)

        yield advance
