"""Log files of replicas: what a line is, files that are begun anew when they are full, and reading them from the end or on.

    log, log.1, log.2, log.3      from the newest to the oldest

A line is a JSON object as structlog writes it. Whatever else is in a file was printed past Python, by native code or before a replica
set its log up: it counts as a line of the time of the one before.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import IO, Any

from modelyard_kit.limits import LIMITS

REPLICA = "log"
"""Name of the log of what a replica and its model write."""
ACCESS = "access"
"""Name and logger of the log of predictions, one line each."""
PREDICT = "predict"
"""Name and logger of the log of what was predicted."""
LAUNCHER = "launcher"
"""Logger of the line that every start of a replica begins with."""
PRINTED = ("", "stdout", "stderr")
"""Loggers of lines that are somebody's own text rather than an event."""
_BLOCK = 64 * 1024
_AT_ONCE = 256 * 1024
_BEGIN = 256
_KNOWN = frozenset({"event", "level", "timestamp", "logger", "request_ids"})
# What every line of a replica says; whoever reads its log knows.
_SELF = frozenset({"deployment", "model_version"})
_LINE = LIMITS["log_line_bytes"].maximum


class Level(IntEnum):
    """How much a line matters."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True)
class Line:
    """One line of a log."""

    message: str
    time: datetime | None = None
    """None if nobody knows: printed before anything with a time was."""
    level: Level = Level.INFO
    logger: str = ""
    """Who wrote it: a Python logger, `stdout`, `stderr`, or empty for what was printed past Python."""
    request_ids: tuple[str, ...] = ()
    """Predictions that the model was computing then."""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """Which lines to read."""

    tail: int
    """At most so many, the last ones."""
    since: datetime | None = None
    """None older than this."""
    min_level: Level = Level.DEBUG

    def takes(self, line: Line) -> bool:
        """Return whether a line is one of them, be it late enough or not."""
        return line.level >= self.min_level

    def is_older(self, line: Line) -> bool:
        """Return whether a line, and so every one before it, is too old."""
        return self.since is not None and line.time is not None and line.time < self.since


@dataclass(frozen=True)
class Position:
    """Where in the log reading has come to."""

    inode: int
    offset: int
    begin: int = 0
    """Checksum of how the file begins: a new file often gets the inode of one that is gone."""


@dataclass(frozen=True)
class Piece:
    """Lines of a log, and where to read on."""

    lines: tuple[Line, ...]
    position: Position | None
    """None while there is no file."""
    more: bool = False
    """Whether there is more already."""


def paths(log: Path) -> list[Path]:
    """Return the names that the files of a log have, from the newest to the oldest."""
    return [log, *(log.with_name(f"{log.name}.{i}") for i in range(1, LIMITS["replica_log_files"].maximum))]


def rotate(log: Path) -> None:
    """Make room for a new file: each gets the next name, the oldest goes.

    Raises:
        OSError: the folder cannot be written.
    """
    names = paths(log)
    for newer, older in reversed(list(itertools.pairwise(names))):
        if newer.exists():
            newer.replace(older)


def begin(log: Path) -> IO[bytes]:
    """Rotate, and open a new file for this user alone that begins with the time.

    Raises:
        OSError: the folder cannot be written.
    """
    rotate(log)
    file = os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600), "ab", 0)
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    first = {"event": "replica_starting", "level": "info", "timestamp": now, "logger": LAUNCHER}
    file.write(json.dumps(first).encode() + b"\n")
    return file


def parse(raw: bytes) -> Line:
    """Read a line; it has no time if it is not a structured one."""
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    try:
        value = json.loads(text)
        time = datetime.fromisoformat(value["timestamp"])
        message = value["event"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return Line(_cut(text))
    return Line(
        _cut(message if isinstance(message, str) else json.dumps(message)),
        time if time.tzinfo else time.replace(tzinfo=UTC),
        _level(value.get("level")),
        str(value.get("logger", "replica")),
        tuple(map(str, value.get("request_ids") or ())),
        {key: _cut(plain(item)) for key, item in value.items() if key not in _KNOWN and key not in _SELF},
    )


def text_of(line: Line) -> str:
    """Return a line for people, without its time."""
    if line.logger in PRINTED:
        return line.message
    attributes = dict(line.attributes)
    exception = attributes.pop("exception", "")
    told = " ".join((line.message, *(f"{key}={value}" for key, value in attributes.items())))
    return f"{line.level.name.lower()}: {told}" + (f"\n{exception}" if exception else "")


def tail(log: Path, wanted: Wanted) -> Piece:
    """Return the last lines that are wanted, oldest first, and the end of the log."""
    found: deque[Line] = deque()
    untimed: list[Line] = []
    with ExitStack() as stack:
        files = _opened(log, stack)
        if not files:
            return Piece((), None)
        end = _position(files[0], files[0].seek(0, os.SEEK_END))
        ends = (end.offset, *(file.seek(0, os.SEEK_END) for file in files[1:]))
        for line in (
            parse(raw) for file, at in zip(files, ends, strict=True) for raw in _backwards(file, at)
        ):
            if wanted.is_older(line) or len(found) >= wanted.tail:
                break
            untimed.append(line)
            if line.time is not None:
                _settle(found, untimed, line.time, wanted)
        else:
            _settle(found, untimed, None, wanted)
    return Piece(tuple(found)[max(0, len(found) - wanted.tail) :], end)


def read_on(log: Path, position: Position | None) -> Piece:
    """Return what was written since, at most 256 KiB of it; from the oldest on if there is no position, or its file is gone."""
    with ExitStack() as stack:
        files = _opened(log, stack)
        at, offset = len(files) - 1, 0
        for number, file in enumerate(files):
            if position and _position(file, position.offset) == position:
                at, offset = number, position.offset
        while at >= 0:
            raw, offset = _forwards(files[at], offset, finished=at > 0)
            if raw or at == 0:
                ended = offset >= os.fstat(files[at].fileno()).st_size
                return Piece(
                    _timed(raw), _position(files[at], offset), more=bool(raw) and not (ended and at == 0)
                )
            at, offset = at - 1, 0
    return Piece((), position)


def _position(file: IO[bytes], offset: int) -> Position:
    """Return an offset as a position, by the first line of the file: that is complete, or longer, when anything was read."""
    file.seek(0)
    begin = zlib.crc32(file.read(_BEGIN).partition(b"\n")[0]) if offset else 0
    return Position(os.fstat(file.fileno()).st_ino, offset, begin)


def _settle(found: deque[Line], untimed: list[Line], time: datetime | None, wanted: Wanted) -> None:
    """Put lines, which come backwards, before those that were found, with the time of the earliest of them."""
    for line in untimed:
        if wanted.takes(line):
            found.appendleft(replace(line, time=time))
    untimed.clear()


def _timed(raw: list[bytes]) -> tuple[Line, ...]:
    """Read lines; those without a time have that of the one before, or of now, for that is when they were found."""
    lines: list[Line] = []
    for each in raw:
        line = parse(each)
        if line.time is None:
            line = replace(line, time=lines[-1].time if lines else datetime.now(UTC))
        lines.append(line)
    return tuple(lines)


def _opened(log: Path, stack: ExitStack) -> list[IO[bytes]]:
    """Open the files from the newest to the oldest: one that is renamed meanwhile is met twice rather than missed."""
    files: dict[int, IO[bytes]] = {}
    for path in paths(log):
        try:
            file = stack.enter_context(path.open("rb"))
        except OSError:
            continue
        files.setdefault(os.fstat(file.fileno()).st_ino, file)
    return list(files.values())


def _backwards(file: IO[bytes], end: int) -> Iterator[bytes]:
    """Yield the lines of a file up to an offset, from the last to the first."""
    start, rest = end, b""
    while start:
        size = min(_BLOCK, start)
        start -= size
        file.seek(start)
        first, *lines = (file.read(size) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        rest = first
    if rest:
        yield rest


def _forwards(file: IO[bytes], offset: int, *, finished: bool) -> tuple[list[bytes], int]:
    """Return whole lines from an offset on, and where they end; what nobody will finish, or never ends, counts as a line."""
    file.seek(offset)
    data = file.read(_AT_ONCE)
    end = data.rfind(b"\n") + 1
    if not end and (finished or len(data) == _AT_ONCE):
        end = len(data)
    return [line for line in data[:end].split(b"\n") if line], offset + end


def _level(value: Any) -> Level:
    if value in ("critical", "exception", "fatal"):
        return Level.ERROR
    return Level.__members__.get(str(value).upper(), Level.INFO)


def plain(value: Any) -> str:
    """Return a value of a line as readers get it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _cut(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[: _LINE - 1]}…"
