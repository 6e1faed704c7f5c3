"""OCI's introspection tests, each of them, and what they must not trip over."""

from __future__ import annotations

import json

import pytest

from modelyard.oci import MemoryTree, Report, Result, is_oci, run
from modelyard.oci.table import TABLE

SCORE = b"""
def load_model(model_file_name="m"):
    return object()

def predict(data, model=load_model(), input_schema_path="x"):
    return {"prediction": []}
"""
RUNTIME = b"""
MODEL_ARTIFACT_VERSION: '3.0'
MODEL_DEPLOYMENT:
  INFERENCE_CONDA_ENV:
    INFERENCE_ENV_PATH: oci://bucket@namespace/env
    INFERENCE_ENV_SLUG: slug
    INFERENCE_ENV_TYPE: published
    INFERENCE_PYTHON_VERSION: '3.11'
MODEL_PROVENANCE:
  PROJECT_OCID: ''
"""
IDS = [
    "score_py", "runtime_yaml", "score_syntax", "score_load_model", "score_predict", "score_predict_data",
    "score_predict_arg", "runtime_version", "runtime_env_python", "runtime_env_path", "runtime_path_exist",
    "runtime_env_type", "runtime_env_slug", "runtime_slug_exist",
]  # fmt: skip


def report(score: bytes | None = SCORE, runtime: bytes | None = RUNTIME, **others: bytes) -> Report:
    files = {"score.py": score, "runtime.yaml": runtime, **others}
    return run(MemoryTree({name: content for name, content in files.items() if content is not None}))


def failed(found: Report) -> list[str]:
    return [test.id for test in found.failures]


def message(found: Report, id_: str) -> str:
    return next(test.message for test in found.tests if test.id == id_)


def environment(line: str) -> bytes:
    """The runtime.yaml with one line of the environment replaced."""
    key = line.partition(":")[0]
    lines = [f"    {line}" if old.strip().startswith(key) else old for old in RUNTIME.decode().splitlines()]
    return "\n".join(lines).encode()


def test_a_right_artifact_passes_in_ocis_order() -> None:
    found = report()
    assert found.passed
    assert [test.id for test in found.tests] == IDS == list(TABLE)
    skipped = {test.id for test in found.tests if test.result is Result.SKIPPED}
    assert skipped == {"runtime_path_exist", "runtime_slug_exist"}


def test_the_json_is_that_of_ocis_validator_and_the_same_every_time() -> None:
    found = json.loads(report(score=None).to_json())
    assert report(score=None).to_json() == report(score=None).to_json()
    assert list(found) == IDS
    entry = found["score_py"]
    assert entry["category"] == "Mandatory Files Check"
    assert entry["success"] is False
    assert entry["error_msg"] == "The file 'score.py' is missing."
    assert "success" not in found["score_syntax"]
    assert found["runtime_env_python"] == {
        "category": "conda_env",
        "description": "Check that field MODEL_DEPLOYMENT.INFERENCE_PYTHON_VERSION is set to a value of 3.6 or higher",
        "error_msg": "In runtime.yaml, the key MODEL_DEPLOYMENT.INFERENCE_PYTHON_VERSION must be set to a value of 3.6 or higher.",
        "success": True,
        "value": "3.11",
    }


def test_one_run_knows_nothing_of_another() -> None:
    broken = report(score=None, runtime=None)
    assert report().passed
    assert report(score=None, runtime=None) == broken


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"sub/score.py": SCORE}, "score.py is in sub/: it must be at the top level."),
        ({"a/score.py": b"", "b/c/score.py": b""}, "score.py is in a/, b/c/: it must be at the top level."),
        ({"Score.py": SCORE}, "There is Score.py: it must be called score.py, at the top level."),
    ],
)
def test_a_score_py_in_the_wrong_place_is_named(others: dict[str, bytes], told: str) -> None:
    found = report(score=None, **others)
    assert failed(found) == ["score_py"]
    assert message(found, "score_py") == f"The file 'score.py' is missing. {told}"


def test_a_runtime_yaml_in_the_wrong_place_is_named() -> None:
    found = report(runtime=None, **{"model/runtime.yaml": RUNTIME})
    assert failed(found) == ["runtime_yaml"]
    assert "runtime.yaml is in model/" in message(found, "runtime_yaml")
    assert "runtime.yml" in message(report(runtime=None, **{"runtime.yml": RUNTIME}), "runtime_yaml")


@pytest.mark.parametrize(
    ("source", "ids", "told"),
    [
        (b"def predict(:", ["score_syntax"], "There is Syntax error in score.py: "),
        (b"\0", ["score_syntax"], "null bytes"),
        (b"\xff\xfe", ["score_syntax"], "There is Syntax error in score.py:"),
        (b"def predict(data): ...", ["score_load_model"], "Function load_model is not present in score.py."),
        (b"def load_model(): ...", ["score_predict"], "Function predict is not present in score.py."),
        (b"def load_model(): ...\ndef predict(): ...", ["score_predict_data"], "It takes no arguments."),
        (
            b"def load_model(): ...\ndef predict(rows): ...",
            ["score_predict_data", "score_predict_arg"],
            "is named rows.",
        ),
        (
            b"def load_model(): ...\ndef predict(model=1, data=2): ...",
            ["score_predict_data"],
            "is named model.",
        ),
        (b"def load_model(): ...\ndef predict(*, data): ...", ["score_predict_data"], "by keyword only."),
        (b"def load_model(): ...\ndef predict(*data): ...", ["score_predict_data"], "It takes only *data."),
        (b"def load_model(): ...\ndef predict(data, model): ...", ["score_predict_arg"], "model has none."),
        (
            b"def load_model(): ...\ndef predict(data, *, a, b=1, c): ...",
            ["score_predict_arg"],
            "a, c have none.",
        ),
        (
            b"class A:\n def load_model(): ...\n def predict(data): ...",
            ["score_load_model", "score_predict"],
            "",
        ),
    ],
)
def test_what_is_wrong_in_a_score_py(source: bytes, ids: list[str], told: str) -> None:
    found = report(score=source)
    assert failed(found) == ids
    assert told in message(found, ids[0])
    assert message(found, ids[0]).startswith(TABLE[ids[0]].message)


@pytest.mark.parametrize(
    "source",
    [
        b"async def load_model(): ...\nasync def predict(data): ...",
        b"def load_model(): ...\ndef predict(data, /, model=1, *args, key=2, **more): ...",
        b"def load_model(): ...\ndef predict(data=None): ...",
        b"try:\n def load_model(): ...\nexcept E:\n pass\nif x:\n def predict(data): ...",
        b"# coding: latin-1\n# \xe9\ndef load_model(): ...\ndef predict(data): ...",
        "def load_model(): ...\ndef predict(data): return 'é \\d'".encode(),
        b"\xef\xbb\xbfdef load_model(): ...\ndef predict(data): ...",
    ],
)
def test_what_is_right_in_a_score_py(source: bytes) -> None:
    assert failed(report(score=source)) == []


@pytest.mark.parametrize(
    "bomb",
    [
        b"(" * 100_000,
        b"x = " + b"-" * 200_000 + b"1",
        b"x = " + b"1+" * 200_000 + b"1",
        b"x = a" + b".b" * 200_000,
        b"x = " + b"lambda:" * 20_000 + b"1",
        b"\n".join(b" " * i + b"if 1:" for i in range(1_000)),
        b"#" * (1024 * 1024 + 1),
    ],
    ids=["parentheses", "signs", "sum", "attributes", "lambdas", "blocks", "large"],
)
def test_a_score_py_that_is_a_bomb_fails_its_syntax_test(bomb: bytes) -> None:
    assert failed(report(score=bomb)) == ["score_syntax"]


@pytest.mark.parametrize(
    ("line", "id_"),
    [
        ("INFERENCE_PYTHON_VERSION: '3.5'", "runtime_env_python"),
        ("INFERENCE_PYTHON_VERSION: 3", "runtime_env_python"),
        ("INFERENCE_PYTHON_VERSION:", "runtime_env_python"),
        ("INFERENCE_PYTHON_VERSION: [3.11]", "runtime_env_python"),
        ("INFERENCE_PYTHON_VERSION: 2.99", "runtime_env_python"),
        ("INFERENCE_ENV_PATH:", "runtime_env_path"),
        ("INFERENCE_ENV_PATH: ~", "runtime_env_path"),
        ("INFERENCE_ENV_PATH: null", "runtime_env_path"),
        ("INFERENCE_ENV_PATH: ''", "runtime_env_path"),
        ("INFERENCE_ENV_PATH: envs/none", "runtime_path_exist"),
        ("INFERENCE_ENV_TYPE: conda", "runtime_env_type"),
    ],
)
def test_what_is_wrong_in_the_environment(line: str, id_: str) -> None:
    found = report(runtime=environment(line))
    assert failed(found) == [id_]
    assert message(found, id_).startswith(TABLE[id_].message)


@pytest.mark.parametrize("version", ["3.6", "3.10", "'3.10'", "3.13", "3.14.1", "3.99", "4.0", '"3.8"'])
def test_python_versions_are_read_as_they_are_written(version: str) -> None:
    found = report(runtime=environment(f"INFERENCE_PYTHON_VERSION: {version}"))
    assert found.passed
    assert next(test.value for test in found.tests if test.id == "runtime_env_python") == version.strip("'\"")


def test_a_path_in_the_artifact_is_looked_up() -> None:
    runtime = environment("INFERENCE_ENV_PATH: ./envs/mine")
    assert report(runtime=runtime, **{"envs/mine/conda.yaml": b""}).passed
    assert failed(report(runtime=runtime)) == ["runtime_path_exist"]


@pytest.mark.parametrize("line", ["INFERENCE_ENV_TYPE:", "INFERENCE_ENV_SLUG:"])
def test_what_oci_made_optional_may_be_absent(line: str) -> None:
    assert report(runtime=environment(line)).passed


@pytest.mark.parametrize("version", ["MODEL_ARTIFACT_VERSION: 2.0", "MODEL_ARTIFACT_VERSION:", "OTHER: 1"])
def test_the_artifact_version(version: str) -> None:
    runtime = RUNTIME.replace(b"MODEL_ARTIFACT_VERSION: '3.0'", version.encode())
    assert failed(report(runtime=runtime)) == ["runtime_version"]
    assert report(runtime=RUNTIME.replace(b"'3.0'", b"3.0")).passed


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"a: [", "runtime.yaml is not valid."),
        (b"- a\n- b", "does not hold a mapping"),
        (b"", "does not hold a mapping"),
        (b"a: 1\n---\nb: 2", "runtime.yaml is not valid."),
        (b"a: 1\na: 2", "the key a is there twice"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"? [a]\n: 1", "a key is not a text"),
        (b"a: !!python/object/apply:os.system [x]", ""),
        (b"[" * 5_000, "nested more than 20 levels"),
        (b"x: " * 3 + b"{a: " * 40, ""),
        (b"a: &a {b: *a}", "refers to what it stands in"),
        (b"a: &a x\nb: [" + b"*a," * 101 + b"]", "more than 100 aliases"),
        (b"a: '" + b"x" * 70_000 + b"'", "larger than 65,536 bytes"),
    ],
)
def test_a_runtime_yaml_that_cannot_be_read_fails_and_harms_nobody(source: bytes, told: str) -> None:
    found = report(runtime=source)
    assert failed(found)[0] == "runtime_version"
    assert told in message(found, "runtime_version")


def test_aliases_of_aliases_cost_nothing() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 11)]
    found = report(runtime="\n".join(lines).encode() + RUNTIME)
    assert found.passed


def test_nothing_in_a_message_is_endless_or_cannot_be_stored() -> None:
    names = ", ".join(f"argument_{n}" for n in range(50_000))
    found = report(
        score=f"def load_model(): ...\ndef predict(data, {names}): ...".encode(),
        runtime=environment('INFERENCE_PYTHON_VERSION: "\\ud800"'),
    )
    assert all(len(test.message) <= 1_100 and len(test.value) <= 1_100 for test in found.tests)
    found.to_json().encode()


@pytest.mark.parametrize(
    ("names", "oci"),
    [
        (["score.py"], True),
        (["runtime.yaml", "x"], True),
        (["a/score.py", "a/runtime.yaml"], True),
        (["a/score.py"], False),
        (["model.onnx"], False),
    ],
)
def test_what_is_an_oci_artifact(names: list[str], oci: bool) -> None:
    assert is_oci(names) is oci
