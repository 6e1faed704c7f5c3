"""OCI's introspection tests: pure, offline, without state, the same result for the same files.

Ids, categories, descriptions and the beginning of every message are OCI's own, in OCI's order. A test that needs another one
to hold first is skipped when that one fails; all others run, so that one look shows everything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modelyard.oci import runtime_yaml, score_py
from modelyard.oci.report import Report, Result, TestResult
from modelyard.oci.table import RUNTIME, SCORE, TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard.oci.tree import Tree

_ENVIRONMENT = ("MODEL_DEPLOYMENT", "INFERENCE_CONDA_ENV")
_PYTHON = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.\d{1,9})?")
_LOWEST_PYTHON = (3, 6)
_SHOWN_PLACES = 3
_SHOWN_CHARACTERS = 1_000


_SCORE_TESTS = (
    "score_syntax",
    "score_load_model",
    "score_predict",
    "score_predict_data",
    "score_predict_arg",
)
_RUNTIME_TESTS = tuple(id_ for id_, test in TABLE.items() if test.category in {"runtime.yaml", "conda_env"})


def is_oci(names: Sequence[str]) -> bool:
    """Whether files are laid out as an OCI model artifact, perhaps a wrong one: some are called score.py or runtime.yaml.

    A score.py or runtime.yaml in a folder counts too if the other one is there anywhere, so that its wrong place can be told.
    """
    bases = {name.rpartition("/")[2] for name in names}
    return SCORE in names or RUNTIME in names or {SCORE, RUNTIME} <= bases


def run(tree: Tree) -> Report:
    """Run every test on the files of an artifact.

    Raises:
        MissingExtra: PyYAML is not installed.
    """
    outcome = _Outcome()
    names = tree.names()
    if _present(outcome, "score_py", SCORE, names):
        _score(outcome, tree.read(SCORE, score_py.MAX_BYTES + 1))
    else:
        outcome.skip(_SCORE_TESTS, f"{SCORE} is missing")
    if _present(outcome, "runtime_yaml", RUNTIME, names):
        _runtime(outcome, tree.read(RUNTIME, runtime_yaml.MAX_BYTES + 1), names)
    else:
        outcome.skip(_RUNTIME_TESTS, f"{RUNTIME} is missing")
    return outcome.report()


class _Outcome:
    """Results as they come."""

    def __init__(self) -> None:
        self._found: dict[str, TestResult] = {}

    def check(self, id_: str, holds: object, detail: str = "", value: str = "") -> bool:
        """Note a test that was run; `detail` goes on where OCI's message ends."""
        test = TABLE[id_]
        result = Result.PASSED if holds else Result.FAILED
        message = "" if holds else f"{test.message} {detail}".strip()
        self._note(id_, result, message, value)
        return bool(holds)

    def fail(self, id_: str, message: str) -> None:
        """Note a failure that OCI words in another way than its table."""
        self._note(id_, Result.FAILED, message)

    def skip(self, ids: Sequence[str], why: str, value: str = "") -> None:
        """Note tests that were not run."""
        for id_ in ids:
            self._note(id_, Result.SKIPPED, f"Not run: {why}.", value)

    def report(self) -> Report:
        """All of them in order."""
        return Report(tuple(self._found[id_] for id_ in TABLE))

    def _note(self, id_: str, result: Result, message: str, value: str = "") -> None:
        test = TABLE[id_]
        # Both may quote the files, which may be made to be quoted at length.
        message, value = _short(message), _short(value)
        self._found[id_] = TestResult(id_, test.category, test.description, result, message, value)


def _present(outcome: _Outcome, id_: str, name: str, names: Sequence[str]) -> bool:
    if name in names:
        return outcome.check(id_, True)
    return outcome.check(id_, False, _whereabouts(name, names))


def _whereabouts(name: str, names: Sequence[str]) -> str:
    deeper = [path.rpartition("/")[0] + "/" for path in names if path.endswith("/" + name)]
    if deeper:
        more = f" and {len(deeper) - _SHOWN_PLACES} more folders" if len(deeper) > _SHOWN_PLACES else ""
        return f"{name} is in {', '.join(deeper[:_SHOWN_PLACES])}{more}: it must be at the top level."
    alike = [
        path for path in names if path.rpartition("/")[2].lower() in {name, name.replace(".yaml", ".yml")}
    ]
    return f"There is {alike[0]}: it must be called {name}, at the top level." if alike else ""


def _score(outcome: _Outcome, source: bytes) -> None:
    try:
        functions = score_py.parse(source).functions
    except score_py.ScoreSyntaxError as error:
        outcome.check("score_syntax", False, str(error))
        outcome.skip(_SCORE_TESTS[1:], f"{SCORE} cannot be parsed")
        return
    outcome.check("score_syntax", True)
    outcome.check("score_load_model", "load_model" in functions)
    predict = functions.get("predict")
    if not outcome.check("score_predict", predict is not None) or predict is None:
        outcome.skip(_SCORE_TESTS[3:], "there is no function predict")
        return
    outcome.check("score_predict_data", predict.first == "data", _first_argument(predict))
    others = [name for name in predict.required if name != "data"]
    verb = "has" if len(others) == 1 else "have"
    outcome.check("score_predict_arg", not others, f"{', '.join(others)} {verb} none.", ", ".join(others))


def _first_argument(predict: score_py.Parameters) -> str:
    if predict.first is not None:
        return f"Its first argument is named {predict.first}."
    if "data" in predict.keyword_only:
        return "Its argument data can be given by keyword only."
    return f"It takes only *{predict.variadic}." if predict.variadic else "It takes no arguments."


def _runtime(outcome: _Outcome, source: bytes, names: Sequence[str]) -> None:
    try:
        runtime = runtime_yaml.parse(source)
    except runtime_yaml.RuntimeInvalid as error:
        outcome.fail("runtime_version", f"runtime.yaml is not valid. {_sentence(str(error))}")
        outcome.skip(_RUNTIME_TESTS[1:], f"{RUNTIME} cannot be read")
        return
    version = _text(runtime.get("MODEL_ARTIFACT_VERSION"))
    outcome.check("runtime_version", version == "3.0", _is(version), version)
    python = _text(runtime.get(*_ENVIRONMENT, "INFERENCE_PYTHON_VERSION"))
    outcome.check("runtime_env_python", _python_is_new_enough(python), _is(python), python)
    path = _text(runtime.get(*_ENVIRONMENT, "INFERENCE_ENV_PATH"))
    if outcome.check("runtime_env_path", path, value=path):
        _path_exists(outcome, path, names)
    else:
        outcome.skip(["runtime_path_exist"], "no path is given")
    _environment_kind(outcome, runtime)


def _path_exists(outcome: _Outcome, path: str, names: Sequence[str]) -> None:
    if "://" in path:
        outcome.skip(
            ["runtime_path_exist"], "only OCI can tell whether there is something at this address", path
        )
        return
    wanted = path.removeprefix("./").rstrip("/")
    found = any(name == wanted or name.startswith(wanted + "/") for name in names)
    outcome.check("runtime_path_exist", found, f"There is no {path} in the artifact.", path)


def _environment_kind(outcome: _Outcome, runtime: runtime_yaml.Runtime) -> None:
    """Type and slug, which OCI has made optional: wrong is only what is there and is none of its values."""
    kind = _text(runtime.get(*_ENVIRONMENT, "INFERENCE_ENV_TYPE"))
    if kind:
        outcome.check("runtime_env_type", kind in {"published", "data_science"}, _is(kind), kind)
    else:
        outcome.skip(["runtime_env_type"], "the key is optional and has no value")
    slug = _text(runtime.get(*_ENVIRONMENT, "INFERENCE_ENV_SLUG"))
    if slug:
        outcome.check("runtime_env_slug", True, value=slug)
        outcome.skip(["runtime_slug_exist"], "only OCI can tell which environments it offers", slug)
    else:
        outcome.skip(["runtime_env_slug", "runtime_slug_exist"], "the key is optional and has no value")


def _python_is_new_enough(version: str) -> bool:
    numbers = _PYTHON.fullmatch(version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= _LOWEST_PYTHON


def _text(value: object) -> str:
    """A scalar as it is written; empty for what is missing, null, or no scalar."""
    return value.strip() if isinstance(value, str) else ""


def _short(text: str) -> str:
    text = (
        text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
    )  # what JSON and databases can hold
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _is(value: str) -> str:
    return f"It is {value}." if value else "It has no value."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
