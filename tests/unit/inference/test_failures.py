"""Where a model failed is told, and nothing of what it was given."""

from __future__ import annotations

import traceback

from modelyard_inference.failures import last_failure
from modelyard_inference.log_files import Line


def failed(exception: str, message: str = "model_failed") -> Line:
    return Line(message, attributes={"exception": exception, "method": "predict"})


def text_of(work: str) -> str:
    """Return the traceback of what a line of code raises, as a replica logs it."""
    try:
        exec(compile(work, "/models/x/model.py", "exec"), {})
    except Exception:  # noqa: BLE001 - whatever it is
        return traceback.format_exc().rstrip()
    raise AssertionError(work)


def test_the_last_failure_has_a_kind_and_a_place() -> None:
    lines = [failed(text_of("1 / 0")), failed(text_of("\n\nint('a secret')")), Line("model_failed")]
    assert last_failure(lines) == "ValueError in model.py, line 3, in <module>"


def test_of_one_that_followed_another_the_last_is_told() -> None:
    chained = text_of("try:\n    1 / 0\nexcept ZeroDivisionError:\n    {}['a secret']")
    assert last_failure([failed(chained)]) == "KeyError in model.py, line 4, in <module>"


def test_a_kind_of_a_library_has_its_module() -> None:
    assert last_failure([failed(text_of("import json; json.loads('x')"))]).startswith(
        "json.decoder.JSONDecodeError in decoder.py, line "
    )


def test_what_is_no_failure_of_a_model_is_not_told() -> None:
    assert last_failure([]) == ""
    assert last_failure([failed(text_of("1 / 0"), "replica_failed"), failed("no traceback: a secret")]) == ""
