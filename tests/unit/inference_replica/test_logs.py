"""What a model prints becomes lines that name the predictions they were printed for, in a file that stays small."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelyard_inference import log_files
from modelyard_inference.log_files import Wanted
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.logs import Printed
from modelyard_inference.replica.serving import request_id_of, request_ids, serving
from modelyard_kit.limits import LIMITS
from tests.unit.inference_replica.test_config import SIGNATURE

LONGEST = LIMITS["log_line_bytes"].maximum


class Lines:
    """A stream that is printed to, and what came of it."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, list[str]]] = []
        self.below = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        self.stream = Printed(self.below, self._take)

    def _take(self, text: str, served: Sequence[Call]) -> None:
        self.taken.append((text, [request_id_of(call.metadata) for call in served]))

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.taken]


def call(request_id: str) -> Call:
    return Call(None, (("user-agent", "x"), ("x-request-id", request_id)))


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (["one\n"], ["one"]),
        (["a", " ", "b", "\n"], ["a b"]),
        (["one\ntwo\nthr", "ee\n"], ["one", "two", "three"]),
        (["\n\n"], []),
        (["dos\r\n"], ["dos"]),
        (["\r 10%", "\r 20%", "\r100%\n"], ["100%"]),
        (["x" * (LONGEST + 5), "\n"], ["x" * LONGEST, "x" * 5]),
        (["y" * (2 * LONGEST + 5), "\n"], ["y" * LONGEST, "y" * LONGEST, "y" * 5]),
    ],
)
def test_text_is_cut_into_lines(written: list[str], lines: list[str]) -> None:
    found = Lines()
    for text in written:
        assert found.stream.write(text) == len(text)
    assert found.texts == lines


def test_a_line_without_an_end_is_kept_until_it_is_known_to_have_none() -> None:
    found = Lines()
    with serving([call("a")]):
        print("begun", end="", file=found.stream)
    assert found.taken == []
    with serving([call("b")]):
        print("next", file=found.stream)
    assert found.taken == [("begun", ["a"]), ("next", ["b"])]
    print("rest", end="", file=found.stream)
    found.stream.finish()
    found.stream.finish()
    assert found.texts == ["begun", "next", "rest"]


def test_threads_do_not_cut_into_each_others_lines() -> None:
    found = Lines()
    found.stream.write("mine")
    other = threading.Thread(target=lambda: print("theirs", file=found.stream))
    other.start()
    other.join()
    found.stream.write(" too\n")
    assert found.texts == ["theirs", "mine too"]


def test_threads_that_never_end_their_lines_are_not_waited_for() -> None:
    found = Lines()
    gate, count = threading.Event(), 70

    def write() -> None:
        found.stream.write("open")
        gate.wait(30)  # ids of threads that ended are given out again

    threads = [threading.Thread(target=write) for _ in range(count)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    found.stream.finish()
    assert "".join(found.texts) == "open" * count


def test_a_stream_is_one_for_programs() -> None:
    found = Lines()
    assert (found.stream.encoding, found.stream.writable(), found.stream.isatty()) == ("utf-8", True, False)
    found.stream.buffer.write(b"bytes")
    assert found.below.buffer.getvalue() == b"bytes"  # type: ignore[attr-defined]
    found.stream.flush()


def test_ids_are_those_of_the_predictions_that_are_computed() -> None:
    assert request_ids() == []
    many = [call(f"r{number}") for number in range(40)]
    with serving([call("a" * 500), Call(None, ()), *many]):
        first, *rest = request_ids()
        assert (first, len(rest)) == ("a" * 128, 14)
    assert request_ids() == []


_PROGRAM = """
import logging, os, sys, warnings
from pathlib import Path
from modelyard_inference.replica import logs
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.serving import serving

logs._FULL = {full}
config = ReplicaConfig.load(Path({config!r}))
file = logs.configure(config)
{body}
logs.finish()
"""


def run(folder: Path, body: str, *, log_level: str = "info", full: int = 4096) -> Path:
    """Run a program whose standard streams are a log, as a launcher does."""
    log, config = folder / "log", folder / "config.json"
    values = {
        "deployment": "prod.ml.iris",
        "model": "prod.ml.iris",
        "version": 1,
        "artifact_digest": "sha256:00",
        "model_directory": "/m",
        "runtime": "sklearn",
        "signature": SIGNATURE,
        "listen": "unix:/s",
        "log_file": str(log),
        "log_format": "console",
        "log_level": log_level,
    }
    config.write_text(json.dumps(values))
    program = _PROGRAM.format(config=str(config), body=body, full=full)
    with log_files.begin(log) as output:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=output, stderr=output, check=False, env={**os.environ}
        )
    assert done.returncode == 0, log.read_text()
    return log


def test_everything_that_is_printed_and_logged_is_in_the_log(tmp_path: Path) -> None:
    body = """
with serving([Call(None, (("x-request-id", "r1"),))]):
    print("printed", 1)
    print("trouble", file=sys.stderr)
    logging.getLogger("some.library").warning("odd %s", "value")
    logging.getLogger("wrong").warning("%d", "no number")
warnings.warn("old")
try:
    1 / 0
except ZeroDivisionError:
    logging.exception("failed")
logging.getLogger("chatty").log(15, "hidden")
os.write(1, b"past python\\n")
print("no end", end="")
"""
    lines = log_files.tail(run(tmp_path, body, log_level="warning"), Wanted(tail=99)).lines
    found = [(line.logger, line.level.name, line.message.splitlines()[0], line.request_ids) for line in lines]
    assert found[1:5] == [
        ("stdout", "INFO", "printed 1", ("r1",)),
        ("stderr", "WARNING", "trouble", ("r1",)),
        ("some.library", "WARNING", "odd value", ("r1",)),
        ("wrong", "WARNING", "%d ('no number',)", ("r1",)),
    ]
    assert found[5][0] == "py.warnings"
    assert found[6] == ("root", "ERROR", "failed", ())
    assert "ZeroDivisionError" in lines[6].attributes["exception"]
    assert found[7:] == [("", "INFO", "past python", ()), ("stdout", "INFO", "no end", ())]
    assert all(line.time for line in lines)


def test_a_full_file_is_put_aside_and_both_streams_go_on(tmp_path: Path) -> None:
    body = """
for number in range(400):
    print("line", number)
    if number % 100 == 50:
        os.write(2, b"x" * 5000 + b"\\n")
        file.check()
"""
    log = run(tmp_path, body)
    files = [path for path in log_files.paths(log) if path.exists()]
    assert len(files) == LIMITS["replica_log_files"].maximum
    assert all(path.stat().st_size < 4096 + 5001 + 200 for path in files)
    printed = [
        line.message for line in log_files.tail(log, Wanted(tail=9999)).lines if line.logger == "stdout"
    ]
    assert printed == [f"line {number}" for number in range(400 - len(printed), 400)]
    assert len(printed) > 50


def test_a_file_is_put_aside_at_its_limit_and_not_before(tmp_path: Path) -> None:
    maximum = LIMITS["replica_log_bytes"].maximum
    body = f"""
aside = file._path.with_name("log.1")
os.ftruncate(2, {maximum - 1})
file.check()
assert not aside.exists()
os.ftruncate(2, {maximum})
file.check()
assert aside.exists()
"""
    assert run(tmp_path, body, full=maximum).stat().st_size == 0


def test_a_file_that_cannot_be_put_aside_is_emptied(tmp_path: Path) -> None:
    body = """
def fail(*_): raise OSError("read-only")
logs.log_files.rotate = fail
for number in range(200):
    print("line", number)
"""
    log = run(tmp_path, body)
    assert log.stat().st_size < 4096 + 200
    assert log_files.tail(log, Wanted(tail=1)).lines[0].message == "line 199"
