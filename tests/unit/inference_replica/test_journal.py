"""What is written down about predictions, and how much of it at most."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard_inference import log_files
from modelyard_inference.log_files import ACCESS, PREDICT, Line, Wanted
from modelyard_inference.log_policy import LogPolicy
from modelyard_inference.replica import journal as journal_module
from modelyard_inference.replica.contract import Prediction
from modelyard_inference.replica.errors import InvalidTensor
from modelyard_inference.replica.front import Call
from modelyard_inference.replica.journal import Journal
from modelyard_inference.runtimes.signature import TensorSpec
from modelyard_kit.limits import LIMITS

CALL = Call(None, (("x-request-id", "r1"),))
VALUES = LIMITS["predict_log_values"].maximum


def prediction(**inputs: Any) -> Prediction:
    wanted = (TensorSpec("y", "FP64", (-1,)),)
    return Prediction("predict", inputs, 2, None, wanted, "mine", None)


def lines(folder: Path, log: str) -> list[Line]:
    return list(log_files.tail(folder / log, Wanted(tail=9999)).lines)


def answer(journal: Journal, outputs: Any = None, **inputs: Any) -> None:
    journal.answered(CALL, prediction(**inputs), outputs or {"y": np.ones(2), "other": np.ones(2)}, 1_500_000)


def test_nothing_is_written_down_unasked(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert not journal.on
    answer(journal)
    journal.refused(CALL, None, 1)
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_nothing_is_written_down() -> None:
    journal = Journal(None, LogPolicy(access_log=True, predict_percent=100))
    answer(journal)
    assert journal.on


def test_every_prediction_is_a_line_of_the_access_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LogPolicy(access_log=True))
    answer(journal)
    journal.refused(Call(None, ()), InvalidTensor("x", "is odd"), 2_000_000)
    journal.refused(CALL, None, 1_000_000)
    journal.refused(CALL, RuntimeError("ours"), 1_000_000)
    found = lines(tmp_path, ACCESS)
    assert [(line.message, line.logger, line.request_ids) for line in found] == [
        ("answered", "access", ("r1",)),
        ("refused", "access", ()),
        ("refused", "access", ("r1",)),
        ("refused", "access", ("r1",)),
    ]
    assert found[0].attributes == {"method": "predict", "rows": "2", "milliseconds": "1.5", "number": "1"}
    assert found[1].attributes["code"] == "INVALID_ARGUMENT"
    assert [line.attributes["reason"] for line in found[2:]] == ["CANCELLED", "INTERNAL"]
    assert stat.S_IMODE((tmp_path / ACCESS).stat().st_mode) == 0o600
    assert not (tmp_path / PREDICT).exists()


@pytest.mark.parametrize(("percent", "written"), [(0, 0), (1, 1), (50, 50), (100, 100)])
def test_a_share_of_predictions_is_written_down(tmp_path: Path, percent: int, written: int) -> None:
    chances = iter([number / 100 for number in range(100)])
    journal = Journal(tmp_path, LogPolicy(predict_percent=percent), chance=lambda: next(chances))
    for _ in range(100):
        answer(journal)
    assert len(lines(tmp_path, PREDICT)) == written
    assert not (tmp_path / ACCESS).exists()


def test_tensors_are_written_down_with_values_only_if_wanted(tmp_path: Path) -> None:
    x, t = np.array([[1, np.nan], [np.inf, -2.5]], np.float32), np.array([b"a\xff", b"z" * 5000], object)
    journal = Journal(tmp_path, LogPolicy(predict_percent=100))
    answer(journal, x=x, t=t)
    journal.switch(LogPolicy(predict_percent=100, include_payload=True))
    answer(journal, x=x, t=t)
    without, with_values = lines(tmp_path, PREDICT)
    assert json.loads(without.attributes["inputs"]) == {
        "x": {"dtype": "float32", "shape": [2, 2]},
        "t": {"dtype": "object", "shape": [2]},
    }
    inputs = json.loads(with_values.attributes["inputs"])
    assert inputs["x"]["values"] == [1.0, "nan", "inf", -2.5]
    assert inputs["t"]["values"] == ["a\ufffd", "z" * 1000]
    outputs = json.loads(with_values.attributes["outputs"])
    assert outputs == {"y": {"dtype": "float64", "shape": [2], "values": [1.0, 1.0]}}
    assert (with_values.attributes["method"], with_values.attributes["id"]) == ("predict", "mine")
    journal.switch(LogPolicy())
    answer(journal, x=x)
    assert not journal.on
    assert len(lines(tmp_path, PREDICT)) == 2


def test_large_tensors_are_cut_and_lines_stay_readable(tmp_path: Path) -> None:
    journal = Journal(tmp_path, LogPolicy(predict_percent=100, include_payload=True))
    answer(journal, x=np.arange(VALUES + 7))
    answer(journal, **{f"text{number}": np.array([b"x" * 1000] * 9, object) for number in range(3)})
    answer(journal, **{f"tensor{number}": np.ones(1) for number in range(2000)})
    cut, shapes, none = (json.loads(line.attributes["inputs"]) for line in lines(tmp_path, PREDICT))
    assert (len(cut["x"]["values"]), cut["x"]["values_left_out"]) == (VALUES, 7)
    assert shapes["text0"] == {"dtype": "object", "shape": [9]}
    assert none == {"tensors_left_out": 2000}


def test_files_are_put_aside_when_they_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_FULL", 1000)
    journal = Journal(tmp_path, LogPolicy(access_log=True))
    for _ in range(100):
        answer(journal)
    files = list(tmp_path.iterdir())
    assert len(files) in (3, 4)  # the newest may just have been put aside
    assert all(file.stat().st_size < 1300 for file in files)


def test_a_disk_that_refuses_hurts_nobody(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "gone", LogPolicy(access_log=True))
    answer(journal)
    (tmp_path / "gone").mkdir()
    answer(journal)
    assert len(lines(tmp_path / "gone", ACCESS)) == 1


def test_lines_are_numbered_also_over_restarts_and_full_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_FULL", 1000)
    policy = LogPolicy(access_log=True)
    for _ in range(3):
        journal = Journal(tmp_path, policy)
        for _ in range(5):
            answer(journal)
    assert [line.attributes["number"] for line in lines(tmp_path, ACCESS)] == [str(n) for n in range(1, 16)]
    log_files.rotate(tmp_path / ACCESS)
    answer(Journal(tmp_path, policy))
    assert lines(tmp_path, ACCESS)[-1].attributes["number"] == "16"


def test_a_line_names_the_trace_of_its_prediction(tmp_path: Path) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    journal = Journal(tmp_path, LogPolicy(access_log=True))
    journal.answered(Call(None, (("traceparent", trace),)), prediction(), {"y": np.ones(2)}, 1)
    assert lines(tmp_path, ACCESS)[0].attributes["traceparent"] == trace
