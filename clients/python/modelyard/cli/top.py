"""top: what deployments and their replicas are doing, live."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from modelyard import errors
from modelyard.cli._output import TABLE, Format, Output, draw, plain, style_of
from modelyard.cli._rates import Row, rows
from modelyard.cli._session import connect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelyard.client import Client
    from modelyard.types import DeploymentStatistics

_SHORT_ID = 12
_COLUMNS = (
    "deployment", "version", "state", "pred/s", "err/s", "p50", "p95", "in flight", "queue", "memory", "restarts",
)  # fmt: skip
_TEXTS = 3
"""Of the columns, those with text; the others have numbers."""
_ALWAYS = 8
"""Columns that are shown however narrow the terminal is; of the others, those for which there is room."""


def top(
    schema: Annotated[
        str, typer.Argument(help="Full name of a schema, or of one deployment; by default all.")
    ] = "",
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.1, max=60, help="Seconds between two looks.")
    ] = 2.0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many deployments.")] = 50,
    once: Annotated[bool, typer.Option("--once", help="Show one table and end.")] = False,
    output: Output = TABLE,
) -> None:
    """Show traffic, latency and replicas live, until you interrupt.

    Predictions, errors and percentiles are those between two looks, so they come after one interval. An error is a
    prediction that was not answered, unless its caller went. JSON comes as one list on each line; tables where there is no
    terminal come one after the other.
    """
    with connect() as client, contextlib.suppress(KeyboardInterrupt):
        before = _look(client, schema, limit)
        live = Live(console=Console(), screen=True, auto_refresh=False)
        screen = output is Format.TABLE and not once and live.console.is_terminal
        with live if screen else contextlib.nullcontext():
            if screen:
                live.update(fitting(_rows({}, before), live.console), refresh=True)
            while True:
                time.sleep(interval)
                now = _look(client, schema, limit)
                found = _rows(before, now)
                if output is Format.JSON:
                    typer.echo(json.dumps(plain(found)))
                elif screen:
                    live.update(fitting(found, live.console), refresh=True)
                else:
                    draw(table_of(found))
                if once:
                    return
                before = now


def _look(client: Client, schema: str, limit: int) -> dict[str, DeploymentStatistics]:
    """Figures by the name of the deployment; one that goes meanwhile is left out."""
    if schema.count(".") > 1:
        return {schema: client.deployments.statistics(schema)}
    found = {}
    for deployment in client.deployments.list(schema, order_by="name").collect(limit):
        with contextlib.suppress(errors.NotFound):
            found[deployment.name] = client.deployments.statistics(deployment.name)
    return found


def _rows(before: Mapping[str, DeploymentStatistics], now: Mapping[str, DeploymentStatistics]) -> list[Row]:
    return [row for name, figures in now.items() for row in rows(before.get(name), figures)]


def fitting(found: Sequence[Row], console: Console) -> Table:
    """The table without its last columns if the terminal has no room for them, since a name that is cut off says nothing."""
    unbounded = console.options.update(max_width=10_000)
    tables = (table_of(found, _COLUMNS[:count]) for count in range(len(_COLUMNS), _ALWAYS, -1))
    fit = (table for table in tables if console.measure(table, options=unbounded).maximum <= console.width)
    return next(fit, table_of(found, _COLUMNS[:_ALWAYS]))


def table_of(found: Sequence[Row], columns: Sequence[str] = _COLUMNS) -> Table:
    """Rows as a table: each deployment, and below it its replicas."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < _TEXTS else "right", no_wrap=index >= _TEXTS)
    for row in found:
        style = "" if row.replica else "bold"
        cells = (
            Text(f"  {row.replica[-_SHORT_ID:]}" if row.replica else row.deployment, style=style),
            Text(row.model_version.removeprefix(row.deployment), style=style),
            Text(row.state, style=style_of(row.state)),
            *(Text(text, style=style) for text in _numbers(row)),
        )
        table.add_row(*cells[: len(columns)])
    if not found:
        table.add_row(Text("no deployments", style="dim"))
    return table


def _numbers(row: Row) -> tuple[str, ...]:
    return (
        _rate(row.predictions_per_second),
        _rate(row.errors_per_second),
        _time(row.p50_seconds),
        _time(row.p95_seconds),
        str(row.in_flight),
        str(row.pending),
        f"{row.memory_bytes / 2**20:.0f} MiB" if row.memory_bytes else "",
        str(row.restarts),
    )


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.0f} ms"
