"""The log of a replica: structured lines of its own, of Python's `logging`, and of what the model prints.

All of it goes to standard error, each line by one write. Where that is a file of ours, the file is put aside when it is full, and both
standard streams go on in a new one: so what native code prints, and the last words of a process that is killed, are in it too.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from modelyard_inference import log_files
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.serving import SERVED, request_ids, serving
from modelyard_kit.limits import LIMITS

_STDOUT: Final = 1
_STDERR: Final = 2
_FULL: Final = LIMITS["replica_log_bytes"].maximum
_LONGEST: Final = LIMITS["log_line_bytes"].maximum
# Threads that left a line without an end; more of them means that they do not come back to it.
_MAX_OPEN_LINES: Final = 64
CHECK_SECONDS: Final = 2.0
"""How often somebody has to call `LogFile.check`: native code prints without being seen."""

log: Any = structlog.get_logger()


class LogFile:
    """Standard error, and the file that it is, if it is one to be kept small.

    Args:
        path: the file, if the launcher made one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path if path and _is_open_as_stderr(path) else None
        # A destructor may print while a line is being written.
        self._lock = threading.RLock()

    @property
    def captured(self) -> bool:
        """Return whether it is a file of ours."""
        return self._path is not None

    def write(self, text: str) -> int:
        """Write whole lines. That nobody reads them any more, or the disk is full, is no reason not to serve."""
        data = memoryview(text.encode("utf-8", "replace"))
        with self._lock:
            try:
                while data:
                    data = data[os.write(_STDERR, data) :]
            except OSError:
                return 0
            self.check()
        return len(text)

    def flush(self) -> None:
        """Do nothing: what is written is written."""

    def check(self) -> None:
        """Put the file aside if it is full."""
        if self._path is None:
            return
        with self._lock:
            if os.fstat(_STDERR).st_size < _FULL:
                return
            try:
                log_files.rotate(self._path)
                new = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            except OSError:
                os.ftruncate(_STDERR, 0)  # better to lose lines than to fill the disk
                return
            for stream in (_STDOUT, _STDERR):
                os.dup2(new, stream)
            os.close(new)


class Printed(io.TextIOBase):
    """A standard stream whose lines become lines of the log; bytes and native code go to the stream below as they are.

    Args:
        stream: `sys.stdout` or `sys.stderr` as it was.
        emit: takes each line, and the calls that were served when it began.
    """

    def __init__(self, stream: Any, emit: Callable[[str, Sequence[Call]], None]) -> None:
        self.buffer = stream.buffer
        self._stream = stream
        self._emit = emit
        self._open: dict[int, tuple[str, Sequence[Call]]] = {}

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding of the stream below."""
        return str(self._stream.encoding)

    def fileno(self) -> int:
        """Return the descriptor of the stream below."""
        return int(self._stream.fileno())

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def write(self, text: str) -> int:
        """Take text; a line is known by its end, by another prediction that begins, or by being too long."""
        thread, served = threading.get_ident(), SERVED.get()
        begun, since = self._open.pop(thread, ("", served))
        if begun and since is not served:
            self._take(begun, since)
            begun = ""
        *lines, rest = (begun + text).split("\n")
        for line in lines:
            self._take(line, served)
        if len(rest) > _LONGEST:
            self._take(rest, served)
        elif rest:
            self._open[thread] = rest, served
        if len(self._open) > _MAX_OPEN_LINES:
            self.finish()
        return len(text)

    def finish(self) -> None:
        """Take lines without an end as they are."""
        while self._open:
            self._take(*self._open.popitem()[1])

    def _take(self, line: str, served: Sequence[Call]) -> None:
        """Take a line as a terminal would show it: a carriage return begins it anew."""
        seen = line.removesuffix("\r").rpartition("\r")[2]
        for start in range(0, len(seen), _LONGEST):
            self._emit(seen[start : start + _LONGEST], served)


class _ToStructlog(logging.Handler):
    """Brings Python's `logging` into the log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  arguments that do not fit the message are the model's mistake, not a reason to fail
            message = f"{record.msg} {record.args}"
        level = max(logging.DEBUG, min(record.levelno // 10 * 10, logging.CRITICAL))
        log.log(level, message, logger=record.name, exc_info=record.exc_info or None)


def configure(config: ReplicaConfig) -> LogFile:
    """Send everything that is logged or printed to the log."""
    file = LogFile(Path(config.log_file) if config.log_file else None)
    _configure_structlog(file, config.log_level, "json" if file.captured else config.log_format)
    logging.basicConfig(handlers=[_ToStructlog()], level=config.log_level.upper(), force=True)
    logging.captureWarnings(True)
    if file.captured:
        sys.stdout, sys.stderr = _printed(file, "stdout", "info"), _printed(file, "stderr", "warning")
    return file


def finish() -> None:
    """Take what was printed without the end of a line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Printed):
            stream.finish()


def configure_without_config() -> None:
    """Log to standard error as it is: there is no configuration that says more."""
    _configure_structlog(LogFile(), "info", "json")


def _configure_structlog(file: LogFile, level: str, form: str) -> None:
    renderer: Any = structlog.processors.JSONRenderer(default=str)
    if form == "console":
        renderer = structlog.dev.ConsoleRenderer()
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_request_ids,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "json":
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file),  # type: ignore[arg-type]  # all it needs of a file
        cache_logger_on_first_use=True,
    )


def _printed(file: LogFile, name: str, level: str) -> Printed:
    # Whatever the least level is: what a model prints was meant to be read.
    everything = structlog.make_filtering_bound_logger(logging.NOTSET)
    printed: Any = structlog.wrap_logger(structlog.WriteLogger(file), wrapper_class=everything)  # type: ignore[arg-type]

    def emit(text: str, served: Sequence[Call]) -> None:
        with serving(served):
            getattr(printed, level)(text, logger=name)

    return Printed(getattr(sys, name), emit)


def _add_request_ids(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if found := request_ids():
        event["request_ids"] = found
    return event


def _is_open_as_stderr(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(_STDERR))
    except OSError:
        return False
