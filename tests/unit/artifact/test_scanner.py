"""What the scanner finds, and what it calls files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zlib
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier

from modelyard_artifact.inspection.bounds import Bounds
from modelyard_artifact.inspection.scanner import SCANNER, Scanner

from . import samples
from .samples import EVIL, npy, onnx, safetensors, tarred, zipped


def scan(data: bytes, *, whole: bool = True, **bounds: Any) -> dict[str, Any]:
    scanner = Scanner(Bounds(**bounds))
    scanner.scan("f", io.BytesIO(data), whole=whole)
    result = scanner.result()
    assert len(result["formats"]) == 1
    return result | result["formats"][0]


def found(result: dict[str, Any], severity: str) -> list[tuple[str, str]]:
    return [(one["path"], one["subject"]) for one in result["findings"] if one["severity"] == severity]


FOREST = RandomForestClassifier(3, random_state=0).fit(np.arange(20.0).reshape(10, 2), [0, 1] * 5)


def joblibbed(value: Any, compress: Any = 0) -> bytes:
    out = io.BytesIO()
    joblib.dump(value, out, compress=compress)
    return out.getvalue()


HARMFUL = {
    "protocol 0": (EVIL, "f"),
    "cut off": (samples.CUT_OFF, "f"),
    "stack global": (samples.STACK_GLOBAL, "f"),
    "memoised": (samples.MEMOISED, "f"),
    "inst": (samples.INST, "f"),
    "behind another": (samples.HARMLESS + samples.STACK_GLOBAL, "f"),
    "behind many": (samples.HARMLESS * 20 + EVIL, "f"),
    "zip": (zipped(a=EVIL), "f!a"),
    "zip in zip": (zipped(a=zipped(b=EVIL)), "f!a!b"),
    "pytorch": (zipped(**{"archive/data.pkl": EVIL, "archive/version": b"3\n"}), "f!archive/data.pkl"),
    "tar": (tarred(a=EVIL), "f!a"),
    "tar.gz": (gzip.compress(tarred(a=EVIL)), "f!a"),
    "gzip": (gzip.compress(EVIL), "f"),
    "bzip2": (bz2.compress(EVIL), "f"),
    "xz": (lzma.compress(EVIL), "f"),
    "lzma": (lzma.compress(EVIL, format=lzma.FORMAT_ALONE), "f"),
    "zlib": (zlib.compress(EVIL), "f"),
    "array of objects": (npy("'|O'", EVIL), "f"),
    "array of records": (npy("[('a', '<f8'), ('b', '|O')]", EVIL), "f"),
    "npz": (zipped(**{"a.npy": npy("'|O'", EVIL)}), "f!a.npy"),
    "behind much": (b"I1\n0" * 30_000 + EVIL, "f"),
    "behind a long text": (b"S'" + b"A" * 2_000_000 + b"'\n0" + EVIL, "f"),
    "before an extension": (samples.CUT_OFF + b"\x82\x01", "f"),
    "behind a joblib": (joblibbed(FOREST) + EVIL, "f"),
    "zip behind text": (b"hello " * 50 + zipped(a=EVIL), "f!a"),
    "zip behind tensors": (safetensors() + zipped(a=EVIL), "f!a"),
}


@pytest.mark.parametrize(("data", "path"), HARMFUL.values(), ids=HARMFUL)
def test_harmful_pickles_are_found_wherever_they_are(data: bytes, path: str) -> None:
    result = scan(data)
    assert (path, "posix.system") in found(result, "CRITICAL")
    assert result["scan"] == "FOUND"
    assert result["may_run_code"] is True


def test_a_call_inside_of_what_joblib_wrote_is_found() -> None:
    """The call stands between two arrays, whose bytes no reader of pickles can get through."""

    class Call:
        def __reduce__(self) -> Any:
            return (__import__("os").system, ("true",))

    data = joblibbed([np.arange(100.0), Call(), np.arange(50.0)])
    result = scan(data)
    assert ("f", "posix.system") in found(result, "CRITICAL")
    objects = scan(joblibbed([np.array([Call(), 1], dtype=object), np.arange(9)]))
    assert ("f", "posix.system") in found(objects, "CRITICAL")


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
def test_models_of_joblib_are_read_to_their_end(compress: Any) -> None:
    result = scan(joblibbed(FOREST, compress))
    assert result["scan"] == "CLEAN"
    assert ("f", "sklearn.ensemble._forest.RandomForestClassifier") in found(result, "LOW")
    assert result["may_run_code"] is True
    cut = scan(joblibbed(FOREST)[:-100])
    assert cut["scan"] == "INCOMPLETE"


def test_following_joblib_runs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    data = joblibbed(np.arange(3.0)) + b"\x80\x02c__builtin__\nprint\nX\x04\x00\x00\x00HARM\x85R."
    result = scan(data)
    assert ("f", "__builtin__.print") in found(result, "HIGH")
    assert "HARM" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("data", "severity", "subject"),
    [
        (samples.EXTENSION, "CRITICAL", "unknown"),
        (samples.HIDDEN, "CRITICAL", "unknown"),
        (samples.BUILTIN, "HIGH", "__builtin__.__import__"),
        (samples.ODD, "MEDIUM", "my_company.tools.helper"),
        (b"\x80\x02cpandas\nread_sql\n)R.", "MEDIUM", "pandas.read_sql"),
        (b"\x80\x02csklearn.svm\nSVC\n)R.", "LOW", "sklearn.svm.SVC"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100) + b'{"class_name": "Lambda"}', "HIGH", "keras.layers.Lambda"),
        (b"\x08\x01\x12" + b"saved_model serving_default" + b"ReadFile", "HIGH", "tensorflow.ReadFile"),
        (onnx(b"../../etc/passwd"), "HIGH", "../../etc/passwd"),
        (onnx(b"/etc/passwd"), "HIGH", "/etc/passwd"),
        (b"\x7fELF" + bytes(60), "MEDIUM", "elf"),
    ],
)
def test_how_bad_a_finding_is(data: bytes, severity: str, subject: str) -> None:
    result = scan(data)
    assert ("f", subject) in found(result, severity)
    assert result["scan"] == ("CLEAN" if severity == "LOW" else "FOUND")


FORMATS = {
    "onnx": (onnx(), False),
    "safetensors": (safetensors(), False),
    "skops": (skops.io.dumps(FOREST), False),
    "pickle": (pickle.dumps(FOREST), True),
    "npy": (npy("'<f8'", bytes(8)), False),
    "npz": (zipped(**{"a.npy": npy("'<f8'", bytes(8))}), False),
    "zip": (zipped(a=b"text"), False),
    "tar": (tarred(a=b"text"), False),
    "gzip": (gzip.compress(b"text"), False),
    "gguf": (b"GGUF" + bytes(20), False),
    "keras": (zipped(**{"config.json": b"{}", "metadata.json": b'{"keras_version": "3"}'}), True),
    "pytorch": (zipped(**{"m/data.pkl": samples.HARMLESS}), True),
    "torchscript": (zipped(**{"m/constants.pkl": samples.HARMLESS, "m/code/a.py": b"x = 1"}), True),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), True),
    "python": (b"import os\n\ndef predict(data):\n    return data\n", True),
    "script": (b"#!/bin/sh\ntrue\n", True),
    "json": (b'{"a": [1, 2]}', False),
    "yaml": (b"MODEL_ARTIFACT_VERSION: '3.0'\nA:\n  B: c\n", False),
    "text": (b"Just some words. And a few more.\n", False),
    "empty": (b"", False),
    "other": (bytes(range(128, 256)) * 4, False),
}


@pytest.mark.parametrize(("name", "sample"), FORMATS.items(), ids=FORMATS)
def test_formats_are_told_by_content(name: str, sample: tuple[bytes, bool]) -> None:
    data, runs = sample
    result = scan(data)
    assert (result["format"], result["may_run_code"]) == (name, runs)
    assert result["scan"] == "CLEAN"


def test_an_onnx_of_a_real_converter() -> None:
    from skl2onnx import to_onnx

    model = to_onnx(FOREST, np.zeros((1, 2), np.float32)).SerializeToString()
    assert scan(model)["format"] == "onnx"
    assert scan(model + b"x")["format"] != "onnx"


@pytest.mark.parametrize(
    "text",
    [
        b"cat\ndog\n",
        b"N.",
        b"0.\n",
        b"(1, 2)\n",
        b"a.\n",
        b"class Foo:\n  x: int\n",
        b"import\nthis\n",
        b"I1\n.x",
    ],
)
def test_text_is_no_pickle_by_chance(text: bytes) -> None:
    assert scan(text)["format"] != "pickle"


@pytest.mark.parametrize(
    ("data", "bounds", "why"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), {}, "nothing here can open"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), {}, "nothing here can open"),
        (
            gzip.compress(bytes(2_000_000), mtime=0),
            {"unpacked_bytes": 1_000_000},
            "unpacks to more than 1,000,000 bytes",
        ),
        (zipped(**{f"f{n}": b"x" for n in range(20)}), {"members": 10}, "more than 10"),
        (zipped(a=zipped(a=zipped(a=b"x"))), {"depth": 2}, "2 levels deep"),
        (samples.HARMLESS[:-2], {}, "cannot be read to its end"),
        (gzip.compress(b"x" * 10_000, mtime=0)[:-20], {}, "cannot be uncompressed"),
        (npy("'|O'", b"")[:30], {}, "header of the array"),
        (npy("__import__('os')", b""), {}, "header of the array"),
    ],
)
def test_what_cannot_be_scanned_is_told(data: bytes, bounds: dict[str, int], why: str) -> None:
    result = scan(data, **bounds)
    assert result["scan"] == "INCOMPLETE" or any(one["severity"] != "LOW" for one in result["findings"])
    assert any(why in one["description"] for one in result["findings"])


@pytest.mark.parametrize(
    ("data", "scan_result"),
    [
        (EVIL, "FOUND"),
        (samples.HARMLESS, "INCOMPLETE"),
        (safetensors(), "CLEAN"),
        (zipped(a=b"x"), "INCOMPLETE"),
    ],
)
def test_of_a_large_file_only_the_beginning_is_there(data: bytes, scan_result: str) -> None:
    result = scan(data, whole=False)
    assert result["scan"] == scan_result


def test_a_zip_that_shows_two_contents_is_told() -> None:
    data = zipped(a=b"x")
    start = data.find(b"PK\x01\x02")
    lying = data[: start + 46] + b"b" + data[start + 47 :]
    assert ("f", "zip") in found(scan(lying), "MEDIUM")
    hidden = bytearray(zipped(a=EVIL))
    hidden[6] |= 1  # says that it is encrypted, which some programs do not mind
    hidden[hidden.find(b"PK\x01\x02") + 8] |= 1
    assert scan(bytes(hidden))["scan"] == "FOUND"


def test_findings_and_formats_are_bounded_and_the_worst_are_kept() -> None:
    scanner = Scanner(Bounds(findings=5, formats=3))
    for number in range(10):
        scanner.scan(f"odd{number}", io.BytesIO(b"\x80\x02csklearn.svm\nSVC\n)R."), whole=True)
        scanner.scan(f"text{number}", io.BytesIO(b"x"), whole=True)
    scanner.scan("evil", io.BytesIO(EVIL), whole=True)
    result = scanner.result()
    assert len(result["findings"]) == 5
    assert result["findings"][0]["subject"] == "posix.system"
    assert len(result["formats"]) == 3
    assert all(one["may_run_code"] for one in result["formats"])


def test_the_scanner_has_a_name_and_a_version() -> None:
    name, version = SCANNER.split()
    assert name == "picklescan"
    assert version[0].isdigit()
