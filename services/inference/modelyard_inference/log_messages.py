"""Between the contract's messages of logs and this service's own types. Every check of their shape is here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard.api.inference.v1 import log_pb2 as pb
from modelyard_inference.commands import ReadLogs
from modelyard_inference.log_files import ACCESS, PREDICT, REPLICA, Level, Line, Wanted
from modelyard_inference.messages import parse_deployment_name, parse_id
from modelyard_inference.replica_logs import Lines
from modelyard_kit.errors import InvalidField
from modelyard_kit.limits import LIMITS
from modelyard_kit.protos import moment, timestamp

DEFAULT_TAIL = 100
_LOGS: Mapping[int, str] = {
    pb.REPLICA_LOG_UNSPECIFIED: REPLICA,
    pb.REPLICA_LOG_ACCESS: ACCESS,
    pb.REPLICA_LOG_PREDICT: PREDICT,
}


def parse_read_logs(request: s.ReadReplicaLogsRequest) -> ReadLogs:
    """Read which lines are wanted.

    Raises:
        InvalidField: a malformed name, id, number, level or time.
    """
    deployment = parse_deployment_name(request.deployment, "deployment")
    replica = parse_id(request.replica, "replica") if request.replica else ""
    tail = request.tail_lines if request.HasField("tail_lines") else DEFAULT_TAIL
    if tail < 0:
        raise InvalidField("tail_lines", f"{tail} is below zero")
    level = Level.DEBUG
    if request.min_level:
        name = pb.LogLevel.Name(request.min_level) if request.min_level in pb.LogLevel.values() else ""
        if not name:
            raise InvalidField("min_level", f"{request.min_level} is no level")
        level = Level[name.removeprefix("LOG_LEVEL_")]
    since = _moment(request.since, "since") if request.HasField("since") else None
    wanted = Wanted(min(tail, LIMITS["log_lines_per_read"].maximum), since, level)
    if request.log not in _LOGS:
        raise InvalidField("log", f"{request.log} is no log")
    return ReadLogs(deployment, replica, wanted, _LOGS[request.log], request.follow)


def lines_to_proto(lines: Lines) -> s.ReadReplicaLogsResponse:
    """Return the message of lines."""
    return s.ReadReplicaLogsResponse(lines=[_line(replica, line) for replica, line in lines])


def _line(replica: str, line: Line) -> pb.LogLine:
    return pb.LogLine(
        replica=replica,
        time=timestamp(line.time),
        level=pb.LogLevel.Value(f"LOG_LEVEL_{line.level.name}"),
        message=line.message,
        logger=line.logger,
        request_ids=line.request_ids,
        attributes=line.attributes,
    )


def _moment(message: Timestamp, field: str) -> datetime:
    try:
        return moment(message)
    except (ValueError, OverflowError) as error:
        raise InvalidField(field, f"is no time: {error}") from error
