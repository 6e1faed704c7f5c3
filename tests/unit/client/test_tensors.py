from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelyard import InputLayout, TensorSpec, infer_signature, tensors
from modelyard.signature import merge
from modelyard.tensors import TensorError, cast, datatype_of, from_raw, texts, to_raw


@pytest.mark.parametrize("datatype", sorted(tensors.DTYPES))
def test_every_fixed_type_goes_there_and_back(datatype: str) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(tensors.DTYPES[datatype])
    assert datatype_of(array) == datatype
    raw = to_raw(array, datatype)
    again = from_raw(datatype, [2, 2], raw)
    assert again.dtype == array.dtype
    assert np.array_equal(again, array)


def test_other_byte_orders_and_strides_are_made_plain() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    assert datatype_of(array) == "INT32"
    assert to_raw(array, "INT32") == np.array([0, 3, 1, 4, 2, 5], dtype="<i4").tobytes()


def test_bytes_follow_their_length() -> None:
    array = np.array([["a", "ä"], ["", "long"]], dtype=object)
    raw = to_raw(array, "BYTES")
    assert raw[:5] == b"\x01\x00\x00\x00a"
    again = from_raw("BYTES", [2, 2], raw)
    assert again.tolist() == [[b"a", "ä".encode()], [b"", b"long"]]
    assert texts(again).tolist() == array.tolist()
    assert texts(from_raw("BYTES", [1], b"\x01\0\0\0\xff")).tolist() == [b"\xff"]
    assert to_raw(np.array(["x"]), "BYTES") == to_raw(np.array([b"x"]), "BYTES")


def test_bf16_rounds_to_even_and_keeps_what_is_not_a_number() -> None:
    import ml_dtypes

    values = np.array(
        [1.0, -2.5, 3.14159, 1e38, np.inf, -np.inf, 0.0, 1.00390625, 1.01171875], dtype=np.float32
    )
    assert to_raw(values, "BF16") == values.astype(ml_dtypes.bfloat16).tobytes()
    assert np.isnan(from_raw("BF16", [1], to_raw(np.array([np.nan], dtype=np.float32), "BF16"))).all()
    exact = np.array([1.0, -0.5], dtype=np.float32)
    assert np.array_equal(from_raw("BF16", [2], to_raw(exact, "BF16")), exact)
    assert datatype_of(np.zeros(1, dtype=ml_dtypes.bfloat16)) == "BF16"


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "problem"),
    [
        ("FP32", [2], b"1234", "needs 8 bytes, there are 4"),
        ("FP32", [-1], b"", "negative dimension"),
        ("FP99", [1], b"", "'FP99' is none of"),
        ("BYTES", [1], b"\x05\0\0\0ab", "element of 5 bytes"),
        ("BYTES", [1], b"\x05\0", "ends inside the length"),
        ("BYTES", [2], b"\x01\0\0\0a", "needs 2 elements, there are 1"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(
    datatype: str, shape: list[int], raw: bytes, problem: str
) -> None:
    with pytest.raises(TensorError, match=problem):
        from_raw(datatype, shape, raw)


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        ([1, 2], "FP32"),
        ([0.1], "FP32"),
        ([1, 255], "UINT8"),
        ([True], "INT64"),
        (np.array([1, 2], dtype=object), "FP64"),
        (np.array([1], dtype=np.uint8), "INT8"),
    ],
)
def test_casts_that_lose_nothing_are_made(array: Any, datatype: str) -> None:
    result = cast(np.asarray(array), datatype, "x")
    assert result.dtype == np.dtype(tensors.DTYPES[datatype])
    assert np.allclose(result.astype(float), np.asarray(array, dtype=float))


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        ([0.5], "INT64"),
        ([300], "UINT8"),
        ([-1], "UINT32"),
        ([2**40], "INT32"),
        ([1e300], "FP32"),
        (["a"], "FP64"),
        ([1], "BYTES"),
        (np.array([[1], [1, 2]], dtype=object), "FP64"),
    ],
)
def test_casts_that_change_values_are_refused_by_name(array: Any, datatype: str) -> None:
    with pytest.raises(TensorError, match="tensor 'x' takes"):
        cast(np.asarray(array), datatype, "x")


def test_types_without_a_tensor_are_refused() -> None:
    with pytest.raises(TensorError, match="dtype datetime64"):
        datatype_of(np.array(["2026-01-01"], dtype="datetime64[D]"))
    with pytest.raises(TensorError, match="texts or bytes, not int"):
        to_raw(np.array([1, "a"], dtype=object), "BYTES")


class Frame:
    """As much of a DataFrame as signatures need."""

    def __init__(self, **columns: list[Any]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Any:
        return Column(self._columns[name])

    def to_numpy(self) -> Any:
        return np.column_stack([np.array(column) for column in self._columns.values()])


class Column:
    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def to_numpy(self) -> Any:
        return np.array(self._values)


def test_signatures_of_arrays_dicts_tables_and_tuples() -> None:
    plain = infer_signature([[1.0, 2.0]], [1]).method()
    assert plain.inputs == (TensorSpec("input", "FP64", (-1, 2)),)
    assert plain.outputs == (TensorSpec("output", "INT64", (-1,)),)
    assert plain.input_layout is InputLayout.TENSORS

    named = infer_signature({"a": np.zeros((1, 2, 3), dtype="f4")}, ([1], ["x"]), "embed").method("embed")
    assert named.inputs == (TensorSpec("a", "FP32", (-1, 2, 3)),)
    assert named.outputs == (TensorSpec("output_0", "INT64", (-1,)), TensorSpec("output_1", "BYTES", (-1,)))

    table = infer_signature(Frame(age=[1], name=["x"]), [0.5]).method()
    assert table.inputs == (TensorSpec("age", "INT64", (-1,)), TensorSpec("name", "BYTES", (-1,)))
    assert table.input_layout is InputLayout.COLUMNS
    assert [m.name for m in merge(infer_signature([1], [1]), infer_signature([1], [1], "b")).methods] == [
        "predict",
        "b",
    ]


def test_a_single_value_has_no_rows() -> None:
    with pytest.raises(TensorError, match="input: the example is a single value"):
        infer_signature(1.0, [1])
    with pytest.raises(TensorError, match="holds no arrays"):
        infer_signature({}, [1])
