"""Log files of replicas: read from the end and on, over files that are put aside meanwhile."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard_inference import log_files
from modelyard_inference.log_files import Level, Line, Wanted, parse, read_on, rotate, tail, text_of
from modelyard_kit.limits import LIMITS

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def structured(number: int, **more: Any) -> str:
    time = (NOON + timedelta(seconds=number)).isoformat().replace("+00:00", "Z")
    return json.dumps({"event": f"line {number}", "level": "info", "timestamp": time, **more})


def write(log: Path, *lines: str, end: str = "\n") -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + end)


def messages(lines: tuple[Line, ...]) -> list[str]:
    return [line.message for line in lines]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_structured_line_is_read_whole() -> None:
    raw = structured(
        1,
        level="critical",
        logger="sklearn",
        request_ids=["a", "b"],
        rows=3,
        exception="Traceback",
        deployment="d",
    )
    line = parse(raw.encode())
    assert (line.message, line.time) == ("line 1", NOON + timedelta(seconds=1))
    assert (line.level, line.logger, line.request_ids) == (Level.ERROR, "sklearn", ("a", "b"))
    assert line.attributes == {"rows": "3", "exception": "Traceback"}
    assert text_of(line) == "error: line 1 rows=3\nTraceback"


@pytest.mark.parametrize(
    "raw", ["words", "17", "[]", '{"event": "x"}', '{"event": "x", "timestamp": 3}', "[" * 5000, "caf\udce9"]
)
def test_whatever_else_is_printed_is_a_line_too(raw: str) -> None:
    line = parse(raw.encode("utf-8", "surrogateescape"))
    assert (line.time, line.level, line.logger) == (None, Level.INFO, "")
    assert text_of(line) == line.message == raw.replace("\udce9", "\ufffd")


def test_long_lines_are_cut() -> None:
    most = LIMITS["log_line_bytes"].maximum
    line = parse(structured(1, event="x" * (most + 1), problem="y" * (most + 1)).encode())
    assert (len(line.message), len(line.attributes["problem"])) == (most, most)


def test_the_tail_reaches_back_over_files(log: Path) -> None:
    for number in range(3):
        write(log, structured(2 * number), structured(2 * number + 1))
        if number < 2:
            rotate(log)
    assert messages(tail(log, Wanted(tail=3)).lines) == ["line 3", "line 4", "line 5"]
    assert messages(tail(log, Wanted(tail=99)).lines) == [f"line {n}" for n in range(6)]
    assert tail(log, Wanted(tail=0)).lines == ()
    assert messages(tail(log, Wanted(99, since=NOON + timedelta(seconds=4))).lines) == ["line 4", "line 5"]


def test_lines_beyond_a_block_are_read_whole(log: Path) -> None:
    numbers = range(3000)
    write(log, *(structured(number, padding="é" * (number % 90)) for number in numbers))
    assert log.stat().st_size > 4 * 64 * 1024
    assert messages(tail(log, Wanted(tail=5000)).lines) == [f"line {number}" for number in numbers]
    found, position = [], None
    while True:
        piece = read_on(log, position)
        found += messages(piece.lines)
        position = piece.position
        if not piece.more:
            break
    assert found == [f"line {number}" for number in numbers]


def test_what_is_printed_past_python_has_the_time_of_the_line_before(log: Path) -> None:
    write(log, "before anything", structured(1), "raw", "", structured(2), "last")
    lines = tail(log, Wanted(tail=9)).lines
    assert [(line.message, line.time and (line.time - NOON).seconds) for line in lines] == [
        ("before anything", None),
        ("line 1", 1),
        ("raw", 1),
        ("line 2", 2),
        ("last", 2),
    ]
    assert messages(tail(log, Wanted(9, since=NOON + timedelta(seconds=2))).lines) == ["line 2", "last"]
    assert messages(tail(log, Wanted(tail=1)).lines) == ["last"]


def test_only_what_matters_enough_counts(log: Path) -> None:
    write(log, structured(1, level="error"), structured(2), structured(3, level="warning"), structured(4))
    assert messages(tail(log, Wanted(9, min_level=Level.WARNING)).lines) == ["line 1", "line 3"]
    assert messages(tail(log, Wanted(1, min_level=Level.ERROR)).lines) == ["line 1"]


def test_it_is_read_on_from_where_the_tail_ended(log: Path) -> None:
    write(log, structured(1))
    position = tail(log, Wanted(tail=9)).position
    assert read_on(log, position).lines == ()
    write(log, structured(2))
    write(log, structured(3)[:10], end="")
    piece = read_on(log, position)
    assert messages(piece.lines) == ["line 2"]  # what has no end yet waits for it
    write(log, structured(3)[10:])
    piece = read_on(log, piece.position)
    assert messages(piece.lines) == ["line 3"]
    rotate(log)
    assert read_on(log, piece.position).lines == ()
    write(log.with_name("log.1"), structured(4), "cut off", end="")
    write(log, structured(5))
    rotate(log)
    write(log, structured(6))
    found, position = [], piece.position
    for _ in range(4):
        piece = read_on(log, position)
        found += messages(piece.lines)
        position = piece.position
    assert found == ["line 4", "cut off", "line 5", "line 6"]
    assert not piece.more


def test_a_reader_that_was_left_behind_goes_on_with_the_oldest(log: Path) -> None:
    write(log, structured(0))
    position = tail(log, Wanted(tail=9)).position
    assert position is not None
    for number in range(1, 6):
        rotate(log)
        write(log, structured(number))
    gone = log_files.Position(position.inode + 1_000_000, 0)
    assert messages(read_on(log, gone).lines) == ["line 2"]
    assert messages(read_on(log, position).lines) == ["line 2"]  # also if a new file has got its inode
    newest = tail(log, Wanted(tail=9)).position
    assert newest is not None
    reused = log_files.Position(newest.inode, position.offset, position.begin)
    assert messages(read_on(log, reused).lines) == ["line 2"]
    assert messages(read_on(log, None).lines) == ["line 2"]


def test_no_log_has_no_lines(log: Path) -> None:
    assert tail(log, Wanted(tail=9)) == log_files.Piece((), None)
    assert read_on(log, None) == log_files.Piece((), None)


def test_a_start_begins_a_file_for_its_owner_alone_with_the_time(log: Path) -> None:
    for _ in range(6):
        log_files.begin(log).close()
    assert sorted(path.name for path in log.parent.iterdir()) == ["log", "log.1", "log.2", "log.3"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    (line,) = tail(log, Wanted(tail=1)).lines
    assert line.logger == log_files.LAUNCHER
    assert line.time is not None
    assert abs(datetime.now(UTC) - line.time) < timedelta(minutes=5)
