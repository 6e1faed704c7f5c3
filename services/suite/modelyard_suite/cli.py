"""`modelyard up`, `down`, `status`, `demo`: merged into the command line by the entry-point group `modelyard.commands`."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from modelyard_suite import plan, suite
from modelyard_suite.artifacts_cli import artifacts
from modelyard_suite.home import Home, State, suite_home
from modelyard_suite.supervisor import is_alive

app = typer.Typer()
app.add_typer(artifacts, name="artifacts")
_console = Console(highlight=False)

_EXPECTED = (
    suite.HomeInUseError,
    suite.PortTakenError,
    suite.StartFailedError,
    suite.NotRunningError,
    PermissionError,
)

Listen = Annotated[
    str, typer.Option(help="Address of the gateway, host:port; loopback.", metavar="HOST:PORT")
]
MetricsPort = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**16 - len(plan.SCRAPED),
        metavar="PORT",
        help="Let the services answer Prometheus on loopback: governance on this port, catalog, artifact, inference and the"
        " gateway on the next four. 0: none.",
    ),
]


class Output(StrEnum):
    """Forms of an answer."""

    TABLE = "table"
    JSON = "json"


@app.command()
def up(
    listen: Listen = plan.Options().listen,
    metrics_port: MetricsPort = 0,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready; `down` stops it.")
    ] = False,
) -> None:
    """Start Modelyard on this machine: PostgreSQL, the services, Envoy. Ctrl-C (or `modelyard down`) stops it.

    Data stays in the home directory (~/.modelyard, or MODELYARD_HOME). This machine's user is logged in as administrator.
    """
    home, options = suite_home(), plan.Options(listen=listen, metrics_port=metrics_port)
    if ignored := plan.ignored():
        told = f"{', '.join(ignored)} of the environment: `modelyard up` does not take that (docs/deploy.md)"
        Console(stderr=True, highlight=False).print(f"note: {told}", markup=False)
    begin = time.monotonic()
    try:
        if detach:
            with _console.status("starting …"):
                suite.start_in_background(home, options)
            _say_ready(home, listen, time.monotonic() - begin)
        else:
            asyncio.run(_up(home, options, begin))
    except _EXPECTED as error:
        _refuse(error)


async def _up(home: Home, options: plan.Options, begin: float) -> None:
    def ready() -> None:
        _say_ready(home, options.listen, time.monotonic() - begin)
        _console.print("Ctrl-C stops everything.")

    _console.print("starting …")
    await suite.serve(home, options, when_ready=ready)
    _console.print("stopped")


def _say_ready(home: Home, listen: str, seconds: float) -> None:
    _console.print(
        f"Modelyard is up at [bold]{listen}[/bold] after {seconds:.1f} s; you are logged in as admin."
    )
    _console.print(f"Logs: {home.logs}. Next: `modelyard whoami`, `modelyard status`, `modelyard --help`.")


@app.command()
def down() -> None:
    """Stop what `modelyard up` started, in order, and wait until all of it is gone."""
    begin = time.monotonic()
    try:
        with _console.status("stopping …"):
            suite.stop(suite_home())
    except _EXPECTED as error:
        _refuse(error)
    _console.print(f"stopped after {time.monotonic() - begin:.1f} s")


@app.command()
def status(
    output: Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")] = Output.TABLE,
) -> None:
    """Show the processes of the suite on this machine. Exits with status 1 when it is not running."""
    home = suite_home()
    state = home.state()
    if state is None or not is_alive(state.supervisor):
        if output is Output.JSON:
            typer.echo(json.dumps({"running": False}))
        else:
            _console.print(f"not running on {home.root}; `modelyard up` starts it")
        raise typer.Exit(1)
    if output is Output.JSON:
        processes = [asdict(row) for row in _rows(state)]
        answer = {"running": True, "ready": state.ready, "target": state.target, "processes": processes}
        typer.echo(json.dumps(answer, indent=2))
        return
    table = Table("process", "pid", "state", "restarts", "up")
    for row in _rows(state):
        table.add_row(row.name, str(row.pid), row.state, str(row.restarts), f"{row.seconds:.0f} s")
    _console.print(f"gateway {state.target}, {'ready' if state.ready else 'starting'}, home {home.root}")
    _console.print(table)


@dataclass(frozen=True)
class _Row:
    name: str
    pid: int
    state: str
    restarts: int
    seconds: float


def _rows(state: State) -> list[_Row]:
    now = time.time()
    return [
        _Row(
            name=name,
            pid=process.pid,
            state="running" if is_alive(process) else "restarting",
            restarts=process.restarts,
            seconds=round(now - process.start_time, 1),
        )
        for name, process in {"supervisor": state.supervisor, **state.processes}.items()
    ]


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running and say how to connect.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Folder for it; default: a temporary one.")] = None,
) -> None:
    """Take two real models through the whole product, step by step: about a minute.

    Uses a home directory of its own and a free port, so it disturbs nothing that runs.
    """
    from modelyard_suite.demo import story

    try:
        story.tell(keep=keep, folder=folder)
    except _EXPECTED as error:
        _refuse(error)


def _refuse(error: Exception) -> None:
    Console(stderr=True, highlight=False).print(f"error: {error}", markup=False)
    raise typer.Exit(1)
