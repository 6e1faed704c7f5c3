"""What replicas write: `deployments logs`."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli._output import TABLE, Format, Output, plain
from modelyard.cli._session import connect
from modelyard.types import LogLevel, ReplicaLog

if TYPE_CHECKING:
    from modelyard.types import LogLine

_SHORT_ID = 12
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(deployments: typer.Typer) -> None:
    """Add the verbs to those of deployments."""
    deployments.command("logs")(logs)


def logs(
    name: Annotated[str, typer.Argument(help="Full name of the deployment.", metavar="NAME")],
    log: Annotated[
        ReplicaLog | None,
        typer.Option(
            "--log", case_sensitive=False, help="Their access or predict log instead of what they wrote."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until you interrupt.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Lines from before to begin with.")] = 100,
    replica: Annotated[
        str, typer.Option("--replica", metavar="ID", help="Only of this replica: its id, or the end of it.")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Nothing older: 10m, 2h, or 2026-01-31T12:00:00Z.")
    ] = "",
    level: Annotated[
        LogLevel | None, typer.Option("--level", case_sensitive=False, help="Nothing below this level.")
    ] = None,
    output: Output = TABLE,
) -> None:
    """Read what the replicas of an endpoint wrote and their models printed; JSON comes as one object on each line."""
    start = _time(since) if since else None
    with connect() as client:
        if replica:
            replica = _whole_id(replica, [found.id for found in client.deployments.replicas(name)])
        lines = client.deployments.logs(
            name, log=log, replica=replica, tail=tail, follow=follow, since=start, min_level=level
        )
        try:
            for line in lines:
                typer.echo(
                    json.dumps(plain(line), ensure_ascii=False) if output is Format.JSON else _line(line)
                )
        except KeyboardInterrupt:
            return


def _whole_id(text: str, ids: list[str]) -> str:
    """Return the only id that ends so, or the text: the service says that there is none."""
    found = [one for one in ids if one.endswith(text)]
    return found[0] if len(found) == 1 else text


def _time(text: str) -> datetime:
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.replace(".", "", 1).isdecimal():
        seconds = float(number) * _UNITS[unit]
        if math.isfinite(seconds) and seconds < 100 * 365 * _UNITS["d"]:
            return datetime.now(UTC) - timedelta(seconds=seconds)
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is no time: write 30s, 10m, 2h, 1d, or a time such as 2026-01-31T12:00:00Z"
        raise typer.BadParameter(problem, param_hint="--since") from None
    return given if given.tzinfo else given.astimezone()


def _line(line: LogLine) -> str:
    """A line in columns: time, level, end of the replica's id, who wrote it, what, and for which predictions."""
    time = f"{line.time:%Y-%m-%d %H:%M:%S}.{line.time.microsecond // 1000:03}Z" if line.time else ""
    attributes = dict(line.attributes)
    exception = attributes.pop("exception", "")
    told = " ".join((line.message, *(f"{key}={value}" for key, value in attributes.items())))
    requests = f"  [{' '.join(line.request_ids)}]" if line.request_ids else ""
    head = (
        f"{time:<24}  {line.level or '':<7}  {line.replica[-_SHORT_ID:]}  {line.logger:<8}  {told}{requests}"
    )
    return f"{head}\n{exception}" if exception else head
