"""How the story is shown: numbered steps, what each did, how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Screen:
    """Prints steps as they happen."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._begin = time.monotonic()
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show one step; its duration is printed when it ends."""
        self._number += 1
        self._console.print(f"\n[bold]{self._number}. {title}[/bold]")
        begin = time.monotonic()
        yield
        self._console.print(f"   [dim]{time.monotonic() - begin:.1f} s[/dim]")

    def say(self, text: str) -> None:
        """Show one thing that happened."""
        self._console.print(Text("   " + text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show rows that are to be compared."""
        table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        grid = Table.grid(padding=(0, 0, 0, 3))
        grid.add_row("", table)
        self._console.print(grid)

    def end(self, text: str) -> None:
        """Show the last line, with the time of the whole story."""
        self._console.print(f"\n[bold]{text}[/bold] ({time.monotonic() - self._begin:.1f} s in all)")
