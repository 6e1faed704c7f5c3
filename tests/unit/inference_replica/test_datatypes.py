"""Bytes of tensors."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard_inference.runtimes.datatypes import DATATYPES, BytesError, cast, from_raw, texts, to_raw, zeros
from modelyard_inference.runtimes.signature import DATATYPE_NAMES

NUMBERS = [name for name, datatype in DATATYPES.items() if datatype.size]


def test_signatures_know_every_data_type() -> None:
    assert tuple(DATATYPES) == DATATYPE_NAMES


@pytest.mark.parametrize("datatype", NUMBERS)
@given(data=st.data())
def test_numbers_survive(datatype: str, data: st.DataObject) -> None:
    size = DATATYPES[datatype].size
    raw = data.draw(st.binary(min_size=6 * size, max_size=6 * size))
    if datatype == "BOOL":
        raw = bytes(byte & 1 for byte in raw)
    if datatype == "BF16":  # signalling NaN becomes quiet
        raw = (
            np.nan_to_num(np.frombuffer(raw, ml_dtypes.bfloat16).astype("f4"))
            .astype(ml_dtypes.bfloat16)
            .tobytes()
        )
    array = from_raw(datatype, raw, [2, 3])
    assert array.dtype == DATATYPES[datatype].dtype
    assert to_raw(datatype, cast(datatype, array)) == raw


@given(st.lists(st.floats(width=32), min_size=1))
def test_bfloat16_rounds_as_others_do(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    ours = np.frombuffer(to_raw("BF16", array), ml_dtypes.bfloat16)
    np.testing.assert_array_equal(ours.astype("f4"), array.astype(ml_dtypes.bfloat16).astype("f4"))


@given(st.lists(st.binary(), max_size=8))
def test_bytes_survive(items: list[bytes]) -> None:
    raw = to_raw("BYTES", cast("BYTES", np.array([*items, None], dtype=object)[:-1]))
    assert from_raw("BYTES", raw, [len(items)]).tolist() == items


@given(st.binary(max_size=40), st.integers(0, 4))
def test_any_bytes_are_read_or_refused(raw: bytes, count: int) -> None:
    try:
        array = from_raw("BYTES", raw, [count])
    except BytesError:
        return
    assert to_raw("BYTES", array) == raw


def test_texts() -> None:
    array = cast("BYTES", np.array([["ä", "b"]]))
    assert array.tolist() == [["ä".encode(), b"b"]]
    assert texts(array).tolist() == [["ä", "b"]]


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT64", [1.0]), ("FP32", ["a"]), ("BYTES", [1]), ("UINT8", [-1]), ("BOOL", [1])]
)
def test_no_hidden_conversions(datatype: str, value: list[object]) -> None:
    with pytest.raises(TypeError, match=f"the signature says {datatype}"):
        cast(datatype, value)


def test_widths_change_silently() -> None:
    assert cast("FP32", np.array([1e300])).tolist() == [float("inf")]
    assert cast("INT64", np.array([1], np.int8)).dtype == np.int64
    assert zeros("BYTES", [2]).tolist() == [b"", b""]
