"""Reading what replicas wrote, and going on over lost connections."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING

from modelyard._convert import parse_enum, rows
from modelyard._watch import CALL_SECONDS, follow
from modelyard.api.inference.v1 import inference_service_pb2 as pb
from modelyard.api.inference.v1 import log_pb2
from modelyard.errors import NotFound
from modelyard.types import LogLevel, LogLine, ReplicaLog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime

    from modelyard._connection import Connection

_ALL_LINES = 2**31 - 1


def request_of(
    deployment: str,
    *,
    log: ReplicaLog | str | None,
    replica: str,
    tail: int | None,
    follow: bool,
    since: datetime | None,
    min_level: LogLevel | str | None,
) -> pb.ReadReplicaLogsRequest:
    """The request for lines."""
    level = parse_enum(LogLevel, min_level, "min_level") if min_level else "UNSPECIFIED"
    kind = parse_enum(ReplicaLog, log, "log") if log else "UNSPECIFIED"
    request = pb.ReadReplicaLogsRequest(
        deployment=deployment,
        replica=replica,
        tail_lines=tail,
        follow=follow,
        log=log_pb2.ReplicaLog.Value(f"REPLICA_LOG_{kind}"),
        min_level=log_pb2.LogLevel.Value(f"LOG_LEVEL_{level}"),
    )
    if since is not None:
        request.since.FromDatetime(since)
    return request


async def read(connection: Connection, request: pb.ReadReplicaLogsRequest) -> AsyncGenerator[LogLine]:
    """The lines of before, then if wanted what follows, over lost connections, until the deployment or replica is gone."""
    method = connection.inference.ReadReplicaLogs
    heard = _Heard()

    def open_stream() -> AsyncGenerator[pb.ReadReplicaLogsResponse]:
        heard.ask_again(request)
        return connection.receive(method, request, timeout=CALL_SECONDS)

    if not request.follow:
        async with aclosing(open_stream()) as answers:
            async for answer in answers:
                for line in rows(LogLine, answer.lines):
                    yield line
        return
    answered = False
    try:
        async with aclosing(follow(open_stream)) as answers:
            async for answer in answers:
                answered = True
                for line in rows(LogLine, answer.lines):
                    if heard.is_new(line):
                        yield line
    except NotFound:
        if not answered:
            raise


class _Heard:
    """The lines of the newest time, which come again when the stream is opened again from that time on."""

    def __init__(self) -> None:
        self._time: datetime | None = None
        self._lines: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()

    def is_new(self, line: LogLine) -> bool:
        """Whether a line has not come before."""
        key = repr(line)
        if self._repeated[key]:
            self._repeated[key] -= 1
            return False
        if line.time is not None and (self._time is None or line.time >= self._time):
            if line.time != self._time:
                self._time = line.time
                self._lines.clear()
            self._lines[key] += 1
        return True

    def ask_again(self, request: pb.ReadReplicaLogsRequest) -> None:
        """Let the request ask from the newest line on, and expect the lines of its time again."""
        if self._time is not None:
            request.since.FromDatetime(self._time)
            request.tail_lines = _ALL_LINES
        self._repeated = self._lines.copy()
