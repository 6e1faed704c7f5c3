"""JSON as MLflow and OCI send it becomes the tensors of the signature, or a refusal that names the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard_inference.replica import invocations
from modelyard_inference.replica.config import ReplicaConfig
from modelyard_inference.replica.contract import Contract
from modelyard_inference.runtimes.signature import MethodSignature, Signature, TensorSpec
from modelyard_kit.errors import DomainError

MATRIX = MethodSignature(
    "predict", (TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("label", "INT64", (-1,)),)
)
TABLE = MethodSignature(
    "predict",
    (TensorSpec("age", "INT64", (-1,)), TensorSpec("city", "BYTES", (-1, 1))),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("score", "FP64", (-1, 2))),
)
PROBABILITIES = MethodSignature("predict_proba", MATRIX.inputs, (TensorSpec("p", "FP64", (-1, 2)),))


def contract(*methods: MethodSignature) -> Contract:
    return Contract(
        ReplicaConfig(
            deployment="d",
            model="c.s.m",
            version=1,
            artifact_digest="sha256:0",
            model_directory=Path("/m"),
            runtime="sklearn",
            listen="unix:/s",
            signature=Signature(methods),
        )
    )


def parse(body: Any, *methods: MethodSignature) -> Any:
    return invocations.parse("d", "", json.dumps(body).encode(), contract(*methods))


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2], [3, 4]]},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"x": [[1, 2], [3, 4]]}},
        {"dataframe_split": {"columns": ["a", "b"], "index": [0, 1], "data": [[1, 2], [3, 4]]}},
        {"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]},
        [[1, 2], [3, 4]],
        {"data": [[1, 2], [3, 4]]},
    ],
)
def test_rows_of_a_matrix(body: Any) -> None:
    prediction = parse(body, MATRIX)
    assert prediction.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert (prediction.inputs["x"].dtype, prediction.rows) == (np.float32, 2)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["city", "age"], "data": [["Rome", 3], ["Ulm", 4]]}},
        {"dataframe_records": [{"city": "Rome", "age": 3}, {"age": 4, "city": "Ulm"}]},
        {"inputs": {"age": [3, 4], "city": [["Rome"], ["Ulm"]]}},
        {"instances": [{"city": "Rome", "age": 3}, {"city": "Ulm", "age": 4}]},
        [[3, "Rome"], [4, "Ulm"]],  # in the order of the signature
        {"age": [3, 4], "city": ["Rome", "Ulm"]},
    ],
)
def test_columns_of_a_table(body: Any) -> None:
    prediction = parse(body, TABLE)
    assert prediction.inputs["age"].tolist() == [3, 4]
    assert prediction.inputs["city"].tolist() == [[b"Rome"], [b"Ulm"]]


def test_another_method_is_named_by_a_parameter() -> None:
    prediction = parse({"instances": [[1, 2]], "params": {"method": "predict_proba"}}, MATRIX, PROBABILITIES)
    assert prediction.method == "predict_proba"


@pytest.mark.parametrize(
    ("body", "method", "field", "words"),
    [
        ("text", MATRIX, "body", "rows"),
        (None, MATRIX, "body", "rows"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, MATRIX, "inputs", "one of"),
        ({"instances": [[1, 2]], "params": 3}, MATRIX, "params", "object"),
        ({"instances": [[1, 2]], "params": {"method": "none"}}, MATRIX, "parameters.method", "none"),
        ({"instances": []}, MATRIX, "x", "batch-size"),
        ({"instances": [[1, 2, 3]]}, MATRIX, "x", "shape"),
        ({"instances": [[1, 2], [3]]}, MATRIX, "x", "rows differ"),
        ({"instances": [[1, "2"]]}, MATRIX, "x", "numbers"),
        ({"instances": [[1, None]]}, MATRIX, "x", "numbers"),
        ({"dataframe_split": [[1]]}, MATRIX, "dataframe_split", "columns"),
        ({"dataframe_split": {"data": [[1]]}}, MATRIX, "dataframe_split.columns", "names"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, MATRIX, "dataframe_split.data[0]", "1 values"),
        ({"dataframe_records": [{"a": 1}, {"b": 1}]}, MATRIX, "dataframe_records[1]", "columns a"),
        ({"inputs": {"age": [1], "town": ["Ulm"]}}, TABLE, "town", "unexpected"),
        ({"inputs": {"age": [1]}}, TABLE, "city", "missing"),
        ({"inputs": {"age": 1, "city": ["Ulm"]}}, TABLE, "age", "list"),
        ({"inputs": {"age": [1.5], "city": ["Ulm"]}}, TABLE, "age", "whole numbers"),
        ([[1, "Ulm"], [2]], TABLE, "body[1]", "age, city"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(body: Any, method: MethodSignature, field: str, words: str) -> None:
    with pytest.raises(DomainError, match=words) as refused:
        parse(body, method)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert [violation.field for violation in refused.value.violations] == [field]


def test_what_is_no_json_is_refused() -> None:
    for body in (b"", b"a,b\n1,2", b"[" * 100_000):
        with pytest.raises(DomainError, match="is not JSON"):
            invocations.parse("d", "", body, contract(MATRIX))


def parse_csv(text: str | bytes, *methods: MethodSignature, content_type: str = "text/csv") -> Any:
    body = text if isinstance(text, bytes) else text.encode()
    return invocations.parser(content_type)("d", "", body, contract(*methods))


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n3,4.0\n",
        "a,b\r\n1, 2\r\n\r\n3,4",
        '"a","b"\n"1","2"\n3,4\n',
        ",a,b\n0,1,2\n1,3,4\n",  # with the index, as pandas writes it unless told not to
        "\ufeffa,b\n1,2\n3,4\n",
    ],
)
def test_csv_of_a_matrix(text: str) -> None:
    prediction = parse_csv(text, MATRIX, content_type="Text/CSV; charset=UTF-8")
    assert prediction.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert (prediction.inputs["x"].dtype, prediction.rows) == (np.float32, 2)


def test_csv_of_a_table() -> None:
    prediction = parse_csv('city,age\n"Rome, old",3\nÜlm,4\n"two\nlines",5\n', TABLE)
    assert prediction.inputs["age"].tolist() == [3, 4, 5]
    assert prediction.inputs["city"].tolist() == [[b"Rome, old"], ["Ülm".encode()], [b"two\nlines"]]
    flags = MethodSignature("predict", (TensorSpec("f", "BOOL", (-1,)),), MATRIX.outputs)
    assert parse_csv("f\nTrue\nfalse\n", flags).inputs["f"].tolist() == [True, False]
    missing = parse_csv("a,b\n1,\nnan,inf\n", MATRIX).inputs["x"]
    np.testing.assert_array_equal(missing, [[1, np.nan], [np.nan, np.inf]])


@pytest.mark.parametrize("index", [True, False])
def test_csv_as_pandas_writes_it(index: bool) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"city": ["a, b", 'say "c"', "d\ne"], "age": [1, -2, 3]})
    prediction = parse_csv(frame.to_csv(index=index), TABLE)
    assert prediction.inputs["age"].tolist() == [1, -2, 3]
    assert [text.decode() for text in prediction.inputs["city"].ravel()] == frame["city"].tolist()


@pytest.mark.parametrize(
    ("text", "method", "field", "words"),
    [
        ("", MATRIX, "body", "names of columns"),
        ("\n1,2\n", MATRIX, "body", "line 2 has 2 values for 0 columns"),
        ("a,a\n1,2\n", MATRIX, "body", "each another one"),
        ("a,b\n1,2\n3\n", MATRIX, "body", "line 3 has 1 values for 2 columns"),
        ("a,b\n1,2,3\n", MATRIX, "body", "line 2 has 3 values"),
        ('a,b\n"1,2\n', MATRIX, "body", "is not CSV"),
        (b"a,b\n\xff,2\n", MATRIX, "body", "is not UTF-8"),
        ("a,b\n", MATRIX, "x", "batch-size"),
        ("a,b\n1_0,2\n", MATRIX, "x", "'1_0' is not a number"),
        ("a,b\n1,two\n", MATRIX, "x", "'two' is not a number"),
        ("a,b,c\n1,2,3\n", MATRIX, "x", "shape"),
        ("age,city\n3.5,Ulm\n", TABLE, "age", "'3.5' is not a whole number"),
        ("age,town\n3,Ulm\n", TABLE, "town", "unexpected"),
        ("age\n3\n", TABLE, "city", "missing"),
    ],
)  # fmt: skip
def test_csv_that_does_not_fit_is_named(text: Any, method: MethodSignature, field: str, words: str) -> None:
    with pytest.raises(DomainError, match=words) as refused:
        parse_csv(text, method)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert [violation.field for violation in refused.value.violations] == [field]


def test_the_content_type_says_what_a_body_is() -> None:
    with pytest.raises(DomainError, match="send UTF-8"):
        parse_csv("a,b\n1,2\n", MATRIX, content_type="text/csv; charset=latin-1")
    for content_type in ("", "application/json", "application/x-www-form-urlencoded", "text/plain"):
        assert parse_csv("[[1, 2]]", MATRIX, content_type=content_type).rows == 1


def test_answers() -> None:
    one = parse([[1, 2]], PROBABILITIES)
    outputs: dict[str, Any] = {"p": np.array([[0.5, np.nan]])}
    assert json.loads(invocations.render(one, outputs, "invocations")) == {"predictions": [[0.5, "NaN"]]}
    assert json.loads(invocations.render(one, outputs, "predict")) == {"prediction": [[0.5, "NaN"]]}
    several = parse([[1, "Ulm"]], TABLE)
    both: dict[str, Any] = {"label": np.array([7]), "score": np.array([[0.25, 0.75]])}
    assert json.loads(invocations.render(several, both, "predict")) == {
        "prediction": {"label": [7], "score": [[0.25, 0.75]]}
    }
    nothing = np.zeros((2, 0))
    assert json.loads(invocations.render(one, {"p": nothing}, "predict")) == {"prediction": [[], []]}
